//! The end of an upload session: its bytes become a blob.

use std::error::Error;
use std::io;
use std::sync::atomic::Ordering;

use super::append::hash;
use super::session::{UploadSession, UploadWork};
use crate::oci::{Digest, Name};
use crate::store::fs::blob;
use crate::store::fs::data_directory::DataDirectory;
use crate::store::fs::disk;
use crate::store::fs::durable::SyncedUpload;
use crate::store::fs::file::cut;
use crate::store::fs::options::Durability;
use crate::store::{ErrorKind, Result, StoreError};

/// How often content is given its name again. A collection that begins in between may remove it once,
/// before the repository holds it.
const ATTEMPTS: usize = 3;

/// Commits a session; `work` is the right to do so.
pub(in crate::store::fs) fn commit(
    data: &DataDirectory,
    session: &UploadSession,
    work: &mut UploadWork,
    name: &Name,
    digest: &Digest,
) -> Result<()> {
    let length = session.offset();
    let actual = digest_so_far(data, session, work, digest)?;
    if actual != *digest {
        data.sessions.end(session, &data.layout)?;
        return Err(StoreError::DigestMismatch {
            expected: digest.clone(),
            actual,
        });
    }
    let committed = publish(data, session, work, name, digest);
    if let Err(error) = &committed
        && error.kind() == ErrorKind::NoSpace
    {
        session.refuse(length);
    }
    committed?;
    // Only now that the blob's names are on disk: until then the session is what a client can commit
    // again after a crash.
    if let Err(error) = data.sessions.end(session, &data.layout) {
        // The blob is there. A session whose files stay is found at the next start, and expires.
        let error = &error as &dyn Error;
        tracing::warn!(error, "the files of a committed upload were not removed");
    }
    Ok(())
}

/// The digest of the session's bytes, with the algorithm of `expected`.
fn digest_so_far(
    data: &DataDirectory,
    session: &UploadSession,
    work: &mut UploadWork,
    expected: &Digest,
) -> Result<Digest> {
    let algorithm = expected.algorithm();
    // The digest may use another algorithm than the one that was announced, if any was.
    let hasher = match work.hasher.take() {
        Some(hasher) if hasher.algorithm() == algorithm => hasher,
        _ => {
            let path = data.layout.upload_data(&session.id);
            hash(&path, algorithm, session.offset())?
        }
    };
    let digest = hasher.clone().finish();
    // Kept, so that a commit that is attempted again does not read the file again.
    work.hasher = Some(hasher);
    Ok(digest)
}

/// Makes the session's file the content of `digest`, and the content a blob of the repository.
fn publish(
    data: &DataDirectory,
    session: &UploadSession,
    work: &UploadWork,
    name: &Name,
    digest: &Digest,
) -> Result<()> {
    let path = data.layout.upload_data(&session.id);
    let length = session.offset();
    // An upload of no bytes has no file yet.
    let file = match disk::create(&path) {
        // The session was cancelled meanwhile.
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(StoreError::UploadUnknown),
        opened => opened.map_err(|e| StoreError::io(&path, e))?,
    };
    cut(&file, &path, length)?;
    // The system reports a failed write-back to one sync only. If an early sync got the report, the
    // sync below would succeed although bytes are lost.
    if data.durability == Durability::Full && work.sync_failed.load(Ordering::Acquire) {
        let lost = io::Error::other("an earlier sync of the file failed");
        return Err(StoreError::io(&path, lost));
    }
    let upload = SyncedUpload::sync(data, &file, &path)?;
    for _ in 0..ATTEMPTS {
        let mut unsynced = blob::keep(data, &upload, digest, length)?;
        match blob::link(data, name, digest, Some(length)) {
            Err(StoreError::BlobUnknown) => {}
            linked => {
                unsynced.add(linked?);
                return unsynced.with(()).sync(data);
            }
        }
    }
    Err(StoreError::BlobUnknown)
}
