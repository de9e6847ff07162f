//! Blobs: content kept once, and a link in each repository that holds it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::Inner;
use super::changes::{ContentCounts, RepositoryCounts};
use super::file::{allocated, exists, if_there, remove};
use super::layout::{Pool, Shard};
use super::reader::BlobReader;
use crate::oci::{ByteRanges, Digest, Name, Spans};
use crate::store::{BlobRead, Result, StoreError};

pub(super) fn stat(inner: &Inner, name: &Name, digest: &Digest) -> Result<u64> {
    size(inner, name, digest)?.ok_or(StoreError::BlobUnknown)
}

/// The size of a repository's blob; `None` if it is not there. A link whose content is gone, which
/// only a person's hand or a lost disk can leave, leads to nothing.
pub(super) fn size(inner: &Inner, name: &Name, digest: &Digest) -> Result<Option<u64>> {
    if !exists(&inner.layout.blob_link(name, digest))? {
        return Ok(None);
    }
    let content = inner.layout.content(Pool::Blobs, digest);
    Ok(if_there(&content, fs::metadata(&content))?.map(|metadata| metadata.size()))
}

pub(super) fn read(
    inner: &Inner,
    name: &Name,
    digest: &Digest,
    ranges: Option<&ByteRanges>,
) -> Result<BlobRead<BlobReader>> {
    if !exists(&inner.layout.blob_link(name, digest))? {
        return Err(StoreError::BlobUnknown);
    }
    let path = inner.layout.content(Pool::Blobs, digest);
    let file = if_there(&path, File::open(&path))?.ok_or(StoreError::BlobUnknown)?;
    let size = file
        .metadata()
        .map_err(|e| StoreError::io(&path, e))?
        .size();
    let spans = Spans::of(ranges, size).map_err(|_| StoreError::RangeUnsatisfiable { size })?;
    Ok(BlobRead {
        size,
        spans: spans.clone(),
        reader: BlobReader::open(file, path, size, spans, &inner.buffers)?,
    })
}

pub(super) fn delete(inner: &Inner, name: &Name, digest: &Digest) -> Result<()> {
    let links = inner.layout.blob_links(name);
    {
        let mut turn = inner.turns.repository(name);
        let stored = size(inner, name, digest)?.map_or(0, signed);
        if !remove(&inner.layout.blob_link(name, digest))? {
            return Err(StoreError::BlobUnknown);
        }
        turn.changes += 1;
        turn.removals += 1;
        let change = RepositoryCounts {
            blobs: -1,
            stored: -stored,
            ..Default::default()
        };
        inner.changes.repository(name, &change);
        inner.remove_empty(&links, &inner.layout.repositories());
    }
    inner.sync_folder(&links)
}

pub(super) fn mount(
    inner: &Inner,
    name: &Name,
    from: Option<&Name>,
    digest: &Digest,
) -> Result<()> {
    if let Some(from) = from
        && !exists(&inner.layout.blob_link(from, digest))?
    {
        return Err(StoreError::BlobUnknown);
    }
    link(inner, name, digest)?;
    inner.sync_folder(&inner.layout.blob_links(name))
}

/// Makes content that the store has a blob of the repository. The caller syncs the folder of links.
pub(super) fn link(inner: &Inner, name: &Name, digest: &Digest) -> Result<()> {
    let content = inner.layout.content(Pool::Blobs, digest);
    let link = inner.layout.blob_link(name, digest);
    let mut turn = inner.turns.repository(name);
    let found = if_there(&content, fs::metadata(&content))?;
    let stored = signed(found.ok_or(StoreError::BlobUnknown)?.size());
    let create = || {
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&link)
            .map(drop)
    };
    let new = inner.with_folder_of(&link, || match create() {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        result => result.map(|()| true),
    })?;
    if new {
        turn.changes += 1;
        let change = RepositoryCounts {
            blobs: 1,
            stored,
            ..Default::default()
        };
        inner.changes.repository(name, &change);
    }
    Ok(())
}

/// Makes a complete and synced file the content of `digest`, which it may have already. The caller
/// syncs the shard's folder.
pub(super) fn keep(inner: &Inner, data: &Path, digest: &Digest) -> Result<()> {
    let content = inner.layout.content(Pool::Blobs, digest);
    let shard = Shard::of(Pool::Blobs, digest);
    let mut turn = inner.turns.shard(shard);
    let new = inner.with_folder_of(&content, || match fs::hard_link(data, &content) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        result => result.map(|()| true),
    })?;
    if new {
        turn.changes += 1;
        let allocated = fs::metadata(&content).map_or(0, |metadata| allocated(&metadata));
        inner.changes.content(
            shard,
            &ContentCounts {
                items: 1,
                allocated,
            },
        );
    }
    Ok(())
}

/// A size as a difference of sizes; no file is as large as 8 EiB.
pub(super) fn signed(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}
