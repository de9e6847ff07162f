//! Listening addresses, TCP and Unix sockets, and an `accept` that outlives every error.
//!
//! Deliberately not here: TLS ([`tls`](super::tls) goes on top), and what is spoken over the streams.

mod addr;
mod fields;
mod stream;
mod unix;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use thiserror::Error;
use tokio::net::{TcpListener, TcpSocket, UnixListener};

pub use addr::{AddrError, ListenAddr};
pub use fields::{ListenFields, check_addresses, one_or_many};
pub use stream::{Peer, Stream};
pub use unix::SocketFile;

/// Connections that the kernel holds until they are accepted. It has its own upper limit, too.
const BACKLOG: u32 = 4096;

/// An address that could not be bound.
#[derive(Debug, Error)]
#[error("cannot listen on {address}: {source}")]
pub struct BindError {
    /// The address that was asked for.
    pub address: ListenAddr,
    /// Why not.
    pub source: io::Error,
}

/// A bound socket. That of a Unix socket removes its file when it is dropped.
#[derive(Debug)]
pub struct Listener {
    socket: BoundSocket,
    episode: Episode,
}

#[derive(Debug)]
enum BoundSocket {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

/// A bound socket without a runtime: for somebody else's server, non-blocking.
#[derive(Debug)]
pub enum StdListener {
    /// TCP.
    Tcp(std::net::TcpListener),
    /// A Unix socket, and its file, which is removed when that is dropped.
    Unix(std::os::unix::net::UnixListener, SocketFile),
}

impl Listener {
    /// Binds an address. Must be called within a tokio runtime.
    ///
    /// A Unix socket is made with mode 0600, before anybody could connect. A file in its place is
    /// replaced only if it is a socket on which nobody listens.
    pub async fn bind(address: &ListenAddr) -> Result<Self, BindError> {
        let socket = match address {
            ListenAddr::Tcp(address) => bind_tcp(*address).map(BoundSocket::Tcp),
            ListenAddr::Unix(path) => unix::bind(path)
                .await
                .map(|(listener, file)| BoundSocket::Unix(listener, file)),
        };
        match socket {
            Ok(socket) => Ok(Self {
                socket,
                episode: Episode::default(),
            }),
            Err(source) => Err(BindError {
                address: address.clone(),
                source,
            }),
        }
    }

    /// Where it listens, with the port that the kernel chose if it was asked to.
    pub fn local_addr(&self) -> io::Result<ListenAddr> {
        match &self.socket {
            BoundSocket::Tcp(listener) => listener.local_addr().map(ListenAddr::Tcp),
            BoundSocket::Unix(_, file) => Ok(ListenAddr::Unix(file.path().to_owned())),
        }
    }

    /// The next connection. Cancel safe.
    ///
    /// Never fails: a connection that died in the queue is passed over, and while the process or
    /// the system is out of descriptors or memory it tries again at growing intervals up to a
    /// second. That is logged once, and once when it is over.
    pub async fn accept(&mut self) -> (Stream, Peer) {
        loop {
            match self.socket.accept().await {
                Ok(accepted) => {
                    self.episode.end();
                    return accepted;
                }
                Err(error) => {
                    if let Some(pause) = self.episode.pause(&error) {
                        tokio::time::sleep(pause).await;
                    }
                }
            }
        }
    }

    /// The socket without the runtime, non-blocking.
    pub fn into_std(self) -> io::Result<StdListener> {
        Ok(match self.socket {
            BoundSocket::Tcp(listener) => StdListener::Tcp(listener.into_std()?),
            BoundSocket::Unix(listener, file) => StdListener::Unix(listener.into_std()?, file),
        })
    }
}

impl BoundSocket {
    async fn accept(&self) -> io::Result<(Stream, Peer)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                // Answers are written whole; waiting to fill a packet would only delay them. A
                // connection that is gone already says so when it is used.
                let _ = stream.set_nodelay(true);
                Ok((Stream::Tcp(stream), Peer::Tcp(peer)))
            }
            Self::Unix(listener, _) => {
                let (stream, _) = listener.accept().await?;
                Ok((Stream::Unix(stream), Peer::Unix))
            }
        }
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv6() {
        TcpSocket::new_v6()?
    } else {
        TcpSocket::new_v4()?
    };
    // A restart need not wait for the connections of the last run to be forgotten.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// A row of accept errors that are not the connection's own fault.
#[derive(Debug, Default)]
struct Episode {
    failures: u32,
}

impl Episode {
    /// How long to wait before trying again; not at all if only that connection was lost.
    fn pause(&mut self, error: &io::Error) -> Option<Duration> {
        use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
        if let ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted = error.kind()
        {
            return None;
        }
        if self.failures == 0 {
            tracing::error!(%error, "cannot accept connections; trying on");
        }
        self.failures += 1;
        let pause = Duration::from_millis(5 << self.failures.min(8));
        Some(pause.min(Duration::from_secs(1)))
    }

    fn end(&mut self) {
        if self.failures > 0 {
            tracing::info!(failures = self.failures, "accepting connections again");
            self.failures = 0;
        }
    }
}

#[cfg(test)]
mod tests;
