//! Blobs: content kept once, and a link in each repository that holds it.

use std::error::Error;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::Inner;
use super::changes::{ContentCounts, RepositoryCounts};
use super::file::{allocated_at, if_there, remove};
use super::layout::{Pool, Shard};
use super::reader::BlobReader;
use crate::oci::{ByteRanges, Digest, Name, Spans};
use crate::store::{BlobRead, Result, StoreError};

/// What the file of a blob in a repository says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Link {
    /// The size of the blob when it was pushed. `None` where the file is empty, as former versions
    /// made it and a crash may leave it: then nobody knows.
    size: Option<u64>,
}

impl Link {
    /// The longest text of a link: a number of 20 digits, and a newline.
    const LONGEST: usize = 21;

    /// What a repository says of a blob; `None` if the repository does not hold it.
    fn read(path: &Path) -> Result<Option<Self>> {
        let Some(mut file) = if_there(path, File::open(path))? else {
            return Ok(None);
        };
        let mut text = [0; Self::LONGEST + 1];
        // What can't be read says as little as what is empty: the blob is there all the same.
        let length = file.read(&mut text).unwrap_or_default();
        let size = Self::parse(&text[..length]);
        Ok(Some(Self { size }))
    }

    fn parse(text: &[u8]) -> Option<u64> {
        let digits = std::str::from_utf8(text).ok()?.strip_suffix('\n')?;
        let is_number = digits.bytes().all(|digit| digit.is_ascii_digit());
        digits.parse().ok().filter(|_| is_number)
    }

    /// Writes down a blob's size, in place of what the file says.
    fn write(path: &Path, size: u64) -> io::Result<()> {
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).open(path)?;
        file.write_all(format!("{size}\n").as_bytes())
    }
}

/// Fails if content has not the length that it had when it was pushed.
fn check(expected: Option<u64>, size: u64, content: &Path) -> Result<()> {
    if expected.is_none_or(|expected| expected == size) {
        return Ok(());
    }
    Err(StoreError::Corrupt {
        path: content.to_owned(),
        reason: "it has not the length that it was pushed with",
    })
}

pub(super) fn stat(inner: &Inner, name: &Name, digest: &Digest) -> Result<u64> {
    size(inner, name, digest)?.ok_or(StoreError::BlobUnknown)
}

/// The size of a repository's blob; `None` if it is not there. A link whose content is gone, which
/// only a person's hand or a lost disk can leave, leads to nothing.
pub(super) fn size(inner: &Inner, name: &Name, digest: &Digest) -> Result<Option<u64>> {
    let Some(link) = Link::read(&inner.layout.blob_link(name, digest))? else {
        return Ok(None);
    };
    let content = inner.layout.content(Pool::Blobs, digest);
    let Some(size) = length(&content)? else {
        return Ok(None);
    };
    check(link.size, size, &content)?;
    Ok(Some(size))
}

pub(super) fn read(
    inner: &Inner,
    name: &Name,
    digest: &Digest,
    ranges: Option<&ByteRanges>,
) -> Result<BlobRead<BlobReader>> {
    let link = Link::read(&inner.layout.blob_link(name, digest))?;
    let link = link.ok_or(StoreError::BlobUnknown)?;
    let path = inner.layout.content(Pool::Blobs, digest);
    let file = if_there(&path, File::open(&path))?.ok_or(StoreError::BlobUnknown)?;
    let size = file
        .metadata()
        .map_err(|e| StoreError::io(&path, e))?
        .size();
    check(link.size, size, &path)?;
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
        let mut turn = inner.locks.repository(name);
        let content = inner.layout.content(Pool::Blobs, digest);
        let stored = length(&content)?.map_or(0, signed);
        let link = inner.layout.blob_link(name, digest);
        let allocated = allocated_at(&link);
        if !remove(&link)? {
            return Err(StoreError::BlobUnknown);
        }
        turn.changes += 1;
        turn.removals += 1;
        let change = RepositoryCounts {
            blobs: -1,
            stored: -stored,
            allocated: -allocated,
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
    let expected = match from {
        Some(from) => {
            let link = Link::read(&inner.layout.blob_link(from, digest))?;
            link.ok_or(StoreError::BlobUnknown)?.size
        }
        None => None,
    };
    link(inner, name, digest, expected)?;
    inner.sync_folder(&inner.layout.blob_links(name))
}

/// Makes content that the store has a blob of the repository. It must be of the length that was
/// `expected`, if that is known, or else of the one that the repository knows already. The caller
/// syncs the folder of links; the size in a link is not synced, since an empty one says nothing.
pub(super) fn link(
    inner: &Inner,
    name: &Name,
    digest: &Digest,
    expected: Option<u64>,
) -> Result<()> {
    let content = inner.layout.content(Pool::Blobs, digest);
    let path = inner.layout.blob_link(name, digest);
    let mut turn = inner.locks.repository(name);
    let size = length(&content)?.ok_or(StoreError::BlobUnknown)?;
    let found = Link::read(&path)?;
    let known = expected.or(found.and_then(|link| link.size));
    check(known, size, &content)?;
    if found == Some(Link { size: Some(size) }) {
        return Ok(());
    }
    let allocated = allocated_at(&path);
    let written = inner.with_folder_of(&path, || Link::write(&path, size));
    if let Err(error) = written {
        if found.is_none() {
            // Nobody was told of it.
            let _ = remove(&path);
            return Err(error);
        }
        // A link that says nothing is as good as it was.
        tracing::debug!(error = &error as &dyn Error, "a blob's size was not kept");
    }
    turn.changes += 1;
    let is_new = found.is_none();
    let change = RepositoryCounts {
        blobs: i64::from(is_new),
        stored: if is_new { signed(size) } else { 0 },
        allocated: allocated_at(&path) - allocated,
        ..Default::default()
    };
    inner.changes.repository(name, &change);
    Ok(())
}

/// Makes a complete and synced file of `size` bytes the content of `digest`. Content that is there
/// already stays, unless it is damaged. The caller syncs the shard's folder.
pub(super) fn keep(inner: &Inner, data: &Path, digest: &Digest, size: u64) -> Result<()> {
    let content = inner.layout.content(Pool::Blobs, digest);
    let shard = Shard::of(Pool::Blobs, digest);
    let mut turn = inner.locks.shard(shard);
    let is_new = inner.with_folder_of(&content, || match fs::hard_link(data, &content) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        result => result.map(|()| true),
    })?;
    let mut freed = 0;
    if !is_new {
        if length(&content)? == Some(size) {
            return Ok(());
        }
        freed = allocated_at(&content);
        replace(inner, data, &content)?;
    }
    turn.changes += 1;
    inner.changes.content(
        shard,
        &ContentCounts {
            items: i64::from(is_new),
            allocated: allocated_at(&content) - freed,
        },
    );
    Ok(())
}

/// Puts good content in the place of damaged content, in one step.
fn replace(inner: &Inner, data: &Path, content: &Path) -> Result<()> {
    let path = content.display();
    tracing::warn!(%path, "damaged content is replaced by what was pushed");
    let aside = inner.layout.temporary();
    let placed = inner.in_room(|| {
        fs::hard_link(data, &aside)
            .and_then(|()| fs::rename(&aside, content))
            .map_err(|e| StoreError::io(content, e))
    });
    if placed.is_err() {
        let _ = remove(&aside);
    }
    placed
}

/// The length of a file; `None` if it is not there.
pub(super) fn length(path: &Path) -> Result<Option<u64>> {
    Ok(if_there(path, fs::metadata(path))?.map(|metadata| metadata.size()))
}

/// A size as a difference of sizes; no file is as large as 8 EiB.
pub(super) fn signed(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_says_a_size_or_nothing() {
        for (text, size) in [
            ("0\n", Some(0)),
            ("1024\n", Some(1024)),
            ("18446744073709551615\n", Some(u64::MAX)),
            ("", None),
            ("1024", None),
            ("\n", None),
            ("+1\n", None),
            ("18446744073709551616\n", None),
            ("1024\n\n", None),
            ("\0\0\0\0\n", None),
        ] {
            assert_eq!(Link::parse(text.as_bytes()), size, "{text:?}");
        }
    }
}
