//! Manifests: content that is stored once, and an entry in each repository that holds it.
//!
//! The entry makes a manifest exist. The content, and the descriptor among its subject's referrers,
//! are there before the entry. A reader that finds one of them without the entry ignores it.

use std::io::Read;
use std::path::Path;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::changes::{ContentCounts, RepositoryCounts};
use super::data_directory::DataDirectory;
use super::directories::remove_empty;
use super::disk;
use super::durable::{Draft, Synced, Unsynced, UnsyncedDirectories, remove_name};
use super::file::{allocated_at, each_entry, exists, has_length, if_there, open_with_length};
use super::layout::{Pool, Shard, digest_of};
use super::locks::StripeChanges;
use super::manifest_cache::{self, StoredManifest};
use super::reader::BlobReader;
use super::{blob, reference, tag, told};
use crate::oci::{Digest, Kind, MediaType, Name, Reference, Spans, Tag};
use crate::store::{
    Condition, ManifestContent, ManifestRead, NewManifest, Result, StoreError, TagChanges,
};

/// The tags that a deletion removes under one hold of the lock: a millisecond or two, for which other
/// requests wait.
const TAGS_AT_ONCE: usize = 100;

/// How often a write begins anew because a collection or a deletion has removed what it had made.
const ATTEMPTS: usize = 3;

impl From<StoredManifest> for ManifestRead<BlobReader> {
    fn from(manifest: StoredManifest) -> Self {
        Self {
            digest: manifest.digest,
            media_type: manifest.media_type,
            size: manifest.bytes.len() as u64,
            content: ManifestContent::Whole(manifest.bytes),
        }
    }
}

/// The file of a manifest in a repository.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ManifestEntry {
    media_type: MediaType,
    kind: String,
    pub(super) size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) subject: Option<Digest>,
}

impl ManifestEntry {
    fn of(new: &NewManifest) -> Self {
        Self {
            media_type: new.media_type.clone(),
            kind: new.kind.as_str().to_owned(),
            size: new.bytes.len() as u64,
            subject: new.subject.as_ref().map(|(subject, _)| subject.clone()),
        }
    }

    /// The entry of a manifest; `None` if the repository does not hold it.
    pub(super) fn read(path: &Path) -> Result<Option<Self>> {
        let text = match disk::read(path) {
            Err(e) if disk::is_no_file(&e) => Vec::new(),
            read => match if_there(path, read)? {
                Some(text) => text,
                None => return Ok(None),
            },
        };
        let damaged = |_| StoreError::Corrupt {
            path: path.to_owned(),
            reason: "it is not a manifest entry",
        };
        serde_json::from_slice(&text).map(Some).map_err(damaged)
    }

    /// What this entry adds to the repository.
    pub(super) fn counts(&self, allocated: i64) -> RepositoryCounts {
        let kind = Kind::ALL
            .into_iter()
            .find(|kind| kind.as_str() == self.kind);
        let stored = blob::signed(self.size);
        let mut counts = RepositoryCounts {
            stored,
            allocated,
            ..Default::default()
        };
        counts.manifest(kind.unwrap_or(Kind::Other), 1);
        counts
    }
}

pub(super) fn read(
    data: &DataDirectory,
    name: &Name,
    reference: &Reference,
) -> Result<ManifestRead<BlobReader>> {
    let before = data.locks.repository(name).changes;
    let read = find(data, name, reference)?;
    if let ManifestContent::Whole(bytes) = &read.content {
        let manifest = StoredManifest {
            digest: read.digest.clone(),
            media_type: read.media_type.clone(),
            bytes: bytes.clone(),
            read: Instant::now(),
        };
        // Under the lock, and only if nothing has changed since the read began: otherwise this could
        // bring back a value that a change has just removed from the cache.
        let lock = data.locks.repository(name);
        if lock.changes == before {
            data.manifests.insert(name, reference, &manifest);
        }
    }
    Ok(read)
}

fn find(
    data: &DataDirectory,
    name: &Name,
    reference: &Reference,
) -> Result<ManifestRead<BlobReader>> {
    match reference {
        Reference::Digest(digest) => {
            let read = read_digest(data, name, digest)?.ok_or(StoreError::ManifestUnknown)?;
            let path = data.layout.manifest_entry(name, digest);
            match if_there(&path, disk::metadata(&path))? {
                Some(found) if told::tell(data, name, &path, &found) => Ok(read),
                _ => Err(StoreError::ManifestUnknown),
            }
        }
        Reference::Tag(tag) => {
            let mut digest = tag::read(data, name, tag)?;
            loop {
                if let Some(manifest) = read_digest(data, name, &digest)? {
                    return Ok(manifest);
                }
                // Between the two reads the tag may have been moved and its old manifest deleted.
                let now = tag::read(data, name, tag)?;
                if now == digest {
                    return Err(StoreError::ManifestUnknown);
                }
                digest = now;
            }
        }
    }
}

/// Opens a manifest of a repository: a small one is read whole, a large one is streamed like a blob.
fn read_digest(
    data: &DataDirectory,
    name: &Name,
    digest: &Digest,
) -> Result<Option<ManifestRead<BlobReader>>> {
    let Some(entry) = ManifestEntry::read(&data.layout.manifest_entry(name, digest))? else {
        return Ok(None);
    };
    let path = data.layout.content(Pool::Manifests, digest);
    let Some((mut file, size)) = open_with_length(&path)? else {
        return Ok(None);
    };
    let failed = |e| StoreError::io(&path, e);
    if size != entry.size {
        return Err(StoreError::Corrupt {
            path,
            reason: "its length is not the one that was pushed",
        });
    }
    let content = if size <= manifest_cache::LARGEST {
        let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or_default());
        file.read_to_end(&mut bytes).map_err(failed)?;
        ManifestContent::Whole(bytes.into())
    } else {
        let reader = BlobReader::open(file, path, size, Spans::Whole, &data.buffers)?;
        ManifestContent::Stream(reader)
    };
    Ok(Some(ManifestRead {
        digest: digest.clone(),
        media_type: entry.media_type,
        size,
        content,
    }))
}

/// What earlier attempts of one write have done: on a full disk a write is attempted again.
#[derive(Default)]
pub(super) struct WriteProgress {
    /// The entry is visible, and the condition held when it appeared. The next attempt must not check
    /// the condition against that entry.
    has_begun: bool,
    changes: TagChanges,
}

pub(super) fn write(
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
/// collection.
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
    }
    if blob::rely_on(data, Pool::Manifests, &new.digest)? != Some(size) {
        return Ok(None);
    }
    data.pruned.say(name, &new.digest);
    rely_on_references(data, name, new, &mut unsynced);
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
fn rely_on_references(
    data: &DataDirectory,
    name: &Name,
    new: &NewManifest,
    unsynced: &mut UnsyncedDirectories,
) {
    for digest in &new.blobs {
        unsynced.rely_on(data, data.layout.shard(Shard::of(Pool::Blobs, digest)));
    }
    for digest in &new.children {
        unsynced.rely_on(data, data.layout.shard(Shard::of(Pool::Manifests, digest)));
    }
    // The children's entries are in the directory of this manifest's own, which is synced anyway.
    unsynced.rely_on(data, data.layout.blob_links(name));
}

pub(super) fn delete(
    data: &DataDirectory,
    name: &Name,
    digest: &Digest,
) -> Result<Unsynced<TagChanges>> {
    let layout = &data.layout;
    let path = layout.manifest_entry(name, digest);
    if !exists(&path)? {
        return Err(StoreError::ManifestUnknown);
    }
    let watch = data.deletions.watch(name, digest);
    let tag::TagsOfManifest { mut tags, damaged } = tag::pointing_at(data, name, digest)?;
    let mut unsynced = UnsyncedDirectories::none();
    let mut deleted = 0;
    loop {
        let batch = tags.split_off(tags.len().saturating_sub(TAGS_AT_ONCE));
        // Taken anew for each batch, so that other requests get their lock in between.
        let mut lock = data.locks.repository(name);
        // Read anew: another deletion may have ended between two batches.
        let entry = match ManifestEntry::read(&path) {
            // It can be deleted all the same. What it adds to the statistics is not known.
            Err(StoreError::Corrupt { .. }) => None,
            found => Some(found?.ok_or(StoreError::ManifestUnknown)?),
        };
        tags.extend(watch.placed());
        lock.changes += 1;
        // The tags go first, so that none ever leads to nothing.
        for tag in &batch {
            // Another request may have moved it since it was found.
            if tag::points_at(data, name, tag, digest)?
                && let Some(removed) = tag::remove_one(data, name, tag)?
            {
                unsynced.add(removed);
                deleted += 1;
            }
        }
        if !tags.is_empty() {
            continue;
        }
        unsynced.add(remove_entry(data, name, digest, entry.as_ref(), &mut lock)?);
        let changes = TagChanges {
            deleted,
            damaged,
            ..Default::default()
        };
        return Ok(unsynced.with(changes));
    }
}

/// Takes a manifest, which has no tags, from a repository, whose lock the caller holds. Its entry is `None`
/// if it is damaged.
pub(super) fn remove_entry(
    data: &DataDirectory,
    name: &Name,
    digest: &Digest,
    entry: Option<&ManifestEntry>,
    lock: &mut StripeChanges,
) -> Result<UnsyncedDirectories> {
    let layout = &data.layout;
    let path = layout.manifest_entry(name, digest);
    let mut unsynced = UnsyncedDirectories::none();
    lock.changes += 1;
    // A manifest that refers to this one may be in the middle of its write: it has to look again.
    lock.removals += 1;
    data.manifests.forget_manifest(name, digest);
    let mut change = RepositoryCounts::default();
    if let Some(entry) = entry {
        change -= entry.counts(allocated_at(&path));
    }
    if let Some(removed) = remove_name(data, &path)? {
        unsynced.add(removed);
    }
    if let Some(subject) = entry.and_then(|entry| entry.subject.as_ref()) {
        let referrer = layout.referrer(name, subject, digest);
        change.allocated -= allocated_at(&referrer);
        if let Some(removed) = remove_name(data, &referrer)? {
            unsynced.add(removed);
        }
        let referrers = layout.referrers(name, subject);
        remove_empty(data, &referrers, &layout.repository(name));
    }
    data.changes.repository(name, &change);
    remove_empty(data, &layout.tags(name), &layout.repository(name));
    remove_empty(data, &layout.manifest_entries(name), &layout.repositories());
    Ok(unsynced)
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

/// Calls `visit` with the digest and path of each manifest of a repository, in no order.
pub(super) fn each(
    data: &DataDirectory,
    name: &Name,
    mut visit: impl FnMut(Digest, &Path) -> Result<()>,
) -> Result<()> {
    each_entry(
        &data.layout.manifest_entries(name),
        |file| match digest_of(&file.file_name()) {
            Some(digest) => visit(digest, &file.path()),
            None => Ok(()),
        },
    )
}

fn json<T: Serialize>(path: &Path, value: &T) -> Result<Vec<u8>> {
    let mut text = serde_json::to_vec(value).map_err(|e| StoreError::io(path, e.into()))?;
    text.push(b'\n');
    Ok(text)
}
