//! Adds faults to any store, for tests. A test plans which operation fails, when and how, so that it
//! meets the same fault every time.
//!
//! With an empty [`Plan`] the store behaves like the one inside, which the store suite proves.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::future::pending;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::Stream;
use parking_lot::Mutex;

use super::{
    BlobRead, Condition, ErrorKind, Listing, ManifestContent, ManifestRead, NewManifest, Referrers,
    ReferrersQuery, Result, Store, StoreError, TagChanges, Upload, UploadId,
};
use crate::metrics::storage::Operation;
use crate::oci::{Algorithm, ByteRanges, Digest, Name, Reference, Tag};

/// The planned faults. Clones are the same plan, so that it can be changed while a store is in use.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plan(Arc<Mutex<HashMap<Operation, Planned>>>);

#[derive(Debug)]
struct Planned {
    fault: Fault,
    /// The calls that still succeed.
    spared: u32,
}

/// How an operation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It does nothing and fails with this kind of error.
    Fail(ErrorKind),
    /// It is done, and still fails with this kind of error: its acknowledgement is lost.
    FailAfter(ErrorKind),
    /// Its stream of bytes, in or out, fails after this many of them. An operation without a stream
    /// succeeds.
    Break(u64, ErrorKind),
    /// Its stream of bytes stalls forever after this many of them.
    Stall(u64),
    /// It never returns.
    Hang,
    /// It panics.
    Panic,
}

/// A store that fails as planned.
#[derive(Clone, Debug)]
pub(crate) struct Faulty<S> {
    store: S,
    plan: Plan,
}

impl Plan {
    /// Lets every call of an operation fail from now on, after `spared` calls that succeed.
    pub(crate) fn set(&self, operation: Operation, spared: u32, fault: Fault) {
        let planned = Planned { fault, spared };
        self.0.lock().insert(operation, planned);
    }

    /// Lets all calls succeed from now on.
    pub(crate) fn clear(&self) {
        self.0.lock().clear();
    }

    fn next(&self, operation: Operation) -> Option<Fault> {
        let mut plan = self.0.lock();
        let planned = plan.get_mut(&operation)?;
        if planned.spared > 0 {
            planned.spared -= 1;
            return None;
        }
        Some(planned.fault)
    }
}

impl<S> Faulty<S> {
    /// Wraps a store.
    pub(crate) fn new(store: S, plan: Plan) -> Self {
        Self { store, plan }
    }

    /// Runs an operation with its planned fault.
    async fn run<T>(
        &self,
        operation: Operation,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        run(self.plan.next(operation), work).await
    }
}

async fn run<T>(fault: Option<Fault>, work: impl Future<Output = Result<T>>) -> Result<T> {
    match fault {
        Some(Fault::Fail(kind)) => Err(error(kind)),
        Some(Fault::Hang) => pending().await,
        Some(Fault::Panic) => panic!("on purpose"),
        // The future is polled to its end, so that the store has done the work.
        Some(Fault::FailAfter(kind)) => work.await.and(Err(error(kind))),
        // Faults of a stream happen in `FaultyStream`, not in the operation around it.
        Some(Fault::Break(..) | Fault::Stall(_)) | None => work.await,
    }
}

/// An error of a kind, which holds a path that must never reach a client.
pub(crate) fn error(kind: ErrorKind) -> StoreError {
    let digest = |text: &str| Digest::of(Algorithm::Sha256, text.as_bytes());
    let io = |kind: io::ErrorKind| StoreError::io("/secret/place", kind.into());
    match kind {
        ErrorKind::NotFound => StoreError::BlobUnknown,
        ErrorKind::DigestMismatch => StoreError::DigestMismatch {
            expected: digest("expected"),
            actual: digest("actual"),
        },
        ErrorKind::Invalid => StoreError::UploadBusy,
        ErrorKind::NoSpace => io(io::ErrorKind::StorageFull),
        ErrorKind::Permission => io(io::ErrorKind::PermissionDenied),
        ErrorKind::Io => io(io::ErrorKind::InvalidData),
        ErrorKind::Timeout => io(io::ErrorKind::TimedOut),
        ErrorKind::Other => StoreError::Interrupted,
    }
}

// A default method that the trait gains must not pass by this wrapper unseen.
#[deny(clippy::missing_trait_methods)]
impl<S: Store> Store for Faulty<S> {
    type Reader = FaultyStream<S::Reader>;

    fn available(&self) -> Result<()> {
        self.store.available()
    }

    async fn blob_stat(&self, repository: &Name, digest: &Digest) -> Result<u64> {
        let work = self.store.blob_stat(repository, digest);
        self.run(Operation::BlobStat, work).await
    }

    async fn blob_read(
        &self,
        repository: &Name,
        digest: &Digest,
        ranges: Option<ByteRanges>,
    ) -> Result<BlobRead<Self::Reader>> {
        let fault = self.plan.next(Operation::BlobRead);
        let work = self.store.blob_read(repository, digest, ranges);
        let BlobRead {
            size,
            spans,
            reader,
        } = run(fault, work).await?;
        let reader = FaultyStream::new(reader, fault);
        Ok(BlobRead {
            size,
            spans,
            reader,
        })
    }

    async fn blob_delete(&self, repository: &Name, digest: &Digest) -> Result<()> {
        let work = self.store.blob_delete(repository, digest);
        self.run(Operation::BlobDelete, work).await
    }

    async fn blob_mount(
        &self,
        repository: &Name,
        from: Option<&Name>,
        digest: &Digest,
    ) -> Result<()> {
        let work = self.store.blob_mount(repository, from, digest);
        self.run(Operation::BlobMount, work).await
    }

    async fn upload_create(&self, repository: &Name, algorithm: Algorithm) -> Result<Upload> {
        let work = self.store.upload_create(repository, algorithm);
        self.run(Operation::UploadCreate, work).await
    }

    async fn upload_stat(&self, repository: &Name, id: &UploadId) -> Result<Upload> {
        let work = self.store.upload_stat(repository, id);
        self.run(Operation::UploadStat, work).await
    }

    async fn upload_append<B>(
        &self,
        repository: &Name,
        id: &UploadId,
        offset: u64,
        body: B,
    ) -> Result<Upload>
    where
        B: Stream<Item = Result<Bytes>> + Send + Unpin + 'static,
    {
        let fault = self.plan.next(Operation::UploadAppend);
        let body = FaultyStream::new(body, fault);
        let work = self.store.upload_append(repository, id, offset, body);
        run(fault, work).await
    }

    async fn upload_commit(&self, repository: &Name, id: &UploadId, digest: &Digest) -> Result<()> {
        let work = self.store.upload_commit(repository, id, digest);
        self.run(Operation::UploadCommit, work).await
    }

    async fn upload_cancel(&self, repository: &Name, id: &UploadId) -> Result<()> {
        let work = self.store.upload_cancel(repository, id);
        self.run(Operation::UploadCancel, work).await
    }

    async fn manifest_read(
        &self,
        repository: &Name,
        reference: &Reference,
    ) -> Result<ManifestRead<Self::Reader>> {
        let fault = self.plan.next(Operation::ManifestRead);
        let work = self.store.manifest_read(repository, reference);
        let read = run(fault, work).await?;
        Ok(ManifestRead {
            digest: read.digest,
            media_type: read.media_type,
            size: read.size,
            content: match read.content {
                ManifestContent::Whole(bytes) => ManifestContent::Whole(bytes),
                ManifestContent::Stream(reader) => {
                    ManifestContent::Stream(FaultyStream::new(reader, fault))
                }
            },
        })
    }

    async fn manifest_write(
        &self,
        repository: &Name,
        manifest: NewManifest,
        tags: &[Tag],
        condition: Option<&Condition>,
    ) -> Result<TagChanges> {
        let work = self
            .store
            .manifest_write(repository, manifest, tags, condition);
        self.run(Operation::ManifestWrite, work).await
    }

    async fn manifest_delete(&self, repository: &Name, digest: &Digest) -> Result<TagChanges> {
        let work = self.store.manifest_delete(repository, digest);
        self.run(Operation::ManifestDelete, work).await
    }

    async fn tag_read(&self, repository: &Name, tag: &Tag) -> Result<Digest> {
        let work = self.store.tag_read(repository, tag);
        self.run(Operation::TagRead, work).await
    }

    async fn tag_write(&self, repository: &Name, tag: &Tag, digest: &Digest) -> Result<TagChanges> {
        let work = self.store.tag_write(repository, tag, digest);
        self.run(Operation::TagWrite, work).await
    }

    async fn tag_delete(
        &self,
        repository: &Name,
        tag: &Tag,
        condition: Option<&Condition>,
    ) -> Result<()> {
        let work = self.store.tag_delete(repository, tag, condition);
        self.run(Operation::TagDelete, work).await
    }

    async fn tag_list(
        &self,
        repository: &Name,
        last: Option<&str>,
        limit: usize,
    ) -> Result<Listing<Tag>> {
        let work = self.store.tag_list(repository, last, limit);
        self.run(Operation::TagList, work).await
    }

    async fn repository_list(&self, last: Option<&str>, limit: usize) -> Result<Listing<Name>> {
        let work = self.store.repository_list(last, limit);
        self.run(Operation::RepositoryList, work).await
    }

    async fn referrers_list(
        &self,
        repository: &Name,
        digest: &Digest,
        query: &ReferrersQuery,
    ) -> Result<Referrers> {
        let work = self.store.referrers_list(repository, digest, query);
        self.run(Operation::ReferrersList, work).await
    }
}

/// A stream of bytes that fails as planned.
#[derive(Debug)]
pub(crate) struct FaultyStream<B> {
    stream: B,
    fault: Option<Fault>,
    /// The bytes that have passed so far.
    passed: u64,
}

impl<B> FaultyStream<B> {
    fn new(stream: B, fault: Option<Fault>) -> Self {
        Self {
            stream,
            fault,
            passed: 0,
        }
    }
}

impl<B: Stream<Item = Result<Bytes>> + Unpin> Stream for FaultyStream<B> {
    type Item = Result<Bytes>;

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes>>> {
        let limit = match self.fault {
            Some(Fault::Break(limit, _) | Fault::Stall(limit)) => limit,
            _ => u64::MAX,
        };
        if self.passed == limit {
            return match self.fault {
                Some(Fault::Break(_, kind)) => Poll::Ready(Some(Err(error(kind)))),
                // Nothing wakes the task: it waits until it is dropped.
                _ => Poll::Pending,
            };
        }
        let item = ready!(Pin::new(&mut self.stream).poll_next(context));
        Poll::Ready(item.map(|item| {
            let mut bytes = item?;
            // Cut, so that the fault comes after exactly the planned number of bytes.
            let rest = usize::try_from(limit - self.passed).unwrap_or(usize::MAX);
            bytes.truncate(rest);
            self.passed += bytes.len() as u64;
            Ok(bytes)
        }))
    }
}
