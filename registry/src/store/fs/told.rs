//! When a client was last told that a repository holds an item: the time at which its file was changed.
//!
//! A client that was told so, by a HEAD, a mount or a push, counts on the item: it pushes a manifest that
//! names it, some time later. A collection keeps the item for the [grace](super::told_times::ToldTimes) from then on. A time
//! is written anew only if it is old, so that a popular item is not written with each request.

use std::fs::Metadata;
use std::io::ErrorKind;
use std::path::Path;
use std::time::SystemTime;

use service::log::causes;

use super::data_directory::DataDirectory;
use super::disk::touch;
use crate::oci::Name;
use crate::store::{Result, StoreError};

/// Writes the time of an item anew before a client is told of it, if that is due. Returns false if the item
/// went meanwhile: then the client must not be told.
pub(super) fn tell(data: &DataDirectory, name: &Name, path: &Path, found: &Metadata) -> bool {
    if !data.told.is_old(found) {
        return true;
    }
    // Under the lock, so that a collection that is about to remove it either sees the time or is done.
    let _lock = data.locks.repository(name);
    renew_now(path);
    // An error of the disk counts as there: the item was found a moment ago.
    path.try_exists().unwrap_or(true)
}

/// Writes the time of an item anew whose lock the caller holds, if that is due.
pub(super) fn renew(data: &DataDirectory, path: &Path) {
    if path.metadata().is_ok_and(|found| data.told.is_old(&found)) {
        renew_now(path);
    }
}

/// Writes the time of an item anew whose lock the caller holds, and which may not be there.
pub(super) fn renew_now(path: &Path) {
    if let Err(error) = must_renew(path) {
        // As on a file system that has become read-only: then nothing is removed from it either.
        tracing::debug!(error = causes(&error), "a time was not written");
    }
}

/// The same, and fails if the time cannot be written. For those who then remove the tag that keeps an item.
pub(super) fn must_renew(path: &Path) -> Result<()> {
    match touch(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(StoreError::io(path, error)),
        _ => Ok(()),
    }
}

/// Whether an item may go: nobody was told of it after `cutoff`.
pub(super) fn is_before(metadata: &Metadata, cutoff: SystemTime) -> bool {
    // Where the file system knows no times, nothing may go.
    metadata.modified().is_ok_and(|told| told < cutoff)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_item_is_before_a_cutoff_that_is_later_than_its_time() {
        let directory = tempfile::tempdir().unwrap();
        let file = File::create(directory.path().join("x")).unwrap();
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        file.set_modified(time).unwrap();
        let metadata = file.metadata().unwrap();
        assert!(!is_before(&metadata, time));
        assert!(is_before(&metadata, time + Duration::from_secs(1)));
    }
}
