//! Manifests: content kept once, and an entry in each repository that holds it.
//!
//! The entry is what makes a manifest exist. The content is there before it, and its place among
//! its subject's referrers too; whoever finds one of these without the entry takes it for nothing.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::changes::{ContentCounts, RepositoryCounts};
use super::file::{Draft, allocated_at, each_entry, exists, if_there, remove};
use super::layout::{Pool, Shard};
use super::reader::BlobReader;
use super::{Inner, blob, manifest_cache, tag};
use crate::oci::{Digest, Kind, MediaType, Name, Reference, Spans, Tag};
use crate::store::{
    Condition, ManifestContent, ManifestRead, NewManifest, Result, StoreError, TagChanges,
};

/// The tags that go with a manifest in one turn: a millisecond or two, for which others wait.
const TAGS_AT_ONCE: usize = 100;

/// A manifest that is small enough to be kept in memory.
#[derive(Clone, Debug)]
pub(super) struct StoredManifest {
    pub(super) digest: Digest,
    pub(super) media_type: MediaType,
    pub(super) bytes: Bytes,
}

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

/// What a repository knows of a manifest that it holds.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Entry {
    media_type: MediaType,
    kind: String,
    pub(super) size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    subject: Option<Digest>,
}

impl Entry {
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
        let Some(text) = if_there(path, fs::read(path))? else {
            return Ok(None);
        };
        let damaged = |_| StoreError::Corrupt {
            path: path.to_owned(),
            reason: "no entry",
        };
        serde_json::from_slice(&text).map(Some).map_err(damaged)
    }

    /// What the repository gains by this entry.
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
    inner: &Inner,
    name: &Name,
    reference: &Reference,
) -> Result<ManifestRead<BlobReader>> {
    let before = inner.locks.repository(name).changes;
    let read = find(inner, name, reference)?;
    if let ManifestContent::Whole(bytes) = &read.content {
        let manifest = StoredManifest {
            digest: read.digest.clone(),
            media_type: read.media_type.clone(),
            bytes: bytes.clone(),
        };
        let turn = inner.locks.repository(name);
        if turn.changes == before {
            inner.cache.remember(name, reference, &manifest);
        }
    }
    Ok(read)
}

fn find(inner: &Inner, name: &Name, reference: &Reference) -> Result<ManifestRead<BlobReader>> {
    match reference {
        Reference::Digest(digest) => {
            read_digest(inner, name, digest)?.ok_or(StoreError::ManifestUnknown)
        }
        Reference::Tag(tag) => {
            let mut digest = tag::read(inner, name, tag)?;
            loop {
                if let Some(manifest) = read_digest(inner, name, &digest)? {
                    return Ok(manifest);
                }
                // The tag may have been moved, and what it pointed at been deleted, in between.
                let now = tag::read(inner, name, tag)?;
                if now == digest {
                    return Err(StoreError::ManifestUnknown);
                }
                digest = now;
            }
        }
    }
}

/// A manifest of a repository: a small one whole, a large one like a blob.
fn read_digest(
    inner: &Inner,
    name: &Name,
    digest: &Digest,
) -> Result<Option<ManifestRead<BlobReader>>> {
    let Some(entry) = Entry::read(&inner.layout.manifest_entry(name, digest))? else {
        return Ok(None);
    };
    let path = inner.layout.content(Pool::Manifests, digest);
    let Some(mut file) = if_there(&path, File::open(&path))? else {
        return Ok(None);
    };
    let failed = |e| StoreError::io(&path, e);
    let size = file.metadata().map_err(failed)?.len();
    if size != entry.size {
        return Err(StoreError::Corrupt {
            path,
            reason: "it has not the length that it was pushed with",
        });
    }
    let content = if size <= manifest_cache::LARGEST {
        let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or_default());
        file.read_to_end(&mut bytes).map_err(failed)?;
        ManifestContent::Whole(bytes.into())
    } else {
        let reader = BlobReader::open(file, path, size, Spans::Whole, &inner.buffers)?;
        ManifestContent::Stream(reader)
    };
    Ok(Some(ManifestRead {
        digest: digest.clone(),
        media_type: entry.media_type,
        size,
        content,
    }))
}

pub(super) fn write(
    inner: &Inner,
    name: &Name,
    new: &NewManifest,
    tags: &[Tag],
    condition: Option<&Condition>,
) -> Result<TagChanges> {
    let before = inner.locks.repository(name).removals;
    check_condition(inner, name, condition)?;
    check(inner, name, new)?;

    // Everything is on disk, aside, before anything is visible.
    let layout = &inner.layout;
    let content = layout.content(Pool::Manifests, &new.digest);
    let size = new.bytes.len() as u64;
    // Content of another length is damaged, and gives way to what was pushed.
    let drafted = (blob::length(&content)? != Some(size))
        .then(|| Draft::write(inner, &new.bytes))
        .transpose()?;
    let referrer = match &new.subject {
        Some((subject, descriptor)) => {
            let path = layout.referrer(name, subject, &new.digest);
            Some((Draft::write(inner, &json(&path, descriptor)?)?, path))
        }
        None => None,
    };
    let path = layout.manifest_entry(name, &new.digest);
    let entry = Entry::of(new);
    let entry_draft = Draft::write(inner, &json(&path, &entry)?)?;
    let tag_drafts = tags
        .iter()
        .map(|_| tag::draft(inner, &new.digest))
        .collect::<Result<Vec<_>>>()?;
    for draft in drafted
        .iter()
        .chain(referrer.iter().map(|(draft, _)| draft))
    {
        draft.sync(inner)?;
    }
    for draft in tag_drafts.iter().chain([&entry_draft]) {
        draft.sync(inner)?;
    }

    let mut changed = TagChanges::default();
    {
        let mut turn = inner.locks.repository(name);
        // Now that nobody else can make it false.
        check_condition(inner, name, condition)?;
        if turn.removals != before {
            check(inner, name, new)?;
        }
        turn.changes += 1;
        inner.cache.forget_manifest(name, &new.digest);
        if let Some(draft) = drafted {
            keep(inner, draft, &content, &new.digest, size)?;
        }
        let mut change = RepositoryCounts::default();
        if let Some((draft, path)) = referrer {
            change.allocated += draft.allocated() - allocated_at(&path);
            draft.place(inner, &path)?;
        }
        // The old figures are taken away and the new ones added: the media type may have changed.
        let old = Entry::read(&path)?;
        if old.as_ref() != Some(&entry) {
            if let Some(old) = old {
                change -= old.counts(allocated_at(&path));
            }
            change += entry.counts(entry_draft.allocated());
            entry_draft.place(inner, &path)?;
        }
        inner.changes.repository(name, &change);
        for (tag, draft) in tags.iter().zip(tag_drafts) {
            tag::place(inner, name, tag, &new.digest, draft, &mut changed)?;
        }
    }

    inner.sync_folder(&layout.shard(Shard::of(Pool::Manifests, &new.digest)))?;
    if let Some((subject, _)) = &new.subject {
        inner.sync_folder(&layout.referrers(name, subject))?;
    }
    inner.sync_folder(&layout.manifest_entries(name))?;
    if !tags.is_empty() {
        inner.sync_folder(&layout.tags(name))?;
    }
    Ok(changed)
}

pub(super) fn delete(inner: &Inner, name: &Name, digest: &Digest) -> Result<TagChanges> {
    let layout = &inner.layout;
    let path = layout.manifest_entry(name, digest);
    if !exists(&path)? {
        return Err(StoreError::ManifestUnknown);
    }
    let watch = inner.deletions.watch(name, digest);
    let tag::Pointing { mut tags, damaged } = tag::pointing_at(inner, name, digest)?;
    let mut deleted = 0;
    loop {
        let batch = tags.split_off(tags.len().saturating_sub(TAGS_AT_ONCE));
        let mut turn = inner.locks.repository(name);
        let entry = Entry::read(&path)?.ok_or(StoreError::ManifestUnknown)?;
        tags.extend(watch.placed());
        turn.changes += 1;
        // The tags go first, so that none ever leads to nothing.
        for tag in &batch {
            // It may have been moved meanwhile.
            if tag::points_at(inner, name, tag, digest)? && tag::remove_one(inner, name, tag)? {
                deleted += 1;
            }
        }
        if !tags.is_empty() {
            continue;
        }
        turn.removals += 1;
        inner.cache.forget_manifest(name, digest);
        let mut change = RepositoryCounts::default();
        change -= entry.counts(allocated_at(&path));
        remove(&path)?;
        if let Some(subject) = &entry.subject {
            let referrer = layout.referrer(name, subject, digest);
            change.allocated -= allocated_at(&referrer);
            remove(&referrer)?;
            inner.remove_empty(&layout.referrers(name, subject), &layout.repository(name));
        }
        inner.changes.repository(name, &change);
        inner.remove_empty(&layout.tags(name), &layout.repository(name));
        inner.remove_empty(&layout.manifest_entries(name), &layout.repositories());
        break;
    }
    if deleted > 0 {
        inner.sync_folder(&layout.tags(name))?;
    }
    inner.sync_folder(&layout.manifest_entries(name))?;
    Ok(TagChanges {
        deleted,
        damaged,
        ..Default::default()
    })
}

/// Fails unless a condition holds. It goes on to hold for as long as the caller has the
/// repository's turn.
pub(super) fn check_condition(
    inner: &Inner,
    name: &Name,
    condition: Option<&Condition>,
) -> Result<()> {
    let Some(condition) = condition else {
        return Ok(());
    };
    let current = match &condition.reference {
        Reference::Tag(tag) => tag::find(inner, name, tag)?,
        Reference::Digest(digest) => {
            exists(&inner.layout.manifest_entry(name, digest))?.then(|| digest.clone())
        }
    };
    condition.check(current.as_ref())
}

/// Fails unless everything that the manifest refers to is in the repository.
fn check(inner: &Inner, name: &Name, new: &NewManifest) -> Result<()> {
    let mut digests = Vec::new();
    for digest in &new.blobs {
        if blob::size(inner, name, digest)?.is_none() {
            digests.push(digest.clone());
        }
    }
    for digest in &new.children {
        if !exists(&inner.layout.manifest_entry(name, digest))? {
            digests.push(digest.clone());
        }
    }
    if digests.is_empty() {
        Ok(())
    } else {
        Err(StoreError::ReferenceUnknown { digests })
    }
}

/// Makes a draft the content of `digest`, which another repository may have given it meanwhile.
fn keep(inner: &Inner, draft: Draft, content: &Path, digest: &Digest, size: u64) -> Result<()> {
    let shard = Shard::of(Pool::Manifests, digest);
    let mut turn = inner.locks.shard(shard);
    let found = blob::length(content)?;
    if found == Some(size) {
        return Ok(());
    }
    let change = ContentCounts {
        items: i64::from(found.is_none()),
        allocated: draft.allocated() - allocated_at(content),
    };
    draft.place(inner, content)?;
    turn.changes += 1;
    inner.changes.content(shard, &change);
    Ok(())
}

/// Calls `visit` with the digest and path of each manifest of a repository, in no order.
pub(super) fn each(
    inner: &Inner,
    name: &Name,
    mut visit: impl FnMut(Digest, &Path) -> Result<()>,
) -> Result<()> {
    each_entry(
        &inner.layout.manifest_entries(name),
        |file| match super::layout::digest_of(&file.file_name()) {
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
