//! Upload sessions as they stand: a table in memory, which the folder of uploads restores.

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::SystemTime;

use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;

use super::Inner;
use super::file::{each_entry, if_there, remove};
use super::layout::Layout;
use crate::oci::{Algorithm, Hasher, Name};
use crate::store::{Result, StoreError, Upload, UploadId};

/// All open sessions.
#[derive(Default)]
pub(super) struct Sessions(Mutex<HashMap<UploadId, Arc<Session>>>);

/// One open session.
pub(super) struct Session {
    pub(super) id: UploadId,
    repository: Name,
    created: SystemTime,
    /// The bytes written, which are a whole prefix of the upload at every moment.
    offset: AtomicU64,
    /// A body is arriving: nobody can tell for how long, so that others are turned away.
    receiving: AtomicBool,
    ended: AtomicBool,
    /// Held by whoever appends or commits.
    work: Arc<tokio::sync::Mutex<Work>>,
}

/// What only the one at work on a session touches.
pub(super) struct Work {
    pub(super) algorithm: Algorithm,
    /// The state after `offset` bytes; `None` after a restart, until the file is read again.
    pub(super) hasher: Option<Hasher>,
    /// A sync that ran ahead has failed, which the system reports only once.
    pub(super) sync_failed: Arc<AtomicBool>,
}

/// The sessions of a moment, summed up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UploadTotals {
    /// How many there are.
    pub sessions: u64,
    /// The bytes they have received.
    pub bytes: u64,
    /// When the oldest began.
    pub oldest: Option<SystemTime>,
}

/// Tells others that a body is arriving, for as long as it lives.
pub(super) struct Receiving<'a>(&'a AtomicBool);

impl Sessions {
    pub(super) fn get(&self, name: &Name, id: &UploadId) -> Result<Arc<Session>> {
        let found = self.0.lock().get(id).map(Arc::clone);
        found
            .filter(|session| session.repository == *name)
            .ok_or(StoreError::UploadUnknown)
    }

    pub(super) fn totals(&self) -> UploadTotals {
        let mut totals = UploadTotals::default();
        for session in self.0.lock().values() {
            totals.sessions += 1;
            totals.bytes += session.offset();
            let oldest = totals.oldest.get_or_insert(session.created);
            *oldest = session.created.min(*oldest);
        }
        totals
    }

    /// Restores the sessions that a former run left, and removes what is none.
    pub(super) fn restore(layout: &Layout) -> Result<Self> {
        let mut sessions = HashMap::new();
        each_entry(&layout.uploads(), |entry| {
            let name = entry.file_name();
            let session = match name.to_str().and_then(UploadId::parse) {
                Some(id) => Session::restore(layout, id)?,
                None => None,
            };
            if let Some(session) = session {
                sessions.insert(session.id.clone(), Arc::new(session));
                return Ok(());
            }
            let path = entry.path();
            fs::remove_dir_all(&path).map_err(|e| StoreError::io(&path, e))
        })?;
        Ok(Self(Mutex::new(sessions)))
    }
}

impl Session {
    /// Begins a session. It is not synced: an upload survives a restart of the program, and needs
    /// to survive no more before it is committed.
    pub(super) fn create(inner: &Inner, name: &Name, algorithm: Algorithm) -> Result<Upload> {
        let id = UploadId::random();
        let folder = inner.layout.upload(&id);
        fs::create_dir(&folder).map_err(|e| StoreError::io(&folder, e))?;
        let path = inner.layout.upload_session(&id);
        let written = fs::File::create_new(&path)
            .and_then(|mut file| file.write_all(format!("{name}\n{algorithm}\n").as_bytes()));
        if let Err(e) = written {
            // A folder without a valid session is none; what stays here goes at the next start.
            let _ = fs::remove_dir_all(&folder);
            return Err(StoreError::io(&path, e));
        }
        let hasher = Some(Hasher::new(algorithm));
        let session = Self::new(
            id.clone(),
            name.clone(),
            algorithm,
            SystemTime::now(),
            0,
            hasher,
        );
        inner
            .sessions
            .0
            .lock()
            .insert(id.clone(), Arc::new(session));
        Ok(Upload { id, offset: 0 })
    }

    pub(super) fn offset(&self) -> u64 {
        self.offset.load(Ordering::Acquire)
    }

    pub(super) fn advance(&self, offset: u64) {
        self.offset.store(offset, Ordering::Release);
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    pub(super) fn upload(&self) -> Upload {
        Upload {
            id: self.id.clone(),
            offset: self.offset(),
        }
    }

    /// The right to work on the session, alone. Waits for one who only has to finish, so that a
    /// client whose connection broke can resume at once; fails where a body is still arriving.
    pub(super) async fn claim(&self) -> Result<OwnedMutexGuard<Work>> {
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
    pub(super) fn receiving(&self) -> Receiving<'_> {
        self.receiving.store(true, Ordering::Release);
        Receiving(&self.receiving)
    }

    /// Ends the session. Its file `session` goes first: without it there is none, whatever stays.
    pub(super) fn end(&self, inner: &Inner) -> Result<()> {
        self.ended.store(true, Ordering::Release);
        inner.sessions.0.lock().remove(&self.id);
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

    fn restore(layout: &Layout, id: UploadId) -> Result<Option<Self>> {
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
        let metadata = if_there(&path, fs::metadata(&path))?;
        let created = metadata
            .and_then(|m| m.modified().ok())
            .unwrap_or_else(SystemTime::now);
        let data = layout.upload_data(&id);
        let offset = if_there(&data, fs::metadata(&data))?.map_or(0, |metadata| metadata.size());
        Ok(Some(Self::new(
            id, repository, algorithm, created, offset, None,
        )))
    }

    fn new(
        id: UploadId,
        repository: Name,
        algorithm: Algorithm,
        created: SystemTime,
        offset: u64,
        hasher: Option<Hasher>,
    ) -> Self {
        let work = Work {
            algorithm,
            hasher,
            sync_failed: Arc::default(),
        };
        Self {
            id,
            repository,
            created,
            offset: AtomicU64::new(offset),
            receiving: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            work: Arc::new(tokio::sync::Mutex::new(work)),
        }
    }
}

impl Drop for Receiving<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}
