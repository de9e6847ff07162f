//! Upload sessions as they stand: a table in memory, which the folder of uploads restores.

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;

use super::Inner;
use super::bounds::{Bounds, Held, Wanted};
use super::file::{each_entry, if_there, remove};
use super::layout::Layout;
use crate::oci::{Algorithm, Hasher, Name};
use crate::store::{Result, StoreError, Upload, UploadId};

/// All open sessions.
pub(super) struct Sessions {
    table: Mutex<HashMap<UploadId, Arc<Session>>>,
    pub(super) held: Held,
    pub(super) bounds: Bounds,
}

/// One open session.
pub(super) struct Session {
    pub(super) id: UploadId,
    repository: Name,
    created: SystemTime,
    /// When it was begun, or last received something.
    active: Mutex<SystemTime>,
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

/// Sessions that were ended because nobody carried on with them.
#[derive(Debug, Default)]
pub struct Expired {
    /// How many.
    pub sessions: u64,
    /// The bytes they had received.
    pub bytes: u64,
    /// Why some of their files could not be removed; they are, at the next start.
    pub failures: Vec<StoreError>,
}

/// Tells others that a body is arriving, for as long as it lives.
pub(super) struct Receiving<'a>(&'a Session);

impl Sessions {
    pub(super) fn get(&self, name: &Name, id: &UploadId) -> Result<Arc<Session>> {
        let found = self.table.lock().get(id).map(Arc::clone);
        found
            .filter(|session| session.repository == *name)
            .ok_or(StoreError::UploadUnknown)
    }

    pub(super) fn totals(&self) -> UploadTotals {
        let mut totals = UploadTotals::default();
        for session in self.table.lock().values() {
            totals.sessions += 1;
            totals.bytes += session.offset();
            let oldest = totals.oldest.get_or_insert(session.created);
            *oldest = session.created.min(*oldest);
        }
        totals
    }

    /// Restores the sessions that a former run left, and removes what is none.
    pub(super) fn restore(layout: &Layout, bounds: Bounds) -> Result<Self> {
        let (mut sessions, held) = (HashMap::new(), Held::default());
        each_entry(&layout.uploads(), |entry| {
            let name = entry.file_name();
            let session = match name.to_str().and_then(UploadId::parse) {
                Some(id) => Session::restore(layout, id, &held)?,
                None => None,
            };
            if let Some(session) = session {
                sessions.insert(session.id.clone(), Arc::new(session));
                return Ok(());
            }
            let path = entry.path();
            fs::remove_dir_all(&path).map_err(|e| StoreError::io(&path, e))
        })?;
        Ok(Self {
            table: Mutex::new(sessions),
            held,
            bounds,
        })
    }

    /// Enters a new session, as long as there may be one more.
    fn enter(&self, session: &Arc<Session>) -> Result<()> {
        let limit = self.bounds.max_sessions;
        let mut table = self.table.lock();
        if table.len() as u64 >= limit {
            return Err(StoreError::TooManySessions { limit });
        }
        table.insert(session.id.clone(), Arc::clone(session));
        Ok(())
    }

    fn idle_for(&self, idle: Duration) -> Vec<Arc<Session>> {
        let table = self.table.lock();
        let old = table.values().filter(|session| session.idle() >= idle);
        old.map(Arc::clone).collect()
    }
}

impl Session {
    /// Begins a session. It is not synced: an upload survives a restart of the program, and needs
    /// to survive no more before it is committed.
    pub(super) fn create(inner: &Inner, name: &Name, algorithm: Algorithm) -> Result<Upload> {
        inner.in_room(|| inner.room_to_begin())?;
        let sessions = &inner.sessions;
        let id = UploadId::random();
        let session = Arc::new(Self {
            id: id.clone(),
            repository: name.clone(),
            created: SystemTime::now(),
            active: Mutex::new(SystemTime::now()),
            offset: AtomicU64::new(0),
            receiving: AtomicBool::new(false),
            refused: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            held: sessions.held.clone(),
            work: Work::new(algorithm, Some(Hasher::new(algorithm))),
        });
        // Entered first, so that there are never more than may be; nobody knows it yet.
        inner.in_room(|| sessions.enter(&session))?;
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
            sessions.table.lock().remove(&id);
            return Err(e);
        }
        Ok(Upload { id, offset: 0 })
    }

    /// For how long nothing was received.
    fn idle(&self) -> Duration {
        // A clock that was set back makes it begin anew.
        self.active.lock().elapsed().unwrap_or_default()
    }

    fn touch(&self) {
        *self.active.lock() = SystemTime::now();
    }

    pub(super) fn offset(&self) -> u64 {
        self.offset.load(Ordering::Acquire)
    }

    pub(super) fn advance(&self, offset: u64) {
        self.offset.store(offset, Ordering::Release);
        self.refused.store(false, Ordering::Release);
        self.touch();
    }

    /// The session found no room: it goes back to `offset`, and ends when others find none either.
    /// For the holder of its work, who sees to the file.
    pub(super) fn refuse(&self, offset: u64) {
        let dropped = self.offset().saturating_sub(offset);
        self.offset.fetch_sub(dropped, Ordering::AcqRel);
        self.held.give_back(dropped);
        self.refused.store(true, Ordering::Release);
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
        Receiving(self)
    }

    /// Ends the session. Its file `session` goes first: without it there is none, whatever stays.
    pub(super) fn end(&self, inner: &Inner) -> Result<()> {
        self.ended.store(true, Ordering::Release);
        inner.sessions.table.lock().remove(&self.id);
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

    fn restore(layout: &Layout, id: UploadId, held: &Held) -> Result<Option<Self>> {
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
        Ok(Some(Self {
            id,
            repository,
            created,
            active: Mutex::new(active.max(created)),
            offset: AtomicU64::new(offset),
            receiving: AtomicBool::new(false),
            refused: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            held: held.clone(),
            work: Work::new(algorithm, None),
        }))
    }
}

/// Ends the sessions that have received nothing for as long as `idle`.
pub(super) fn expire(inner: &Inner, idle: Duration) -> Expired {
    let mut expired = Expired::default();
    for session in inner.sessions.idle_for(idle) {
        // Whoever is at work on it has not left, and may have ended it a moment ago.
        let work = Arc::clone(&session.work).try_lock_owned();
        if work.is_err() || session.has_ended() || session.idle() < idle {
            continue;
        }
        expired.sessions += 1;
        expired.bytes += session.offset();
        expired.failures.extend(session.end(inner).err());
    }
    expired
}

/// Ends the session that has been idle for longest of those that were refused for want of room; if
/// it is bytes that are wanted, of those that hold some. Whether there was one.
pub(super) fn end_refused(inner: &Inner, wanted: Wanted) -> bool {
    let mut refused: Vec<_> = {
        let table = inner.sessions.table.lock();
        let refused = table.values().filter(|session| {
            let useful = wanted == Wanted::Session || session.offset() > 0;
            useful && session.refused.load(Ordering::Acquire)
        });
        refused.map(Arc::clone).collect()
    };
    refused.sort_by_key(|session| *session.active.lock());
    for session in refused {
        // Whoever is at work on it tries again, or is the one who finds no room.
        let work = Arc::clone(&session.work).try_lock_owned();
        if work.is_err() || session.has_ended() || !session.refused.load(Ordering::Acquire) {
            continue;
        }
        let (id, bytes) = (&session.id, session.offset());
        tracing::info!(%id, bytes, "ended an upload that was refused, to make room");
        if let Err(error) = session.end(inner) {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "an ended upload could not be removed");
        }
        return true;
    }
    false
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
        self.0.touch();
        self.0.receiving.store(false, Ordering::Release);
    }
}
