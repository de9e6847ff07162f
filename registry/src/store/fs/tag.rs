//! Tags: a small file each, which holds the digest of a manifest of the repository.

use std::fs;
use std::io;

use super::changes::RepositoryCounts;
use super::file::{Draft, allocated_at, each_entry, exists, if_there, remove};
use super::{Inner, manifest};
use crate::oci::{Digest, Name, Tag};
use crate::store::{Condition, Result, StoreError, TagChanges};

pub(super) fn read(inner: &Inner, name: &Name, tag: &Tag) -> Result<Digest> {
    find(inner, name, tag)?.ok_or(StoreError::ManifestUnknown)
}

pub(super) fn write(inner: &Inner, name: &Name, tag: &Tag, digest: &Digest) -> Result<TagChanges> {
    let draft = draft(inner, digest)?;
    draft.sync(inner)?;
    let mut changed = TagChanges::default();
    {
        let mut turn = inner.locks.repository(name);
        if !exists(&inner.layout.manifest_entry(name, digest))? {
            return Err(StoreError::ManifestUnknown);
        }
        turn.changes += 1;
        place(inner, name, tag, digest, draft, &mut changed)?;
    }
    inner.sync_folder(&inner.layout.tags(name))?;
    Ok(changed)
}

pub(super) fn delete(
    inner: &Inner,
    name: &Name,
    tag: &Tag,
    condition: Option<&Condition>,
) -> Result<()> {
    let tags = inner.layout.tags(name);
    {
        let mut turn = inner.locks.repository(name);
        if condition.is_some() && !exists(&inner.layout.tag(name, tag))? {
            return Err(StoreError::ManifestUnknown);
        }
        manifest::check_condition(inner, name, condition)?;
        if !remove_one(inner, name, tag)? {
            return Err(StoreError::ManifestUnknown);
        }
        turn.changes += 1;
        inner.remove_empty(&tags, &inner.layout.repository(name));
    }
    inner.sync_folder(&tags)
}

/// A tag's file, not yet in its place.
pub(super) fn draft(inner: &Inner, digest: &Digest) -> Result<Draft> {
    Draft::write(inner, format!("{digest}\n").as_bytes())
}

/// Points a tag at a manifest; for the holder of the repository's turn.
pub(super) fn place(
    inner: &Inner,
    name: &Name,
    tag: &Tag,
    digest: &Digest,
    draft: Draft,
    changed: &mut TagChanges,
) -> Result<()> {
    let path = inner.layout.tag(name, tag);
    // A damaged tag is mended by writing it: it counts as moved.
    let old = match find(inner, name, tag) {
        Err(StoreError::Corrupt { .. }) => Some(None),
        found => found?.map(Some),
    };
    if old.as_ref().is_some_and(|old| old.as_ref() == Some(digest)) {
        // Acknowledged anew: whoever deletes the manifest has to look at the tag once more.
        inner.deletions.placed(name, tag, digest);
        return Ok(());
    }
    let allocated = draft.allocated() - allocated_at(&path);
    inner.cache.forget_tag(name, tag);
    draft.place(inner, &path)?;
    inner.deletions.placed(name, tag, digest);
    let tags = i64::from(old.is_none());
    match old {
        None => {
            inner.listings.forget(name);
            changed.created += 1;
        }
        Some(_) => changed.moved += 1,
    }
    let change = RepositoryCounts {
        tags,
        allocated,
        ..Default::default()
    };
    inner.changes.repository(name, &change);
    Ok(())
}

/// Removes a tag; whether it was there. For the holder of the repository's turn.
pub(super) fn remove_one(inner: &Inner, name: &Name, tag: &Tag) -> Result<bool> {
    let path = inner.layout.tag(name, tag);
    let allocated = -allocated_at(&path);
    inner.cache.forget_tag(name, tag);
    let removed = remove(&path)?;
    if removed {
        inner.listings.forget(name);
        let change = RepositoryCounts {
            tags: -1,
            allocated,
            ..Default::default()
        };
        inner.changes.repository(name, &change);
    }
    Ok(removed)
}

/// The tags that point at a manifest, as far as they can be read.
#[derive(Debug, Default)]
pub(super) struct Pointing {
    pub(super) tags: Vec<Tag>,
    /// The tags that are damaged: they point at nothing.
    pub(super) damaged: u64,
}

/// Looks at all tags of a repository for those that point at a manifest.
pub(super) fn pointing_at(inner: &Inner, name: &Name, digest: &Digest) -> Result<Pointing> {
    let mut found = Pointing::default();
    each_entry(&inner.layout.tags(name), |file| {
        let file_name = file.file_name();
        let Some(tag) = file_name.to_str().and_then(|tag| Tag::parse(tag).ok()) else {
            return Ok(());
        };
        match find(inner, name, &tag) {
            Ok(Some(at)) if at == *digest => found.tags.push(tag),
            Ok(_) => {}
            // What it was meant to point at nobody knows; the others are not to suffer from it.
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
pub(super) fn points_at(inner: &Inner, name: &Name, tag: &Tag, digest: &Digest) -> Result<bool> {
    match find(inner, name, tag) {
        Err(StoreError::Corrupt { .. }) => Ok(false),
        found => Ok(found?.as_ref() == Some(digest)),
    }
}

/// What a tag points at, if it is there.
pub(super) fn find(inner: &Inner, name: &Name, tag: &Tag) -> Result<Option<Digest>> {
    let path = inner.layout.tag(name, tag);
    let bytes = match fs::read(&path) {
        // A folder in a tag's place.
        Err(e) if e.kind() == io::ErrorKind::IsADirectory => Vec::new(),
        read => match if_there(&path, read)? {
            Some(bytes) => bytes,
            None => return Ok(None),
        },
    };
    let text = std::str::from_utf8(&bytes).unwrap_or_default();
    let damaged = |_| StoreError::Corrupt {
        path,
        reason: "no digest",
    };
    Digest::parse(text.trim_end()).map(Some).map_err(damaged)
}
