//! Removes content that no repository holds.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt;

use super::{Collection, GcError};
use crate::oci::{Algorithm, Digest};
use crate::store::fs::changes::ContentCounts;
use crate::store::fs::directories::remove_empty;
use crate::store::fs::disk;
use crate::store::fs::durable::{UnsyncedDirectories, remove_name};
use crate::store::fs::file::{allocated, if_there, visit_entries};
use crate::store::fs::layout::{Pool, Shard};
use crate::store::fs::options::Durability;
use crate::store::fs::reliance::RelianceWatch;
use crate::store::maintenance::LeftItem;
use crate::store::{Result, StoreError};

impl Collection<'_> {
    /// Removes what is in no repository, shard by shard.
    pub(super) fn content(
        &mut self,
        watch: &RelianceWatch<'_>,
    ) -> std::result::Result<(), GcError> {
        let shards: Vec<_> = Shard::all().collect();
        self.run.begin("content", Some(shards.len() as u64));
        let mut is_synced = self.settings.dry_run || self.data.durability == Durability::Relaxed;
        for shard in shards {
            let done = self.shard(shard, watch, &mut is_synced);
            self.skip_unreadable(None, done)?;
            self.run.advance(1);
        }
        if watch.has_lost_track() {
            let reason = "too much was pushed meanwhile: the next collection removes the rest";
            tracing::warn!("{reason}");
            self.report.leave(LeftItem::because(None, reason));
        }
        Ok(())
    }

    fn shard(
        &mut self,
        shard: Shard,
        watch: &RelianceWatch<'_>,
        is_synced: &mut bool,
    ) -> std::result::Result<(), GcError> {
        let data = self.data;
        let directory = data.layout.shard(shard);
        let mut unsynced = UnsyncedDirectories::none();
        visit_entries::<GcError>(&directory, |file| {
            // A file that the store did not make stays.
            let Some(digest) = digest_of(shard.algorithm, &file.file_name())
                .filter(|digest| Shard::of(shard.pool, digest) == shard)
            else {
                return Ok(());
            };
            if self.held.contains(shard, &digest) {
                return Ok(());
            }
            self.run.pause()?;
            data.root.check()?;
            if !*is_synced {
                // So that no crash brings back a name whose content goes now.
                self.sync_everything()?;
                *is_synced = true;
            }
            let removed = self
                .remove_one(shard, &digest, watch)
                .map_err(GcError::from);
            if let Some(removed) = self.skip_unreadable(None, removed)?.flatten() {
                unsynced.add(removed);
            }
            Ok(())
        })?;
        if !self.settings.dry_run {
            remove_empty(data, &directory, &data.layout.pool(shard.pool));
        }
        Ok(unsynced.with(()).sync(data)?)
    }

    /// Removes content, unless an operation may rely on it.
    fn remove_one(
        &mut self,
        shard: Shard,
        digest: &Digest,
        watch: &RelianceWatch<'_>,
    ) -> Result<Option<UnsyncedDirectories>> {
        let data = self.data;
        let path = data.layout.content(shard.pool, digest);
        // The last holder of a file frees its bytes, which may take long: this one, after the lock.
        let _holder = disk::hold(&path);
        let mut lock = data.locks.shard(shard);
        if watch.may_rely_on(shard, digest) {
            return Ok(None);
        }
        let Some(found) = if_there(&path, fs::symlink_metadata(&path))? else {
            return Ok(None);
        };
        // What a person put there in its place is theirs.
        if !found.is_file() {
            return Ok(None);
        }
        let bytes = allocated(&found);
        let mut removed = None;
        if !self.settings.dry_run {
            removed = remove_name(data, &path)?;
            lock.changes += 1;
            let change = ContentCounts {
                items: -1,
                allocated: -bytes,
            };
            data.changes.content(shard, &change);
        }
        match shard.pool {
            Pool::Blobs => self.report.blobs += 1,
            Pool::Manifests => self.report.manifests += 1,
        }
        // Another name, as in a backup that is made of links, keeps the bytes.
        if found.nlink() == 1 {
            self.report.freed += u64::try_from(bytes).unwrap_or_default();
        }
        Ok(removed)
    }

    fn sync_everything(&self) -> Result<()> {
        let root = self.data.root.path();
        let synced = disk::sync_file_system(self.data.root.lock(), root);
        synced.map_err(|error| StoreError::io(root, error))
    }
}

/// The digest whose content has this file name.
fn digest_of(algorithm: Algorithm, file: &OsStr) -> Option<Digest> {
    Digest::parse(&format!("{algorithm}:{}", file.to_str()?)).ok()
}
