//! A store in memory, for tests: the whole contract in one structure under one lock.
//!
//! It keeps all content for as long as it lives, and limits only its upload sessions, and those
//! only if it is asked to. So it must not serve untrusted clients. Repositories that hold the same blob
//! share its bytes.

use std::collections::{BTreeMap, HashMap};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use parking_lot::Mutex;

use super::{
    BlobRead, Condition, Listing, ManifestContent, ManifestRead, NewManifest, Referrers,
    ReferrersQuery, Result, Store, StoreError, TagChanges, Upload, UploadId, referrers,
};
use crate::oci::{
    Algorithm, ByteRanges, Descriptor, Digest, Hasher, MediaType, Name, Reference, Spans, Tag,
};

/// The most bytes that a reader yields at once.
const CHUNK: usize = 256 * 1024;

/// A store in memory. Clones are the same store.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    state: Arc<Mutex<MemoryTables>>,
}

#[derive(Debug, Default)]
struct MemoryTables {
    /// Those that hold a blob or a manifest, and no others.
    repositories: BTreeMap<Name, MemoryRepository>,
    sessions: HashMap<UploadId, MemorySession>,
    /// The most sessions, if they are limited.
    max_sessions: Option<usize>,
    /// The number of the last request that used a session.
    requests: u64,
}

#[derive(Debug, Default)]
struct MemoryRepository {
    blobs: HashMap<Digest, Bytes>,
    manifests: HashMap<Digest, MemoryManifest>,
    tags: BTreeMap<Tag, Digest>,
}

#[derive(Debug)]
struct MemoryManifest {
    digest: Digest,
    media_type: MediaType,
    bytes: Bytes,
    subject: Option<(Digest, Descriptor)>,
}

#[derive(Debug)]
struct MemorySession {
    repository: Name,
    bytes: Vec<u8>,
    hasher: Hasher,
    /// A body is arriving.
    receiving: bool,
    /// The number of the last request that used it.
    used: u64,
}

/// Yields a blob's bytes, a chunk at a time.
#[derive(Debug)]
pub struct MemoryReader {
    blob: Bytes,
    spans: Spans,
    /// The index of the next span, and what is left of the one before it.
    next_span: usize,
    left: Bytes,
}

impl Stream for MemoryReader {
    type Item = Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Bytes>>> {
        if self.left.is_empty()
            && let Some(span) = self.spans.get(self.next_span, self.blob.len() as u64)
        {
            // Both ends lie within the bytes, whose length is a usize.
            let index = |position: u64| usize::try_from(position).unwrap_or(self.blob.len());
            let part = index(span.start)..index(span.start + span.length);
            self.left = self.blob.slice(part);
            self.next_span += 1;
        }
        let chunk = self.left.len().min(CHUNK);
        Poll::Ready((chunk > 0).then(|| Ok(self.left.split_to(chunk))))
    }
}

/// The right to append to a session, held until it is dropped.
struct MemoryAppend<'a> {
    store: &'a MemoryStore,
    repository: &'a Name,
    id: &'a UploadId,
}

impl MemoryAppend<'_> {
    fn push(&self, bytes: &[u8]) -> Result<()> {
        // Looked up for each chunk: a cancel may end the session while the body arrives.
        let mut state = self.store.state.lock();
        let session = state.session(self.repository, self.id)?;
        session.hasher.update(bytes);
        session.bytes.extend_from_slice(bytes);
        Ok(())
    }
}

impl Drop for MemoryAppend<'_> {
    fn drop(&mut self) {
        let mut state = self.store.state.lock();
        let number = state.next();
        if let Ok(session) = state.session(self.repository, self.id) {
            session.receiving = false;
            session.used = number;
        }
    }
}

impl MemoryStore {
    /// A store with at most `limit` upload sessions.
    pub fn with_max_sessions(limit: usize) -> Self {
        let store = Self::default();
        store.state.lock().max_sessions = Some(limit);
        store
    }
}

impl MemoryTables {
    /// Numbers a request that uses a session: the lowest number is the longest ago.
    fn next(&mut self) -> u64 {
        self.requests += 1;
        self.requests
    }

    /// Makes a slot for one more session: evicts the one that has been idle for longest, and sessions
    /// without bytes before others.
    fn make_slot(&mut self) -> Result<()> {
        let Some(limit) = self
            .max_sessions
            .filter(|&limit| self.sessions.len() >= limit)
        else {
            return Ok(());
        };
        let idle = self.sessions.iter().filter(|(_, one)| !one.receiving);
        // `false` is less than `true`, so that a session without bytes comes first.
        let first = idle.min_by_key(|(_, one)| (!one.bytes.is_empty(), one.used));
        let limit = limit as u64;
        let id = first
            .ok_or(StoreError::TooManySessions { limit })?
            .0
            .clone();
        self.sessions.remove(&id);
        Ok(())
    }

    fn blob(&self, repository: &Name, digest: &Digest) -> Result<&Bytes> {
        let repository = self.repositories.get(repository);
        repository
            .and_then(|repository| repository.blobs.get(digest))
            .ok_or(StoreError::BlobUnknown)
    }

    fn anywhere(&self, digest: &Digest) -> Option<&Bytes> {
        // A search, because a table of all content would have to count the holders of each blob.
        let mut repositories = self.repositories.values();
        repositories.find_map(|repository| repository.blobs.get(digest))
    }

    /// A repository that exists. In any other one, all manifests and tags are unknown.
    fn repository(&mut self, name: &Name) -> Result<&mut MemoryRepository> {
        self.repositories
            .get_mut(name)
            .ok_or(StoreError::ManifestUnknown)
    }

    fn session(&mut self, repository: &Name, id: &UploadId) -> Result<&mut MemorySession> {
        self.sessions
            .get_mut(id)
            // A client of one repository must not reach an upload session of another.
            .filter(|session| session.repository == *repository)
            .ok_or(StoreError::UploadUnknown)
    }

    fn keep(&mut self, repository: &Name, digest: &Digest, bytes: Bytes) {
        let repository = self.repositories.entry(repository.clone()).or_default();
        // Equal digests have equal bytes: the first copy stays, and readers share it.
        repository.blobs.entry(digest.clone()).or_insert(bytes);
    }

    /// Removes a repository that holds nothing: it does not exist.
    fn forget_empty(&mut self, name: &Name) {
        let holds = |it: &MemoryRepository| !it.blobs.is_empty() || !it.manifests.is_empty();
        if !self.repositories.get(name).is_some_and(holds) {
            self.repositories.remove(name);
        }
    }
}

impl MemoryRepository {
    fn manifest(&self, digest: &Digest) -> Result<&MemoryManifest> {
        self.manifests
            .get(digest)
            .ok_or(StoreError::ManifestUnknown)
    }

    fn tag(&self, tag: &Tag) -> Result<&Digest> {
        self.tags.get(tag).ok_or(StoreError::ManifestUnknown)
    }

    fn check(&self, condition: Option<&Condition>) -> Result<()> {
        let Some(condition) = condition else {
            return Ok(());
        };
        condition.check(match &condition.reference {
            Reference::Tag(tag) => self.tags.get(tag),
            Reference::Digest(digest) => {
                let found = self.manifests.get_key_value(digest);
                found.map(|(digest, _)| digest)
            }
        })
    }

    fn point(&mut self, tag: &Tag, digest: &Digest, changes: &mut TagChanges) {
        match self.tags.insert(tag.clone(), digest.clone()) {
            None => changes.created += 1,
            Some(old) if old != *digest => changes.moved += 1,
            Some(_) => {}
        }
    }
}

impl Store for MemoryStore {
    type Reader = MemoryReader;

    fn available(&self) -> Result<()> {
        Ok(())
    }

    async fn blob_stat(&self, repository: &Name, digest: &Digest) -> Result<u64> {
        let state = self.state.lock();
        state
            .blob(repository, digest)
            .map(|bytes| bytes.len() as u64)
    }

    async fn blob_read(
        &self,
        repository: &Name,
        digest: &Digest,
        ranges: Option<ByteRanges>,
    ) -> Result<BlobRead<MemoryReader>> {
        let bytes = self.state.lock().blob(repository, digest)?.clone();
        let size = bytes.len() as u64;
        let spans = Spans::of(ranges.as_ref(), size)
            .map_err(|_| StoreError::RangeUnsatisfiable { size })?;
        let reader = MemoryReader {
            blob: bytes,
            spans: spans.clone(),
            next_span: 0,
            left: Bytes::new(),
        };
        Ok(BlobRead {
            size,
            spans,
            reader,
        })
    }

    async fn blob_delete(&self, repository: &Name, digest: &Digest) -> Result<()> {
        let mut state = self.state.lock();
        let found = state.repositories.get_mut(repository);
        let removed = found.and_then(|repository| repository.blobs.remove(digest));
        state.forget_empty(repository);
        removed.map(drop).ok_or(StoreError::BlobUnknown)
    }

    async fn blob_mount(
        &self,
        repository: &Name,
        from: Option<&Name>,
        digest: &Digest,
    ) -> Result<()> {
        let mut state = self.state.lock();
        let found = match from {
            Some(from) => state.blob(from, digest).ok(),
            // OCI end-11: without `from` a registry may look for the blob itself.
            None => state.anywhere(digest),
        };
        let bytes = found.ok_or(StoreError::BlobUnknown)?.clone();
        state.keep(repository, digest, bytes);
        Ok(())
    }

    async fn upload_create(&self, repository: &Name, algorithm: Algorithm) -> Result<Upload> {
        let id = UploadId::random();
        let mut state = self.state.lock();
        state.make_slot()?;
        let session = MemorySession {
            repository: repository.clone(),
            bytes: Vec::new(),
            hasher: Hasher::new(algorithm),
            receiving: false,
            used: state.next(),
        };
        state.sessions.insert(id.clone(), session);
        Ok(Upload { id, offset: 0 })
    }

    async fn upload_stat(&self, repository: &Name, id: &UploadId) -> Result<Upload> {
        let mut state = self.state.lock();
        let offset = state.session(repository, id)?.bytes.len() as u64;
        Ok(Upload {
            id: id.clone(),
            offset,
        })
    }

    async fn upload_append<B>(
        &self,
        repository: &Name,
        id: &UploadId,
        offset: u64,
        mut body: B,
    ) -> Result<Upload>
    where
        B: Stream<Item = Result<Bytes>> + Send + Unpin + 'static,
    {
        let receiving = {
            let mut state = self.state.lock();
            let session = state.session(repository, id)?;
            let expected = session.bytes.len() as u64;
            // Before the offset, which moves for as long as the other body arrives.
            if session.receiving {
                return Err(StoreError::UploadBusy);
            }
            if offset != expected {
                return Err(StoreError::UploadOffset { expected });
            }
            session.receiving = true;
            // The lock is released while the body arrives; this keeps other appends out until it is
            // dropped, also by a caller that aborts.
            MemoryAppend {
                store: self,
                repository,
                id,
            }
        };
        while let Some(bytes) = body.next().await {
            receiving.push(&bytes?)?;
        }
        drop(receiving);
        self.upload_stat(repository, id).await
    }

    async fn upload_commit(&self, repository: &Name, id: &UploadId, digest: &Digest) -> Result<()> {
        let mut state = self.state.lock();
        if state.session(repository, id)?.receiving {
            return Err(StoreError::UploadBusy);
        }
        // Removed before the comparison: a wrong digest ends the session, too.
        let session = state.sessions.remove(id).ok_or(StoreError::UploadUnknown)?;
        // A digest may use another algorithm than the one that the session was opened with.
        let actual = if session.hasher.algorithm() == digest.algorithm() {
            session.hasher.finish()
        } else {
            Digest::of(digest.algorithm(), &session.bytes)
        };
        if actual != *digest {
            return Err(StoreError::DigestMismatch {
                expected: digest.clone(),
                actual,
            });
        }
        state.keep(repository, digest, session.bytes.into());
        Ok(())
    }

    async fn upload_cancel(&self, repository: &Name, id: &UploadId) -> Result<()> {
        let mut state = self.state.lock();
        // Checks the repository, which the removal by identifier alone would not.
        state.session(repository, id)?;
        state.sessions.remove(id);
        Ok(())
    }

    async fn manifest_read(
        &self,
        repository: &Name,
        reference: &Reference,
    ) -> Result<ManifestRead<MemoryReader>> {
        let mut state = self.state.lock();
        let repository = state.repository(repository)?;
        let digest = match reference {
            Reference::Digest(digest) => digest,
            Reference::Tag(tag) => repository.tag(tag)?,
        };
        let entry = repository.manifest(digest)?;
        Ok(ManifestRead {
            digest: entry.digest.clone(),
            media_type: entry.media_type.clone(),
            size: entry.bytes.len() as u64,
            content: ManifestContent::Whole(entry.bytes.clone()),
        })
    }

    async fn manifest_write(
        &self,
        repository: &Name,
        manifest: NewManifest,
        tags: &[Tag],
        condition: Option<&Condition>,
    ) -> Result<TagChanges> {
        let mut state = self.state.lock();
        let found = state.repositories.get(repository);
        match found {
            Some(repository) => repository.check(condition)?,
            // A condition may ask for absence: `If-None-Match: *` makes a first tag.
            None => MemoryRepository::default().check(condition)?,
        }
        let blobs = manifest.blobs.iter().filter(|&digest| {
            !found.is_some_and(|repository| repository.blobs.contains_key(digest))
        });
        let children = manifest.children.iter().filter(|&digest| {
            !found.is_some_and(|repository| repository.manifests.contains_key(digest))
        });
        let digests: Vec<Digest> = blobs.chain(children).cloned().collect();
        if !digests.is_empty() {
            return Err(StoreError::ReferenceUnknown { digests });
        }
        let mut changes = TagChanges::default();
        let repository = state.repositories.entry(repository.clone()).or_default();
        for tag in tags {
            repository.point(tag, &manifest.digest, &mut changes);
        }
        let digest = manifest.digest.clone();
        let entry = MemoryManifest {
            subject: manifest.subject,
            digest: manifest.digest,
            media_type: manifest.media_type,
            // A copy: the caller may limit the memory of its own bytes, and has to get them back.
            bytes: Bytes::copy_from_slice(&manifest.bytes),
        };
        repository.manifests.insert(digest, entry);
        Ok(changes)
    }

    async fn manifest_delete(&self, repository: &Name, digest: &Digest) -> Result<TagChanges> {
        let mut state = self.state.lock();
        let found = state.repository(repository)?;
        let removed = found.manifests.remove(digest);
        removed.ok_or(StoreError::ManifestUnknown)?;
        let before = found.tags.len();
        found.tags.retain(|_, target| target != digest);
        let deleted = (before - found.tags.len()) as u64;
        state.forget_empty(repository);
        Ok(TagChanges {
            deleted,
            ..TagChanges::default()
        })
    }

    async fn tag_read(&self, repository: &Name, tag: &Tag) -> Result<Digest> {
        let mut state = self.state.lock();
        state.repository(repository)?.tag(tag).cloned()
    }

    async fn tag_write(&self, repository: &Name, tag: &Tag, digest: &Digest) -> Result<TagChanges> {
        let mut state = self.state.lock();
        let repository = state.repository(repository)?;
        repository.manifest(digest)?;
        let mut changes = TagChanges::default();
        repository.point(tag, digest, &mut changes);
        Ok(changes)
    }

    async fn tag_delete(
        &self,
        repository: &Name,
        tag: &Tag,
        condition: Option<&Condition>,
    ) -> Result<()> {
        let mut state = self.state.lock();
        let repository = state.repository(repository)?;
        // Before the condition: a missing tag is unknown (404), and no failed condition (412).
        repository.tag(tag)?;
        repository.check(condition)?;
        repository.tags.remove(tag);
        Ok(())
    }

    async fn tag_list(
        &self,
        repository: &Name,
        last: Option<&str>,
        limit: usize,
    ) -> Result<Listing<Tag>> {
        let state = self.state.lock();
        let found = state.repositories.get(repository);
        let tags = &found.ok_or(StoreError::RepositoryUnknown)?.tags;
        Ok(page(tags, last, limit))
    }

    async fn repository_list(&self, last: Option<&str>, limit: usize) -> Result<Listing<Name>> {
        Ok(page(&self.state.lock().repositories, last, limit))
    }

    async fn referrers_list(
        &self,
        repository: &Name,
        digest: &Digest,
        query: &ReferrersQuery,
    ) -> Result<Referrers> {
        let state = self.state.lock();
        let found = state.repositories.get(repository);
        let manifests = found.into_iter().flat_map(|found| found.manifests.values());
        let last = query.last.as_deref();
        let mut found: Vec<&Descriptor> = manifests
            .filter_map(|entry| entry.subject.as_ref())
            .filter(|(subject, _)| subject == digest)
            .map(|(_, descriptor)| descriptor)
            .filter(|descriptor| last.is_none_or(|last| descriptor.digest.as_str() > last))
            .collect();
        // The map has no order, and pages continue after a digest.
        found.sort_by(|a, b| a.digest.cmp(&b.digest));
        let mut page = referrers::ReferrersPage::new(query);
        let full = !found
            .into_iter()
            .all(|descriptor| page.offer(descriptor.clone()));
        Ok(page.finish(full))
    }
}

fn page<T: Clone + AsRef<str>, V>(
    all: &BTreeMap<T, V>,
    last: Option<&str>,
    limit: usize,
) -> Listing<T> {
    let mut rest = all
        .keys()
        .skip_while(|item| last.is_some_and(|last| item.as_ref() <= last));
    let items = rest.by_ref().take(limit).cloned().collect();
    Listing {
        items,
        more: rest.next().is_some(),
    }
}

#[cfg(test)]
mod tests {
    use super::MemoryStore;
    use crate::store::suite::suite;

    suite!(memory, (super::MemoryStore::default(), ()));
    suite!(
        bounded_memory,
        bounded(super::MemoryStore::with_max_sessions(3), ())
    );
}
