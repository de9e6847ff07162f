//! The registry in this process, which has no address: no request reaches it but through the proxy.
//! Its metrics are on a Unix socket in a folder that only this user can enter.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use pingora::connectors::L4Connect;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::protocols::l4::stream::Stream;
use pingora::protocols::l4::virt::{VirtualSockOpt, VirtualSocket, VirtualSocketStream};
use registry::config::{Config, EmbeddedFields};
pub use registry::server::Presence;
use registry::server::in_process::{self, Dialer};
use registry::server::{self, Bound};
use service::shutdown::Shutdown;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::aggregate::Source;
use crate::config;

/// An embedded registry that has opened its data.
pub struct Embedded {
    bound: Bound,
    metrics: Option<PathBuf>,
    /// Removed with the socket in it when the registry has ended.
    folder: TempDir,
}

/// Why the embedded registry could not be started.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// There is no place for the socket of its metrics.
    #[error("cannot make a folder for the registry's socket: {0}")]
    Folder(#[source] std::io::Error),
    /// The registry itself could not start.
    #[error(transparent)]
    Start(#[from] server::StartError),
}

impl Embedded {
    /// Opens the registry's data; nothing is served yet. Without `labels` for its samples the
    /// registry measures nothing.
    pub async fn bind(
        fields: EmbeddedFields,
        labels: Option<BTreeMap<String, String>>,
    ) -> Result<Embedded, EmbeddedError> {
        // `tempfile` makes folders with mode 0700.
        let folder = tempfile::Builder::new()
            .prefix("octoserve-")
            .tempdir()
            .map_err(EmbeddedError::Folder)?;
        let metrics = labels.is_some().then(|| folder.path().join("metrics.sock"));
        let labels = labels.unwrap_or_default();
        let config = Config::embedded(fields, metrics.clone(), labels);
        let bound = server::bind(config).await?;
        Ok(Embedded {
            bound,
            metrics,
            folder,
        })
    }

    /// How the proxy reaches the registry.
    pub fn connector(&self) -> Arc<dyn L4Connect + Send + Sync> {
        Arc::new(Connector(self.bound.dialer()))
    }

    /// Where its metrics are, if it measures anything.
    pub fn source(&self) -> Option<Source> {
        self.metrics.clone().map(config::embedded_source)
    }

    /// Whether the directory of its data is there.
    pub fn presence(&self) -> Option<Presence> {
        self.bound.presence()
    }

    /// Serves until the shutdown, which the proxy triggers once its own work has drained.
    pub async fn serve(self, shutdown: Shutdown) -> Result<(), server::ServeError> {
        let served = self.bound.serve(shutdown).await;
        drop(self.folder);
        served
    }
}

/// Gives pingora a connection to the registry in place of one to an address.
#[derive(Debug)]
struct Connector(Dialer);

#[async_trait]
impl L4Connect for Connector {
    async fn connect(&self, _: &SocketAddr) -> pingora::Result<Stream> {
        let socket = Box::new(Socket(self.0.dial()));
        Ok(VirtualSocketStream::new(socket).into())
    }
}

#[derive(Debug)]
struct Socket(in_process::Stream);

impl VirtualSocket for Socket {
    /// There is no network that an option could be about.
    fn set_socket_option(&self, _: VirtualSockOpt) -> std::io::Result<()> {
        Ok(())
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
