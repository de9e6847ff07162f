//! The registry in this process, on Unix sockets in a folder that only this user can enter: no
//! request reaches it but through the proxy.

use std::path::PathBuf;

use registry::config::{Config, EMBEDDED_IDLE, EmbeddedFields};
use registry::server::{self, Bound};
use registry::service::shutdown::Shutdown;
use tempfile::TempDir;

use crate::aggregate::Source;
use crate::config;
use crate::upstream::{RENEW_EVERY, Target};

/// The registry must not close a connection that the proxy may be about to use: a POST on it could
/// not be sent again.
const _: () = assert!(EMBEDDED_IDLE.as_secs() > 2 * RENEW_EVERY.as_secs());

/// An embedded registry that has bound its sockets.
pub struct Embedded {
    bound: Bound,
    api: String,
    metrics: Option<PathBuf>,
    /// Removed with the sockets in it when the registry has ended.
    folder: TempDir,
}

/// Why the embedded registry could not be started.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// There is no place for its sockets.
    #[error("cannot make a folder for the registry's sockets: {0}")]
    Folder(#[source] std::io::Error),
    /// The registry itself could not start.
    #[error(transparent)]
    Start(#[from] server::StartError),
}

impl Embedded {
    /// Opens the registry's data and binds its sockets; nothing is served yet. Unless `recording`,
    /// the registry measures nothing.
    pub async fn bind(fields: EmbeddedFields, recording: bool) -> Result<Embedded, EmbeddedError> {
        // `tempfile` makes folders with mode 0700.
        let folder = tempfile::Builder::new()
            .prefix("octoserve-")
            .tempdir()
            .map_err(EmbeddedError::Folder)?;
        let api = folder.path().join("api.sock");
        let metrics = recording.then(|| folder.path().join("metrics.sock"));
        let config = Config::embedded(fields, api.clone(), metrics.clone());
        let bound = server::bind(config).await?;
        Ok(Embedded {
            bound,
            api: api.to_string_lossy().into_owned(),
            metrics,
            folder,
        })
    }

    /// Where the proxy finds the registry.
    pub fn target(&self) -> Target {
        Target::Embedded(self.api.clone())
    }

    /// Where its metrics are, if it measures anything.
    pub fn source(&self) -> Option<Source> {
        self.metrics.clone().map(config::embedded_source)
    }

    /// Serves until the shutdown, which the proxy triggers once its own work has drained.
    pub async fn serve(self, shutdown: Shutdown) -> Result<(), server::ServeError> {
        let served = self.bound.serve(shutdown).await;
        drop(self.folder);
        served
    }
}
