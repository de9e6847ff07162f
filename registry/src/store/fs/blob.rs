//! Blobs: content that is stored once, and a link in each repository that holds it.

use std::error::Error;
use std::io::Read;
use std::path::Path;

use super::changes::{ContentCounts, RepositoryCounts};
use super::data_directory::DataDirectory;
use super::directories::remove_empty;
use super::disk;
use super::durable::{SyncedUpload, Unsynced, UnsyncedDirectories, remove_name, write_name};
use super::file::{allocated_at, has_length, if_there, length, open_if_there, open_with_length};
use super::layout::{Pool, Shard};
use super::locks::StripeChanges;
use super::reader::BlobReader;
use super::told;
use crate::oci::{ByteRanges, Digest, Name, Spans};
use crate::store::{BlobRead, Result, StoreError};

/// The file of a blob in a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct BlobLink {
    /// The size of the blob when it was pushed. `None` where the file is empty, as older versions made
    /// it and a crash may leave it: then the size is unknown.
    size: Option<u64>,
}

impl BlobLink {
    /// The longest text of a link: a number of 20 digits, and a newline.
    const LONGEST: usize = 21;

    /// Reads a link; `None` if the repository does not hold the blob.
    fn read(path: &Path) -> Result<Option<Self>> {
        let mut file = match open_if_there(path) {
            Ok(Some(file)) => file,
            Ok(None) => return Ok(None),
            // What is no file says nothing either.
            Err(StoreError::Corrupt { .. }) => return Ok(Some(Self { size: None })),
            Err(error) => return Err(error),
        };
        let mut text = [0; Self::LONGEST + 1];
        // A link that cannot be read is as good as an empty one: the blob is there all the same.
        let length = file.read(&mut text).unwrap_or_default();
        let size = Self::parse(&text[..length]);
        Ok(Some(Self { size }))
    }

    fn parse(text: &[u8]) -> Option<u64> {
        let digits = std::str::from_utf8(text).ok()?.strip_suffix('\n')?;
        // Asked apart: `parse` also accepts a sign, which the store never writes.
        let is_number = digits.bytes().all(|digit| digit.is_ascii_digit());
        digits.parse().ok().filter(|_| is_number)
    }

    /// The text of a link to a blob of `size` bytes.
    fn text(size: u64) -> String {
        format!("{size}\n")
    }
}

/// Fails if content does not have the length that it had when it was pushed.
fn check(expected: Option<u64>, size: u64, content: &Path) -> Result<()> {
    if expected.is_none_or(|expected| expected == size) {
        return Ok(());
    }
    Err(StoreError::Corrupt {
        path: content.to_owned(),
        reason: "its length is not the one that was pushed",
    })
}

/// The size of a repository's blob, for a client that counts on the blob from then on.
pub(super) fn stat(data: &DataDirectory, name: &Name, digest: &Digest) -> Result<u64> {
    let size = size(data, name, digest)?.ok_or(StoreError::BlobUnknown)?;
    let link = data.layout.blob_link(name, digest);
    match if_there(&link, disk::metadata(&link))? {
        Some(found) if told::tell(data, name, &link, &found) => Ok(size),
        _ => Err(StoreError::BlobUnknown),
    }
}

/// The size of a repository's blob; `None` if the repository does not hold it. A link without its
/// content, which only a person or a damaged disk can leave, counts as none.
pub(super) fn size(data: &DataDirectory, name: &Name, digest: &Digest) -> Result<Option<u64>> {
    let Some(link) = BlobLink::read(&data.layout.blob_link(name, digest))? else {
        return Ok(None);
    };
    let content = data.layout.content(Pool::Blobs, digest);
    let Some(size) = length(&content)? else {
        return Ok(None);
    };
    check(link.size, size, &content)?;
    Ok(Some(size))
}

/// The bytes that a blob adds to a repository, for the statistics: those of its link, whatever has become
/// of the content, so that the figure changes with the repository alone.
pub(super) fn stored(data: &DataDirectory, name: &Name, digest: &Digest) -> Result<i64> {
    let size = || {
        let link = BlobLink::read(&data.layout.blob_link(name, digest))?;
        match link.and_then(|link| link.size) {
            Some(size) => Ok(Some(size)),
            None => length(&data.layout.content(Pool::Blobs, digest)),
        }
    };
    match size() {
        // What is no file adds nothing.
        Err(StoreError::Corrupt { .. }) => Ok(0),
        size => Ok(size?.map_or(0, signed)),
    }
}

pub(super) fn read(
    data: &DataDirectory,
    name: &Name,
    digest: &Digest,
    ranges: Option<&ByteRanges>,
) -> Result<BlobRead<BlobReader>> {
    let link = BlobLink::read(&data.layout.blob_link(name, digest))?;
    let link = link.ok_or(StoreError::BlobUnknown)?;
    let path = data.layout.content(Pool::Blobs, digest);
    let (file, size) = open_with_length(&path)?.ok_or(StoreError::BlobUnknown)?;
    check(link.size, size, &path)?;
    let spans = Spans::of(ranges, size).map_err(|_| StoreError::RangeUnsatisfiable { size })?;
    Ok(BlobRead {
        size,
        spans: spans.clone(),
        reader: BlobReader::open(file, path, size, spans, &data.buffers)?,
    })
}

pub(super) fn delete(data: &DataDirectory, name: &Name, digest: &Digest) -> Result<Unsynced<()>> {
    let mut lock = data.locks.repository(name);
    let unsynced = remove_link(data, name, digest, &mut lock)?;
    Ok(unsynced.ok_or(StoreError::BlobUnknown)?.with(()))
}

/// Takes a blob from a repository, whose lock the caller holds. Returns `None` if it was not there.
pub(super) fn remove_link(
    data: &DataDirectory,
    name: &Name,
    digest: &Digest,
    lock: &mut StripeChanges,
) -> Result<Option<UnsyncedDirectories>> {
    let stored = stored(data, name, digest)?;
    let link = data.layout.blob_link(name, digest);
    let allocated = -allocated_at(&link);
    // The link alone goes. The content stays, since another repository may hold the same blob.
    let Some(unsynced) = remove_name(data, &link)? else {
        return Ok(None);
    };
    lock.changes += 1;
    // A manifest that is being written has already looked for its blobs: it has to look again.
    lock.removals += 1;
    let change = RepositoryCounts {
        blobs: -1,
        stored: -stored,
        allocated,
        ..Default::default()
    };
    data.changes.repository(name, &change);
    let links = data.layout.blob_links(name);
    remove_empty(data, &links, &data.layout.repositories());
    Ok(Some(unsynced))
}

pub(super) fn mount(
    data: &DataDirectory,
    name: &Name,
    from: Option<&Name>,
    digest: &Digest,
) -> Result<Unsynced<()>> {
    let expected = match from {
        Some(from) => {
            let link = BlobLink::read(&data.layout.blob_link(from, digest))?;
            link.ok_or(StoreError::BlobUnknown)?.size
        }
        None => None,
    };
    Ok(link(data, name, digest, expected)?.with(()))
}

/// Adds content of the store to a repository, as a blob. The content must have the length that is
/// `expected`, or, if that is unknown, the one that the repository's link says.
pub(super) fn link(
    data: &DataDirectory,
    name: &Name,
    digest: &Digest,
    expected: Option<u64>,
) -> Result<UnsyncedDirectories> {
    let content = data.layout.content(Pool::Blobs, digest);
    let path = data.layout.blob_link(name, digest);
    let mut unsynced = UnsyncedDirectories::none();
    let mut lock = data.locks.repository(name);
    let size = rely_on(data, Pool::Blobs, digest)?.ok_or(StoreError::BlobUnknown)?;
    // The push that brought the content may not have synced it yet.
    unsynced.rely_on(data, data.layout.shard(Shard::of(Pool::Blobs, digest)));
    let found = BlobLink::read(&path)?;
    let stored = match found {
        Some(link) => signed(link.size.unwrap_or(size)),
        None => 0,
    };
    let known = expected.or(found.and_then(|link| link.size));
    check(known, size, &content)?;
    if found == Some(BlobLink { size: Some(size) }) {
        told::renew(data, &path);
        unsynced.add(UnsyncedDirectories::of(&data.layout.blob_links(name)));
        return Ok(unsynced);
    }
    let allocated = allocated_at(&path);
    // The text is not synced. A crash may leave it empty, which says nothing of the size, and the
    // name alone adds the blob to the repository.
    match write_name(data, &path, BlobLink::text(size).as_bytes()) {
        Ok(written) => unsynced.add(written),
        Err(error) if found.is_none() => {
            // The file may be there without its text. Nothing was acknowledged, and nothing to sync.
            let _ = disk::remove_file(&path);
            return Err(error);
        }
        Err(error) => {
            // The blob was in the repository before, and an empty link is as good as the old one.
            tracing::debug!(error = &error as &dyn Error, "a blob's size was not kept");
            unsynced.add(UnsyncedDirectories::of(&data.layout.blob_links(name)));
        }
    }
    lock.changes += 1;
    let is_new = found.is_none();
    let change = RepositoryCounts {
        blobs: i64::from(is_new),
        stored: signed(size) - stored,
        allocated: allocated_at(&path) - allocated,
        ..Default::default()
    };
    data.changes.repository(name, &change);
    Ok(unsynced)
}

/// Makes the file of an upload, of `size` bytes, the content of `digest`. Content that is there
/// already stays, unless it is damaged.
pub(super) fn keep(
    data: &DataDirectory,
    upload: &SyncedUpload<'_>,
    digest: &Digest,
    size: u64,
) -> Result<UnsyncedDirectories> {
    let content = data.layout.content(Pool::Blobs, digest);
    let shard = Shard::of(Pool::Blobs, digest);
    let mut lock = data.locks.shard(shard);
    data.reliance.say(shard, digest);
    let mut freed = 0;
    let linked = upload.link(data, &content)?;
    let is_new = linked.is_some();
    let unsynced = match linked {
        Some(unsynced) => unsynced,
        // The length is trusted: to hash the content again would read all of it for each push.
        None if has_length(&content, size)? => {
            return Ok(UnsyncedDirectories::of(&data.layout.shard(shard)));
        }
        None => {
            let path = content.display();
            tracing::warn!(%path, "damaged content is replaced by what was pushed");
            freed = allocated_at(&content);
            upload.replace(data, &content)?
        }
    };
    lock.changes += 1;
    let change = ContentCounts {
        items: i64::from(is_new),
        allocated: allocated_at(&content) - freed,
    };
    data.changes.content(shard, &change);
    Ok(unsynced)
}

/// The length of content that the caller adds to a repository; `None` if it is not there. No collection
/// removes it from then on. The caller holds the repository's lock, until the repository holds the content.
pub(super) fn rely_on(data: &DataDirectory, pool: Pool, digest: &Digest) -> Result<Option<u64>> {
    let shard = Shard::of(pool, digest);
    let _lock = data.locks.shard(shard);
    data.reliance.say(shard, digest);
    length(&data.layout.content(pool, digest))
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
            assert_eq!(BlobLink::parse(text.as_bytes()), size, "{text:?}");
        }
    }
}
