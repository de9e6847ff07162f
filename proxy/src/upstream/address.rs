//! One address of a replica, and the idle connections to it.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use service::runtime::WorkerId;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::pool::IdleConnections;
use super::stream::UpstreamStream;
use super::tls::ReplicaTls;

/// How long it may take to make a connection.
const CONNECT: Duration = Duration::from_secs(3);

/// One address of a replica, and the idle connections to it.
pub(crate) struct UpstreamAddress {
    location: Location,
    /// What every connection is inside of, if it is.
    tls: Option<Arc<ReplicaTls>>,
    idle: IdleConnections,
}

/// Where connections go.
pub(super) enum Location {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl UpstreamAddress {
    pub(super) fn new(location: Location, tls: Option<Arc<ReplicaTls>>) -> Arc<UpstreamAddress> {
        Arc::new(UpstreamAddress {
            location,
            tls,
            idle: IdleConnections::new(),
        })
    }

    pub(super) fn tcp(&self) -> Option<SocketAddr> {
        match self.location {
            Location::Tcp(address) => Some(address),
            Location::Unix(_) => None,
        }
    }

    /// An idle connection for this worker, if there is one.
    pub(crate) fn take_idle(&self, worker: WorkerId) -> Option<UpstreamStream> {
        self.idle.take(worker)
    }

    /// Keeps a connection of this worker for the next request.
    pub(crate) fn keep(&self, stream: UpstreamStream, worker: WorkerId) {
        self.idle.put(stream, worker);
    }

    /// Closes idle connections that are too old, or that the upstream has closed.
    pub(super) fn sweep(&self) {
        self.idle.sweep();
    }

    /// Makes a connection.
    pub(crate) async fn connect(&self) -> io::Result<UpstreamStream> {
        match &self.location {
            Location::Tcp(address) => {
                let stream = timeout(CONNECT, TcpStream::connect(address)).await??;
                stream.set_nodelay(true)?;
                let Some(tls) = &self.tls else {
                    return Ok(UpstreamStream::Tcp(stream));
                };
                let stream = tls.connect(stream).await?;
                Ok(UpstreamStream::Tls(Box::new(stream)))
            }
            Location::Unix(path) => {
                let stream = timeout(CONNECT, UnixStream::connect(path)).await??;
                Ok(UpstreamStream::Unix(stream))
            }
        }
    }
}
