//! The registry in this process, on Unix sockets in a folder that only this user can enter: no
//! request reaches it but through the proxy.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

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
    data: Folder,
    /// Removed with the sockets in it when the registry has ended.
    folder: TempDir,
}

/// Why the embedded registry could not be started.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// There is no place for its sockets.
    #[error("cannot make a folder for the registry's sockets: {0}")]
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
    /// Opens the registry's data and binds its sockets; nothing is served yet. Without `labels` for
    /// its samples the registry measures nothing.
    pub async fn bind(
        fields: EmbeddedFields,
        labels: Option<BTreeMap<String, String>>,
    ) -> Result<Embedded, EmbeddedError> {
        // `tempfile` makes folders with mode 0700.
        let folder = tempfile::Builder::new()
            .prefix("octoserve-")
            .tempdir()
            .map_err(EmbeddedError::Folder)?;
        let api = folder.path().join("api.sock");
        let metrics = labels.is_some().then(|| folder.path().join("metrics.sock"));
        let data = fields.data.clone();
        let labels = labels.unwrap_or_default();
        let config = Config::embedded(fields, api.clone(), metrics.clone(), labels);
        let bound = server::bind(config).await?;
        let data = Folder::remember(data).map_err(EmbeddedError::Data)?;
        Ok(Embedded {
            bound,
            api: api.to_string_lossy().into_owned(),
            metrics,
            data,
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
