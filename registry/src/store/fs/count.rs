//! Counts what the store holds, for the statistics. Everything here blocks.
//!
//! A count is reported under the same lock as changes of what was counted
//! ([`Changes`](super::Changes)), so that a count and the changes around it add up.

use std::fs::{self, FileType, ReadDir};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use super::changes::{ContentCounts, RepositoryCounts};
use super::data_directory::DataDirectory;
use super::disk;
use super::file::{allocated, allocated_at, each_entry, if_there};
use super::layout::{Layout, RESERVED, Shard, digest_of};
use super::locks::settled;
use super::{blob, manifest};
use crate::oci::Name;
use crate::store::{Result, StoreError};

/// Counts a repository, and calls `report` with the result while nobody can change it.
pub(super) fn repository(
    data: &DataDirectory,
    name: &Name,
    report: impl FnOnce(RepositoryCounts),
) -> Result<()> {
    settled(
        || data.locks.repository(name),
        || count_repository(data, name),
        |_, counts| {
            // Without the directory the count would be 0.
            data.root.check()?;
            report(counts);
            Ok(())
        },
    )
}

/// Counts a shard of content, and calls `report` with the result while nobody can change it.
pub(super) fn shard(
    data: &DataDirectory,
    shard: Shard,
    report: impl FnOnce(ContentCounts),
) -> Result<()> {
    settled(
        || data.locks.shard(shard),
        || count_shard(data, shard),
        |_, counts| {
            // Without the directory the count would be 0.
            data.root.check()?;
            report(counts);
            Ok(())
        },
    )
}

/// What everything but repositories, content and uploads takes on disk, in bytes: the directories, the
/// quarantine and small files.
pub(super) fn fixed_allocated(layout: &Layout) -> i64 {
    let mut paths = Vec::new();
    for shard in Shard::all() {
        let directory = layout.shard(shard);
        // The directories of the pool and of the algorithm above it, too.
        paths.extend(directory.ancestors().take(3).map(Path::to_owned));
    }
    paths.extend([
        layout.root().to_owned(),
        layout.lock(),
        layout.temporaries(),
        layout.maintenance(),
        layout.quarantine(),
    ]);
    for directory in [layout.maintenance(), layout.quarantine()] {
        // One that cannot be listed counts by itself: statistics are no reason to fail.
        let _ = each_entry(&directory, |entry| {
            paths.push(entry.path());
            Ok(())
        });
    }
    paths.sort_unstable();
    paths.dedup();
    paths.iter().map(|path| allocated_at(path)).sum()
}

/// What the open upload sessions take on disk, in bytes.
pub(super) fn uploads_allocated(data: &DataDirectory) -> Result<i64> {
    let mut total = allocated_at(&data.layout.uploads());
    each_entry(&data.layout.uploads(), |session| {
        let directory = session.path();
        total += allocated_at(&directory);
        each_entry(&directory, |file| {
            let path = file.path();
            // During a commit the file is content as well, and is counted there.
            let metadata = if_there(&path, fs::symlink_metadata(&path))?;
            total += metadata
                .filter(|metadata| metadata.nlink() == 1)
                .map_or(0, |metadata| allocated(&metadata));
            Ok(())
        })
    })?;
    data.root.confirm(Ok(total))
}

fn count_repository(data: &DataDirectory, name: &Name) -> Result<RepositoryCounts> {
    let mut counts = RepositoryCounts::default();
    let layout = &data.layout;
    each_entry(&layout.blob_links(name), |file| {
        // A file of another name is not ours, and is not counted.
        if let Some(digest) = digest_of(&file.file_name()) {
            counts.blobs += 1;
            counts.allocated += allocated_at(&file.path());
            counts.stored += blob::stored(data, name, &digest)?;
        }
        Ok(())
    })?;
    manifest::each(data, name, |_, path| {
        if let Some(entry) = manifest::ManifestEntry::read(path)? {
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

fn count_shard(data: &DataDirectory, shard: Shard) -> Result<ContentCounts> {
    let mut counts = ContentCounts::default();
    each_entry(&data.layout.shard(shard), |file| {
        counts.items += 1;
        counts.allocated += allocated_at(&file.path());
        Ok(())
    })?;
    Ok(counts)
}

/// A walk through the tree of repositories that can pause after each of them.
pub struct RepositoryWalk {
    data: Arc<DataDirectory>,
    stack: Vec<(String, ReadDir)>,
    started: bool,
    ended: bool,
    allocated: i64,
    has_met_links: bool,
}

impl RepositoryWalk {
    pub(super) fn new(data: Arc<DataDirectory>) -> Self {
        Self {
            data,
            stack: Vec::new(),
            started: false,
            ended: false,
            allocated: 0,
            has_met_links: false,
        }
    }

    /// Whether a name that may be a repository was a symbolic link, or nobody knows what: requests follow
    /// it, and the walk does not.
    pub(super) fn has_met_links(&self) -> bool {
        self.has_met_links
    }

    /// What the directories visited so far take on disk, in bytes.
    pub fn directories_allocated(&self) -> i64 {
        self.allocated
    }

    fn enter(&mut self, name: String) -> Result<()> {
        let path = self.data.layout.repositories().join(&name);
        // A deletion may have removed the directory since its parent was read.
        if let Some(entries) = if_there(&path, disk::read_directory(&path))? {
            self.allocated += allocated_at(&path);
            self.stack.push((name, entries));
        }
        Ok(())
    }

    fn visit_reserved(&mut self, directory: &Path) -> Result<()> {
        self.allocated += allocated_at(directory);
        if directory.ends_with("_referrers") {
            each_entry(directory, |subject| {
                self.allocated += allocated_at(&subject.path());
                Ok(())
            })?;
        }
        Ok(())
    }

    fn step(&mut self, entry: &fs::DirEntry) -> Result<Option<Name>> {
        let file = entry.file_name();
        let kind = entry.file_type();
        self.has_met_links |= kind.as_ref().map_or(true, FileType::is_symlink);
        let is_directory = kind.is_ok_and(|kind| kind.is_dir());
        let (Some(file), true) = (file.to_str(), is_directory) else {
            return Ok(None);
        };
        if file.starts_with(RESERVED) {
            self.visit_reserved(&entry.path())?;
            return Ok(None);
        }
        let name = match self.stack.last() {
            Some((above, _)) if !above.is_empty() => format!("{above}/{file}"),
            _ => file.to_owned(),
        };
        // The store makes no such directory, so that nothing below it is a repository.
        let Ok(parsed) = Name::parse(&name) else {
            return Ok(None);
        };
        self.enter(name)?;
        Ok(Some(parsed))
    }
}

impl Iterator for RepositoryWalk {
    type Item = Result<Name>;

    fn next(&mut self) -> Option<Self::Item> {
        if !std::mem::replace(&mut self.started, true)
            && let Err(e) = self.enter(String::new())
        {
            return Some(Err(e));
        }
        loop {
            let Some((name, entries)) = self.stack.last_mut() else {
                // A data directory that is gone looks like an empty tree.
                let is_first = !std::mem::replace(&mut self.ended, true);
                let checked = self.data.root.check();
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
