//! Directories that are made on demand and removed when they are empty.

use std::io;
use std::path::Path;

use super::data_directory::DataDirectory;
use super::disk;
use super::file::allocated_at;
use crate::store::{Result, StoreError};

/// How often a step is repeated while other requests keep removing its directory.
const ATTEMPTS: usize = 16;

/// Does a step that makes a name in the directory of `path`, which is made if it is missing.
pub(super) fn with_directory_of<T>(
    data: &DataDirectory,
    path: &Path,
    step: impl Fn() -> io::Result<T>,
) -> Result<T> {
    let Some(directory) = path.parent() else {
        return step().map_err(|e| StoreError::io(path, e));
    };
    // Between the making and the step another request may remove the directory, which is still empty.
    for _ in 0..ATTEMPTS {
        match data.directories.change(directory, &step) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => make(data, directory)?,
            result => return result.map_err(|e| StoreError::io(path, e)),
        }
    }
    let done = data.directories.change(directory, &step);
    done.map_err(|e| StoreError::io(path, e))
}

/// Makes a directory and those above it that are missing. Those directly under the root are made only
/// when the store is opened: one that is missing later was taken away, and the store must not write into
/// a new one.
fn make(data: &DataDirectory, directory: &Path) -> Result<()> {
    data.root.check()?;
    let _one_at_a_time = data.directories.lock();
    let on_demand: Vec<_> = directory
        .ancestors()
        .take_while(|directory| data.layout.is_on_demand(directory))
        .collect();
    // From the outside in, beginning below the innermost one that is there.
    let missing = on_demand.iter().take_while(|directory| !directory.is_dir());
    let missing = missing.count();
    for &directory in on_demand[..missing].iter().rev() {
        make_one(data, directory)?;
    }
    Ok(())
}

fn make_one(data: &DataDirectory, directory: &Path) -> Result<()> {
    let made = match directory.parent() {
        Some(parent) => data
            .directories
            .change(parent, || disk::create_directory(directory)),
        None => disk::create_directory(directory),
    };
    match made {
        Ok(()) => {
            data.changes.directories(allocated_at(directory));
            Ok(())
        }
        // Another program made it.
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(e) => Err(StoreError::io(directory, e)),
    }
}

/// Removes `directory` and those above it, up to but without `stop`, as long as they are empty.
pub(super) fn remove_empty(data: &DataDirectory, directory: &Path, stop: &Path) {
    // Without the lock, a directory could go while `make` is at the ones below it.
    let _one_at_a_time = data.directories.lock();
    for directory in directory.ancestors().take_while(|&one| one != stop) {
        let size = allocated_at(directory);
        let removed = match directory.parent() {
            Some(parent) => data
                .directories
                .change(parent, || disk::remove_directory(directory)),
            None => return,
        };
        match removed {
            Ok(()) => {
                data.directories.forget(directory);
                data.changes.directories(-size);
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(_) => return,
        }
    }
}
