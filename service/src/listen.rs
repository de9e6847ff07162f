//! Listening addresses, TCP and Unix sockets, and an `accept` that outlives every error. Sockets are
//! bound, or come from another process ([`Inheritance`]).
//!
//! Deliberately not here: TLS ([`tls`](super::tls) goes on top), and the protocol of the streams.

mod addr;
mod fields;
mod inheritance;
mod inherited;
mod peer;
pub(crate) mod stream;
mod systemd;
mod unix;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::net::{TcpListener, TcpSocket, UnixListener};
use tokio_util::either::Either;

pub use addr::{AddrError, ListenAddr};
pub use fields::{ListenFields, check_addresses, one_or_many, one_or_many_schema};
pub use inheritance::{Inheritance, PassedSocket, UnclaimedSocket};
pub use inherited::{InheritedSocket, InheritedSocketError};
pub use peer::Peer;
pub use stream::{ClientStream, DetachedStream};
pub use systemd::{ActivationError, inherited_from_systemd};
pub use unix::{FileIdentity, SocketFile};

/// Connections that the kernel holds until they are accepted. It has its own upper limit, too.
const BACKLOG: u32 = 4096;

/// An address that could not be bound.
#[derive(Debug, Error)]
#[error("cannot listen on {address}: {source}{}", mend(address, source))]
pub struct BindError {
    /// The address.
    pub address: ListenAddr,
    /// Why not.
    pub source: io::Error,
}

/// What an operator can do about an address that could not be bound.
fn mend(address: &ListenAddr, error: &io::Error) -> &'static str {
    match (error.kind(), address) {
        (io::ErrorKind::AddrInUse, _) => {
            "; stop the program that listens there, or choose another address"
        }
        (io::ErrorKind::AddrNotAvailable, _) => "; this machine has no such address",
        (io::ErrorKind::PermissionDenied, ListenAddr::Tcp(address)) if address.port() < 1024 => {
            "; a port below 1024 needs CAP_NET_BIND_SERVICE, or choose another one"
        }
        _ => "",
    }
}

/// A bound socket. That of a Unix socket removes its file when it is dropped.
#[derive(Debug)]
pub struct Listener {
    /// Shared with the [`Inheritance`] that passes it on; only the listener keeps it open.
    socket: Arc<BoundSocket>,
    address: ListenAddr,
    failures: AcceptFailures,
}

#[derive(Debug)]
enum BoundSocket {
    Tcp(TcpListener),
    Unix {
        listener: UnixListener,
        /// Removes the file when it is dropped.
        file: SocketFile,
    },
}

impl Listener {
    /// Binds an address. Must be called within a tokio runtime.
    ///
    /// A Unix socket gets mode 0600 before anybody can connect. A file at its path is replaced only
    /// if it is a socket on which nobody listens.
    pub async fn bind(address: &ListenAddr) -> Result<Self, BindError> {
        let bound = match address {
            ListenAddr::Tcp(address) => bind_tcp(*address),
            ListenAddr::Unix(path) => unix::bind(path, BACKLOG).await.map(|(listener, file)| {
                let address = ListenAddr::Unix(file.path().to_owned());
                (BoundSocket::Unix { listener, file }, address)
            }),
        };
        match bound {
            Ok((socket, address)) => Ok(Self::new(socket, address)),
            Err(source) => Err(BindError {
                address: address.clone(),
                source,
            }),
        }
    }

    fn new(socket: BoundSocket, address: ListenAddr) -> Self {
        Self {
            socket: Arc::new(socket),
            address,
            failures: AcceptFailures::default(),
        }
    }

    /// Where it listens, with the port that the kernel chose if it was asked to.
    pub fn address(&self) -> &ListenAddr {
        &self.address
    }

    /// The next connection. Cancel safe.
    ///
    /// Never fails: a connection that was closed in the queue is skipped, and while the process or
    /// the system is out of descriptors or memory it tries again at growing intervals up to a
    /// second. That is logged once when it begins, and once when it is over.
    pub async fn accept(&mut self) -> (ClientStream, Peer) {
        loop {
            match self.socket.accept().await {
                Ok(accepted) => {
                    self.failures.end();
                    return accepted;
                }
                Err(error) => {
                    if let Some(pause) = self.failures.pause(&error) {
                        tokio::time::sleep(pause).await;
                    }
                }
            }
        }
    }
}

impl BoundSocket {
    async fn accept(&self) -> io::Result<(ClientStream, Peer)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                // Responses are written whole; waiting to fill a packet would only delay them. A
                // connection that is closed already fails when it is used.
                let _ = stream.set_nodelay(true);
                Ok((Either::Left(stream), Peer::Tcp(peer)))
            }
            Self::Unix { listener, .. } => {
                let (stream, _) = listener.accept().await?;
                Ok((Either::Right(stream), Peer::Unix))
            }
        }
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<(BoundSocket, ListenAddr)> {
    let socket = if address.is_ipv6() {
        TcpSocket::new_v6()?
    } else {
        TcpSocket::new_v4()?
    };
    // Else a restart would have to wait for the connections of the last run to leave TIME_WAIT.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    let listener = socket.listen(BACKLOG)?;
    // Not the configured one: port 0 lets the kernel choose.
    let address = ListenAddr::Tcp(listener.local_addr()?);
    Ok((BoundSocket::Tcp(listener), address))
}

/// Whether an address could be bound at this moment. Nobody can connect to it meanwhile: it does not
/// listen.
pub(crate) fn try_tcp(address: SocketAddr) -> io::Result<()> {
    let socket = if address.is_ipv6() {
        TcpSocket::new_v6()?
    } else {
        TcpSocket::new_v4()?
    };
    // As at the start. The system still refuses an address at which somebody listens.
    socket.set_reuseaddr(true)?;
    socket.bind(address)
}

/// Accept errors in succession that are not the fault of a connection.
#[derive(Debug, Default)]
struct AcceptFailures {
    count: u32,
}

impl AcceptFailures {
    /// How long to wait before trying again; not at all if only that connection was lost.
    fn pause(&mut self, error: &io::Error) -> Option<Duration> {
        use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
        // Linux reports errors of the new connection here (accept(2)): the next one may be fine.
        if let ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted = error.kind()
        {
            return None;
        }
        if self.count == 0 {
            tracing::error!(%error, "cannot accept connections");
        }
        self.count += 1;
        // From 10 ms up, doubled each time. The bound on the shift prevents an overflow.
        let pause = Duration::from_millis(5 << self.count.min(8));
        Some(pause.min(Duration::from_secs(1)))
    }

    fn end(&mut self) {
        if self.count > 0 {
            tracing::info!(failures = self.count, "accepting connections again");
            self.count = 0;
        }
    }
}

#[cfg(test)]
mod tests;
