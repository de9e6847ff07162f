//! Moves corrupt content to where nobody serves it.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use super::super::changes::ContentCounts;
use super::super::data_directory::DataDirectory;
use super::super::directories::with_directory_of;
use super::super::disk;
use super::super::durable::UnsyncedDirectories;
use super::super::file::{allocated, allocated_at, if_there};
use super::super::layout::{Pool, Shard};
use super::hashing::{Content, ReadFile};
use crate::store::Result;

/// Moves an item, if its file is still the one that was read. Returns whether it is.
pub(super) fn quarantine(data: &DataDirectory, content: &Content, file: &ReadFile) -> Result<bool> {
    let (shard, path) = (Shard::of(content.pool, &content.digest), &content.path);
    let target = data.layout.quarantined(content.pool, &content.digest);
    {
        let mut lock = data.locks.shard(shard);
        data.root.check()?;
        let Some(found) = if_there(path, fs::symlink_metadata(path))? else {
            return Ok(false);
        };
        if (found.dev(), found.ino()) != file.identity {
            return Ok(false);
        }
        // An earlier one of this digest is replaced: the new one shows what is wrong as well.
        let (moved, replaced) = (allocated(&found), allocated_at(&target));
        let directory = data.layout.shard(shard);
        with_directory_of(data, &target, || {
            data.directories
                .change(&directory, || disk::rename(path, &target))
        })?;
        lock.changes += 1;
        let change = ContentCounts {
            items: -1,
            allocated: -moved,
        };
        data.changes.content(shard, &change);
        data.changes.directories(moved - replaced);
    }
    if content.pool == Pool::Manifests {
        // Without the shard's lock, which is taken after a repository's. A reader that opened the file
        // before it was moved does not add it to the cache after this.
        data.locks.change_all_repositories();
        data.manifests.forget_content(&content.digest);
    }
    let mut unsynced = UnsyncedDirectories::of(&data.layout.quarantine());
    unsynced.add(UnsyncedDirectories::of(&data.layout.shard(shard)));
    unsynced.with(true).sync(data)
}
