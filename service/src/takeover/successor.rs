//! The new process.

use std::io;
use std::path::Path;

use tokio::net::UnixStream;
use tokio::time::timeout;

use super::channel::{Channel, PeerProcess, STEP};
use super::error::TakeoverError;
use super::identity::ProcessIdentity;
use super::message::{Hello, PROTOCOL, PassedEstate, TakeoverMessage};
use crate::listen::{Inheritance, InheritedSocket};
use crate::notify::NotifySettings;

/// The connection to the process that this one takes over from. Closing it leaves that one as it was, until
/// this one serves.
#[derive(Debug)]
pub(super) struct Successor {
    channel: Channel,
    peer: PeerProcess,
}

impl Successor {
    /// Asks the process at `path` for what it has. Returns where its service manager listens, too.
    pub(super) async fn begin(
        path: &Path,
        identity: &ProcessIdentity,
        inheritance: &Inheritance,
    ) -> Result<(Self, Option<NotifySettings>), TakeoverError> {
        let stream = match timeout(STEP, UnixStream::connect(path)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                let is_gone = matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
                );
                let path = path.to_owned();
                return Err(if is_gone {
                    TakeoverError::Nobody(path)
                } else {
                    TakeoverError::Connect {
                        path,
                        source: error,
                    }
                });
            }
            Err(_) => return Err(TakeoverError::TimedOut("that it listens", STEP)),
        };
        let mut channel = Channel::new(stream);
        let peer = channel.peer()?;
        check_user(peer)?;
        channel.send(&hello(identity), &[]).await?;
        let TakeoverMessage::Hello(theirs) = channel.receive("hello", STEP).await? else {
            return Err(TakeoverError::Closed("hello"));
        };
        check_hello(&theirs, identity)?;
        let TakeoverMessage::Estate(estate) = channel.receive("estate", STEP).await? else {
            return Err(TakeoverError::Closed("estate"));
        };
        let PassedEstate {
            sockets,
            state,
            notify,
        } = estate;
        let descriptors = channel.take_descriptors();
        if descriptors.len() != sockets.len() {
            return Err(TakeoverError::Count {
                sockets: descriptors.len(),
                described: sockets.len(),
            });
        }
        let inherited = descriptors.into_iter().map(InheritedSocket::new);
        let inherited: Vec<_> = inherited.collect::<Result<_, _>>()?;
        inheritance.add(sockets.into_iter().zip(inherited), state);
        Ok((Self { channel, peer }, notify))
    }

    /// The process that this one takes over from.
    pub(super) fn pid(&self) -> i32 {
        self.peer.pid
    }

    /// Says that this process could serve, and waits until it may.
    pub(super) async fn ready(&mut self) -> Result<(), TakeoverError> {
        self.channel.send(&TakeoverMessage::Ready, &[]).await?;
        self.channel.receive("go", STEP).await.map(drop)
    }

    /// Says that this process serves, and waits for the other to say that it ends.
    pub(super) async fn serving(mut self) -> Result<(), TakeoverError> {
        self.channel.send(&TakeoverMessage::Serving, &[]).await?;
        self.channel.receive("taken_over", STEP).await.map(drop)
    }
}

/// Who this process is.
pub(super) fn hello(identity: &ProcessIdentity) -> TakeoverMessage {
    TakeoverMessage::Hello(Hello {
        protocol: PROTOCOL,
        program: identity.program.to_owned(),
        version: identity.version.to_owned(),
    })
}

/// Refuses a process that this one can't take over from, nor hand over to.
pub(super) fn check_hello(theirs: &Hello, own: &ProcessIdentity) -> Result<(), TakeoverError> {
    if theirs.protocol != PROTOCOL {
        return Err(TakeoverError::Protocol {
            theirs: theirs.protocol,
            own: PROTOCOL,
            version: theirs.version.chars().take(100).collect(),
        });
    }
    if theirs.program != own.program {
        let program = theirs.program.chars().take(100).collect();
        return Err(TakeoverError::OtherProgram(program));
    }
    Ok(())
}

/// Refuses the process of another user, whose sockets and secrets are not this one's.
fn check_user(peer: PeerProcess) -> Result<(), TakeoverError> {
    let own = rustix::process::geteuid().as_raw();
    if peer.user == own {
        return Ok(());
    }
    Err(TakeoverError::OtherUser {
        theirs: peer.user,
        own,
    })
}
