//! Takes from a repository the blobs that none of its manifests mentions.

use std::collections::HashSet;
use std::fs;
use std::mem;

use super::would_go::WouldGo;
use super::{Collection, GcError, mentions};
use crate::oci::{Digest, Name};
use crate::store::Result;
use crate::store::fs::blob;
use crate::store::fs::durable::UnsyncedDirectories;
use crate::store::fs::file::{if_there, visit_entries};
use crate::store::fs::layout::{Pool, digest_of};
use crate::store::fs::prune_watch::PruneWatch;
use crate::store::fs::reliance::fingerprint;
use crate::store::fs::told;

/// How many names are removed under one hold of the lock: a millisecond or less, for which other requests
/// wait.
pub(super) const AT_ONCE: usize = 32;

/// How many manifests that were written meanwhile are read. A repository to which more are is left as it is.
pub(super) const MOST_WRITTEN: usize = 10_000;

/// The blobs of a repository that may go.
struct UnusedBlobs {
    /// Those that were not crossed off, by fingerprint. No more than the repository has links.
    left: HashSet<u64>,
    /// The manifests that were written meanwhile and were read.
    read: HashSet<Digest>,
}

impl Collection<'_> {
    /// Takes from a repository what it does not need. Returns what a dry run would take.
    pub(super) fn repository(&mut self, name: &Name) -> std::result::Result<WouldGo, GcError> {
        let mut gone = WouldGo::default();
        let mut pruned = self.prune(name, &mut gone);
        if pruned.is_ok() && !self.settings.dry_run {
            pruned = self.leftovers(name);
        }
        if self.skip_unreadable(Some(name), pruned)?.is_none() {
            // A repository without its directory looks empty.
            self.data.root.check()?;
            return Ok(WouldGo::default());
        }
        Ok(gone)
    }

    fn prune(&mut self, name: &Name, gone: &mut WouldGo) -> std::result::Result<(), GcError> {
        let data = self.data;
        let watch = data.pruned.watch(name);
        // A manifest whose write has begun before is in the directory once its lock is released.
        drop(data.locks.repository(name));
        if let Some(cutoff) = self.untagged_cutoff {
            let has_met_all = self.untagged(name, cutoff, &watch, gone)?;
            if !has_met_all {
                self.busy(name);
                return Ok(());
            }
        }
        // Most repositories have nothing to remove, and need not be read for it.
        let old = self.old_links(name)?;
        if old.is_empty() {
            return Ok(());
        }
        let mut unused = self.unused(name, old, gone)?;
        // The deletion of a manifest that was not found may not be on disk yet: that of a run that was killed,
        // too. No crash may bring it back without its blobs.
        let deletions = UnsyncedDirectories::of(&data.layout.manifest_entries(name));
        deletions.with(()).sync(data)?;
        let mut batch = Vec::new();
        let mut unsynced = UnsyncedDirectories::none();
        visit_entries(&data.layout.blob_links(name), |file| {
            if let Some(digest) = digest_of(&file.file_name())
                && unused.left.contains(&fingerprint(&digest))
                && self.is_old(name, &digest)?
            {
                batch.push(digest);
            }
            if batch.len() == AT_ONCE {
                let batch = mem::take(&mut batch);
                self.unlink(name, batch, &mut unused, &watch, gone, &mut unsynced)?;
                self.run.pause()?;
            }
            Ok::<_, GcError>(())
        })?;
        self.unlink(name, batch, &mut unused, &watch, gone, &mut unsynced)?;
        Ok(unsynced.with(()).sync(data)?)
    }

    /// Notes that a repository stays as it is because it changes all the time.
    pub(super) fn busy(&mut self, name: &Name) {
        self.report.busy += 1;
        tracing::info!(
            repository = name.as_str(),
            "too busy for a collection: left for the next one"
        );
    }

    fn old_links(&self, name: &Name) -> std::result::Result<HashSet<u64>, GcError> {
        let mut old = HashSet::new();
        visit_entries::<GcError>(&self.data.layout.blob_links(name), |file| {
            if let Some(digest) = digest_of(&file.file_name())
                && self.is_old(name, &digest)?
            {
                old.insert(fingerprint(&digest));
            }
            Ok(self.run.pause()?)
        })?;
        Ok(old)
    }

    fn is_old(&self, name: &Name, digest: &Digest) -> Result<bool> {
        let path = self.data.layout.blob_link(name, digest);
        let found = if_there(&path, fs::metadata(&path))?;
        Ok(found.is_some_and(|found| told::is_before(&found, self.cutoff)))
    }

    /// The blobs that no manifest of a repository mentions, but for those manifests that would go.
    fn unused(
        &self,
        name: &Name,
        old: HashSet<u64>,
        gone: &WouldGo,
    ) -> std::result::Result<UnusedBlobs, GcError> {
        let mut unused = UnusedBlobs {
            left: old,
            read: HashSet::new(),
        };
        let entries = self.data.layout.manifest_entries(name);
        visit_entries(&entries, |file| {
            if let Some(digest) = digest_of(&file.file_name())
                && !gone.manifests.contains(&fingerprint(&digest))
            {
                self.cross_off(name, &digest, &mut unused)?;
                self.run.pause()?;
            }
            Ok::<_, GcError>(())
        })?;
        Ok(unused)
    }

    /// Crosses off what a manifest mentions. Returns false if it is not there any more.
    fn cross_off(&self, name: &Name, digest: &Digest, unused: &mut UnusedBlobs) -> Result<bool> {
        let left = &mut unused.left;
        let found = mentions::of_manifest(self.data, name, digest, |found| {
            left.remove(&fingerprint(&found));
        })?;
        Ok(found.is_some())
    }

    /// Takes blobs from the repository that still none of its manifests mentions.
    fn unlink(
        &mut self,
        name: &Name,
        batch: Vec<Digest>,
        unused: &mut UnusedBlobs,
        watch: &PruneWatch<'_>,
        gone: &mut WouldGo,
        unsynced: &mut UnsyncedDirectories,
    ) -> std::result::Result<(), GcError> {
        let data = self.data;
        if batch.is_empty() {
            return Ok(());
        }
        data.root.check()?;
        let mut lock = loop {
            let lock = data.locks.repository(name);
            let written = watch.written();
            let Some(mut written) = written.filter(|_| unused.read.len() < MOST_WRITTEN) else {
                drop(lock);
                // From now on nothing of it is known to be unused.
                unused.left.clear();
                self.busy(name);
                return Ok(());
            };
            // What was read says the same as before.
            written.retain(|digest| !unused.read.contains(digest));
            if written.is_empty() {
                break lock;
            }
            drop(lock);
            for digest in written {
                if self.cross_off(name, &digest, unused)? {
                    unused.read.insert(digest);
                }
                self.run.pause()?;
            }
        };
        for digest in batch {
            // Once more: a client may have been told of it since.
            if !unused.left.contains(&fingerprint(&digest)) || !self.is_old(name, &digest)? {
                continue;
            }
            if self.settings.dry_run {
                gone.blobs.insert(fingerprint(&digest));
                self.report.take(name, Pool::Blobs, &digest);
            } else if let Some(removed) = blob::remove_link(data, name, &digest, &mut lock)? {
                unsynced.add(removed);
                self.report.take(name, Pool::Blobs, &digest);
            }
        }
        Ok(())
    }
}
