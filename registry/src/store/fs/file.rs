//! Small steps on files and folders, each whole or not at all.

use std::fs::{self, DirEntry, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{Durability, Inner};
use crate::store::{Result, StoreError};

/// A small file that is complete, but not yet where it belongs. Dropped, it is gone.
pub(super) struct Draft {
    path: PathBuf,
    file: File,
    placed: bool,
}

impl Draft {
    /// Writes `bytes` aside.
    pub(super) fn write(inner: &Inner, bytes: &[u8]) -> Result<Self> {
        inner.in_room(|| {
            let path = inner.layout.temporary();
            let open = OpenOptions::new().write(true).create_new(true).open(&path);
            let file = open.map_err(|e| StoreError::io(&path, e))?;
            let mut draft = Self {
                path,
                file,
                placed: false,
            };
            let written = draft.file.write_all(bytes);
            written.map_err(|e| StoreError::io(&draft.path, e))?;
            Ok(draft)
        })
    }

    /// Makes sure that the bytes survive a crash; to be called before [`Draft::place`].
    pub(super) fn sync(&self, inner: &Inner) -> Result<()> {
        inner.sync_file(&self.file, &self.path)
    }

    /// Moves the file to `target`, in place of what was there.
    pub(super) fn place(mut self, inner: &Inner, target: &Path) -> Result<()> {
        inner.with_folder_of(target, || fs::rename(&self.path, target))?;
        self.placed = true;
        Ok(())
    }

    /// What it takes on disk, in bytes.
    pub(super) fn allocated(&self) -> i64 {
        self.file
            .metadata()
            .map_or(0, |metadata| allocated(&metadata))
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.placed {
            // Nothing is lost if this fails: what is left here is removed at the next start.
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Inner {
    /// Does a step that needs the folder of `path`, which is made when it is missing.
    pub(super) fn with_folder_of<T>(
        &self,
        path: &Path,
        step: impl Fn() -> io::Result<T>,
    ) -> Result<T> {
        self.in_room(|| self.made_on_demand(path, &step))
    }

    fn made_on_demand<T>(&self, path: &Path, step: impl Fn() -> io::Result<T>) -> Result<T> {
        // Another request may remove the folder, empty as it is, before the step: then once more.
        for _ in 0..16 {
            match step() {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                result => return result.map_err(|e| StoreError::io(path, e)),
            }
            if let Some(folder) = path.parent() {
                self.make_folder(folder)?;
            }
        }
        step().map_err(|e| StoreError::io(path, e))
    }

    /// Makes a folder and those above it that are missing; they are durable when it returns. What
    /// stands directly under the root is not made again: it is missing only if somebody took it away.
    pub(super) fn make_folder(&self, folder: &Path) -> Result<()> {
        self.root.check()?;
        let _one_at_a_time = self.folders.lock();
        let mut missing = vec![];
        let on_demand = folder
            .ancestors()
            .take_while(|folder| self.layout.is_on_demand(folder));
        for folder in on_demand {
            match fs::create_dir(folder) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => missing.push(folder),
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => break,
                Err(e) => return Err(StoreError::io(folder, e)),
                Ok(()) => {
                    self.made_folder(folder);
                    missing.push(folder);
                    break;
                }
            }
        }
        for folder in missing.iter().rev() {
            match fs::create_dir(folder) {
                // The outermost was made on the way out.
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(StoreError::io(folder, e)),
                Ok(()) => self.made_folder(folder),
            }
        }
        // From the inside out: with a journal the first sync makes all of them durable.
        for folder in missing.iter().filter_map(|made| made.parent()) {
            self.sync_folder(folder)?;
        }
        Ok(())
    }

    /// Removes `folder` and those above it, up to but without `stop`, as long as they are empty.
    pub(super) fn remove_empty(&self, folder: &Path, stop: &Path) {
        let _one_at_a_time = self.folders.lock();
        for folder in folder.ancestors().take_while(|&folder| folder != stop) {
            let size = fs::symlink_metadata(folder).map_or(0, |metadata| allocated(&metadata));
            match fs::remove_dir(folder) {
                Ok(()) => self.changes.folders(-size),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(_) => return,
            }
        }
    }

    /// Makes the names in a folder durable. Where the folder is gone, so are they, and it is its
    /// own name's absence that counts: then the one above.
    pub(super) fn sync_folder(&self, folder: &Path) -> Result<()> {
        if self.durability == Durability::Relaxed {
            return Ok(());
        }
        for folder in folder.ancestors() {
            match File::open(folder).and_then(|opened| opened.sync_all()) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                result => return result.map_err(|e| StoreError::io(folder, e)),
            }
        }
        Ok(())
    }

    /// Makes a file's bytes durable.
    pub(super) fn sync_file(&self, file: &File, path: &Path) -> Result<()> {
        match self.durability {
            Durability::Relaxed => Ok(()),
            Durability::Full => file.sync_data().map_err(|e| StoreError::io(path, e)),
        }
    }

    fn made_folder(&self, folder: &Path) {
        let size = fs::symlink_metadata(folder).map_or(0, |metadata| allocated(&metadata));
        self.changes.folders(size);
    }
}

/// `None` instead of an error where there is nothing at `path`.
pub(super) fn if_there<T>(path: &Path, result: io::Result<T>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(StoreError::io(path, e)),
    }
}

/// Whether there is anything at `path`.
pub(super) fn exists(path: &Path) -> Result<bool> {
    path.try_exists().map_err(|e| StoreError::io(path, e))
}

/// Removes a file; whether it was there.
pub(super) fn remove(path: &Path) -> Result<bool> {
    Ok(if_there(path, fs::remove_file(path))?.is_some())
}

/// Calls `visit` with each entry of a folder, in no order. A folder that is not there is empty.
pub(super) fn each_entry(
    folder: &Path,
    mut visit: impl FnMut(&DirEntry) -> Result<()>,
) -> Result<()> {
    let Some(entries) = if_there(folder, fs::read_dir(folder))? else {
        return Ok(());
    };
    for entry in entries {
        visit(&entry.map_err(|e| StoreError::io(folder, e))?)?;
    }
    Ok(())
}

/// Whether a folder holds anything.
pub(super) fn has_entries(folder: &Path) -> Result<bool> {
    match if_there(folder, fs::read_dir(folder))?.and_then(|mut entries| entries.next()) {
        None => Ok(false),
        Some(Ok(_)) => Ok(true),
        Some(Err(e)) => Err(StoreError::io(folder, e)),
    }
}

/// What is wrong with an upload whose file has lost bytes.
pub(super) const SHORTER: &str = "it is shorter than what was received";

/// Cuts off what follows the first `length` bytes of a file, such as the torn end that a failure
/// leaves. A file that is shorter has lost bytes that were acknowledged.
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
        file.set_len(length).map_err(failed)?;
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
    fs::symlink_metadata(path).map_or(0, |metadata| allocated(&metadata))
}
