//! Opens a directory as a store: locks it, and removes what an interrupted run left half done.

use std::fs::{File, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::disk;
use super::file::each_entry;
use super::layout::Layout;
use super::root::{Root, leads_to};
use crate::store::StoreError;

/// What the lock file says, for people and for later layouts.
const LAYOUT: &str = "octoserve 1\n";

/// The most bytes of the lock file that are read.
pub(super) const LONGEST: u64 = 256;

/// The lock file's mode. A user who can open the file can lock it and so keep the registry from
/// starting.
const LOCK_MODE: u32 = 0o600;

/// Why a directory cannot be used as a store.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another registry, or a command, is using it.
    #[error(
        "{} is in use by another registry, or by a maintenance command such as gc: stop that one or wait for \
         its end, or choose another directory",
        path.display()
    )]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// It was moved or replaced while it was being opened.
    #[error("{} was moved while it was being opened", path.display())]
    Moved {
        /// The directory.
        path: PathBuf,
    },
    /// It holds the tree of another version of this program.
    #[error("{} has a layout that this version does not know: {found:?}", path.display())]
    Layout {
        /// The directory.
        path: PathBuf,
        /// What its lock file says.
        found: String,
    },
    /// It cannot be made or written.
    #[error("{} cannot be used", path.display())]
    Io {
        /// The file or directory concerned.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// What it holds cannot be read.
    #[error("the store cannot be opened")]
    Store(#[from] StoreError),
}

/// Makes the directory and locks it, for as long as the returned value lives.
pub(super) fn lock(layout: &Layout) -> Result<Root, OpenError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        |source| OpenError::Io { path, source }
    };
    for directory in layout.directories() {
        create_all(&directory).map_err(failed(&directory))?;
    }
    let path = layout.lock();
    let file = disk::create_with_mode(&path, LOCK_MODE).map_err(failed(&path))?;
    if !file.metadata().map_err(failed(&path))?.is_file() {
        return Err(failed(&path)(io::Error::other("it is not a file")));
    }
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(OpenError::InUse {
                path: layout.root().to_owned(),
            });
        }
        Err(TryLockError::Error(e)) => return Err(failed(&path)(e)),
    }
    // Between the opening and the locking another process may have moved the file: then the lock is
    // on a file that no other registry would find.
    if !leads_to(&path, &file).map_err(failed(&path))? {
        return Err(OpenError::Moved {
            path: layout.root().to_owned(),
        });
    }
    restrict(&file, &path);
    let mut found = String::new();
    let text = (&file).take(LONGEST).read_to_string(&mut found);
    text.map_err(failed(&path))?;
    if !is_known(&found) {
        return Err(OpenError::Layout {
            path: layout.root().to_owned(),
            found,
        });
    }
    if found != LAYOUT {
        // The file is new, or the first start was interrupted before it was written.
        disk::write(&file, &path, LAYOUT.as_bytes(), 0)
            .and_then(|()| disk::sync_file(&file, &path))
            .map_err(failed(&path))?;
    }
    // The names of the directories, above all that will be acknowledged. At each start: the one that
    // made them may have been killed before it synced them.
    disk::sync_directory(layout.root()).map_err(failed(layout.root()))?;
    Root::open(layout, file).map_err(failed(layout.root()))
}

/// Makes a directory and those above it that are missing, whose names are synced.
fn create_all(directory: &Path) -> io::Result<()> {
    let made = match (disk::create_directory(directory), directory.parent()) {
        (Err(e), Some(parent)) if e.kind() == io::ErrorKind::NotFound => {
            create_all(parent)?;
            match parent.parent() {
                Some(above) if !above.as_os_str().is_empty() => disk::sync_directory(above)?,
                _ => disk::sync_directory(Path::new("."))?,
            }
            disk::create_directory(directory)
        }
        (made, _) => made,
    };
    match made {
        // It may be a link to a directory elsewhere.
        Err(_) if directory.is_dir() => Ok(()),
        made => made,
    }
}

/// Whether a lock file says so, or was not written to its end: a crash may leave zeros for text.
pub(super) fn is_known(found: &str) -> bool {
    LAYOUT.starts_with(found.trim_end_matches('\0'))
}

/// Keeps other users from opening a lock file that an older version made readable for all.
fn restrict(file: &File, path: &Path) {
    let restricted = file.metadata().and_then(|metadata| {
        if metadata.permissions().mode() & 0o777 == LOCK_MODE {
            return Ok(());
        }
        disk::set_mode(file, path, LOCK_MODE)
    });
    // Only the owner may change the mode: another user who may write the file can use it all the same.
    if let Err(error) = restricted {
        let path = path.display();
        tracing::warn!(%path, %error, "other users can hold the lock: its mode cannot be set");
    }
}

/// Removes the small files that an interrupted run was still writing.
pub(super) fn remove_leftovers(layout: &Layout) -> Result<(), StoreError> {
    each_entry(&layout.temporaries(), |entry| {
        let path = entry.path();
        disk::remove_tree(&path).map_err(|e| StoreError::io(&path, e))
    })
}
