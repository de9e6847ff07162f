//! Where an interrupted collection goes on: after the last repository that was done.

use std::io::Read;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use service::log::causes;

use crate::oci::Name;
use crate::store::Result;
use crate::store::fs::data_directory::DataDirectory;
use crate::store::fs::disk;
use crate::store::fs::durable::Draft;

/// How often it is written while a collection runs.
const EVERY: Duration = Duration::from_secs(30);

/// The longest name, and a newline.
const LONGEST: u64 = 256;

/// How far a collection is.
pub(super) struct CollectionCursor {
    /// The last repository that an earlier collection has done, until it is met.
    after: Option<Name>,
    done: Option<Name>,
    written: Instant,
}

impl CollectionCursor {
    /// From the first repository on.
    pub(super) fn start() -> Self {
        Self {
            after: None,
            done: None,
            written: Instant::now(),
        }
    }

    /// Where the last collection ended.
    pub(super) fn read(data: &DataDirectory) -> Self {
        let mut text = String::new();
        let read =
            disk::open(&path(data)).and_then(|file| file.take(LONGEST).read_to_string(&mut text));
        // Whatever is wrong with it: from the start is always right.
        let after = read
            .ok()
            .and_then(|_| Name::parse(text.strip_suffix('\n')?).ok());
        Self {
            after,
            ..Self::start()
        }
    }

    /// Whether a repository comes after those that were done.
    pub(super) fn passes(&mut self, name: &Name) -> bool {
        match &self.after {
            None => true,
            Some(after) => {
                if after == name {
                    self.after = None;
                }
                false
            }
        }
    }

    /// Whether the last repository that was done was never met.
    pub(super) fn is_before_its_place(&self) -> bool {
        self.after.is_some()
    }

    /// A repository is done.
    pub(super) fn done(&mut self, data: &DataDirectory, name: Name) {
        self.done = Some(name);
        if self.written.elapsed() >= EVERY {
            self.write(data);
        }
    }

    /// Writes it. An error costs only time.
    pub(super) fn write(&mut self, data: &DataDirectory) {
        self.written = Instant::now();
        // Before the place where an earlier one ended, that place is still the one to go on from.
        if let (None, Some(done)) = (&self.after, &self.done)
            && let Err(error) = write(data, done)
        {
            let error = causes(&error);
            tracing::debug!(error, "where the collection is was not written");
        }
    }

    /// The collection has met all repositories.
    pub(super) fn remove(data: &DataDirectory) {
        let _ = disk::remove_file(&path(data));
    }
}

fn write(data: &DataDirectory, done: &Name) -> Result<()> {
    let text = format!("{done}\n");
    let placed = Draft::write(data, text.as_bytes())?
        .sync(data)?
        .place(data, &path(data))?;
    placed.with(()).sync(data)
}

fn path(data: &DataDirectory) -> PathBuf {
    data.layout.maintenance().join("gc")
}
