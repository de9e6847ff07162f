//! Storage of a registry's content, in the nouns of the OCI distribution specification.
//!
//! [`Store`] is the contract: asynchronous, streaming, and without a path in any signature, so that an
//! object store can implement it as well as a directory. Every method that changes something is one
//! atomic step. When it returns `Ok`, the whole change has happened and survives a crash; when it
//! returns `Err`, nothing that a reader can see has changed. A future that is dropped before its end
//! has done all or nothing, too.
//!
//! Deliberately not here: HTTP, authentication, policy (what may be deleted, how large a manifest may
//! be), and metrics, which [`Instrumented`] adds around any store.

mod condition;
mod error;
#[cfg(test)]
pub(crate) mod faulty;
pub mod fs;
mod instrumented;
pub mod maintenance;
mod memory;
mod referrers;
#[cfg(test)]
pub(crate) mod suite;
mod upload_id;

use std::future::Future;

use bytes::Bytes;
use futures_util::Stream;

pub use condition::{Condition, Versions};
pub use error::{ErrorKind, Lost, StoreError};
pub use instrumented::{Instrumented, InstrumentedReader};
pub use memory::{MemoryReader, MemoryStore};
pub use referrers::{Referrers, ReferrersQuery};
pub use upload_id::UploadId;

use crate::oci::{
    Algorithm, ByteRanges, Descriptor, Digest, Kind, MediaType, Name, Reference, Spans, Tag,
};

/// The result of a store operation.
pub type Result<T> = std::result::Result<T, StoreError>;

/// The state of an upload session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upload {
    /// The session's identifier.
    pub id: UploadId,
    /// The bytes received so far. The next chunk begins here.
    pub offset: u64,
}

/// A blob that was opened for reading.
#[derive(Debug)]
pub struct BlobRead<R> {
    /// The size of the whole blob in bytes.
    pub size: u64,
    /// The parts that `reader` yields.
    pub spans: Spans,
    /// The bytes of the spans, one span after another; no chunk has bytes of two.
    pub reader: R,
}

/// The numbers of tags that an operation created, moved to another manifest, removed and could not
/// read. A tag that is written with the manifest it already points at counts as none of these.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TagChanges {
    /// Tags that were new.
    pub created: u64,
    /// Tags that pointed at another manifest before.
    pub moved: u64,
    /// Tags that are gone.
    pub deleted: u64,
    /// Tags that the operation found damaged and left as they are: nobody can tell what they pointed
    /// at.
    pub damaged: u64,
}

/// A manifest that was opened for reading.
#[derive(Debug)]
pub struct ManifestRead<R> {
    /// The digest it is stored under.
    pub digest: Digest,
    /// The media type it was pushed with.
    pub media_type: MediaType,
    /// Its length in bytes.
    pub size: u64,
    /// Its bytes as they were pushed.
    pub content: ManifestContent<R>,
}

/// The bytes of a manifest. A small one is in memory. A large one is read like a blob, so that many at
/// once take a bounded memory.
#[derive(Debug)]
pub enum ManifestContent<R> {
    /// All of them.
    Whole(Bytes),
    /// A reader that yields them in order.
    Stream(R),
}

/// A manifest to be stored; the caller has verified the digest and parsed the body.
#[derive(Clone, Debug)]
pub struct NewManifest {
    /// The digest of `bytes`.
    pub digest: Digest,
    /// The media type to serve it with.
    pub media_type: MediaType,
    /// The bytes to store, unchanged. The caller may limit the memory of such bytes, so that a store that
    /// keeps them in memory makes a copy.
    pub bytes: Bytes,
    /// The kind of manifest, for the statistics.
    pub kind: Kind,
    /// The blobs that must exist in the repository. The caller may leave out some that the manifest
    /// names.
    pub blobs: Vec<Digest>,
    /// The manifests that must exist in the repository, likewise.
    pub children: Vec<Digest>,
    /// The manifest it refers to (which need not exist), with the descriptor to list this one by.
    pub subject: Option<(Digest, Descriptor)>,
}

/// One page of an ordered listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing<T> {
    /// The items, in ascending byte order.
    pub items: Vec<T>,
    /// Whether items follow the last one.
    pub more: bool,
}

#[cfg(test)]
impl<R> ManifestRead<R> {
    /// The bytes of a small manifest.
    pub(crate) fn bytes(&self) -> &Bytes {
        match &self.content {
            ManifestContent::Whole(bytes) => bytes,
            ManifestContent::Stream(_) => panic!("it is not small"),
        }
    }
}

/// Content-addressed storage of repositories, blobs, manifests, tags and upload sessions.
///
/// Blobs and manifests belong to repositories. Equal content is stored once, however many repositories
/// hold it. A repository exists while it holds a blob or a manifest; nothing else creates or removes
/// it. All methods may be called concurrently with all others.
pub trait Store: Send + Sync + 'static {
    /// A blob's bytes, in order. Dropping it stops the reading.
    type Reader: Stream<Item = Result<Bytes>> + Send + Unpin + 'static;

    /// Fails while the store can serve nothing at all. Reads memory only.
    fn available(&self) -> Result<()>;

    /// A blob's size in bytes. Fails with `BlobUnknown`.
    fn blob_stat(
        &self,
        repository: &Name,
        digest: &Digest,
    ) -> impl Future<Output = Result<u64>> + Send;

    /// A blob's bytes, or ranges of them, as a stream in bounded memory. The blob is found, measured and
    /// opened in one step, and is read to its end even if it is deleted meanwhile. Fails with
    /// `BlobUnknown`, and with `RangeUnsatisfiable` where no byte satisfies any range.
    fn blob_read(
        &self,
        repository: &Name,
        digest: &Digest,
        ranges: Option<ByteRanges>,
    ) -> impl Future<Output = Result<BlobRead<Self::Reader>>> + Send;

    /// Removes a blob from a repository; other repositories that hold it keep it. Fails with
    /// `BlobUnknown`.
    fn blob_delete(
        &self,
        repository: &Name,
        digest: &Digest,
    ) -> impl Future<Output = Result<()>> + Send;

    /// Makes a blob of `from` (or any blob of the store, if `None`) part of `repository` without
    /// moving its bytes. Fails with `BlobUnknown` where there is none to mount.
    fn blob_mount(
        &self,
        repository: &Name,
        from: Option<&Name>,
        digest: &Digest,
    ) -> impl Future<Output = Result<()>> + Send;

    /// Opens an upload session whose digest will be computed with `algorithm`.
    ///
    /// A store may limit its sessions, and the bytes that they hold together. Where a limit is reached,
    /// it evicts idle sessions: those without bytes first, and then those that have been idle for
    /// longest. An evicted session is unknown, as is one that has expired. A session that a request
    /// uses is not idle. Where no session can be evicted, this fails with `TooManySessions`, and this
    /// and appends fail with `TooManyBytes`, `Reserved` and `ReservedFiles`.
    fn upload_create(
        &self,
        repository: &Name,
        algorithm: Algorithm,
    ) -> impl Future<Output = Result<Upload>> + Send;

    /// The state of an upload session. Fails with `UploadUnknown`.
    fn upload_stat(
        &self,
        repository: &Name,
        id: &UploadId,
    ) -> impl Future<Output = Result<Upload>> + Send;

    /// Appends a stream of bytes at `offset`, which must be the session's (else `UploadOffset`, which
    /// holds the right one). Bytes that arrived before a failure of the stream stay, so that the upload
    /// can be resumed from the offset that `upload_stat` returns. An append that finds no free space
    /// leaves the session as it was. Of several simultaneous appends and commits of one session, one
    /// wins; the others fail with `UploadBusy`, or as they would after it.
    fn upload_append<B>(
        &self,
        repository: &Name,
        id: &UploadId,
        offset: u64,
        body: B,
    ) -> impl Future<Output = Result<Upload>> + Send
    where
        B: Stream<Item = Result<Bytes>> + Send + Unpin + 'static;

    /// Turns a session's bytes into the blob `digest`, atomically, and ends the session. Fails with
    /// `DigestMismatch`, which ends the session too: its bytes can never match.
    fn upload_commit(
        &self,
        repository: &Name,
        id: &UploadId,
        digest: &Digest,
    ) -> impl Future<Output = Result<()>> + Send;

    /// Ends a session and drops its bytes, even while they are still arriving.
    fn upload_cancel(
        &self,
        repository: &Name,
        id: &UploadId,
    ) -> impl Future<Output = Result<()>> + Send;

    /// The manifest that a tag or digest refers to. Fails with `ManifestUnknown`.
    fn manifest_read(
        &self,
        repository: &Name,
        reference: &Reference,
    ) -> impl Future<Output = Result<ManifestRead<Self::Reader>>> + Send;

    /// Stores a manifest and points `tags` at it, in this order. Fails with `ConditionFailed`
    /// where the condition does not hold, and with `ReferenceUnknown` where a blob or child is not
    /// in the repository, before anything is visible.
    fn manifest_write(
        &self,
        repository: &Name,
        manifest: NewManifest,
        tags: &[Tag],
        condition: Option<&Condition>,
    ) -> impl Future<Output = Result<TagChanges>> + Send;

    /// Removes a manifest, every tag that points at it, and its entry among its subject's referrers.
    /// Where there are many tags, they may be removed before it and not all at once. Fails with
    /// `ManifestUnknown`.
    fn manifest_delete(
        &self,
        repository: &Name,
        digest: &Digest,
    ) -> impl Future<Output = Result<TagChanges>> + Send;

    /// The digest that a tag points at. Fails with `ManifestUnknown`.
    fn tag_read(&self, repository: &Name, tag: &Tag)
    -> impl Future<Output = Result<Digest>> + Send;

    /// Points a tag at a manifest of the repository. Fails with `ManifestUnknown`.
    fn tag_write(
        &self,
        repository: &Name,
        tag: &Tag,
        digest: &Digest,
    ) -> impl Future<Output = Result<TagChanges>> + Send;

    /// Removes a tag; the manifest stays. Fails with `ManifestUnknown`, and with `ConditionFailed`
    /// where the condition does not hold.
    fn tag_delete(
        &self,
        repository: &Name,
        tag: &Tag,
        condition: Option<&Condition>,
    ) -> impl Future<Output = Result<()>> + Send;

    /// The tags after `last`, at most `limit`, in ascending byte order. Fails with
    /// `RepositoryUnknown`.
    fn tag_list(
        &self,
        repository: &Name,
        last: Option<&str>,
        limit: usize,
    ) -> impl Future<Output = Result<Listing<Tag>>> + Send;

    /// The repositories after `last`, at most `limit`, in ascending byte order.
    fn repository_list(
        &self,
        last: Option<&str>,
        limit: usize,
    ) -> impl Future<Output = Result<Listing<Name>>> + Send;

    /// A page of descriptors of the manifests whose subject is `digest`, in ascending order of their
    /// digests; an empty page is no error. It takes bounded memory and time, however many there are and
    /// however few of them match the query.
    fn referrers_list(
        &self,
        repository: &Name,
        digest: &Digest,
        query: &ReferrersQuery,
    ) -> impl Future<Output = Result<Referrers>> + Send;
}
