//! Tags: a small file each, which holds the digest of a manifest of the repository.

use super::changes::RepositoryCounts;
use super::data_directory::DataDirectory;
use super::directories::remove_empty;
use super::durable::{Draft, Synced, Unsynced, UnsyncedDirectories, remove_name};
use super::file::{allocated_at, each_entry, exists};
use super::layout::{Pool, Shard};
use super::{reference, told};
use crate::oci::{Digest, Name, Tag};
use crate::store::{Condition, Result, StoreError, TagChanges};

pub(super) fn read(data: &DataDirectory, name: &Name, tag: &Tag) -> Result<Digest> {
    reference::tag(data, name, tag)?.ok_or(StoreError::ManifestUnknown)
}

pub(super) fn write(
    data: &DataDirectory,
    name: &Name,
    tag: &Tag,
    digest: &Digest,
) -> Result<Unsynced<TagChanges>> {
    let draft = draft(data, digest)?.sync(data)?;
    let mut changes = TagChanges::default();
    let entry = data.layout.manifest_entry(name, digest);
    let removals = data.locks.repository(name).removals;
    let relied_on = || {
        let mut unsynced = UnsyncedDirectories::none();
        unsynced.rely_on(data, data.layout.shard(Shard::of(Pool::Manifests, digest)));
        unsynced.rely_on(data, data.layout.manifest_entries(name));
        unsynced.with(())
    };
    // The push of the manifest may not have synced it yet. No crash may keep the tag's move and undo
    // what it leads to: where it led before was acknowledged.
    if exists(&entry)? {
        relied_on().sync(data)?;
    }
    let mut lock = data.locks.repository(name);
    // Under the lock: from here on no deletion can take the manifest away before the tag is there.
    if !exists(&entry)? {
        return Err(StoreError::ManifestUnknown);
    }
    if lock.removals != removals {
        // It may have been removed and pushed anew: so rarely that others may wait for it.
        relied_on().sync(data)?;
    }
    lock.changes += 1;
    let placed = place(data, name, tag, digest, draft, &mut changes)?;
    Ok(placed.with(changes))
}

pub(super) fn delete(
    data: &DataDirectory,
    name: &Name,
    tag: &Tag,
    condition: Option<&Condition>,
) -> Result<Unsynced<()>> {
    let mut lock = data.locks.repository(name);
    if condition.is_some() && !exists(&data.layout.tag(name, tag))? {
        return Err(StoreError::ManifestUnknown);
    }
    reference::check_condition(data, name, condition)?;
    if let Ok(Some(digest)) = reference::tag(data, name, tag) {
        told::renew_now(&data.layout.manifest_entry(name, &digest));
    }
    let unsynced = remove_one(data, name, tag)?.ok_or(StoreError::ManifestUnknown)?;
    lock.changes += 1;
    remove_empty(data, &data.layout.tags(name), &data.layout.repository(name));
    Ok(unsynced.with(()))
}

/// Whether any of these tags leads to another manifest so far.
pub(super) fn any_moves(data: &DataDirectory, name: &Name, tags: &[Tag], digest: &Digest) -> bool {
    // An error is found again when the tag is placed.
    let old = |tag| reference::tag(data, name, tag).ok().flatten();
    tags.iter()
        .any(|tag| old(tag).is_some_and(|old| old != *digest))
}

/// Writes a tag's file aside.
pub(super) fn draft(data: &DataDirectory, digest: &Digest) -> Result<Draft> {
    Draft::write(data, format!("{digest}\n").as_bytes())
}

/// Points a tag at a manifest. The caller holds the repository's lock.
pub(super) fn place(
    data: &DataDirectory,
    name: &Name,
    tag: &Tag,
    digest: &Digest,
    draft: Synced,
    changes: &mut TagChanges,
) -> Result<UnsyncedDirectories> {
    let path = data.layout.tag(name, tag);
    data.pruned.say(name, digest);
    // Writing a damaged tag repairs it: it counts as moved.
    let old = match reference::tag(data, name, tag) {
        Err(StoreError::Corrupt { .. }) => Some(None),
        found => found?.map(Some),
    };
    if old.as_ref().is_some_and(|old| old.as_ref() == Some(digest)) {
        // Pushed again all the same: it is kept for longer now.
        told::renew_now(&path);
        // A deletion of the manifest that is in progress may have checked this tag already, and has to
        // remove it all the same.
        data.deletions.placed(name, tag, digest);
        return Ok(UnsyncedDirectories::of(&data.layout.tags(name)));
    }
    let allocated = draft.allocated() - allocated_at(&path);
    // Before the name changes: a reader that comes between the two finds nothing in the cache and
    // reads the file.
    data.manifests.forget_tag(name, tag);
    let unsynced = draft.place(data, &path)?;
    data.deletions.placed(name, tag, digest);
    let tags = i64::from(old.is_none());
    match old {
        None => {
            data.listings.forget(name);
            changes.created += 1;
        }
        Some(old) => {
            // It may have lost its last tag now: from now on it is kept for some time, and not since its push.
            if let Some(old) = old {
                told::renew_now(&data.layout.manifest_entry(name, &old));
            }
            changes.moved += 1;
        }
    }
    let change = RepositoryCounts {
        tags,
        allocated,
        ..Default::default()
    };
    data.changes.repository(name, &change);
    Ok(unsynced)
}

/// Removes a tag. Returns `None` if there was none. The caller holds the repository's lock.
pub(super) fn remove_one(
    data: &DataDirectory,
    name: &Name,
    tag: &Tag,
) -> Result<Option<UnsyncedDirectories>> {
    let path = data.layout.tag(name, tag);
    let allocated = -allocated_at(&path);
    data.manifests.forget_tag(name, tag);
    let removed = remove_name(data, &path)?;
    if removed.is_some() {
        data.listings.forget(name);
        let change = RepositoryCounts {
            tags: -1,
            allocated,
            ..Default::default()
        };
        data.changes.repository(name, &change);
    }
    Ok(removed)
}

/// The tags that point at a manifest.
#[derive(Debug, Default)]
pub(super) struct TagsOfManifest {
    pub(super) tags: Vec<Tag>,
    /// How many other tags are damaged and point at nothing.
    pub(super) damaged: u64,
}

/// Reads all tags of a repository to find those that point at a manifest.
pub(super) fn pointing_at(
    data: &DataDirectory,
    name: &Name,
    digest: &Digest,
) -> Result<TagsOfManifest> {
    let mut found = TagsOfManifest::default();
    each_entry(&data.layout.tags(name), |file| {
        let file_name = file.file_name();
        let Some(tag) = file_name.to_str().and_then(|tag| Tag::parse(tag).ok()) else {
            return Ok(());
        };
        match reference::tag(data, name, &tag) {
            Ok(Some(at)) if at == *digest => found.tags.push(tag),
            Ok(_) => {}
            // What it pointed at is lost. It must not keep the manifest from being deleted.
            Err(error @ StoreError::Corrupt { .. }) => {
                found.damaged += 1;
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "a damaged tag points at nothing");
            }
            Err(error) => return Err(error),
        }
        Ok(())
    })?;
    Ok(found)
}

/// Whether a tag points at a manifest; a damaged one does not.
pub(super) fn points_at(
    data: &DataDirectory,
    name: &Name,
    tag: &Tag,
    digest: &Digest,
) -> Result<bool> {
    match reference::tag(data, name, tag) {
        Err(StoreError::Corrupt { .. }) => Ok(false),
        found => Ok(found?.as_ref() == Some(digest)),
    }
}
