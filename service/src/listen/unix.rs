//! Binding Unix sockets, and removing their files.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};
use tokio::net::{UnixListener, UnixSocket, UnixStream};

/// The file of a bound Unix socket; removed when it is dropped, if it is still the same file and this
/// process is the one to remove it.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Another process may have put its own in the place.
    identity: FileIdentity,
    is_owned: AtomicBool,
}

/// Device and inode of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileIdentity(u64, u64);

impl SocketFile {
    /// The file of a socket that this process did not bind.
    pub(super) fn inherited(path: PathBuf, identity: FileIdentity, is_owned: bool) -> Self {
        let is_owned = AtomicBool::new(is_owned);
        Self {
            path,
            identity,
            is_owned,
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file that it was when it was bound.
    pub(super) fn identity(&self) -> FileIdentity {
        self.identity
    }

    /// Whether this process is to remove it.
    pub(super) fn is_owned(&self) -> bool {
        self.is_owned.load(Ordering::Relaxed)
    }

    /// Says whether this process is to remove it.
    pub(super) fn set_owned(&self, is_owned: bool) {
        self.is_owned.store(is_owned, Ordering::Relaxed);
    }
}

impl FileIdentity {
    /// Of the file at a path.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        fs::symlink_metadata(path).map(|metadata| Self(metadata.dev(), metadata.ino()))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if !self.is_owned() {
            return;
        }
        if FileIdentity::of(&self.path).is_ok_and(|identity| identity == self.identity) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

pub(super) async fn bind(path: &Path, backlog: u32) -> io::Result<(UnixListener, SocketFile)> {
    let mut socket = UnixSocket::new_stream()?;
    if let Err(error) = socket.bind(path) {
        if error.kind() != io::ErrorKind::AddrInUse {
            return Err(error);
        }
        remove_stale(path).await?;
        socket = UnixSocket::new_stream()?;
        socket.bind(path)?;
    }
    let file = SocketFile {
        path: path.to_owned(),
        identity: FileIdentity::of(path)?,
        is_owned: AtomicBool::new(true),
    };
    // No client can connect before it listens, so none meets the file with another mode.
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    Ok((socket.listen(backlog)?, file))
}

async fn remove_stale(path: &Path) -> io::Result<()> {
    if !fs::symlink_metadata(path)?.file_type().is_socket() {
        return Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "a file that is no socket",
        ));
    }
    match UnixStream::connect(path).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        // Another process listens, even if its queue is full.
        Ok(_) => Err(io::ErrorKind::AddrInUse.into()),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            Err(io::ErrorKind::AddrInUse.into())
        }
        Err(error) => Err(error),
    }
}
