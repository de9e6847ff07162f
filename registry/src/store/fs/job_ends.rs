//! When each maintenance job last ended: the time of an empty file in `maintenance/`.

use std::path::PathBuf;
use std::time::SystemTime;

use super::data_directory::DataDirectory;
use super::disk;
use super::durable::Draft;
use crate::store::Result;

/// When a job last ended; `None` if that is not known. Blocks.
pub(super) fn last(data: &DataDirectory, job: &str) -> Option<SystemTime> {
    let file = disk::open(&path(data, job)).ok()?;
    file.metadata().ok()?.modified().ok()
}

/// Notes that a job ends now. Blocks.
pub(super) fn note(data: &DataDirectory, job: &str) -> Result<()> {
    let placed = Draft::write(data, b"")?
        .sync(data)?
        .place(data, &path(data, job))?;
    placed.with(()).sync(data)
}

fn path(data: &DataDirectory, job: &str) -> PathBuf {
    data.layout.maintenance().join(format!("{job}-ended"))
}
