//! Garbage collection: removes what no manifest needs, while requests are served.
//!
//! | module | what it does |
//! |---|---|
//! | `repository` | takes from a repository the blobs that none of its manifests mentions |
//! | `untagged` | takes from it the manifests that no tag leads to, where that is asked for |
//! | `graph` | which manifests of a repository lead to which |
//! | `mentions` | what manifests mention, as far as they can be read and believed |
//! | `leftovers` | removes what a crash has left of a repository |
//! | `held` | which content is in any repository |
//! | `content` | removes content that is in none |
//! | `would_go` | what a dry run would take from a repository |
//! | `cursor` | where an interrupted collection goes on |
//!
//! Nothing that was acknowledged misses anything afterwards:
//!
//! - A blob leaves a repository under the repository's lock. Each manifest that was written since the
//!   collection began to read the repository has said so ([`prune_watch`](super::prune_watch)) and is read
//!   before. A manifest that is being written looks for its blobs again when one was removed.
//! - Content goes under the lock of its shard. Who adds content to a repository while a collection runs
//!   says so under that lock ([`reliance`](super::reliance)).
//! - What a client was told of stays for the grace ([`told`](super::told)).
//! - What cannot be read needs everything. A damaged manifest keeps all blobs of its repository, and a
//!   directory that cannot be read keeps all content.
//! - Removals are on disk before what they referred to is removed, so that no crash brings back a manifest
//!   without its content.

mod content;
mod cursor;
mod graph;
mod held;
mod leftovers;
mod mentions;
mod repository;
#[cfg(test)]
mod tests;
pub(super) mod untagged;
mod would_go;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use self::cursor::CollectionCursor;
use self::held::HeldContent;
use self::would_go::WouldGo;
use super::count::RepositoryWalk;
use super::data_directory::DataDirectory;
use super::layout::Pool;
use crate::oci::{Digest, Name};
use crate::store::StoreError;
use crate::store::maintenance::{Interrupted, LeftItem, Run};

/// What a collection may remove.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GcSettings {
    /// For how long it keeps what a client was told of.
    pub grace: Duration,
    /// For how long it keeps manifests that no tag leads to; `None`: forever.
    pub untagged: Option<Duration>,
    /// Removes nothing, and reports what would go.
    pub dry_run: bool,
}

/// What a collection did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GcReport {
    /// The repositories that it looked at, and that held something.
    pub repositories: u64,
    /// The blobs that it took from a repository.
    pub links: u64,
    /// The manifests that it took from a repository.
    pub entries: u64,
    /// The blobs whose content it removed, as no repository held them.
    pub blobs: u64,
    /// The manifests whose content it removed, as no repository held them.
    pub manifests: u64,
    /// What that frees on disk, in bytes.
    pub freed: u64,
    /// How often it left something as it is, because it could not be read or removed.
    pub skipped: u64,
    /// What that was, the first [`LeftItem::MOST`] of it.
    #[serde(default)]
    pub left: Vec<LeftItem>,
    /// Whether all content stays, because nobody knows whether a repository needs it.
    #[serde(default)]
    pub keeps_content: bool,
    /// What it took from repositories, the first [`GcReport::MOST`] of it.
    #[serde(default)]
    pub taken: Vec<TakenItem>,
    /// The repositories that it left to the next collection, because they were written to all the time.
    #[serde(default)]
    pub busy: u64,
}

/// A blob or a manifest that a collection took from a repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakenItem {
    /// The repository.
    pub repository: String,
    /// The directory of its content: `blobs` or `manifests`.
    pub pool: String,
    /// Its digest.
    pub digest: Digest,
}

impl GcReport {
    /// How much of what was taken a report names at most. The rest is only counted.
    pub const MOST: usize = 1000;

    /// Counts something that was taken from a repository.
    fn take(&mut self, repository: &Name, pool: Pool, digest: &Digest) {
        match pool {
            Pool::Blobs => self.links += 1,
            Pool::Manifests => self.entries += 1,
        }
        if self.taken.len() < Self::MOST {
            self.taken.push(TakenItem {
                repository: repository.as_str().to_owned(),
                pool: pool.directory().to_owned(),
                digest: digest.clone(),
            });
        }
    }

    /// Counts something that stays as it is.
    fn leave(&mut self, left: LeftItem) {
        // A repository that cannot be read is met twice: for what goes, and for what it holds.
        if self.left.last() == Some(&left) {
            return;
        }
        self.skipped += 1;
        if self.left.len() < LeftItem::MOST {
            self.left.push(left);
        }
    }
}

/// Why a collection ended early. What its report says is done all the same.
#[derive(Debug, thiserror::Error)]
pub enum GcError {
    /// It was stopped, and goes on from there next time.
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
    /// Another one runs.
    #[error("a collection is running already")]
    Running,
    /// The store failed.
    #[error("the collection failed")]
    Store(#[from] StoreError),
}

/// A collection in progress.
struct Collection<'c> {
    data: &'c Arc<DataDirectory>,
    settings: GcSettings,
    run: &'c Run,
    report: &'c mut GcReport,
    /// What was told before this may go.
    cutoff: SystemTime,
    /// Untagged manifests that were told before this may go; `None`: none of them.
    untagged_cutoff: Option<SystemTime>,
    held: HeldContent,
    /// Whether all repositories were read: only then it is known which content none of them holds.
    has_read_all: bool,
}

/// Collects. Blocks.
pub(super) fn collect(
    data: &Arc<DataDirectory>,
    settings: GcSettings,
    run: &Run,
    report: &mut GcReport,
) -> Result<(), GcError> {
    let watch = data.reliance.watch(&data.locks).ok_or(GcError::Running)?;
    let now = SystemTime::now();
    // A time that is not written anew may be too old by so much, and one in a cache by as much again.
    let slack = data.told.again() * 2;
    let before = |time: Duration| {
        let slack = if time.is_zero() {
            Duration::ZERO
        } else {
            slack
        };
        now.checked_sub(time + slack)
            .unwrap_or(SystemTime::UNIX_EPOCH)
    };
    let mut collection = Collection {
        data,
        settings,
        run,
        report,
        cutoff: before(settings.grace),
        untagged_cutoff: settings
            .untagged
            .map(|time| before(time.max(settings.grace))),
        held: HeldContent::default(),
        has_read_all: true,
    };
    collection.repositories()?;
    if !collection.has_read_all {
        tracing::warn!("no content is removed, since not all repositories can be read");
        collection.report.keeps_content = true;
        return Ok(());
    }
    collection.content(&watch)
}

impl Collection<'_> {
    /// Goes through all repositories: takes from them what is not needed, and notes what they hold.
    fn repositories(&mut self) -> Result<(), GcError> {
        self.run.begin("repositories", None);
        let mut cursor = CollectionCursor::read(self.data);
        if self.settings.dry_run {
            cursor = CollectionCursor::start();
        }
        self.walk_or_stop(&mut cursor)?;
        if cursor.is_before_its_place() {
            // The repository at which the last one stopped is gone.
            cursor = CollectionCursor::start();
            // What that walk has noted is before anything was removed.
            self.held = HeldContent::default();
            self.walk_or_stop(&mut cursor)?;
        }
        if !self.settings.dry_run {
            CollectionCursor::remove(self.data);
        }
        // Before content goes, removals are on disk that were not of this collection, too.
        Ok(self.data.root.check()?)
    }

    /// Goes through the repositories. The next collection goes on where this one is stopped.
    fn walk_or_stop(&mut self, cursor: &mut CollectionCursor) -> Result<(), GcError> {
        let walked = self.walk(cursor);
        if let Err(GcError::Interrupted(_)) = &walked
            && !self.settings.dry_run
        {
            cursor.write(self.data);
        }
        walked
    }

    fn walk(&mut self, cursor: &mut CollectionCursor) -> Result<(), GcError> {
        let mut walk = RepositoryWalk::new(Arc::clone(self.data));
        for name in walk.by_ref() {
            let name = match name {
                Ok(name) => name,
                Err(error @ StoreError::Lost { .. }) => return Err(error.into()),
                Err(error) => {
                    self.skip(None, &error);
                    self.has_read_all = false;
                    continue;
                }
            };
            self.run.pause()?;
            let is_passed = cursor.passes(&name);
            let before = self.report.links + self.report.entries;
            let gone = if is_passed {
                self.repository(&name)?
            } else {
                WouldGo::default()
            };
            let holds = self.hold(&name, &gone)?;
            // A directory above repositories holds nothing, and is none.
            if is_passed && (holds || self.report.links + self.report.entries > before) {
                self.report.repositories += 1;
            }
            self.run.advance(1);
            if !self.settings.dry_run {
                cursor.done(self.data, name);
            }
        }
        if walk.has_met_links() {
            let reason = "a symbolic link among the repositories: what it leads to is not known";
            tracing::warn!("{reason}");
            self.report.leave(LeftItem::because(None, reason));
            self.has_read_all = false;
        }
        Ok(())
    }

    /// Notes the content of a repository. Returns whether it has any.
    fn hold(&mut self, name: &Name, gone: &WouldGo) -> Result<bool, GcError> {
        let pause = || Ok::<_, GcError>(self.run.pause()?);
        let held = self.held.add(self.data, name, gone, pause);
        let holds = self.skip_unreadable(Some(name), held)?;
        self.has_read_all &= holds.is_some();
        Ok(holds.unwrap_or(true))
    }

    /// Goes on after what cannot be read or removed, and returns `None` then. A lost data directory and an
    /// interruption are errors.
    fn skip_unreadable<T>(
        &mut self,
        name: Option<&Name>,
        done: Result<T, GcError>,
    ) -> Result<Option<T>, GcError> {
        match done {
            Err(GcError::Store(error)) if !matches!(error, StoreError::Lost { .. }) => {
                self.skip(name, &error);
                Ok(None)
            }
            done => done.map(Some),
        }
    }

    /// Notes that something stays as it is because it cannot be read.
    fn skip(&mut self, name: Option<&Name>, error: &StoreError) {
        let left = LeftItem::failed(name, error);
        let (repository, error) = (left.repository.as_deref(), left.reason.as_str());
        tracing::warn!(repository, error, "left as it is by the collection");
        self.report.leave(left);
    }
}
