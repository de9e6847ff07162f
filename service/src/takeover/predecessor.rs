//! The old process.

use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio_util::either::Either;

use super::channel::{Channel, PeerProcess, STEP};
use super::error::TakeoverError;
use super::identity::ProcessIdentity;
use super::message::{PassedEstate, TakeoverMessage};
use super::successor::{check_hello, hello};
use crate::listen::{Inheritance, Listener};
use crate::notify::Notifier;
use crate::shutdown::{Shutdown, Trigger};

/// How long a new process may take to be ready: it reads its certificates, and connects to nobody.
const START: Duration = Duration::from_mins(1);

/// How many may ask at a time. They are all of the same user.
const MOST_ASKING: usize = 8;

/// What hands over, to whom, and what happens then.
#[derive(Debug)]
pub(super) struct Predecessor {
    pub(super) identity: ProcessIdentity,
    pub(super) inheritance: Inheritance,
    pub(super) notifier: Notifier,
    pub(super) trigger: Arc<Trigger>,
    pub(super) shutdown: Shutdown,
}

/// The Unix sockets' files are left to the new process, until this is dropped.
struct FilesLeft<'i>(Option<&'i Inheritance>);

impl Predecessor {
    /// Waits for a process that takes over, until the shutdown.
    pub(super) async fn serve(self, mut listener: Listener) {
        let shutdown = self.shutdown.clone();
        let own = Arc::new(self);
        let one_at_a_time = Arc::new(Mutex::new(()));
        let mut asking = JoinSet::new();
        loop {
            let stream = tokio::select! {
                (stream, _) = listener.accept(), if asking.len() < MOST_ASKING => stream,
                Some(_) = asking.join_next() => continue,
                () = shutdown.recv() => break,
            };
            if let Either::Right(stream) = stream {
                let (own, one_at_a_time) = (Arc::clone(&own), Arc::clone(&one_at_a_time));
                asking.spawn(async move {
                    own.respond(Channel::new(stream), &one_at_a_time).await;
                });
            }
        }
        drop(listener);
        // One that was told to go is heard to the end.
        while asking.join_next().await.is_some() {}
    }

    async fn respond(&self, mut channel: Channel, one_at_a_time: &Mutex<()>) {
        let peer = match channel.peer() {
            Ok(peer) => peer,
            Err(error) => return tracing::warn!(%error, "takeover refused"),
        };
        let handed = self.hand_over(&mut channel, peer, one_at_a_time).await;
        let pid = peer.pid;
        match handed {
            Ok(()) => {
                tracing::info!(
                    pid,
                    "another process has taken over: this one ends after its last request"
                );
                self.notifier.main_process(pid).await;
                // It says so only after the service manager knows whom to listen to. The new process
                // serves, whether it hears this or not.
                let _ = channel.send(&TakeoverMessage::TakenOver, &[]).await;
                self.notifier.mute();
                self.trigger.hand_over();
            }
            // A process that starts looks whether somebody listens.
            Err(TakeoverError::Closed("hello")) => {}
            Err(error) => {
                if !self.shutdown.is_triggered() {
                    tracing::warn!(pid, %error, "no takeover: this process goes on");
                }
                // It may be gone, or send garbage.
                let _ = channel
                    .send(&TakeoverMessage::refused(error.to_string()), &[])
                    .await;
            }
        }
    }

    /// All that comes before the new process serves. An error leaves this one as it was.
    async fn hand_over(
        &self,
        channel: &mut Channel,
        peer: PeerProcess,
        one_at_a_time: &Mutex<()>,
    ) -> Result<(), TakeoverError> {
        let own = rustix::process::geteuid().as_raw();
        // root may do everything anyway.
        if peer.user != own && peer.user != 0 {
            return Err(TakeoverError::OtherUser {
                theirs: peer.user,
                own,
            });
        }
        let TakeoverMessage::Hello(theirs) =
            self.before_shutdown(channel.receive("hello", STEP)).await?
        else {
            return Err(TakeoverError::Closed("hello"));
        };
        // Said first: the other side of a different protocol gives the clearer message.
        channel.send(&hello(&self.identity), &[]).await?;
        check_hello(&theirs, &self.identity)?;
        if let Some(refusal) = self.identity.refusal {
            return Err(TakeoverError::Own(refusal));
        }
        let Ok(_only_one) = one_at_a_time.try_lock() else {
            return Err(TakeoverError::Own(
                "yet another process is taking over just now",
            ));
        };
        let copies = self.inheritance.copies()?;
        let (sockets, copies): (Vec<_>, Vec<_>) = copies.into_iter().unzip();
        let estate = TakeoverMessage::Estate(PassedEstate {
            sockets,
            state: self.inheritance.state(),
            notify: self.notifier.settings(),
        });
        let descriptors: Vec<_> = copies.iter().map(|copy| copy.as_fd()).collect();
        channel.send(&estate, &descriptors).await?;
        // The new process has its own.
        drop(descriptors);
        drop(copies);
        self.before_shutdown(channel.receive("ready", START))
            .await?;
        let mut files = FilesLeft::new(&self.inheritance);
        channel.send(&TakeoverMessage::Go, &[]).await?;
        // Whatever happens here meanwhile: it may serve already.
        channel.receive("serving", STEP).await?;
        files.forever();
        Ok(())
    }

    async fn before_shutdown<T>(
        &self,
        step: impl Future<Output = Result<T, TakeoverError>>,
    ) -> Result<T, TakeoverError> {
        tokio::select! {
            biased;
            () = self.shutdown.recv() => {
                Err(TakeoverError::Own("this process is shutting down"))
            }
            done = step => done,
        }
    }
}

impl<'i> FilesLeft<'i> {
    fn new(inheritance: &'i Inheritance) -> Self {
        inheritance.own_files(false);
        Self(Some(inheritance))
    }

    fn forever(&mut self) {
        self.0 = None;
    }
}

impl Drop for FilesLeft<'_> {
    fn drop(&mut self) {
        if let Some(inheritance) = self.0 {
            inheritance.own_files(true);
        }
    }
}
