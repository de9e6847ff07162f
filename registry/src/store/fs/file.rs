//! Small steps on files and directories, none of which is durable by itself.

use std::fs::{self, DirEntry, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::disk;
use crate::store::{Result, StoreError};

/// Turns the error of a missing file into `None`.
pub(super) fn if_there<T>(path: &Path, result: io::Result<T>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(StoreError::io(path, e)),
    }
}

/// The error of something else in the place of a file.
fn not_a_file(path: &Path) -> StoreError {
    StoreError::Corrupt {
        path: path.to_owned(),
        reason: "it is not a file",
    }
}

/// Opens a file to read; `None` if it is not there.
pub(super) fn open_if_there(path: &Path) -> Result<Option<File>> {
    match disk::open(path) {
        Err(e) if disk::is_no_file(&e) => Err(not_a_file(path)),
        opened => if_there(path, opened),
    }
}

/// Opens a file to read, and says its length; `None` if it is not there.
pub(super) fn open_with_length(path: &Path) -> Result<Option<(File, u64)>> {
    let Some(file) = open_if_there(path)? else {
        return Ok(None);
    };
    // Of the open file, and not of the path: a push may replace damaged content at any moment.
    let metadata = file.metadata().map_err(|e| StoreError::io(path, e))?;
    // A pipe can be opened, and looks like an empty file.
    if !metadata.is_file() {
        return Err(not_a_file(path));
    }
    Ok(Some((file, metadata.size())))
}

/// The length of a file; `None` if it is not there.
pub(super) fn length(path: &Path) -> Result<Option<u64>> {
    match if_there(path, disk::metadata(path))? {
        Some(found) if !found.is_file() => Err(not_a_file(path)),
        found => Ok(found.map(|found| found.size())),
    }
}

/// Whether there is a file of this length. One of another length is damaged, and so is what is no file.
pub(super) fn has_length(path: &Path, expected: u64) -> Result<bool> {
    match length(path) {
        Err(StoreError::Corrupt { .. }) => Ok(false),
        found => Ok(found? == Some(expected)),
    }
}

/// Whether there is anything at `path`.
pub(super) fn exists(path: &Path) -> Result<bool> {
    // Not `Path::exists`, which reports an error of the disk as a missing item.
    Ok(if_there(path, disk::metadata(path))?.is_some())
}

/// Removes a file. Returns whether it was there.
pub(super) fn remove(path: &Path) -> Result<bool> {
    Ok(if_there(path, disk::remove_file(path))?.is_some())
}

/// Calls `visit` with each entry of a directory, in no order. A missing directory counts as empty.
pub(super) fn each_entry(
    directory: &Path,
    visit: impl FnMut(&DirEntry) -> Result<()>,
) -> Result<()> {
    visit_entries(directory, visit)
}

/// The same, for a visit that fails in other ways, too. It may remove the entry that it visits.
pub(super) fn visit_entries<E: From<StoreError>>(
    directory: &Path,
    mut visit: impl FnMut(&DirEntry) -> std::result::Result<(), E>,
) -> std::result::Result<(), E> {
    let Some(entries) = if_there(directory, disk::read_directory(directory))? else {
        return Ok(());
    };
    for entry in entries {
        visit(&entry.map_err(|e| StoreError::io(directory, e))?)?;
    }
    Ok(())
}

/// Whether a directory has entries.
pub(super) fn has_entries(directory: &Path) -> Result<bool> {
    match if_there(directory, disk::read_directory(directory))?
        .and_then(|mut entries| entries.next())
    {
        None => Ok(false),
        Some(Ok(_)) => Ok(true),
        Some(Err(e)) => Err(StoreError::io(directory, e)),
    }
}

/// The reason where the file of an upload has lost bytes.
pub(super) const SHORTER: &str = "it is shorter than what was received";

/// Cuts off what follows the first `length` bytes of a file, such as the torn end that a failed write
/// leaves. Fails if the file is shorter: it has lost bytes that were acknowledged.
pub(super) fn cut(file: &File, path: &Path, length: u64) -> Result<()> {
    let failed = |e| StoreError::io(path, e);
    let found = file.metadata().map_err(failed)?.size();
    if found < length {
        return Err(StoreError::Corrupt {
            path: path.to_owned(),
            reason: SHORTER,
        });
    }
    if found > length {
        disk::set_length(file, path, length).map_err(failed)?;
    }
    Ok(())
}

/// What a file takes on disk, in bytes.
pub(super) fn allocated(metadata: &fs::Metadata) -> i64 {
    // The unit of st_blocks is 512 bytes, whatever the file system's block is.
    i64::try_from(metadata.blocks())
        .unwrap_or(i64::MAX)
        .saturating_mul(512)
}

/// What the file at `path` takes on disk, in bytes; nothing if it is not there.
pub(super) fn allocated_at(path: &Path) -> i64 {
    // An error counts as nothing: a figure for the statistics must fail no operation.
    fs::symlink_metadata(path).map_or(0, |metadata| allocated(&metadata))
}
