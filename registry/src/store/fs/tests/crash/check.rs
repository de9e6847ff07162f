//! Opens what a crash left, and compares it with what was promised.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{TryStreamExt, stream};

use super::promises::{Item, Promises, Value};
use crate::oci::{Algorithm, Digest, Name, Reference, Tag};
use crate::store::fs::{Durability, FsStore};
use crate::store::suite::{all_referrers, push};
use crate::store::{Store, StoreError};

/// Fails where the directory does not hold what was promised, or holds half of something. After a
/// crash of the program alone, upload sessions are promised, too.
pub(super) async fn check(
    data: &Path,
    promises: &Promises,
    allowed: &[(&Item, BTreeSet<Value>)],
    is_kill: bool,
) -> Result<(), String> {
    let store = FsStore::open(data, Durability::Relaxed, Arc::new(()));
    let store = store.map_err(|error| format!("it does not open: {error:?}"))?;
    let leftovers = std::fs::read_dir(data.join("tmp")).unwrap().count();
    if leftovers > 0 {
        return Err(format!("{leftovers} files are left in tmp"));
    }
    items(&store, promises, allowed).await?;
    if is_kill {
        for (name, id, bytes) in promises.open_uploads() {
            match store.upload_stat(name, id).await {
                Ok(upload) if upload.offset >= bytes => {}
                found => return Err(format!("the session {id} has {found:?}, not {bytes}")),
            }
        }
    }
    // Whatever is done with the sessions that are left, it must not touch what is there.
    let mut is_touched = false;
    for (name, id) in &promises.uploads {
        if let Ok(upload) = store.upload_stat(name, id).await {
            let tail = stream::iter([Ok(Bytes::from_static(b"more"))]);
            let _ = store.upload_append(name, id, upload.offset, tail).await;
            let _ = store.upload_cancel(name, id).await;
            is_touched = true;
        }
    }
    if is_touched {
        let after = items(&store, promises, allowed).await;
        after.map_err(|error| format!("after more bytes for open sessions: {error}"))?;
    }
    again(&store, promises, allowed).await
}

async fn items(
    store: &FsStore,
    promises: &Promises,
    allowed: &[(&Item, BTreeSet<Value>)],
) -> Result<(), String> {
    for (item, allowed) in allowed {
        let found = match item {
            Item::Blob(name, digest) => blob(store, name, digest).await,
            Item::Manifest(name, digest) => manifest(store, promises, name, digest).await,
            Item::Tag(name, tag) => self::tag(store, name, tag).await,
        };
        let found = found.map_err(|error| format!("{item:?}: {error}"))?;
        // A tag without its manifest leads to nothing, as before it was made.
        if !allowed.contains(&found) {
            return Err(format!("{item:?} is {found:?}, and may be {allowed:?}"));
        }
    }
    Ok(())
}

async fn blob(store: &FsStore, name: &Name, digest: &Digest) -> Result<Value, String> {
    let read = match store.blob_read(name, digest, None).await {
        Ok(read) => read,
        Err(StoreError::BlobUnknown) => return Ok(None),
        Err(error) => return Err(format!("{error:?}")),
    };
    let chunks: Result<Vec<Bytes>, _> = read.reader.try_collect().await;
    let bytes = chunks.map_err(|error| format!("{error:?}"))?.concat();
    Ok(Some(Digest::of(Algorithm::Sha256, &bytes)))
}

async fn manifest(
    store: &FsStore,
    promises: &Promises,
    name: &Name,
    digest: &Digest,
) -> Result<Value, String> {
    let reference = Reference::from(digest.clone());
    let value = match store.manifest_read(name, &reference).await {
        Ok(read) => Some(Digest::of(Algorithm::Sha256, read.bytes())),
        Err(StoreError::ManifestUnknown) => None,
        Err(error) => return Err(format!("{error:?}")),
    };
    for needed in promises.blobs.get(digest).into_iter().flatten() {
        if value.is_some() && blob(store, name, needed).await?.is_none() {
            return Err(format!("it is there without its blob {needed}"));
        }
    }
    for needed in promises.children.get(digest).into_iter().flatten() {
        let reference = Reference::from(needed.clone());
        if value.is_some() && store.manifest_read(name, &reference).await.is_err() {
            return Err(format!("it is there without its manifest {needed}"));
        }
    }
    if let Some(subject) = promises.subjects.get(digest) {
        let listed = all_referrers(store, name.as_str(), subject, None, 1 << 20).await;
        let is_listed = listed.iter().any(|one| one.digest == *digest);
        if is_listed && value.is_none() {
            return Err("it is a referrer and not there".to_owned());
        }
        // Between the two the push was not acknowledged: it may be there and not yet listed.
        if !is_listed {
            return Ok(None);
        }
    }
    Ok(value)
}

async fn tag(store: &FsStore, name: &Name, tag: &Tag) -> Result<Value, String> {
    let digest = match store.tag_read(name, tag).await {
        Ok(digest) => digest,
        Err(StoreError::ManifestUnknown) => return Ok(None),
        Err(error) => return Err(format!("{error:?}")),
    };
    match store
        .manifest_read(name, &Reference::from(tag.clone()))
        .await
    {
        Ok(read) if read.digest == digest => Ok(Some(digest)),
        Ok(read) => Err(format!("it leads to {digest} and serves {}", read.digest)),
        Err(StoreError::ManifestUnknown) => Ok(None),
        Err(error) => Err(format!("{error:?}")),
    }
}

/// A push that was not acknowledged succeeds when it is repeated.
async fn again(
    store: &FsStore,
    promises: &Promises,
    allowed: &[(&Item, BTreeSet<Value>)],
) -> Result<(), String> {
    for (item, allowed) in allowed {
        if let Item::Blob(name, digest) = item
            && allowed.len() > 1
            && let Some(content) = promises.content.get(digest)
        {
            let pushed = push(store, name.as_str(), content).await;
            let found = blob(store, name, &pushed).await?;
            if found.as_ref() != Some(digest) {
                return Err(format!("{item:?}, pushed again, is {found:?}"));
            }
        }
    }
    Ok(())
}
