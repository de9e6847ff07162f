//! What manifests mention, as far as they can be read and believed.

use std::io::Read;

use crate::oci::{Digest, Name, mentioned_digests};
use crate::store::fs::data_directory::DataDirectory;
use crate::store::fs::disk;
use crate::store::fs::layout::Pool;
use crate::store::fs::manifest::ManifestEntry;
use crate::store::{Result, StoreError};

/// The largest manifest that is read. One that is larger keeps all blobs of its repository.
const LARGEST: u64 = 64 << 20;

/// Calls `visit` with all that a manifest of a repository mentions. Returns its entry; `None` if the
/// repository does not hold it any more.
pub(super) fn of_manifest(
    data: &DataDirectory,
    name: &Name,
    digest: &Digest,
    visit: impl FnMut(Digest),
) -> Result<Option<ManifestEntry>> {
    let path = data.layout.manifest_entry(name, digest);
    let Some(entry) = ManifestEntry::read(&path)? else {
        return Ok(None);
    };
    let content = data.layout.content(Pool::Manifests, digest);
    let damaged = |reason| StoreError::Corrupt {
        path: content.clone(),
        reason,
    };
    let failed = |e| StoreError::io(&content, e);
    let mut bytes = Vec::new();
    match disk::open(&content) {
        Ok(file) => {
            let read = file.take(LARGEST + 1).read_to_end(&mut bytes);
            read.map_err(failed)?;
        }
        // Deleted meanwhile, or lost: then nobody knows what it needs.
        Err(error) if ManifestEntry::read(&path)?.is_some() => return Err(failed(error)),
        Err(_) => return Ok(None),
    }
    if bytes.len() as u64 > LARGEST {
        return Err(damaged("it is too large to be searched for digests"));
    }
    // A damaged manifest may mention less than the one that was pushed.
    if Digest::of(digest.algorithm(), &bytes) != *digest {
        return Err(damaged("it is not what its digest says"));
    }
    mentioned_digests(&bytes, visit).map_err(|_| damaged("it is no JSON document"))?;
    Ok(Some(entry))
}
