//! A store in a directory: plain files that a person can read, and nothing else.
//!
//! [`layout`] draws the tree. Content is stored once and named by its digest. A repository consists of
//! small files that name blobs, manifests and tags. Every name appears in one step (a link or a
//! rename), after the content that it stands for is on disk; where a change makes several names, the
//! one that lets readers see it comes last. So the program can be killed at any moment: what a reader
//! finds is complete, and what was acknowledged is there. [`durable`] has the types that enforce it.
//!
//! All work on files happens on tokio's blocking threads, as a rule in one job for an operation. This
//! file wires the operations to the [`Store`] trait: it says which of them confirm that the data
//! directory is still there, sync what they changed, and run again on a full disk.
//!
//! Removing content that no repository holds any more is for [`collect`], and finding damage for [`scrub`],
//! while all else goes on. Deliberately not here: statistics, which receive every change through
//! [`Changes`].

mod aged_items;
mod blob;
mod blocking;
mod buffers;
mod changes;
mod collect;
mod count;
mod data_directory;
mod dated_tags;
mod deletions;
mod directories;
mod directory_changes;
mod disk;
mod durable;
mod file;
mod inspect;
mod job_ends;
mod layout;
mod listing;
mod locks;
mod manifest;
mod manifest_cache;
mod open;
mod options;
mod prune_watch;
mod pulls;
mod reader;
mod reference;
mod referrer;
mod reliance;
mod root;
mod scrub;
mod space;
mod tag;
mod tagged_subjects;
#[cfg(test)]
mod tests;
mod told;
mod told_times;
mod upload;

use std::convert::Infallible;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::Stream;
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};

pub use aged_items::AgedItems;
pub use changes::{Changes, ContentCounts, RepositoryCounts};
pub use collect::untagged::StayingManifests;
pub use collect::{GcError, GcReport, GcSettings, TakenItem};
pub use count::RepositoryWalk;
pub use dated_tags::{DatedTag, TagVersion};
pub use inspect::{DirectoryState, inspect, space};
pub use layout::{Pool, Shard};
pub use open::OpenError;
pub use options::{Durability, StoreOptions, UploadQuota};
#[cfg(test)]
pub(crate) use pulls::file::tests::write_memory_since_1970;
pub use pulls::times::{LastPull, PullTimes};
pub use reader::BlobReader;
pub use root::Presence;
pub use scrub::{CorruptContent, Holders, MissingContent, ScrubError, ScrubReport, ScrubSettings};
pub use space::Space;
pub use tagged_subjects::{SUBJECT_DIGITS, TaggedSubjects};
#[cfg(test)]
pub(crate) use tests::{refuser, scratch};
pub use upload::sessions::{Expired, OpenUploads, UploadTotals};

use self::blocking::unwind;
use self::data_directory::DataDirectory;
use self::durable::Unsynced;
use self::layout::Layout;
use self::manifest::WriteProgress;
use self::upload::quota::retry_when_full;
use self::upload::{append, commit, create};
use super::{
    BlobRead, Condition, Listing, ManifestRead, NewManifest, Referrers, ReferrersQuery, Result,
    Store, TagChanges, Upload, UploadId,
};
use crate::oci::{Algorithm, ByteRanges, Digest, Name, Reference, Tag};
use crate::store::maintenance::Run;

/// How often the store checks that its data directory is there.
const WATCH: Duration = Duration::from_secs(1);

/// A store in a directory. Clones are the same store. The directory is unlocked when the last of them is
/// dropped.
#[derive(Clone)]
pub struct FsStore {
    data: Arc<DataDirectory>,
}

impl FsStore {
    /// Opens a data directory, which is made if it is not there, removes what an interrupted run left
    /// behind, and restores its upload sessions. Blocks; `changes` receives every change from then on.
    pub fn open(
        root: &Path,
        options: impl Into<StoreOptions>,
        changes: Arc<dyn Changes>,
    ) -> std::result::Result<Self, OpenError> {
        let layout = Layout::new(root.to_owned());
        // Locked first: a file in `tmp` may be one that another registry is writing.
        let root = open::lock(&layout)?;
        open::remove_leftovers(&layout)?;
        let pulls = pulls::file::load(&layout);
        let data = DataDirectory::new(layout, root, options.into(), changes, pulls)?;
        Ok(Self {
            data: Arc::new(data),
        })
    }

    /// Ends the upload sessions that have been idle for as long as `idle`. A session that a request uses
    /// is not idle, however long the request takes.
    pub async fn expire_uploads(&self, idle: Duration) -> Result<Expired> {
        self.run(move |data| {
            // While the directory is gone their files could not be removed.
            data.root.check()?;
            Ok(data.sessions.expire(idle, &data.layout))
        })
        .await
    }

    /// Checks once a second that the data directory is there, until the future is dropped.
    pub async fn watch(self) -> Infallible {
        let mut ticks = interval(WATCH);
        // After a disk that hung for a minute one check is enough.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            // The check itself logs a change and sends it to all `Presence` receivers.
            let _ = self.run(|data| data.root.check()).await;
        }
    }

    /// When tags and manifests were last pulled. Who serves a pull records it there.
    pub fn pulls(&self) -> Arc<PullTimes> {
        Arc::clone(&self.data.pulls)
    }

    /// Writes what is remembered of pulls to disk, if that has changed.
    pub async fn save_pulls(&self) -> Result<()> {
        self.confirm(pulls::file::save).await
    }

    /// When a maintenance job last ended, by its name; `None` if that is not known. Blocks.
    pub fn last_job_end(&self, job: &str) -> Option<SystemTime> {
        job_ends::last(&self.data, job)
    }

    /// Notes that a maintenance job ends now. Blocks.
    ///
    /// # Errors
    /// If the directory cannot be written.
    pub fn note_job_end(&self, job: &str) -> Result<()> {
        job_ends::note(&self.data, job)
    }

    /// What repositories hold, by age.
    pub fn aged_items(&self) -> AgedItems {
        AgedItems::new(Arc::clone(&self.data))
    }

    /// Whether the data directory was there when it was last checked.
    pub fn presence(&self) -> Presence {
        self.data.root.presence()
    }

    /// Counts a repository, and calls `report` with the result while nobody can change it. Blocks.
    pub fn count_repository(
        &self,
        name: &Name,
        report: impl FnOnce(RepositoryCounts),
    ) -> Result<()> {
        count::repository(&self.data, name, report)
    }

    /// Counts a shard of content, and calls `report` with the result while nobody can change it.
    /// Blocks.
    pub fn count_shard(&self, shard: Shard, report: impl FnOnce(ContentCounts)) -> Result<()> {
        count::shard(&self.data, shard, report)
    }

    /// All directories that may be repositories, in no order, each followed by those below it. The
    /// iterator blocks.
    pub fn walk_repositories(&self) -> RepositoryWalk {
        RepositoryWalk::new(Arc::clone(&self.data))
    }

    /// What everything but repositories, content and uploads takes on disk, in bytes: the directories
    /// of content, and the lock file. Blocks.
    pub fn fixed_allocated(&self) -> i64 {
        count::fixed_allocated(&self.data.layout)
    }

    /// The open upload sessions, from the table in memory.
    pub fn uploads(&self) -> OpenUploads {
        OpenUploads::new(&self.data.sessions)
    }

    /// What the open upload sessions take on disk, in bytes. Blocks.
    pub fn uploads_allocated(&self) -> Result<i64> {
        count::uploads_allocated(&self.data)
    }

    /// Removes what no manifest needs, while requests are served. What it did is in `report` even if it
    /// ends early. Blocks.
    pub fn collect(
        &self,
        settings: GcSettings,
        run: &Run,
        report: &mut GcReport,
    ) -> std::result::Result<(), GcError> {
        collect::collect(&self.data, settings, run, report)
    }

    /// Compares all content with its digests, or what an interrupted run has left of it. What it found is
    /// in `report` even if it ends early. Corrupt content is no error. Blocks.
    pub fn scrub(
        &self,
        settings: ScrubSettings,
        run: &Run,
        report: &mut ScrubReport,
    ) -> std::result::Result<(), ScrubError> {
        scrub::scrub(&self.data, settings, run, report)
    }

    /// Asks the system about the space that is left. Blocks.
    pub fn space(&self) -> Result<Space> {
        Space::of(&self.data.root)
    }

    /// Looks up one item. Where it is not found, the data directory must be there.
    async fn find<T: Send + 'static>(
        &self,
        work: impl FnOnce(&DataDirectory) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.data.root.present()?;
        // Checked after the work: a directory that went meanwhile makes every item look absent.
        self.run(move |data| data.root.trust(work(data))).await
    }

    /// Lists items, or ends an upload session. Without the data directory a list would be empty and a
    /// session gone, so that the directory must be there whatever the result is.
    async fn confirm<T: Send + 'static>(
        &self,
        work: impl FnOnce(&DataDirectory) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.data.root.present()?;
        self.run(move |data| data.root.confirm(work(data))).await
    }

    /// Removes names. The result is handed out when their removal is on disk. A removal is not run
    /// again on a full disk: the second run would not find what the first one has removed.
    async fn remove<T: Send + 'static>(
        &self,
        work: impl FnOnce(&DataDirectory) -> Result<Unsynced<T>> + Send + 'static,
    ) -> Result<T> {
        self.confirm(move |data| work(data)?.sync(data)).await
    }

    /// Makes names. The result is handed out when they are on disk. `work` has released its locks when
    /// it returns, so that none is held during the sync. On a full disk it is run again.
    async fn change<T: Send + 'static>(
        &self,
        mut work: impl FnMut(&DataDirectory) -> Result<Unsynced<T>> + Send + 'static,
    ) -> Result<T> {
        self.write(move |data| work(data)?.sync(data)).await
    }

    /// Writes. On a full disk `work` is run again after a session was evicted.
    async fn write<T: Send + 'static>(
        &self,
        mut work: impl FnMut(&DataDirectory) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        // The check comes once, after the last attempt: only that result is reported.
        self.confirm(move |data| retry_when_full(data, || work(data)))
            .await
    }

    /// Does work on a blocking thread, to its end even if the caller's future is dropped.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&DataDirectory) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let data = Arc::clone(&self.data);
        unwind(spawn_blocking(move || work(&data)).await).flatten()
    }
}

impl Store for FsStore {
    type Reader = BlobReader;

    fn available(&self) -> Result<()> {
        self.data.root.present()
    }

    async fn blob_stat(&self, repository: &Name, digest: &Digest) -> Result<u64> {
        let (name, digest) = (repository.clone(), digest.clone());
        self.find(move |data| blob::stat(data, &name, &digest))
            .await
    }

    async fn blob_read(
        &self,
        repository: &Name,
        digest: &Digest,
        ranges: Option<ByteRanges>,
    ) -> Result<BlobRead<BlobReader>> {
        let (name, digest) = (repository.clone(), digest.clone());
        self.find(move |data| blob::read(data, &name, &digest, ranges.as_ref()))
            .await
    }

    async fn blob_delete(&self, repository: &Name, digest: &Digest) -> Result<()> {
        let (name, digest) = (repository.clone(), digest.clone());
        self.remove(move |data| blob::delete(data, &name, &digest))
            .await
    }

    async fn blob_mount(
        &self,
        repository: &Name,
        from: Option<&Name>,
        digest: &Digest,
    ) -> Result<()> {
        let (name, from, digest) = (repository.clone(), from.cloned(), digest.clone());
        self.change(move |data| blob::mount(data, &name, from.as_ref(), &digest))
            .await
    }

    async fn upload_create(&self, repository: &Name, algorithm: Algorithm) -> Result<Upload> {
        let name = repository.clone();
        self.write(move |data| create::create(data, &name, algorithm))
            .await
    }

    async fn upload_stat(&self, repository: &Name, id: &UploadId) -> Result<Upload> {
        self.data.root.present()?;
        // No file is read: the table has been the truth since it was restored at the start.
        self.data
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
        self.data.root.present()?;
        // In use before the first byte arrives, so that the session is not evicted while it waits.
        let session = self.data.sessions.acquire(repository, id)?;
        append::append(Arc::clone(&self.data), session, offset, body).await
    }

    async fn upload_commit(&self, repository: &Name, id: &UploadId, digest: &Digest) -> Result<()> {
        let (name, digest) = (repository.clone(), digest.clone());
        self.data.root.present()?;
        let session = self.data.sessions.acquire(repository, id)?;
        // On this task: a claim may wait for another request, and must not occupy a blocking thread.
        let mut work = session.claim().await?;
        self.write(move |data| commit::commit(data, &session, &mut work, &name, &digest))
            .await
    }

    async fn upload_cancel(&self, repository: &Name, id: &UploadId) -> Result<()> {
        self.data.root.present()?;
        // Without a claim: a cancel must not wait for the body that is still arriving.
        let session = self.data.sessions.acquire(repository, id)?;
        self.confirm(move |data| data.sessions.end(&session, &data.layout))
            .await
    }

    async fn manifest_read(
        &self,
        repository: &Name,
        reference: &Reference,
    ) -> Result<ManifestRead<BlobReader>> {
        // Before the cache: without the directory its values may no longer be true.
        self.data.root.present()?;
        let again = self.data.told.again();
        if let Some(manifest) = self.data.manifests.manifest(repository, reference, again) {
            return Ok(manifest.into());
        }
        let (name, reference) = (repository.clone(), reference.clone());
        self.find(move |data| manifest::read(data, &name, &reference))
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
        // Outside of the closure, which runs once for each attempt.
        let mut progress = WriteProgress::default();
        self.change(move |data| {
            let condition = condition.as_ref();
            manifest::write(data, &name, &manifest, &tags, condition, &mut progress)
        })
        .await
    }

    async fn manifest_delete(&self, repository: &Name, digest: &Digest) -> Result<TagChanges> {
        let (name, digest) = (repository.clone(), digest.clone());
        self.remove(move |data| manifest::delete(data, &name, &digest))
            .await
    }

    async fn tag_read(&self, repository: &Name, tag: &Tag) -> Result<Digest> {
        self.data.root.present()?;
        if let Some(digest) = self.data.manifests.tag(repository, tag) {
            return Ok(digest);
        }
        let (name, tag) = (repository.clone(), tag.clone());
        self.find(move |data| tag::read(data, &name, &tag)).await
    }

    async fn tag_write(&self, repository: &Name, tag: &Tag, digest: &Digest) -> Result<TagChanges> {
        let (name, tag, digest) = (repository.clone(), tag.clone(), digest.clone());
        self.change(move |data| tag::write(data, &name, &tag, &digest))
            .await
    }

    async fn tag_delete(
        &self,
        repository: &Name,
        tag: &Tag,
        condition: Option<&Condition>,
    ) -> Result<()> {
        let (name, tag, condition) = (repository.clone(), tag.clone(), condition.cloned());
        self.remove(move |data| tag::delete(data, &name, &tag, condition.as_ref()))
            .await
    }

    async fn tag_list(
        &self,
        repository: &Name,
        last: Option<&str>,
        limit: usize,
    ) -> Result<Listing<Tag>> {
        self.data.root.present()?;
        if let Some(page) = self.data.listings.page(repository, last, limit) {
            return Ok(page);
        }
        let (name, last) = (repository.clone(), last.map(str::to_owned));
        self.confirm(move |data| listing::tags(data, &name, last.as_deref(), limit))
            .await
    }

    async fn repository_list(&self, last: Option<&str>, limit: usize) -> Result<Listing<Name>> {
        let last = last.map(str::to_owned);
        self.confirm(move |data| listing::repositories(data, last.as_deref(), limit))
            .await
    }

    async fn referrers_list(
        &self,
        repository: &Name,
        digest: &Digest,
        query: &ReferrersQuery,
    ) -> Result<Referrers> {
        let (name, digest, query) = (repository.clone(), digest.clone(), query.clone());
        self.confirm(move |data| referrer::list(data, &name, &digest, &query))
            .await
    }
}

impl fmt::Debug for FsStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FsStore")
            .field(&self.data.layout.root())
            .finish()
    }
}
