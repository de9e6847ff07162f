//! The registry in this process, which has no address: every request reaches it through the proxy.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use pingora::connectors::L4Connect;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::protocols::l4::stream::Stream;
use pingora::protocols::l4::virt::{VirtualSockOpt, VirtualSocket, VirtualSocketStream};
use registry::config::{RegistryConfig, StorageFields};
pub use registry::server::Presence;
use registry::server::in_process::{self, Dialer};
use registry::server::{self, BoundRegistry, RegistryStartError};
use service::program::Server as _;
use service::shutdown::Shutdown;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::aggregate::{Origin, Source};
use crate::config;

/// An embedded registry that has opened its data.
pub struct Embedded(BoundRegistry);

impl Embedded {
    /// Opens the registry's data; nothing is served yet. Without `labels` for its samples the
    /// registry records nothing.
    pub async fn bind(
        storage: StorageFields,
        labels: Option<BTreeMap<String, String>>,
    ) -> Result<Embedded, RegistryStartError> {
        let config = RegistryConfig::embedded(storage, labels);
        Ok(Embedded(server::bind(config).await?))
    }

    /// How the proxy reaches the registry.
    pub fn connector(&self) -> Arc<dyn L4Connect + Send + Sync> {
        Arc::new(Connector(self.0.dialer()))
    }

    /// Its families as a source, if it records anything.
    pub fn source(&self) -> Option<Source> {
        let families = self.0.families()?;
        Some(Source {
            name: config::EMBEDDED.to_owned(),
            origin: Origin::InProcess(families),
        })
    }

    /// Whether the data directory is there.
    pub fn presence(&self) -> Option<Presence> {
        self.0.presence()
    }

    /// Serves until the shutdown, which the proxy triggers once its own requests have drained.
    pub async fn serve(self, shutdown: Shutdown) {
        // It has no connections of its own that could be cut.
        let _ = self.0.serve(shutdown).await;
    }
}

/// Gives pingora a connection to the registry in place of one to an address.
#[derive(Debug)]
struct Connector(Dialer);

#[async_trait]
impl L4Connect for Connector {
    async fn connect(&self, _: &SocketAddr) -> pingora::Result<Stream> {
        let socket = Box::new(DialedSocket(self.0.dial()));
        Ok(VirtualSocketStream::new(socket).into())
    }
}

#[derive(Debug)]
struct DialedSocket(in_process::InProcessStream);

impl VirtualSocket for DialedSocket {
    /// There is no network that an option could be about.
    fn set_socket_option(&self, _: VirtualSockOpt) -> std::io::Result<()> {
        Ok(())
    }
}

impl AsyncRead for DialedSocket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for DialedSocket {
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
