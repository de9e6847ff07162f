//! Looks at a directory that may be a store, without changing anything.

use std::fs::TryLockError;
use std::io::{self, Read as _};
use std::path::Path;

use super::disk;
use super::layout::Layout;
use super::open::{LONGEST, OpenError, is_known};
use super::space::Space;

/// What a directory is to a registry that would be started on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DirectoryState {
    /// Nothing is there yet.
    New,
    /// It holds a store that no process uses.
    Free,
    /// A process uses it.
    InUse,
}

/// What the directory is.
pub fn inspect(root: &Path) -> Result<DirectoryState, OpenError> {
    let layout = Layout::new(root.to_owned());
    let path = layout.lock();
    let failed = |source| OpenError::Io {
        path: path.clone(),
        source,
    };
    let file = match disk::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(DirectoryState::New),
        Err(error) => return Err(failed(error)),
    };
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(failed(io::Error::other("it is not a file")));
    }
    // Shared, and dropped with the file a moment later: nobody who only looks keeps another out.
    let locked = file.try_lock_shared();
    let mut found = String::new();
    (&file)
        .take(LONGEST)
        .read_to_string(&mut found)
        .map_err(failed)?;
    if !is_known(&found) {
        return Err(OpenError::Layout {
            path: root.to_owned(),
            found,
        });
    }
    match locked {
        Ok(()) => Ok(DirectoryState::Free),
        Err(TryLockError::WouldBlock) => Ok(DirectoryState::InUse),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// The file system that holds a directory.
pub fn space(path: &Path) -> io::Result<Space> {
    Ok(Space::from(rustix::fs::statvfs(path)?))
}

#[cfg(test)]
mod tests {
    use super::super::open::lock;
    use super::*;

    #[test]
    fn a_directory_is_new_free_or_in_use_and_is_left_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        assert_eq!(inspect(root).unwrap(), DirectoryState::New);
        assert_eq!(inspect(&root.join("none")).unwrap(), DirectoryState::New);
        assert_eq!(std::fs::read_dir(root).unwrap().count(), 0);
        let layout = Layout::new(root.to_owned());
        let held = lock(&layout).unwrap();
        assert_eq!(inspect(root).unwrap(), DirectoryState::InUse);
        drop(held);
        assert_eq!(inspect(root).unwrap(), DirectoryState::Free);
        // The lock is not kept.
        drop(lock(&layout).unwrap());
        assert!(space(root).unwrap().size > 0);
    }

    #[test]
    fn another_layout_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("lock"), "octoserve 9\n").unwrap();
        let error = inspect(directory.path()).unwrap_err();
        assert!(matches!(error, OpenError::Layout { found, .. } if found == "octoserve 9\n"));
        let other = tempfile::tempdir().unwrap();
        std::fs::create_dir(other.path().join("lock")).unwrap();
        assert!(matches!(inspect(other.path()), Err(OpenError::Io { .. })));
    }
}
