//! Reads a manifest, and remembers small ones in memory.

use std::io::Read;
use std::time::Instant;

use super::entry::ManifestEntry;
use crate::oci::{Digest, Name, Reference, Spans};
use crate::store::fs::data_directory::DataDirectory;
use crate::store::fs::file::{if_there, open_with_length};
use crate::store::fs::layout::Pool;
use crate::store::fs::manifest_cache::{self, StoredManifest};
use crate::store::fs::reader::BlobReader;
use crate::store::fs::{disk, tag, told};
use crate::store::{ManifestContent, ManifestRead, Result, StoreError};

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

pub(in crate::store::fs) fn read(
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
