//! Takes a manifest out of a repository, with the tags that lead to it.

use super::entry::ManifestEntry;
use crate::oci::{Digest, Name};
use crate::store::fs::changes::RepositoryCounts;
use crate::store::fs::data_directory::DataDirectory;
use crate::store::fs::directories::remove_empty;
use crate::store::fs::durable::{Unsynced, UnsyncedDirectories, remove_name};
use crate::store::fs::file::{allocated_at, exists};
use crate::store::fs::locks::StripeChanges;
use crate::store::fs::tag;
use crate::store::{Result, StoreError, TagChanges};

/// The tags that a deletion removes under one hold of the lock: a millisecond or two, for which other
/// requests wait.
const TAGS_AT_ONCE: usize = 100;

pub(in crate::store::fs) fn delete(
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
        unsynced.add(remove_referrer(data, name, digest, entry.as_ref())?);
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
pub(in crate::store::fs) fn remove_entry(
    data: &DataDirectory,
    name: &Name,
    digest: &Digest,
    entry: Option<&ManifestEntry>,
    lock: &mut StripeChanges,
) -> Result<UnsyncedDirectories> {
    let path = data.layout.manifest_entry(name, digest);
    lock.changes += 1;
    // A manifest that refers to this one may be in the middle of its write: it has to look again.
    lock.removals += 1;
    data.manifests.forget_manifest(name, digest);
    let mut change = RepositoryCounts::default();
    if let Some(entry) = entry {
        change -= entry.counts(allocated_at(&path));
    }
    let removed = remove_name(data, &path)?;
    if removed.is_some() {
        data.changes.repository(name, &change);
    }
    Ok(removed.unwrap_or_else(UnsyncedDirectories::none))
}

/// Takes what says that a manifest, which was just removed, is a referrer; and the directories that are empty
/// now.
pub(in crate::store::fs) fn remove_referrer(
    data: &DataDirectory,
    name: &Name,
    digest: &Digest,
    entry: Option<&ManifestEntry>,
) -> Result<UnsyncedDirectories> {
    let layout = &data.layout;
    let mut unsynced = UnsyncedDirectories::none();
    if let Some(subject) = entry.and_then(|entry| entry.subject.as_ref()) {
        let referrer = layout.referrer(name, subject, digest);
        let change = RepositoryCounts {
            allocated: -allocated_at(&referrer),
            ..Default::default()
        };
        if let Some(removed) = remove_name(data, &referrer)? {
            unsynced.add(removed);
            data.changes.repository(name, &change);
        }
        let referrers = layout.referrers(name, subject);
        remove_empty(data, &referrers, &layout.repository(name));
    }
    remove_empty(data, &layout.tags(name), &layout.repository(name));
    remove_empty(data, &layout.manifest_entries(name), &layout.repositories());
    Ok(unsynced)
}
