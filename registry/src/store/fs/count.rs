//! Counting what there is, for the statistics. Everything here blocks.
//!
//! What is counted is told under the same lock as changes of it are
//! ([`Changes`](super::Changes)), so that a count and the changes around it add up.

use std::fmt;
use std::fs::{self, ReadDir};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use super::changes::{ContentCounts, RepositoryCounts};
use super::file::{allocated, allocated_at, each_entry, if_there};
use super::layout::{Pool, RESERVED, Shard, digest_of};
use super::locks::settled;
use super::upload::sessions::{Sessions, UploadTotals};
use super::{FsStore, Inner, blob, manifest};
use crate::oci::{Digest, Name};
use crate::store::{Result, StoreError};

/// The file system that holds the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Its size in bytes.
    pub size: u64,
    /// What an ordinary user may still write, in bytes.
    pub available: u64,
    /// How many files may still be made.
    pub files_free: u64,
    /// How many files there may be in all; 0 where the file system has no such bound.
    pub files: u64,
    /// How many files an ordinary user may still make.
    pub files_available: u64,
}

/// The open upload sessions of a store, for whoever must not keep the store itself open.
#[derive(Clone)]
pub struct Uploads(Arc<Sessions>);

impl Uploads {
    /// All of them at this moment, summed up; from memory.
    pub fn totals(&self) -> UploadTotals {
        self.0.totals()
    }
}

impl fmt::Debug for Uploads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Uploads").field(&self.totals()).finish()
    }
}

impl FsStore {
    /// Counts a repository, and calls `tell` with the result while nobody can change it.
    pub fn survey_repository(
        &self,
        name: &Name,
        tell: impl FnOnce(RepositoryCounts),
    ) -> Result<()> {
        let inner = &self.inner;
        settled(
            || inner.locks.repository(name),
            || count_repository(inner, name),
            |_, counts| {
                // Without the directory there would be nothing to count.
                inner.root.check()?;
                tell(counts);
                Ok(())
            },
        )
    }

    /// Counts a shard of content, and calls `tell` with the result while nobody can change it.
    pub fn survey_shard(&self, shard: Shard, tell: impl FnOnce(ContentCounts)) -> Result<()> {
        let inner = &self.inner;
        settled(
            || inner.locks.shard(shard),
            || count_shard(inner, shard),
            |_, counts| {
                // Without the directory there would be nothing to count.
                inner.root.check()?;
                tell(counts);
                Ok(())
            },
        )
    }

    /// All folders that may be repositories, in no order, each followed by those below it.
    pub fn walk(&self) -> Walk {
        Walk {
            store: self.clone(),
            stack: Vec::new(),
            started: false,
            ended: false,
            folders: 0,
        }
    }

    /// What is there besides repositories, content and uploads takes: the folders of content, and
    /// the lock; in bytes.
    pub fn fixed_allocated(&self) -> i64 {
        let layout = &self.inner.layout;
        let shards = Shard::all().map(|shard| layout.shard(shard));
        let mut tops = Vec::new();
        for shard in Shard::all() {
            let folder = layout.shard(shard);
            tops.extend(folder.ancestors().skip(1).take(2).map(Path::to_owned));
        }
        tops.extend([
            layout.root().to_owned(),
            layout.lock(),
            layout.temporaries(),
        ]);
        tops.sort_unstable();
        tops.dedup();
        shards.chain(tops).map(|folder| allocated_at(&folder)).sum()
    }

    /// The open upload sessions, from the table in memory.
    pub fn uploads(&self) -> Uploads {
        Uploads(Arc::clone(&self.inner.sessions))
    }

    /// What the open upload sessions take on disk, in bytes.
    pub fn uploads_allocated(&self) -> Result<i64> {
        let mut total = allocated_at(&self.inner.layout.uploads());
        each_entry(&self.inner.layout.uploads(), |session| {
            let folder = session.path();
            total += allocated_at(&folder);
            each_entry(&folder, |file| {
                let path = file.path();
                // A commit may be under way: what has become a blob is counted as one.
                let metadata = if_there(&path, fs::symlink_metadata(&path))?;
                total += metadata
                    .filter(|m| m.nlink() == 1)
                    .map_or(0, |m| allocated(&m));
                Ok(())
            })
        })?;
        self.inner.root.confirm(Ok(total))
    }

    /// Asks the system about the space that is left.
    pub fn space(&self) -> Result<Space> {
        self.inner.space()
    }
}

impl Inner {
    pub(super) fn space(&self) -> Result<Space> {
        // Of what is held open: the path may lead to another file system by now.
        let failed = |e: rustix::io::Errno| StoreError::io(self.layout.root(), e.into());
        let told = rustix::fs::fstatvfs(self.root.lock()).map_err(failed)?;
        Ok(Space {
            size: told.f_blocks.saturating_mul(told.f_frsize),
            available: told.f_bavail.saturating_mul(told.f_frsize),
            files_free: told.f_ffree,
            files: told.f_files,
            files_available: told.f_favail,
        })
    }
}

fn count_repository(inner: &Inner, name: &Name) -> Result<RepositoryCounts> {
    let mut counts = RepositoryCounts::default();
    let layout = &inner.layout;
    each_entry(&layout.blob_links(name), |file| {
        if let Some(digest) = digest_of(&file.file_name()) {
            counts.blobs += 1;
            counts.allocated += allocated_at(&file.path());
            counts.stored += blob_size(inner, &digest)?;
        }
        Ok(())
    })?;
    manifest::each(inner, name, |_, path| {
        if let Some(entry) = manifest::Entry::read(path)? {
            counts += entry.counts(allocated_at(path));
        }
        Ok(())
    })?;
    each_entry(&layout.tags(name), |file| {
        counts.tags += 1;
        counts.allocated += allocated_at(&file.path());
        Ok(())
    })?;
    each_entry(&layout.all_referrers(name), |subject| {
        each_entry(&subject.path(), |file| {
            counts.allocated += allocated_at(&file.path());
            Ok(())
        })
    })?;
    Ok(counts)
}

fn blob_size(inner: &Inner, digest: &Digest) -> Result<i64> {
    let content = inner.layout.content(Pool::Blobs, digest);
    Ok(if_there(&content, fs::metadata(&content))?.map_or(0, |m| blob::signed(m.size())))
}

fn count_shard(inner: &Inner, shard: Shard) -> Result<ContentCounts> {
    let mut counts = ContentCounts::default();
    each_entry(&inner.layout.shard(shard), |file| {
        counts.items += 1;
        counts.allocated += allocated_at(&file.path());
        Ok(())
    })?;
    Ok(counts)
}

/// A walk through the tree of repositories that can be interrupted between any two of them.
#[derive(Debug)]
pub struct Walk {
    store: FsStore,
    stack: Vec<(String, ReadDir)>,
    started: bool,
    ended: bool,
    folders: i64,
}

impl Walk {
    /// What the folders met so far take on disk, in bytes.
    pub fn folders(&self) -> i64 {
        self.folders
    }

    fn enter(&mut self, name: String) -> Result<()> {
        let path = self.store.inner.layout.repositories().join(&name);
        if let Some(entries) = if_there(&path, fs::read_dir(&path))? {
            self.folders += allocated_at(&path);
            self.stack.push((name, entries));
        }
        Ok(())
    }

    fn reserved(&mut self, folder: &Path) -> Result<()> {
        self.folders += allocated_at(folder);
        if folder.ends_with("_referrers") {
            each_entry(folder, |subject| {
                self.folders += allocated_at(&subject.path());
                Ok(())
            })?;
        }
        Ok(())
    }

    fn step(&mut self, entry: &fs::DirEntry) -> Result<Option<Name>> {
        let file = entry.file_name();
        let folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let (Some(file), true) = (file.to_str(), folder) else {
            return Ok(None);
        };
        if file.starts_with(RESERVED) {
            self.reserved(&entry.path())?;
            return Ok(None);
        }
        let name = match self.stack.last() {
            Some((above, _)) if !above.is_empty() => format!("{above}/{file}"),
            _ => file.to_owned(),
        };
        let Ok(parsed) = Name::parse(&name) else {
            return Ok(None);
        };
        self.enter(name)?;
        Ok(Some(parsed))
    }
}

impl Iterator for Walk {
    type Item = Result<Name>;

    fn next(&mut self) -> Option<Self::Item> {
        if !std::mem::replace(&mut self.started, true)
            && let Err(e) = self.enter(String::new())
        {
            return Some(Err(e));
        }
        loop {
            let Some((name, entries)) = self.stack.last_mut() else {
                // What was taken away looks like an empty tree.
                let is_first = !std::mem::replace(&mut self.ended, true);
                let checked = self.store.inner.root.check();
                return checked.err().filter(|_| is_first).map(Err);
            };
            let Some(entry) = entries.next() else {
                self.stack.pop();
                continue;
            };
            let entry = entry.map_err(|e| StoreError::io(&*name, e));
            match entry.and_then(|entry| self.step(&entry)) {
                Ok(None) => {}
                Ok(Some(name)) => return Some(Ok(name)),
                Err(e) => return Some(Err(e)),
            }
        }
    }
}
