//! Checks that the data directory is still the one that was opened.
//!
//! A path may lead elsewhere at any time: an operator moves the directory away, or mounts another file
//! system over it. Then a blob that is not found is not unknown, and bytes that are written are lost.
//! So the store keeps the lock file and the directories beside it open, and compares their device and
//! inode with those that the paths lead to: once a second, and before it reports anything that would
//! look the same without the directory: that an item is not there, that a listing is complete, or that
//! a change has been made. An open file keeps its inode number from being used again.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

use super::layout::Layout;
use crate::store::{Lost, Result, StoreError};

/// The lock file and the directories directly under the root.
pub(super) struct Root {
    path: PathBuf,
    /// Keeps others out of the directory while it is open.
    lock: HeldFile,
    directories: Vec<HeldFile>,
    /// Whether `state` holds a reason: every request reads this, and takes no lock for it.
    is_lost: AtomicBool,
    state: watch::Sender<Option<Lost>>,
}

/// A file or directory that must stay where it is.
struct HeldFile {
    path: PathBuf,
    file: File,
    identity: Identity,
}

/// The file system, and the number of a file in it.
type Identity = (u64, u64);

/// Whether the data directory is there, for a reader that must not keep the store itself open.
#[derive(Clone, Debug)]
pub struct Presence(watch::Receiver<Option<Lost>>);

impl Presence {
    /// Why the directory cannot be used at this moment; `None` if it can.
    pub fn lost(&self) -> Option<Lost> {
        *self.0.borrow()
    }

    /// Waits until that changes. Returns false if the store is closed, and it never will.
    pub async fn changed(&mut self) -> bool {
        self.0.changed().await.is_ok()
    }

    /// Waits until the directory is there.
    pub async fn wait(&mut self) {
        // An error means that the store was closed: then there is nothing to wait for.
        let _ = self.0.wait_for(Option::is_none).await;
    }
}

impl Root {
    /// Opens the directories of a layout. `lock` is its lock file, which is locked.
    pub(super) fn open(layout: &Layout, lock: File) -> io::Result<Self> {
        let mut directories = Vec::new();
        for directory in layout.directories() {
            let file = File::open(&directory)?;
            directories.push(HeldFile::new(directory, file)?);
        }
        Ok(Self {
            path: layout.root().to_owned(),
            lock: HeldFile::new(layout.lock(), lock)?,
            directories,
            is_lost: AtomicBool::new(false),
            state: watch::Sender::new(None),
        })
    }

    /// Fails while the directory is known to be lost. Reads memory only.
    pub(super) fn present(&self) -> Result<()> {
        // Relaxed: no other memory depends on it, and a request may miss a change by a moment anyway.
        if !self.is_lost.load(Ordering::Relaxed) {
            return Ok(());
        }
        let lost = *self.state.borrow();
        lost.map_or(Ok(()), |source| Err(self.error(source)))
    }

    /// Compares the paths with the open files.
    pub(super) fn check(&self) -> Result<()> {
        let lost = self.compare().err();
        // As a rule nothing is lost and nothing was: then no lock is taken.
        if lost.is_some() || self.is_lost.load(Ordering::Relaxed) {
            // Under the channel's lock: of two threads that notice the same change, one logs it.
            self.state.send_if_modified(|state| {
                let is_new = *state != lost;
                if is_new {
                    *state = lost;
                    self.is_lost.store(lost.is_some(), Ordering::Relaxed);
                    self.log(lost);
                }
                is_new
            });
        }
        lost.map_or(Ok(()), |source| Err(self.error(source)))
    }

    /// The result of a search. That an item is not there is reported only if the directory is there.
    pub(super) fn trust<T>(&self, found: Result<T>) -> Result<T> {
        if found.is_err() {
            self.check()?;
        }
        found
    }

    /// The result of a change or of a listing, which would look like a success without the directory.
    pub(super) fn confirm<T>(&self, done: Result<T>) -> Result<T> {
        // Whatever the operation failed with, a lost directory is the reason to report.
        self.check().and(done)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn presence(&self) -> Presence {
        Presence(self.state.subscribe())
    }

    /// The lock file, which is on the directory's file system.
    pub(super) fn lock(&self) -> &File {
        &self.lock.file
    }

    fn compare(&self) -> std::result::Result<(), Lost> {
        for held in [&self.lock].into_iter().chain(&self.directories) {
            match fs::metadata(&held.path) {
                // By device and inode: a mount over the directory, or a copy in its place, has the same
                // path and another identity.
                Ok(found) if identity(&found) == held.identity => {}
                Ok(_) => return Err(Lost::Another),
                Err(e) => match e.kind() {
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
                        return Err(self.gone());
                    }
                    _ => return Err(Lost::Unreadable),
                },
            }
        }
        Ok(())
    }

    /// Tells a missing directory from one that does not hold the lock file.
    fn gone(&self) -> Lost {
        if self.path.exists() {
            Lost::Another
        } else {
            Lost::Gone
        }
    }

    fn log(&self, lost: Option<Lost>) {
        let path = self.path.display();
        if let Some(error) = lost {
            tracing::error!(
                %path,
                %error,
                "the data directory is lost: requests get 503 until it is back"
            );
        } else {
            tracing::info!(%path, "the data directory is back");
        }
    }

    fn error(&self, source: Lost) -> StoreError {
        StoreError::Lost {
            path: self.path.clone(),
            source,
        }
    }
}

impl HeldFile {
    fn new(path: PathBuf, file: File) -> io::Result<Self> {
        let identity = identity(&file.metadata()?);
        Ok(Self {
            path,
            file,
            identity,
        })
    }
}

fn identity(metadata: &fs::Metadata) -> Identity {
    (metadata.dev(), metadata.ino())
}

/// Whether a path leads to the file that is open.
pub(super) fn leads_to(path: &Path, file: &File) -> io::Result<bool> {
    let found = match fs::metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        found => found?,
    };
    Ok(identity(&found) == identity(&file.metadata()?))
}
