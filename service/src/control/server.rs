//! Serving the control socket: who may connect, how much a client may take.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::either::Either;

use super::follow::follow;
use super::handler::{ControlHandler, Handled};
use super::peer;
use super::protocol::{ControlReply, ControlRequest, LONGEST_REQUEST};
use crate::listen::{BindError, Inheritance, ListenAddr, Listener};
use crate::operate::Operate;

/// The key of the configuration that names it.
const KEY: &str = "control.socket";

/// The most connections at a time. One more is refused.
const CONNECTIONS: usize = 8;

/// How long a client may take to send its request, and to read the answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// A bound control socket. Dropping it removes its file.
#[derive(Debug)]
pub struct ControlSocket(Listener);

impl ControlSocket {
    /// Binds it, with mode 0600 before anybody can connect. A socket file on which nobody listens is
    /// replaced. Must be called within a tokio runtime.
    pub async fn bind(path: &Path, inheritance: &Inheritance) -> Result<ControlSocket, BindError> {
        let address = ListenAddr::Unix(path.to_owned());
        let listener = inheritance.listen(&address, KEY).await?;
        Ok(ControlSocket(listener))
    }

    /// Where it is.
    pub fn address(&self) -> &ListenAddr {
        self.0.address()
    }

    /// Serves until the future is dropped.
    pub async fn serve<O: Operate>(mut self, handler: ControlHandler<O>) {
        let (handler, slots) = (Arc::new(handler), Arc::new(Semaphore::new(CONNECTIONS)));
        loop {
            // The socket is bound as a Unix socket, so no other stream comes.
            let (Either::Right(stream), _) = self.0.accept().await else {
                continue;
            };
            // Before anything is read, and before a slot is taken: a stranger gets neither.
            match stream.peer_cred() {
                Ok(peer) if peer::is_allowed(&peer) => {}
                Ok(peer) => {
                    tracing::warn!(uid = peer.uid(), pid = peer.pid(), "control refused");
                    let message = "only the user that octoserve runs as, and root, may ask";
                    turn_away(&stream, message);
                    continue;
                }
                Err(_) => continue,
            }
            let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
                turn_away(&stream, "too many control connections: try again");
                continue;
            };
            let handler = Arc::clone(&handler);
            tokio::spawn(async move {
                // The other side may leave at any time, which is its own affair.
                let _ = serve_one(stream, &handler).await;
                drop(slot);
            });
        }
    }
}

/// Refuses without waiting: the answer fits the buffer of a new socket.
fn turn_away(stream: &UnixStream, message: &str) {
    let _ = stream.try_write(&ControlReply::refused(message).line());
}

async fn serve_one<O: Operate>(
    mut stream: UnixStream,
    handler: &ControlHandler<O>,
) -> io::Result<()> {
    let line = timeout(PATIENCE, read_line(&mut stream)).await;
    let outcome = match line {
        Err(_) => Handled::Done(ControlReply::refused("the request took too long")),
        Ok(Err(error)) => return Err(error),
        Ok(Ok(None)) => Handled::Done(ControlReply::refused("the request is too long")),
        Ok(Ok(Some(line))) => match ControlRequest::parse(&line) {
            Ok(request) => handler.handle(request).await,
            Err(error) => Handled::Done(ControlReply::refused(error.to_string())),
        },
    };
    let (reply, drains) = match outcome {
        Handled::Done(reply) => (reply, false),
        Handled::Draining(reply) => (reply, true),
        Handled::Started(job) => return follow(stream, job).await,
    };
    let sent = timeout(PATIENCE, stream.write_all(&reply.line())).await;
    if drains {
        // After the answer: the process may end at once then. Whether it was read does not matter.
        handler.drain();
    }
    sent.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// The first line; `None` where it is too long.
async fn read_line(stream: &mut UnixStream) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let mut limited = stream.take(LONGEST_REQUEST as u64);
    loop {
        if limited.read_buf(&mut line).await? == 0 {
            // Half a request from a client that has left is no request.
            return match line.len() {
                LONGEST_REQUEST.. => Ok(None),
                _ => Err(io::ErrorKind::UnexpectedEof.into()),
            };
        }
        if let Some(end) = memchr::memchr(b'\n', &line) {
            line.truncate(end);
            return Ok(Some(line));
        }
    }
}
