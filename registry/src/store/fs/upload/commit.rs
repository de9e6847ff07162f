//! The end of an upload session: its bytes become a blob.

use std::fs::OpenOptions;
use std::io;
use std::sync::atomic::Ordering;

use super::append::hash;
use super::session::{Session, Work};
use crate::oci::{Digest, Name};
use crate::store::fs::file::cut;
use crate::store::fs::layout::{Pool, Shard};
use crate::store::fs::{Durability, Inner, blob};
use crate::store::{ErrorKind, Result, StoreError};

/// Commits a session, of which `work` is the right to do so.
pub(in crate::store::fs) fn commit(
    inner: &Inner,
    session: &Session,
    work: &Work,
    name: &Name,
    digest: &Digest,
) -> Result<()> {
    let path = inner.layout.upload_data(&session.id);
    let length = session.offset();
    // The digest may use another algorithm than the one that was announced, if any was.
    let hasher = match &work.hasher {
        Some(hasher) if hasher.algorithm() == digest.algorithm() => hasher.clone(),
        _ => hash(&path, digest.algorithm(), length)?,
    };
    let actual = hasher.finish();
    if actual != *digest {
        session.end(inner)?;
        return Err(StoreError::DigestMismatch {
            expected: digest.clone(),
            actual,
        });
    }
    // An upload of no bytes has no file yet.
    let opened = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path);
    let file = match opened {
        // Cancelled meanwhile.
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(StoreError::UploadUnknown),
        opened => opened.map_err(|e| StoreError::io(&path, e))?,
    };
    cut(&file, &path, length)?;
    if inner.durability == Durability::Full && work.sync_failed.load(Ordering::Acquire) {
        let lost = io::Error::other("an earlier sync of the file failed");
        return Err(StoreError::io(&path, lost));
    }
    let kept = inner
        .sync_file(&file, &path)
        .and_then(|()| blob::keep(inner, &path, digest, length))
        .and_then(|()| blob::link(inner, name, digest, Some(length)));
    if let Err(e) = kept {
        if e.kind() == ErrorKind::NoSpace {
            session.refuse(length);
        }
        return Err(e);
    }
    inner.sync_folder(&inner.layout.shard(Shard::of(Pool::Blobs, digest)))?;
    inner.sync_folder(&inner.layout.blob_links(name))?;
    session.end(inner)
}
