//! One upload session: where it stands, and its files.

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::SystemTime;

use tokio::sync::OwnedMutexGuard;

use super::quota::Held;
use super::sessions::Rank;
use crate::oci::{Algorithm, Hasher, Name};
use crate::store::fs::Inner;
use crate::store::fs::file::{if_there, remove};
use crate::store::fs::layout::Layout;
use crate::store::{Result, StoreError, Upload, UploadId};

/// One open session.
pub(in crate::store::fs) struct Session {
    pub(in crate::store::fs) id: UploadId,
    pub(in crate::store::fs) repository: Name,
    pub(in crate::store::fs) created: SystemTime,
    /// The bytes written, which are a whole prefix of the upload at every moment.
    offset: AtomicU64,
    /// A body is arriving: nobody can tell for how long, so that others are turned away.
    receiving: AtomicBool,
    /// It was refused for want of room, and has received nothing since.
    refused: AtomicBool,
    ended: AtomicBool,
    /// What all sessions hold; its own bytes are given back with its last reference.
    held: Held,
    /// Held by whoever appends or commits.
    work: Arc<tokio::sync::Mutex<Work>>,
}

/// What only the one at work on a session touches.
pub(in crate::store::fs) struct Work {
    pub(in crate::store::fs) algorithm: Algorithm,
    /// The state after `offset` bytes; `None` after a restart, until the file is read again.
    pub(in crate::store::fs) hasher: Option<Hasher>,
    /// A sync that ran ahead has failed, which the system reports only once.
    pub(in crate::store::fs) sync_failed: Arc<AtomicBool>,
}

/// A session that a former run left.
pub(in crate::store::fs) struct Restored {
    pub(in crate::store::fs) session: Session,
    /// When it was begun, or last received something.
    pub(in crate::store::fs) active: SystemTime,
}

/// Tells others that a body is arriving, for as long as it lives.
pub(in crate::store::fs) struct Receiving<'a>(&'a Session);

impl Session {
    /// Begins a session. It is not synced: an upload survives a restart of the program, and needs
    /// to survive no more before it is committed.
    pub(in crate::store::fs) fn create(
        inner: &Inner,
        name: &Name,
        algorithm: Algorithm,
    ) -> Result<Upload> {
        inner.in_room(|| inner.room_to_begin())?;
        let sessions = &inner.sessions;
        let id = UploadId::random();
        let session = Arc::new(Self {
            id: id.clone(),
            repository: name.clone(),
            created: SystemTime::now(),
            offset: AtomicU64::new(0),
            receiving: AtomicBool::new(false),
            refused: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            held: sessions.held.clone(),
            work: Work::new(algorithm, Some(Hasher::new(algorithm))),
        });
        // Entered first, so that there are never more than may be; nobody knows it yet.
        let _in_use = inner.in_room(|| sessions.enter(&session))?;
        let folder = inner.layout.upload(&id);
        let path = inner.layout.upload_session(&id);
        let text = format!("{name}\n{algorithm}\n");
        let written = inner.in_room(|| {
            let made = fs::create_dir(&folder).and_then(|()| fs::File::create_new(&path));
            let written = made.and_then(|mut file| file.write_all(text.as_bytes()));
            written.map_err(|e| {
                // A folder without a valid session is none; what stays here goes at the next start.
                let _ = fs::remove_dir_all(&folder);
                StoreError::io(&path, e)
            })
        });
        if let Err(e) = written {
            sessions.remove(&id);
            return Err(e);
        }
        Ok(Upload { id, offset: 0 })
    }

    /// How early it gives way once it is idle.
    pub(in crate::store::fs) fn rank(&self) -> Rank {
        if self.offset() == 0 {
            Rank::Empty
        } else if self.refused.load(Ordering::Acquire) {
            Rank::Refused
        } else {
            Rank::Resumable
        }
    }

    pub(in crate::store::fs) fn offset(&self) -> u64 {
        self.offset.load(Ordering::Acquire)
    }

    pub(in crate::store::fs) fn advance(&self, offset: u64) {
        self.offset.store(offset, Ordering::Release);
        self.refused.store(false, Ordering::Release);
    }

    /// The session found no space: it goes back to `offset`, and gives way early once it is idle. For
    /// the holder of its work, who sees to the file.
    pub(in crate::store::fs) fn refuse(&self, offset: u64) {
        let dropped = self.offset().saturating_sub(offset);
        self.offset.fetch_sub(dropped, Ordering::AcqRel);
        self.held.give_back(dropped);
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

    /// The right to work on the session, alone. Waits for one who only has to finish, so that a
    /// client whose connection broke can resume at once; fails where a body is still arriving.
    pub(in crate::store::fs) async fn claim(&self) -> Result<OwnedMutexGuard<Work>> {
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

    /// Marks the session as receiving; for the holder of its work.
    pub(in crate::store::fs) fn receiving(&self) -> Receiving<'_> {
        self.receiving.store(true, Ordering::Release);
        Receiving(self)
    }

    /// Ends the session. Its file `session` goes first: without it there is none, whatever stays.
    pub(in crate::store::fs) fn end(&self, inner: &Inner) -> Result<()> {
        self.ended.store(true, Ordering::Release);
        inner.sessions.remove(&self.id);
        remove(&inner.layout.upload_session(&self.id))?;
        remove(&inner.layout.upload_data(&self.id))?;
        let folder = inner.layout.upload(&self.id);
        match fs::remove_dir(&folder) {
            // Bytes that were arriving made the file anew; removed with all that is in it, then.
            Err(e) if e.kind() == std::io::ErrorKind::DirectoryNotEmpty => {
                if_there(&folder, fs::remove_dir_all(&folder)).map(drop)
            }
            result => if_there(&folder, result).map(drop),
        }
    }

    pub(in crate::store::fs) fn restore(
        layout: &Layout,
        id: UploadId,
        held: &Held,
    ) -> Result<Option<Restored>> {
        let path = layout.upload_session(&id);
        let Some(text) = if_there(&path, fs::read_to_string(&path))? else {
            return Ok(None);
        };
        let mut lines = text.lines();
        let repository = lines.next().and_then(|line| Name::parse(line).ok());
        let algorithm = lines.next().and_then(|line| Algorithm::parse(line).ok());
        let (Some(repository), Some(algorithm)) = (repository, algorithm) else {
            return Ok(None);
        };
        let modified = |metadata: &fs::Metadata| metadata.modified().ok();
        let metadata = if_there(&path, fs::metadata(&path))?;
        let created = metadata.as_ref().and_then(modified);
        let created = created.unwrap_or_else(SystemTime::now);
        let data = layout.upload_data(&id);
        let data = if_there(&data, fs::metadata(&data))?;
        let offset = data.as_ref().map_or(0, MetadataExt::size);
        // What was received before the restart counts, whatever the bound is now.
        held.take(offset, u64::MAX)?;
        let active = data.as_ref().and_then(modified).unwrap_or(created);
        let session = Self {
            id,
            repository,
            created,
            offset: AtomicU64::new(offset),
            receiving: AtomicBool::new(false),
            refused: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            held: held.clone(),
            work: Work::new(algorithm, None),
        };
        let active = active.max(created);
        Ok(Some(Restored { session, active }))
    }
}

impl Work {
    fn new(algorithm: Algorithm, hasher: Option<Hasher>) -> Arc<tokio::sync::Mutex<Self>> {
        Arc::new(tokio::sync::Mutex::new(Self {
            algorithm,
            hasher,
            sync_failed: Arc::default(),
        }))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.held.give_back(self.offset());
    }
}

impl Drop for Receiving<'_> {
    fn drop(&mut self) {
        self.0.receiving.store(false, Ordering::Release);
    }
}
