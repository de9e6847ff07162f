//! Adds metrics to any store.

#[cfg(test)]
mod tests;

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use futures_util::Stream;

use super::{
    BlobRead, Condition, ErrorKind, Listing, ManifestContent, ManifestRead, NewManifest, Referrers,
    ReferrersQuery, Result, Store, StoreError, TagChanges, Upload, UploadId,
};
use crate::metrics::storage::{Direction, ErrorType, Operation, Storage, TagOperation};
use crate::oci::{Algorithm, ByteRanges, Digest, Name, Reference, Tag};

/// A store that times each operation to its end, and counts bytes as they are transferred.
#[derive(Clone, Debug)]
pub struct Instrumented<S> {
    store: S,
    metrics: Storage,
}

impl<S> Instrumented<S> {
    /// Wraps a store.
    pub fn new(store: S, metrics: Storage) -> Self {
        Self { store, metrics }
    }

    fn begin(&self, operation: Operation) -> OperationTimer {
        OperationTimer {
            metrics: self.metrics.clone(),
            operation,
            started: Instant::now(),
            ended: false,
        }
    }

    fn count_tags(&self, changes: &Result<TagChanges>) {
        if let Ok(changes) = changes {
            self.metrics.tags(TagOperation::Created, changes.created);
            self.metrics.tags(TagOperation::Moved, changes.moved);
            self.metrics.tags(TagOperation::Deleted, changes.deleted);
            // Whatever operation comes across a damaged tag, it is the tag's read that failed.
            self.metrics.damaged(Operation::TagRead, changes.damaged);
        }
    }
}

// A default method that the trait gains must not pass by this wrapper unseen.
#[deny(clippy::missing_trait_methods)]
impl<S: Store> Store for Instrumented<S> {
    type Reader = InstrumentedReader<S::Reader>;

    fn available(&self) -> Result<()> {
        self.store.available()
    }

    async fn blob_stat(&self, repository: &Name, digest: &Digest) -> Result<u64> {
        let timer = self.begin(Operation::BlobStat);
        timer.end(self.store.blob_stat(repository, digest).await)
    }

    async fn blob_read(
        &self,
        repository: &Name,
        digest: &Digest,
        ranges: Option<ByteRanges>,
    ) -> Result<BlobRead<Self::Reader>> {
        let timer = self.begin(Operation::BlobRead);
        match self.store.blob_read(repository, digest, ranges).await {
            Err(e) => timer.end(Err(e)),
            Ok(BlobRead {
                size,
                spans,
                reader,
            }) => {
                // The spans and not the blob: a range is complete long before the blob is.
                let left = spans.total(size);
                Ok(BlobRead {
                    size,
                    spans,
                    reader: InstrumentedReader {
                        reader,
                        timer,
                        left,
                    },
                })
            }
        }
    }

    async fn blob_delete(&self, repository: &Name, digest: &Digest) -> Result<()> {
        let timer = self.begin(Operation::BlobDelete);
        timer.end(self.store.blob_delete(repository, digest).await)
    }

    async fn blob_mount(
        &self,
        repository: &Name,
        from: Option<&Name>,
        digest: &Digest,
    ) -> Result<()> {
        let timer = self.begin(Operation::BlobMount);
        timer.end(self.store.blob_mount(repository, from, digest).await)
    }

    async fn upload_create(&self, repository: &Name, algorithm: Algorithm) -> Result<Upload> {
        let timer = self.begin(Operation::UploadCreate);
        timer.end(self.store.upload_create(repository, algorithm).await)
    }

    async fn upload_stat(&self, repository: &Name, id: &UploadId) -> Result<Upload> {
        let timer = self.begin(Operation::UploadStat);
        timer.end(self.store.upload_stat(repository, id).await)
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
        let timer = self.begin(Operation::UploadAppend);
        // Counted as they pass: bytes of a body that breaks off later were written all the same.
        let body = InstrumentedBody {
            body,
            metrics: self.metrics.clone(),
        };
        timer.end(self.store.upload_append(repository, id, offset, body).await)
    }

    async fn upload_commit(&self, repository: &Name, id: &UploadId, digest: &Digest) -> Result<()> {
        let timer = self.begin(Operation::UploadCommit);
        timer.end(self.store.upload_commit(repository, id, digest).await)
    }

    async fn upload_cancel(&self, repository: &Name, id: &UploadId) -> Result<()> {
        let timer = self.begin(Operation::UploadCancel);
        timer.end(self.store.upload_cancel(repository, id).await)
    }

    async fn manifest_read(
        &self,
        repository: &Name,
        reference: &Reference,
    ) -> Result<ManifestRead<Self::Reader>> {
        let timer = self.begin(Operation::ManifestRead);
        let read = match self.store.manifest_read(repository, reference).await {
            Err(e) => return timer.end(Err(e)),
            Ok(read) => read,
        };
        let content = match read.content {
            ManifestContent::Whole(bytes) => {
                // A whole manifest has no stream that counts its bytes.
                self.metrics.moved(Direction::Read, read.size);
                timer.end(Ok(ManifestContent::Whole(bytes)))?
            }
            // Not ended yet: a large manifest is read as long as its client takes.
            ManifestContent::Stream(reader) => ManifestContent::Stream(InstrumentedReader {
                reader,
                timer,
                left: read.size,
            }),
        };
        Ok(ManifestRead {
            digest: read.digest,
            media_type: read.media_type,
            size: read.size,
            content,
        })
    }

    async fn manifest_write(
        &self,
        repository: &Name,
        manifest: NewManifest,
        tags: &[Tag],
        condition: Option<&Condition>,
    ) -> Result<TagChanges> {
        let timer = self.begin(Operation::ManifestWrite);
        let bytes = manifest.bytes.len() as u64;
        let written = timer.end(
            self.store
                .manifest_write(repository, manifest, tags, condition)
                .await,
        );
        // A manifest is written whole or not at all: a refused one moved no bytes.
        if written.is_ok() {
            self.metrics.moved(Direction::Write, bytes);
        }
        self.count_tags(&written);
        written
    }

    async fn manifest_delete(&self, repository: &Name, digest: &Digest) -> Result<TagChanges> {
        let timer = self.begin(Operation::ManifestDelete);
        let deleted = timer.end(self.store.manifest_delete(repository, digest).await);
        self.count_tags(&deleted);
        deleted
    }

    async fn tag_read(&self, repository: &Name, tag: &Tag) -> Result<Digest> {
        let timer = self.begin(Operation::TagRead);
        timer.end(self.store.tag_read(repository, tag).await)
    }

    async fn tag_write(&self, repository: &Name, tag: &Tag, digest: &Digest) -> Result<TagChanges> {
        let timer = self.begin(Operation::TagWrite);
        let written = timer.end(self.store.tag_write(repository, tag, digest).await);
        self.count_tags(&written);
        written
    }

    async fn tag_delete(
        &self,
        repository: &Name,
        tag: &Tag,
        condition: Option<&Condition>,
    ) -> Result<()> {
        let timer = self.begin(Operation::TagDelete);
        let deleted = timer.end(self.store.tag_delete(repository, tag, condition).await);
        // This operation returns no `TagChanges`: it removes one tag, or fails.
        if deleted.is_ok() {
            self.metrics.tags(TagOperation::Deleted, 1);
        }
        deleted
    }

    async fn tag_list(
        &self,
        repository: &Name,
        last: Option<&str>,
        limit: usize,
    ) -> Result<Listing<Tag>> {
        let timer = self.begin(Operation::TagList);
        timer.end(self.store.tag_list(repository, last, limit).await)
    }

    async fn repository_list(&self, last: Option<&str>, limit: usize) -> Result<Listing<Name>> {
        let timer = self.begin(Operation::RepositoryList);
        timer.end(self.store.repository_list(last, limit).await)
    }

    async fn referrers_list(
        &self,
        repository: &Name,
        digest: &Digest,
        query: &ReferrersQuery,
    ) -> Result<Referrers> {
        let timer = self.begin(Operation::ReferrersList);
        timer.end(self.store.referrers_list(repository, digest, query).await)
    }
}

/// A blob's bytes, counted as they are read. The operation ends with the stream, or when this is
/// dropped.
#[derive(Debug)]
pub struct InstrumentedReader<R> {
    reader: R,
    timer: OperationTimer,
    /// The bytes that are still to come.
    left: u64,
}

impl<R: Stream<Item = Result<Bytes>> + Unpin> Stream for InstrumentedReader<R> {
    type Item = Result<Bytes>;

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes>>> {
        let item = ready!(Pin::new(&mut self.reader).poll_next(context));
        match &item {
            Some(Ok(bytes)) => {
                let bytes = bytes.len() as u64;
                self.timer.metrics.moved(Direction::Read, bytes);
                // A reader that has all bytes may not poll again: the operation ends with the last one.
                self.left = self.left.saturating_sub(bytes);
                if self.left == 0 {
                    self.timer.record(None);
                }
            }
            Some(Err(e)) => self.timer.record(Some(e)),
            None => self.timer.record(None),
        }
        Poll::Ready(item)
    }
}

/// A body that is written to the store, counted as the store reads it.
struct InstrumentedBody<B> {
    body: B,
    metrics: Storage,
}

impl<B: Stream<Item = Result<Bytes>> + Unpin> Stream for InstrumentedBody<B> {
    type Item = Result<Bytes>;

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes>>> {
        let item = ready!(Pin::new(&mut self.body).poll_next(context));
        if let Some(Ok(bytes)) = &item {
            self.metrics.moved(Direction::Write, bytes.len() as u64);
        }
        Poll::Ready(item)
    }
}

/// Times one operation. If it is dropped before its end, the caller has dropped the operation: that is
/// no failure of the store.
#[derive(Debug)]
struct OperationTimer {
    metrics: Storage,
    operation: Operation,
    started: Instant,
    ended: bool,
}

impl OperationTimer {
    fn end<T>(mut self, result: Result<T>) -> Result<T> {
        self.record(result.as_ref().err());
        // The drop that follows finds it recorded.
        result
    }

    fn record(&mut self, error: Option<&StoreError>) {
        // Once: a stream that has ended may be polled again, and is dropped in any case.
        if !std::mem::replace(&mut self.ended, true) {
            let error = error.map(|error| error_type(error.kind()));
            self.metrics
                .ended(self.operation, self.started.elapsed().as_secs_f64(), error);
        }
    }
}

impl Drop for OperationTimer {
    fn drop(&mut self) {
        self.record(None);
    }
}

fn error_type(kind: ErrorKind) -> ErrorType {
    match kind {
        ErrorKind::NotFound => ErrorType::NotFound,
        ErrorKind::DigestMismatch => ErrorType::DigestMismatch,
        ErrorKind::Invalid => ErrorType::Invalid,
        ErrorKind::NoSpace => ErrorType::NoSpace,
        ErrorKind::Permission => ErrorType::Permission,
        ErrorKind::Io => ErrorType::Io,
        ErrorKind::Timeout => ErrorType::Timeout,
        ErrorKind::Other => ErrorType::Other,
    }
}
