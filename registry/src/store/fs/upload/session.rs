//! One upload session: where it stands, and its files.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::SystemTime;

use tokio::sync::OwnedMutexGuard;

use super::reserved::ReservedBytes;
use crate::oci::{Algorithm, Hasher, Name};
use crate::store::fs::disk;
use crate::store::fs::file::{if_there, remove};
use crate::store::fs::layout::Layout;
use crate::store::{Result, StoreError, Upload, UploadId};

/// One open session.
pub(in crate::store::fs) struct UploadSession {
    pub(in crate::store::fs) id: UploadId,
    pub(in crate::store::fs) repository: Name,
    pub(in crate::store::fs) created: SystemTime,
    algorithm: Algorithm,
    /// The bytes written, which are a whole prefix of the upload at every moment.
    offset: AtomicU64,
    /// A body is arriving. Nobody can tell for how long, so that other requests are refused at once.
    receiving: AtomicBool,
    /// It was refused for want of space, and has received nothing since.
    refused: AtomicBool,
    ended: AtomicBool,
    /// The bytes of all sessions. This session's are released with its last reference: an append may
    /// still hold one when the session ends.
    reserved: ReservedBytes,
    /// Locked by the request that appends or commits.
    work: Arc<tokio::sync::Mutex<UploadWork>>,
}

/// The order in which sessions are evicted: the first one here goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::store::fs) enum EvictionRank {
    /// It holds no bytes: its client loses nothing.
    Empty,
    /// It was refused for want of space. Most clients open another session then and never resume it.
    Refused,
    /// It holds bytes from which its client may resume.
    Resumable,
}

/// What only the request that appends or commits may touch.
pub(in crate::store::fs) struct UploadWork {
    pub(in crate::store::fs) algorithm: Algorithm,
    /// The state after `offset` bytes. `None` after a restart or a failed append, until it is computed
    /// from the file.
    pub(in crate::store::fs) hasher: Option<Hasher>,
    /// An early sync has failed, which the system reports only once.
    pub(in crate::store::fs) sync_failed: Arc<AtomicBool>,
}

/// A session that a previous run left.
pub(in crate::store::fs) struct RestoredSession {
    pub(in crate::store::fs) session: UploadSession,
    /// When it was opened, or last received bytes.
    pub(in crate::store::fs) active: SystemTime,
}

/// Marks a session as receiving a body, for as long as this lives.
pub(in crate::store::fs) struct Receiving<'a>(&'a UploadSession);

impl UploadSession {
    /// A session without bytes that has no files yet.
    pub(in crate::store::fs) fn new(
        name: &Name,
        algorithm: Algorithm,
        reserved: &ReservedBytes,
    ) -> Self {
        Self {
            id: UploadId::random(),
            repository: name.clone(),
            created: SystemTime::now(),
            algorithm,
            offset: AtomicU64::new(0),
            receiving: AtomicBool::new(false),
            refused: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            reserved: reserved.clone(),
            work: UploadWork::new(algorithm, Some(Hasher::new(algorithm))),
        }
    }

    /// Makes the session's directory and its file `session`, without which there is no session.
    /// Neither is synced: an upload survives a restart of the program, and is promised no more before
    /// its commit.
    pub(in crate::store::fs) fn make_files(&self, layout: &Layout) -> Result<()> {
        let directory = layout.upload(&self.id);
        let path = layout.upload_session(&self.id);
        let text = format!("{}\n{}\n", self.repository, self.algorithm);
        let made = disk::create_directory(&directory).and_then(|()| disk::create_new(&path));
        let written = made.and_then(|file| disk::write(&file, &path, text.as_bytes(), 0));
        written.map_err(|e| {
            // What cannot be removed here is removed at the next start: it is no valid session.
            let _ = disk::remove_tree(&directory);
            StoreError::io(&path, e)
        })
    }

    /// How early it is evicted once it is idle.
    pub(in crate::store::fs) fn rank(&self) -> EvictionRank {
        if self.offset() == 0 {
            EvictionRank::Empty
        } else if self.refused.load(Ordering::Acquire) {
            EvictionRank::Refused
        } else {
            EvictionRank::Resumable
        }
    }

    pub(in crate::store::fs) fn offset(&self) -> u64 {
        self.offset.load(Ordering::Acquire)
    }

    /// Notes that the bytes before `offset` are in the file.
    pub(in crate::store::fs) fn advance(&self, offset: u64) {
        // Release, like all stores here: a request that reads the offset also sees the file as it was
        // when the offset was stored.
        self.offset.store(offset, Ordering::Release);
        self.refused.store(false, Ordering::Release);
    }

    /// Notes that the session found no space: it returns to `offset`, and is evicted early once it is
    /// idle. The caller holds its work and has cut the file.
    pub(in crate::store::fs) fn refuse(&self, offset: u64) {
        let dropped = self.offset().saturating_sub(offset);
        self.offset.fetch_sub(dropped, Ordering::AcqRel);
        // Here, and not in `Drop`, which releases only what the offset still counts.
        self.reserved.release(dropped);
        self.refused.store(true, Ordering::Release);
    }

    pub(in crate::store::fs) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    pub(in crate::store::fs) fn upload(&self) -> Upload {
        Upload {
            id: self.id.clone(),
            offset: self.offset(),
        }
    }

    /// Waits for the exclusive right to append or commit. A request whose body has ended is waited for,
    /// so that a client whose connection broke can resume at once. Fails while a body is arriving.
    pub(in crate::store::fs) async fn claim(&self) -> Result<OwnedMutexGuard<UploadWork>> {
        let work = match Arc::clone(&self.work).try_lock_owned() {
            Ok(work) => work,
            Err(_) if self.receiving.load(Ordering::Acquire) => return Err(StoreError::UploadBusy),
            Err(_) => Arc::clone(&self.work).lock_owned().await,
        };
        if self.has_ended() {
            Err(StoreError::UploadUnknown)
        } else {
            Ok(work)
        }
    }

    /// Marks the session as receiving. The caller holds its work.
    pub(in crate::store::fs) fn receiving(&self) -> Receiving<'_> {
        self.receiving.store(true, Ordering::Release);
        Receiving(self)
    }

    /// Notes that the session has ended: what is still waiting to work on it fails.
    pub(in crate::store::fs) fn mark_ended(&self) {
        self.ended.store(true, Ordering::Release);
    }

    /// Removes the session's files. The file `session` goes first: without it what a crash leaves is
    /// no session.
    pub(in crate::store::fs) fn remove_files(&self, layout: &Layout) -> Result<()> {
        remove(&layout.upload_session(&self.id))?;
        remove(&layout.upload_data(&self.id))?;
        let directory = layout.upload(&self.id);
        match disk::remove_directory(&directory) {
            // A body that is still arriving has made `data` again.
            Err(e) if e.kind() == std::io::ErrorKind::DirectoryNotEmpty => {
                if_there(&directory, disk::remove_tree(&directory)).map(drop)
            }
            result => if_there(&directory, result).map(drop),
        }
    }

    pub(in crate::store::fs) fn restore(
        layout: &Layout,
        id: UploadId,
        reserved: &ReservedBytes,
    ) -> Result<Option<RestoredSession>> {
        let path = layout.upload_session(&id);
        let read = match disk::read(&path) {
            Err(e) if disk::is_no_file(&e) || e.kind() == ErrorKind::NotADirectory => {
                Ok(Vec::new())
            }
            read => read,
        };
        let text = if_there(&path, read)?.unwrap_or_default();
        let text = String::from_utf8(text).unwrap_or_default();
        let mut lines = text.lines();
        let repository = lines.next().and_then(|line| Name::parse(line).ok());
        let algorithm = lines.next().and_then(|line| Algorithm::parse(line).ok());
        let (Some(repository), Some(algorithm)) = (repository, algorithm) else {
            return Ok(None);
        };
        let modified = |metadata: &fs::Metadata| metadata.modified().ok();
        let metadata = if_there(&path, disk::metadata(&path))?;
        let created = metadata.as_ref().and_then(modified);
        let created = created.unwrap_or_else(SystemTime::now);
        let data = layout.upload_data(&id);
        let data = if_there(&data, disk::metadata(&data))?;
        let offset = data.as_ref().map_or(0, MetadataExt::size);
        // What was received before the restart counts, even if the quota is smaller now.
        reserved.reserve(offset, u64::MAX)?;
        let active = data.as_ref().and_then(modified).unwrap_or(created);
        let session = Self {
            id,
            repository,
            created,
            algorithm,
            offset: AtomicU64::new(offset),
            receiving: AtomicBool::new(false),
            refused: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            reserved: reserved.clone(),
            work: UploadWork::new(algorithm, None),
        };
        let active = active.max(created);
        Ok(Some(RestoredSession { session, active }))
    }
}

impl UploadWork {
    fn new(algorithm: Algorithm, hasher: Option<Hasher>) -> Arc<tokio::sync::Mutex<Self>> {
        Arc::new(tokio::sync::Mutex::new(Self {
            algorithm,
            hasher,
            sync_failed: Arc::default(),
        }))
    }
}

impl Drop for UploadSession {
    fn drop(&mut self) {
        self.reserved.release(self.offset());
    }
}

impl Drop for Receiving<'_> {
    fn drop(&mut self) {
        self.0.receiving.store(false, Ordering::Release);
    }
}
