//! Durability, step by step, in the types: an operation cannot acknowledge what a crash would undo.
//!
//! ```text
//! Draft ─ sync ─▶ Synced ─ place ─▶ UnsyncedDirectories ─ with ─▶ Unsynced<T> ─ sync ─▶ T
//! bytes written   bytes on disk     names visible                 locks released        names on disk
//! ```
//!
//! - A name appears by a link or a rename of a file whose bytes are on disk: only [`Synced`] and
//!   [`SyncedUpload`] have methods that make names. So no crash leaves a name without its content.
//! - A name is on disk when its directory has been synced. Each step that makes or removes one
//!   returns the directory, and an operation gets its result out of [`Unsynced`] only by syncing all
//!   of them. So what is acknowledged survives a crash.
//! - [`Unsynced`] leaves the function that holds the locks before it is synced. So other requests
//!   wait for system calls on names, and never for a disk that syncs.
//!
//! A crash between the steps loses names that were not acknowledged, in any combination: the system may
//! have written one directory and not another. So a reader of a file that refers to another file treats a
//! missing target as an absent item.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::data_directory::DataDirectory;
use super::directories::with_directory_of;
use super::disk;
use super::file::{allocated, if_there};
use super::options::Durability;
use crate::store::{Result, StoreError};

/// A small file that is complete, but neither on disk nor where it belongs.
pub(super) struct Draft(TemporaryFile);

/// A small file whose bytes are on disk, and which is not yet where it belongs.
pub(super) struct Synced(TemporaryFile);

/// A file in `tmp`. Dropped, it is removed, unless it was moved to where it belongs.
struct TemporaryFile {
    path: PathBuf,
    file: File,
    placed: bool,
}

impl Draft {
    /// Writes `bytes` aside.
    pub(super) fn write(data: &DataDirectory, bytes: &[u8]) -> Result<Self> {
        Self::write_parts(data, [bytes])
    }

    /// Writes bytes aside that are not in memory all at once.
    pub(super) fn write_parts(
        data: &DataDirectory,
        parts: impl IntoIterator<Item: AsRef<[u8]>>,
    ) -> Result<Self> {
        let path = data.layout.temporary();
        let file = disk::create_new(&path).map_err(|e| StoreError::io(&path, e))?;
        let temporary = TemporaryFile {
            path,
            file,
            placed: false,
        };
        let mut end = 0;
        for part in parts {
            let part = part.as_ref();
            let written = disk::write(&temporary.file, &temporary.path, part, end);
            written.map_err(|e| StoreError::io(&temporary.path, e))?;
            end += part.len() as u64;
        }
        Ok(Self(temporary))
    }

    /// Waits until the bytes are on disk. To be called before any lock is taken.
    pub(super) fn sync(self, data: &DataDirectory) -> Result<Synced> {
        sync_file(data, &self.0.file, &self.0.path)?;
        Ok(Synced(self.0))
    }
}

impl Synced {
    /// Moves the file to `target` and replaces what was there, in one step.
    pub(super) fn place(
        mut self,
        data: &DataDirectory,
        target: &Path,
    ) -> Result<UnsyncedDirectories> {
        // A rename, so that a reader finds the old file or the new one, and never none or half of one.
        with_directory_of(data, target, || disk::rename(&self.0.path, target))?;
        self.0.placed = true;
        Ok(UnsyncedDirectories::of(parent(target)))
    }

    /// What the file takes on disk, in bytes.
    pub(super) fn allocated(&self) -> i64 {
        let metadata = self.0.file.metadata();
        metadata.map_or(0, |metadata| allocated(&metadata))
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        if !self.placed {
            // Nothing is lost if this fails: `tmp` is emptied at the next start.
            let _ = disk::remove_file(&self.path);
        }
    }
}

/// The file of an upload session whose bytes are on disk. It keeps its own name until the session
/// ends, so that a commit that fails can be repeated.
pub(super) struct SyncedUpload<'a> {
    path: &'a Path,
}

impl<'a> SyncedUpload<'a> {
    /// Waits until the bytes are on disk. To be called before any lock is taken.
    pub(super) fn sync(data: &DataDirectory, file: &File, path: &'a Path) -> Result<Self> {
        sync_file(data, file, path)?;
        Ok(Self { path })
    }

    /// Gives the file the name `target` too. Returns `None` if another file has it.
    pub(super) fn link(
        &self,
        data: &DataDirectory,
        target: &Path,
    ) -> Result<Option<UnsyncedDirectories>> {
        // A link and not a rename: it fails where another upload of the same content was faster.
        let linked = with_directory_of(data, target, || match disk::link(self.path, target) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            result => result.map(|()| true),
        })?;
        Ok(linked.then(|| UnsyncedDirectories::of(parent(target))))
    }

    /// Gives the file the name `target` too and takes it from the file that has it, in one step.
    pub(super) fn replace(
        &self,
        data: &DataDirectory,
        target: &Path,
    ) -> Result<UnsyncedDirectories> {
        // A link cannot replace a file, but a rename can.
        let aside = data.layout.temporary();
        let replaced = disk::link(self.path, &aside)
            .map_err(|e| StoreError::io(&aside, e))
            .and_then(|()| with_directory_of(data, target, || disk::rename(&aside, target)));
        if let Err(error) = replaced {
            let _ = disk::remove_file(&aside);
            return Err(error);
        }
        Ok(UnsyncedDirectories::of(parent(target)))
    }
}

/// Writes a file where it belongs, without syncing its bytes: for a file whose name alone is the
/// promise, and whose reader takes any text that a crash leaves in it.
pub(super) fn write_name(
    data: &DataDirectory,
    target: &Path,
    bytes: &[u8],
) -> Result<UnsyncedDirectories> {
    with_directory_of(data, target, || {
        let file = disk::create_empty(target)?;
        disk::write(&file, target, bytes, 0)
    })?;
    Ok(UnsyncedDirectories::of(parent(target)))
}

/// Removes a name. Returns `None` if it was not there.
pub(super) fn remove_name(
    data: &DataDirectory,
    path: &Path,
) -> Result<Option<UnsyncedDirectories>> {
    let directory = parent(path);
    let removed = data
        .directories
        .change(directory, || disk::remove_file(path));
    let removed = if_there(path, removed)?;
    Ok(removed.map(|()| UnsyncedDirectories::of(directory)))
}

/// The directories that have to be synced before an operation is acknowledged.
#[must_use = "an operation is durable only when these directories are synced"]
pub(super) struct UnsyncedDirectories {
    /// Those in which this operation made, removed or confirmed a name, in this order, each once.
    changed: Vec<PathBuf>,
    /// Those with names that it refers to and that another operation has not synced yet.
    relied_on: Vec<PathBuf>,
}

impl UnsyncedDirectories {
    /// An operation that has changed nothing so far.
    pub(super) fn none() -> Self {
        Self {
            changed: Vec::new(),
            relied_on: Vec::new(),
        }
    }

    /// A directory that this operation has changed; or one in which it found the very name that it
    /// was to make. Another operation, or a run that was killed, may have made that name without
    /// syncing it, so that it is synced (again) before it is acknowledged (again).
    pub(super) fn of(directory: &Path) -> Self {
        Self {
            changed: vec![directory.to_owned()],
            relied_on: Vec::new(),
        }
    }

    /// Adds a directory that holds a name which this operation found and refers to, if another
    /// operation has made that name, or one above it, and has not synced it yet.
    pub(super) fn rely_on(&mut self, data: &DataDirectory, directory: PathBuf) {
        if data.directories.is_unsynced(&directory) && !self.relied_on.contains(&directory) {
            self.relied_on.push(directory);
        }
    }

    /// Whether nothing has to be synced.
    pub(super) fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.relied_on.is_empty()
    }

    /// Adds the directories of another step.
    pub(super) fn add(&mut self, other: Self) {
        for directory in other.changed {
            if !self.changed.contains(&directory) {
                self.changed.push(directory);
            }
        }
        for directory in other.relied_on {
            if !self.relied_on.contains(&directory) {
                self.relied_on.push(directory);
            }
        }
    }

    /// The result of an operation, to be had when the directories are synced.
    pub(super) fn with<T>(self, value: T) -> Unsynced<T> {
        Unsynced {
            directories: self,
            value,
        }
    }

    /// Syncs each directory once. What it relies on comes first, so that as a rule a name is on disk
    /// after what it refers to.
    fn sync(self, data: &DataDirectory) -> Result<()> {
        if data.durability == Durability::Relaxed {
            return Ok(());
        }
        let Self { changed, relied_on } = &self;
        let mut synced = Vec::new();
        for directory in relied_on.iter().chain(changed) {
            sync_directory(data, directory, &mut synced)?;
        }
        // The names of the directories themselves, where they are new. They are looked for only now:
        // a directory that went and was made again since is noted in its parent. The innermost comes
        // first, since with a journal the first sync makes all of them durable.
        let all = relied_on.iter().chain(changed).map(PathBuf::as_path);
        for directory in data.directories.unsynced_above(all) {
            sync_directory(data, &directory, &mut synced)?;
        }
        Ok(())
    }
}

/// The result of an operation whose names are not on disk yet.
#[must_use = "an operation is durable only when its directories are synced"]
pub(super) struct Unsynced<T> {
    directories: UnsyncedDirectories,
    value: T,
}

impl<T: 'static> Unsynced<T> {
    /// Syncs the directories and hands out the result. To be called when all locks are released: the
    /// result is `'static`, and holds none.
    pub(super) fn sync(self, data: &DataDirectory) -> Result<T> {
        self.directories.sync(data)?;
        Ok(self.value)
    }
}

/// Syncs a directory, unless it was synced since it was last changed. If it is gone, so are its names,
/// and it is the absence of its own name that counts: then the one above is synced.
fn sync_directory(data: &DataDirectory, directory: &Path, synced: &mut Vec<PathBuf>) -> Result<()> {
    for directory in directory.ancestors() {
        let again = synced.iter().any(|done| done == directory);
        if again && !data.directories.is_unsynced(directory) {
            return Ok(());
        }
        let start = data.directories.sync_starts();
        match disk::sync_directory(directory) {
            // What changed in it before is gone with it.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                data.directories.synced(directory, start);
            }
            Err(e) => return Err(StoreError::io(directory, e)),
            Ok(()) => {
                data.directories.synced(directory, start);
                synced.push(directory.to_owned());
                return Ok(());
            }
        }
    }
    Ok(())
}

fn sync_file(data: &DataDirectory, file: &File, path: &Path) -> Result<()> {
    match data.durability {
        Durability::Relaxed => Ok(()),
        // `fdatasync` also writes the length. It leaves out the times, which promise nothing.
        Durability::Full => disk::sync_file(file, path).map_err(|e| StoreError::io(path, e)),
    }
}

/// The directory that holds a name. Every path of the layout has one.
fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}
