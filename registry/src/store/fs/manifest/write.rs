//! Writes a manifest: its content, its descriptor among the referrers, its entry and its tags.

use std::path::Path;

use serde::Serialize;

use super::entry::ManifestEntry;
use crate::oci::{Digest, Name, Tag};
use crate::store::fs::changes::{ContentCounts, RepositoryCounts};
use crate::store::fs::data_directory::DataDirectory;
use crate::store::fs::durable::{Draft, Synced, Unsynced, UnsyncedDirectories};
use crate::store::fs::file::{allocated_at, exists, has_length};
use crate::store::fs::layout::{Pool, Shard};
use crate::store::fs::{blob, reference, tag, told};
use crate::store::{Condition, NewManifest, Result, StoreError, TagChanges};

/// How often a write begins anew because a collection or a deletion has removed what it had made.
const ATTEMPTS: usize = 3;

/// What earlier attempts of one write have done: on a full disk a write is attempted again.
#[derive(Default)]
pub(in crate::store::fs) struct WriteProgress {
    /// The entry is visible, and the condition held when it appeared. The next attempt must not check
    /// the condition against that entry.
    has_begun: bool,
    changes: TagChanges,
}

pub(in crate::store::fs) fn write(
    data: &DataDirectory,
    name: &Name,
    new: &NewManifest,
    tags: &[Tag],
    condition: Option<&Condition>,
    progress: &mut WriteProgress,
) -> Result<Unsynced<TagChanges>> {
    let mut write = |is_last| attempt(data, name, new, tags, condition, progress, is_last);
    for _ in 1..ATTEMPTS {
        if let Some(written) = write(false)? {
            return Ok(written);
        }
    }
    write(true)?.ok_or(StoreError::ManifestUnknown)
}

/// Writes a manifest. Returns `None` if its content or its entry was removed in the middle, as by a
/// collection, or if what it refers to was, and was made again.
fn attempt(
    data: &DataDirectory,
    name: &Name,
    new: &NewManifest,
    tags: &[Tag],
    condition: Option<&Condition>,
    progress: &mut WriteProgress,
    is_last: bool,
) -> Result<Option<Unsynced<TagChanges>>> {
    let condition = condition.filter(|_| !progress.has_begun);
    // Read before the checks: a removal that comes after them makes them run again.
    let before = data.locks.repository(name).removals;
    reference::check_condition(data, name, condition)?;
    check(data, name, new)?;
    // And what was found is on disk before the entry has a name: no crash leaves a manifest without its blobs.
    references(data, name, new).with(()).sync(data)?;

    // All bytes are on disk, aside, before the lock is taken and any name is visible.
    let layout = &data.layout;
    let content = layout.content(Pool::Manifests, &new.digest);
    let size = new.bytes.len() as u64;
    let shard = layout.shard(Shard::of(Pool::Manifests, &new.digest));
    let mut unsynced = UnsyncedDirectories::none();
    // The content's name is on disk before the entry has one: no crash leaves an entry without content.
    // Content of another length is damaged, and is replaced by what was pushed.
    if has_length(&content, size)? {
        let mut found = UnsyncedDirectories::none();
        found.rely_on(data, shard.clone());
        found.with(()).sync(data)?;
        unsynced.add(UnsyncedDirectories::of(&shard));
    } else {
        let draft = Draft::write(data, &new.bytes)?.sync(data)?;
        let kept = keep(data, draft, &content, &new.digest, size)?;
        kept.with(()).sync(data)?;
    }
    let referrer = match &new.subject {
        Some((subject, descriptor)) => {
            let path = layout.referrer(name, subject, &new.digest);
            let draft = Draft::write(data, &json(&path, descriptor)?)?.sync(data)?;
            Some((draft, path))
        }
        None => None,
    };
    let tag_drafts = tags
        .iter()
        .map(|_| tag::draft(data, &new.digest)?.sync(data))
        .collect::<Result<Vec<_>>>()?;
    let path = layout.manifest_entry(name, &new.digest);
    let entry = ManifestEntry::of(new);
    let entry_draft = Draft::write(data, &json(&path, &entry)?)?.sync(data)?;

    let mut lock = data.locks.repository(name);
    // Once more: under the lock no other request can make it false.
    reference::check_condition(data, name, condition)?;
    if lock.removals != before {
        check(data, name, new)?;
        let made_again = references(data, name, new);
        if !made_again.is_empty() {
            if !is_last {
                return Ok(None);
            }
            // The rare case in which others wait for the disk: it cannot be removed and made again meanwhile.
            made_again.with(()).sync(data)?;
        }
    }
    if blob::rely_on(data, Pool::Manifests, &new.digest)? != Some(size) {
        return Ok(None);
    }
    data.pruned.say(name, &new.digest);
    lock.changes += 1;
    // Equal bytes may come with another media type, which the cached entry does not have.
    data.manifests.forget_manifest(name, &new.digest);
    // In the order in which they refer to each other: the entry makes the manifest exist, and a tag leads
    // to the entry.
    if let Some((draft, path)) = referrer {
        let change = RepositoryCounts {
            allocated: draft.allocated() - allocated_at(&path),
            ..Default::default()
        };
        unsynced.add(draft.place(data, &path)?);
        data.changes.repository(name, &change);
    }
    let old = match ManifestEntry::read(&path) {
        // It is repaired. What it added to the statistics is not known.
        Err(StoreError::Corrupt { .. }) => None,
        found => found?,
    };
    if old.as_ref() == Some(&entry) {
        told::renew(data, &path);
        unsynced.add(UnsyncedDirectories::of(&layout.manifest_entries(name)));
    } else {
        // The old figures are subtracted and the new ones added: the media type may have changed.
        let mut change = RepositoryCounts::default();
        if let Some(old) = old {
            change -= old.counts(allocated_at(&path));
        }
        change += entry.counts(entry_draft.allocated());
        unsynced.add(entry_draft.place(data, &path)?);
        data.changes.repository(name, &change);
    }
    progress.has_begun = true;
    if tag::any_moves(data, name, tags, &new.digest) {
        // A tag that led elsewhere was acknowledged: no crash may keep its move and undo the entry.
        let entry = unsynced.with(());
        unsynced = UnsyncedDirectories::none();
        if is_last || condition.is_some() {
            // The rare case in which others wait for the disk: without the lock the condition could
            // become false while the entry is visible.
            entry.sync(data)?;
        } else {
            drop(lock);
            entry.sync(data)?;
            lock = data.locks.repository(name);
            if !exists(&path)? {
                return Ok(None);
            }
            lock.changes += 1;
        }
    }
    for (tag, draft) in tags.iter().zip(tag_drafts) {
        let changes = &mut progress.changes;
        unsynced.add(tag::place(data, name, tag, &new.digest, draft, changes)?);
    }
    Ok(Some(unsynced.with(progress.changes)))
}

/// What the manifest refers to may have been pushed by a request that has not synced it yet. This
/// request found it, and its client counts on it.
fn references(data: &DataDirectory, name: &Name, new: &NewManifest) -> UnsyncedDirectories {
    let mut unsynced = UnsyncedDirectories::none();
    for digest in &new.blobs {
        unsynced.rely_on(data, data.layout.shard(Shard::of(Pool::Blobs, digest)));
    }
    for digest in &new.children {
        unsynced.rely_on(data, data.layout.shard(Shard::of(Pool::Manifests, digest)));
    }
    if !new.blobs.is_empty() {
        unsynced.rely_on(data, data.layout.blob_links(name));
    }
    if !new.children.is_empty() {
        unsynced.rely_on(data, data.layout.manifest_entries(name));
    }
    unsynced
}

/// Fails unless the repository holds all blobs and manifests that it must hold.
fn check(data: &DataDirectory, name: &Name, new: &NewManifest) -> Result<()> {
    let mut digests = Vec::new();
    for digest in &new.blobs {
        if blob::size(data, name, digest)?.is_none() {
            digests.push(digest.clone());
        }
    }
    for digest in &new.children {
        if !exists(&data.layout.manifest_entry(name, digest))? {
            digests.push(digest.clone());
        }
    }
    if digests.is_empty() {
        Ok(())
    } else {
        Err(StoreError::ReferenceUnknown { digests })
    }
}

/// Makes a draft the content of `digest`, unless another request has done so meanwhile. Until a repository
/// holds it, a collection may remove it.
fn keep(
    data: &DataDirectory,
    draft: Synced,
    content: &Path,
    digest: &Digest,
    size: u64,
) -> Result<UnsyncedDirectories> {
    let shard = Shard::of(Pool::Manifests, digest);
    let mut lock = data.locks.shard(shard);
    data.reliance.say(shard, digest);
    if has_length(content, size)? {
        return Ok(UnsyncedDirectories::of(&data.layout.shard(shard)));
    }
    let change = ContentCounts {
        items: i64::from(!exists(content)?),
        allocated: draft.allocated() - allocated_at(content),
    };
    let unsynced = draft.place(data, content)?;
    lock.changes += 1;
    data.changes.content(shard, &change);
    Ok(unsynced)
}

fn json<T: Serialize>(path: &Path, value: &T) -> Result<Vec<u8>> {
    let mut text = serde_json::to_vec(value).map_err(|e| StoreError::io(path, e.into()))?;
    text.push(b'\n');
    Ok(text)
}
