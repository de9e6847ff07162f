//! Observers of the steps below a directory, for tests.
//!
//! A store works on many threads, and tests run side by side: so an observer is found by the path of
//! a step, and sees one data directory.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::RwLock;

use super::Step;

/// Sees each step on a path below its directory.
pub(in crate::store::fs) trait Observer: Send + Sync {
    /// Does the step by `call`, once; or does not, and fails.
    fn around(&self, step: &Step<'_>, call: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()>;
}

static OBSERVERS: RwLock<Vec<(PathBuf, Arc<dyn Observer>)>> = RwLock::new(Vec::new());

/// Ends the observation when it is dropped.
#[must_use]
pub(in crate::store::fs) struct Observation(PathBuf);

/// Begins to observe the steps below a directory, which no other observer has.
pub(in crate::store::fs) fn observe(root: &Path, observer: Arc<dyn Observer>) -> Observation {
    OBSERVERS.write().push((root.to_owned(), observer));
    Observation(root.to_owned())
}

impl Drop for Observation {
    fn drop(&mut self) {
        OBSERVERS.write().retain(|(root, _)| *root != self.0);
    }
}

/// The observer of a step.
pub(super) fn of(step: &Step<'_>) -> Option<Arc<dyn Observer>> {
    let path = step.path();
    let observers = OBSERVERS.read();
    let found = observers.iter().find(|(root, _)| path.starts_with(root));
    found.map(|(_, observer)| Arc::clone(observer))
}

/// Does a step under an observer.
pub(super) fn around<T>(
    observer: &dyn Observer,
    step: &Step<'_>,
    call: impl FnOnce() -> io::Result<T>,
) -> io::Result<T> {
    let (mut call, mut value) = (Some(call), None);
    observer.around(step, &mut || {
        let call = call.take().expect("a step is done once");
        value = Some(call()?);
        Ok(())
    })?;
    Ok(value.expect("a step that succeeds was done"))
}

impl Step<'_> {
    /// The path of the step, or the first of two.
    pub(in crate::store::fs) fn path(&self) -> &Path {
        match *self {
            Self::CreateNew(path)
            | Self::Create(path)
            | Self::CreateEmpty(path)
            | Self::Write(path, ..)
            | Self::SetLength(path, _)
            | Self::SetMode(path)
            | Self::SyncFile(path)
            | Self::SyncDirectory(path)
            | Self::SyncFileSystem(path)
            | Self::SetTimes(path)
            | Self::CreateDirectory(path)
            | Self::RemoveDirectory(path)
            | Self::RemoveTree(path)
            | Self::RemoveFile(path)
            | Self::Link(path, _)
            | Self::Rename(path, _)
            | Self::Open(path)
            | Self::ReadDirectory(path)
            | Self::Metadata(path) => path,
        }
    }
}
