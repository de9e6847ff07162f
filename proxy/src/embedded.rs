//! The registry in this process, which has no address: no request reaches it but through the proxy.
//! Its metrics are on a Unix socket in a folder that only this user can enter.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use pingora::connectors::L4Connect;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::protocols::l4::stream::Stream;
use pingora::protocols::l4::virt::{VirtualSockOpt, VirtualSocket, VirtualSocketStream};
use registry::config::{Config, EmbeddedFields};
use registry::server::in_process::{self, Dialer};
use registry::server::{self, Bound};
use registry::service::shutdown::Shutdown;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::aggregate::Source;
use crate::config;

/// An embedded registry that has opened its data.
pub struct Embedded {
    bound: Bound,
    metrics: Option<PathBuf>,
    data: Folder,
    /// Removed with the socket in it when the registry has ended.
    folder: TempDir,
}

/// Why the embedded registry could not be started.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// There is no place for the socket of its metrics.
    #[error("cannot make a folder for the registry's socket: {0}")]
    Folder(#[source] std::io::Error),
    /// The folder of its data can't be looked at.
    #[error("cannot look at the data folder: {0}")]
    Data(#[source] std::io::Error),
    /// The registry itself could not start.
    #[error(transparent)]
    Start(#[from] server::StartError),
}

/// A folder that must stay where it is.
#[derive(Clone, Debug)]
pub struct Folder {
    path: PathBuf,
    /// The file system and the number in it, which tell one folder of a name from the next.
    identity: (u64, u64),
}

/// Why a folder is of no use.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// It is gone, or can't be read.
    #[error("the data folder can't be read")]
    Unreadable(#[from] std::io::Error),
    /// Another is in its place, such as the one that a file system was mounted on.
    #[error("the data folder is not the one that was opened")]
    Another,
}

impl Folder {
    fn remember(path: PathBuf) -> std::io::Result<Folder> {
        let identity = identity(&path)?;
        Ok(Folder { path, identity })
    }

    /// Looks whether it is still there, and can be read. Blocks as long as the disk does.
    pub fn look(&self) -> Result<(), FolderError> {
        if identity(&self.path)? != self.identity {
            return Err(FolderError::Another);
        }
        if let Some(first) = std::fs::read_dir(&self.path)?.next() {
            first?;
        }
        Ok(())
    }
}

fn identity(path: &Path) -> std::io::Result<(u64, u64)> {
    let metadata = std::fs::metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
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
        let data = fields.data.clone();
        let labels = labels.unwrap_or_default();
        let config = Config::embedded(fields, metrics.clone(), labels);
        let bound = server::bind(config).await?;
        let data = Folder::remember(data).map_err(EmbeddedError::Data)?;
        Ok(Embedded {
            bound,
            metrics,
            data,
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

    /// The folder of its data, to be looked at.
    pub fn data(&self) -> Folder {
        self.data.clone()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_gone_or_another_is_of_no_use() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("data");
        std::fs::create_dir(&path).unwrap();
        let folder = Folder::remember(path.clone()).unwrap();
        folder.look().unwrap();
        let aside = parent.path().join("aside");
        std::fs::rename(&path, &aside).unwrap();
        assert!(matches!(folder.look(), Err(FolderError::Unreadable(_))));
        std::fs::create_dir(&path).unwrap();
        assert!(matches!(folder.look(), Err(FolderError::Another)));
        std::fs::remove_dir(&path).unwrap();
        std::fs::rename(&aside, &path).unwrap();
        folder.look().unwrap();
    }
}
