//! A store in a folder: plain files that a person can read, and nothing else.
//!
//! [`layout`] draws the tree. Content is kept once and named by its digest; what a repository holds
//! is names: small files for blobs, manifests and tags. Every name appears in one
//! step (a link or a rename), after what it stands for is on disk; a change of several names makes
//! the one last that lets readers see it. So the program can be killed at any moment: what a reader
//! finds is whole, and what was acknowledged is there.
//!
//! All work on files happens on tokio's blocking threads, as a rule in one visit for an operation.
//!
//! Deliberately not here: removing content that no repository holds any more, which is for a
//! garbage collector, and counting, for which [`Changes`] tells what happened.

mod blob;
mod buffers;
mod changes;
mod count;
mod deletions;
mod file;
mod layout;
mod listing;
mod locks;
mod manifest;
mod manifest_cache;
mod open;
mod reader;
mod referrer;
mod root;
mod tag;
#[cfg(test)]
mod tests;
mod upload;

use std::convert::Infallible;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::task::{JoinError, spawn_blocking};
use tokio::time::{MissedTickBehavior, interval};

pub use changes::{Changes, ContentCounts, RepositoryCounts};
pub use count::{Space, Uploads, Walk};
pub use layout::{Pool, Shard};
pub use open::StartError;
pub use reader::BlobReader;
pub use root::Presence;
pub use upload::quota::{Bounds, Options};
pub use upload::sessions::{Expired, UploadTotals};

use self::buffers::Buffers;
use self::deletions::Deletions;
use self::layout::Layout;
use self::listing::cache::ListingCache;
use self::locks::StripedLocks;
use self::manifest_cache::ManifestCache;
use self::root::Root;
use self::upload::append::Limits;
use self::upload::session::Session;
use self::upload::sessions::Sessions;
use self::upload::{append, commit, sessions};
use super::{
    BlobRead, Condition, Listing, ManifestRead, NewManifest, Referrers, ReferrersQuery, Result,
    Store, StoreError, TagChanges, Upload, UploadId,
};
use crate::oci::{Algorithm, ByteRanges, Digest, Name, Reference, Tag};

/// How often it is looked at whether the data directory is there.
const WATCH: Duration = Duration::from_secs(1);

/// What an acknowledgement promises.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// Bytes and names are on disk: they survive a crash of the machine.
    #[default]
    Full,
    /// They are with the system, which writes them when it likes: they survive a crash of the
    /// program.
    Relaxed,
}

/// A store in a folder. Clones are the same store; the last one gone, the folder's lock is too.
#[derive(Clone)]
pub struct FsStore {
    inner: Arc<Inner>,
}

struct Inner {
    layout: Layout,
    durability: Durability,
    locks: StripedLocks,
    deletions: Deletions,
    sessions: Arc<Sessions>,
    changes: Arc<dyn Changes>,
    cache: ManifestCache,
    listings: ListingCache,
    buffers: Arc<Buffers>,
    limits: Limits,
    /// Held while folders are made or removed, so that none goes while another is made in it.
    folders: Mutex<()>,
    root: Root,
}

impl FsStore {
    /// Opens a folder, which is made if it is not there, removes what an interrupted run left
    /// behind, and restores its upload sessions. Blocks; `changes` is told what happens from here.
    pub fn open(
        root: &Path,
        options: impl Into<Options>,
        changes: Arc<dyn Changes>,
    ) -> std::result::Result<Self, StartError> {
        let Options { durability, bounds } = options.into();
        let layout = Layout::new(root.to_owned());
        let root = open::take(&layout)?;
        open::remove_leftovers(&layout)?;
        let sessions = Arc::new(Sessions::restore(&layout, bounds)?);
        let inner = Inner {
            layout,
            durability,
            locks: StripedLocks::new(),
            deletions: Deletions::default(),
            sessions,
            changes,
            cache: ManifestCache::new(),
            listings: ListingCache::default(),
            buffers: Arc::default(),
            limits: Limits::new(),
            folders: Mutex::new(()),
            root,
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Ends the upload sessions that have been idle for as long as `idle`. One that a request is for
    /// is not idle, however long that takes.
    pub async fn expire_uploads(&self, idle: Duration) -> Result<Expired> {
        self.run(move |inner| {
            // Without their files they would only seem to be gone.
            inner.root.check()?;
            Ok(sessions::expire(inner, idle))
        })
        .await
    }

    /// Looks once a second whether the data directory is there, until the future is dropped.
    pub async fn watch(self) -> Infallible {
        let mut ticks = interval(WATCH);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            // Whoever wants to know is told by `presence`, and the log was, too.
            let _ = self.run(|inner| inner.root.check()).await;
        }
    }

    /// Whether the data directory is there, as it was found when it was last looked at.
    pub fn presence(&self) -> Presence {
        self.inner.root.presence()
    }

    /// Looks something up: if it is not found, the directory must be there.
    async fn find<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.inner.root.present()?;
        self.run(move |inner| inner.root.trust(work(inner))).await
    }

    /// Changes something, or lists: whatever comes of it, the directory must be there at the end.
    async fn change<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.inner.root.present()?;
        self.run(move |inner| inner.root.confirm(work(inner))).await
    }

    /// Does work on a blocking thread. It goes on to its end even if nobody waits for it any more.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let inner = Arc::clone(&self.inner);
        unwind(spawn_blocking(move || work(&inner)).await).flatten()
    }
}

impl Store for FsStore {
    type Reader = BlobReader;

    fn available(&self) -> Result<()> {
        self.inner.root.present()
    }

    async fn blob_stat(&self, repository: &Name, digest: &Digest) -> Result<u64> {
        let (name, digest) = (repository.clone(), digest.clone());
        self.find(move |inner| blob::stat(inner, &name, &digest))
            .await
    }

    async fn blob_read(
        &self,
        repository: &Name,
        digest: &Digest,
        ranges: Option<ByteRanges>,
    ) -> Result<BlobRead<BlobReader>> {
        let (name, digest) = (repository.clone(), digest.clone());
        self.find(move |inner| blob::read(inner, &name, &digest, ranges.as_ref()))
            .await
    }

    async fn blob_delete(&self, repository: &Name, digest: &Digest) -> Result<()> {
        let (name, digest) = (repository.clone(), digest.clone());
        self.change(move |inner| blob::delete(inner, &name, &digest))
            .await
    }

    async fn blob_mount(
        &self,
        repository: &Name,
        from: Option<&Name>,
        digest: &Digest,
    ) -> Result<()> {
        let (name, from, digest) = (repository.clone(), from.cloned(), digest.clone());
        self.change(move |inner| blob::mount(inner, &name, from.as_ref(), &digest))
            .await
    }

    async fn upload_create(&self, repository: &Name, algorithm: Algorithm) -> Result<Upload> {
        let name = repository.clone();
        self.change(move |inner| Session::create(inner, &name, algorithm))
            .await
    }

    async fn upload_stat(&self, repository: &Name, id: &UploadId) -> Result<Upload> {
        self.inner.root.present()?;
        self.inner
            .sessions
            .get(repository, id)
            .map(|session| session.upload())
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
        self.inner.root.present()?;
        let session = self.inner.sessions.take(repository, id)?;
        append::append(Arc::clone(&self.inner), session, offset, body).await
    }

    async fn upload_commit(&self, repository: &Name, id: &UploadId, digest: &Digest) -> Result<()> {
        let (name, digest) = (repository.clone(), digest.clone());
        self.inner.root.present()?;
        let session = self.inner.sessions.take(repository, id)?;
        let work = session.claim().await?;
        self.change(move |inner| commit::commit(inner, &session, &work, &name, &digest))
            .await
    }

    async fn upload_cancel(&self, repository: &Name, id: &UploadId) -> Result<()> {
        self.inner.root.present()?;
        let session = self.inner.sessions.take(repository, id)?;
        self.change(move |inner| session.end(inner)).await
    }

    async fn manifest_read(
        &self,
        repository: &Name,
        reference: &Reference,
    ) -> Result<ManifestRead<BlobReader>> {
        self.inner.root.present()?;
        if let Some(manifest) = self.inner.cache.manifest(repository, reference) {
            return Ok(manifest.into());
        }
        let (name, reference) = (repository.clone(), reference.clone());
        self.find(move |inner| manifest::read(inner, &name, &reference))
            .await
    }

    async fn manifest_write(
        &self,
        repository: &Name,
        manifest: NewManifest,
        tags: &[Tag],
        condition: Option<&Condition>,
    ) -> Result<TagChanges> {
        let (name, tags, condition) = (repository.clone(), tags.to_vec(), condition.cloned());
        self.change(move |inner| {
            manifest::write(inner, &name, &manifest, &tags, condition.as_ref())
        })
        .await
    }

    async fn manifest_delete(&self, repository: &Name, digest: &Digest) -> Result<TagChanges> {
        let (name, digest) = (repository.clone(), digest.clone());
        self.change(move |inner| manifest::delete(inner, &name, &digest))
            .await
    }

    async fn tag_read(&self, repository: &Name, tag: &Tag) -> Result<Digest> {
        self.inner.root.present()?;
        if let Some(digest) = self.inner.cache.tag(repository, tag) {
            return Ok(digest);
        }
        let (name, tag) = (repository.clone(), tag.clone());
        self.find(move |inner| tag::read(inner, &name, &tag)).await
    }

    async fn tag_write(&self, repository: &Name, tag: &Tag, digest: &Digest) -> Result<TagChanges> {
        let (name, tag, digest) = (repository.clone(), tag.clone(), digest.clone());
        self.change(move |inner| tag::write(inner, &name, &tag, &digest))
            .await
    }

    async fn tag_delete(
        &self,
        repository: &Name,
        tag: &Tag,
        condition: Option<&Condition>,
    ) -> Result<()> {
        let (name, tag, condition) = (repository.clone(), tag.clone(), condition.cloned());
        self.change(move |inner| tag::delete(inner, &name, &tag, condition.as_ref()))
            .await
    }

    async fn tag_list(
        &self,
        repository: &Name,
        last: Option<&str>,
        limit: usize,
    ) -> Result<Listing<Tag>> {
        self.inner.root.present()?;
        if let Some(page) = self.inner.listings.page(repository, last, limit) {
            return Ok(page);
        }
        let (name, last) = (repository.clone(), last.map(str::to_owned));
        self.change(move |inner| listing::tags(inner, &name, last.as_deref(), limit))
            .await
    }

    async fn repository_list(&self, last: Option<&str>, limit: usize) -> Result<Listing<Name>> {
        let last = last.map(str::to_owned);
        self.change(move |inner| listing::repositories(inner, last.as_deref(), limit))
            .await
    }

    async fn referrers_list(
        &self,
        repository: &Name,
        digest: &Digest,
        query: &ReferrersQuery,
    ) -> Result<Referrers> {
        let (name, digest, query) = (repository.clone(), digest.clone(), query.clone());
        self.change(move |inner| referrer::list(inner, &name, &digest, &query))
            .await
    }
}

impl fmt::Debug for FsStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FsStore")
            .field(&self.inner.layout.root())
            .finish()
    }
}

/// What came of a blocking job. A panic in it goes on in the task that waited.
fn unwind<T>(joined: std::result::Result<T, JoinError>) -> Result<T> {
    match joined.map_err(JoinError::try_into_panic) {
        Ok(value) => Ok(value),
        Err(Ok(panic)) => std::panic::resume_unwind(panic),
        // The runtime drops jobs that have not begun when it shuts down.
        Err(Err(_)) => Err(StoreError::Interrupted),
    }
}
