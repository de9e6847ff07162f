//! The open upload sessions: a table in memory, which the directory of uploads restores.
//!
//! A session is idle while no request uses it. The idle sessions have one order: by [`EvictionRank`],
//! then by how long they have been idle. It decides which session is evicted where an upload needs a
//! slot, bytes or files. A session in use is not in it, so that it is neither evicted nor expires.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;

use super::reserved::ReservedBytes;
use super::session::{EvictionRank, RestoredSession, UploadSession};
use crate::oci::Name;
use crate::store::fs::disk;
use crate::store::fs::file::each_entry;
use crate::store::fs::layout::Layout;
use crate::store::{Result, StoreError, UploadId};

/// For how long an idle session that holds bytes is not evicted: a client that is still there sends
/// its next request earlier.
const KEPT: Duration = Duration::from_secs(5);

/// The pause between two lines in the log about evicted sessions.
const PAUSE: Duration = Duration::from_mins(1);

/// All open sessions.
pub(in crate::store::fs) struct UploadSessions {
    table: Mutex<OpenSessionTable>,
    evictions: Mutex<EvictionLog>,
    pub(in crate::store::fs) reserved: ReservedBytes,
    max_sessions: u64,
}

#[derive(Default)]
struct OpenSessionTable {
    open: HashMap<UploadId, SessionEntry>,
    /// The sessions that no request uses, in the order in which they are evicted.
    idle: BTreeMap<IdleKey, IdleSession>,
    /// The number of the last session that became idle.
    last: u64,
}

struct SessionEntry {
    session: Arc<UploadSession>,
    state: SessionState,
}

enum SessionState {
    /// The number of requests that use it.
    InUse(usize),
    Idle(IdleKey),
}

/// The rank, then the order in which sessions became idle.
type IdleKey = (EvictionRank, u64);

/// A session that no request uses.
struct IdleSession {
    session: Arc<UploadSession>,
    since: Instant,
    /// For how long it had been idle before that: a restart makes no session younger.
    before: Duration,
}

impl IdleSession {
    fn time(&self) -> Duration {
        self.since.elapsed() + self.before
    }
}

/// What is missing for an upload, or for another operation that writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store::fs) enum Shortage {
    /// A slot for one more session.
    Slot,
    /// This many bytes.
    Bytes(u64),
    /// This many inodes.
    Files(u64),
}

impl Shortage {
    /// How much is missing.
    pub(in crate::store::fs) fn amount(self) -> u64 {
        match self {
            Self::Slot => 1,
            Self::Bytes(amount) | Self::Files(amount) => amount,
        }
    }

    /// How much of it the end of a session frees.
    pub(in crate::store::fs) fn freed_by(self, session: &UploadSession) -> u64 {
        match self {
            Self::Slot => 1,
            Self::Bytes(_) => session.offset(),
            // A directory, and the file `session` in it.
            Self::Files(_) => 2,
        }
    }
}

/// A session that a request uses. Dropped, the request has ended.
pub(in crate::store::fs) struct SessionInUse {
    sessions: Arc<UploadSessions>,
    session: Arc<UploadSession>,
}

/// The sums over all open sessions at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UploadTotals {
    /// How many there are.
    pub sessions: u64,
    /// The bytes they have received.
    pub bytes: u64,
    /// When the oldest was opened.
    pub oldest: Option<SystemTime>,
}

/// The open upload sessions of a store, for a reader that must not keep the store itself open.
#[derive(Clone)]
pub struct OpenUploads(Arc<UploadSessions>);

impl OpenUploads {
    pub(in crate::store::fs) fn new(sessions: &Arc<UploadSessions>) -> Self {
        Self(Arc::clone(sessions))
    }

    /// The sums over all of them at this moment, from memory.
    pub fn totals(&self) -> UploadTotals {
        self.0.totals()
    }
}

impl fmt::Debug for OpenUploads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OpenUploads").field(&self.totals()).finish()
    }
}

/// Upload sessions that were ended because they had been idle for too long.
#[derive(Debug, Default)]
pub struct Expired {
    /// How many.
    pub sessions: u64,
    /// The bytes they had received.
    pub bytes: u64,
    /// Why some of their files could not be removed. They are removed at the next start.
    pub failures: Vec<StoreError>,
}

/// The evicted sessions that are not in the log yet. A flood of requests evicts thousands a second: one
/// line a minute says as much.
#[derive(Default)]
struct EvictionLog {
    logged: Option<Instant>,
    sessions: u64,
    bytes: u64,
}

impl UploadSessions {
    /// Restores the sessions that a previous run left, and removes directories that are no session.
    pub(in crate::store::fs) fn restore(layout: &Layout, max_sessions: u64) -> Result<Self> {
        let (mut restored, reserved) = (Vec::<RestoredSession>::new(), ReservedBytes::default());
        each_entry(&layout.uploads(), |entry| {
            let name = entry.file_name();
            let session = match name.to_str().and_then(UploadId::parse) {
                Some(id) => UploadSession::restore(layout, id, &reserved)?,
                None => None,
            };
            if let Some(session) = session {
                restored.push(session);
                return Ok(());
            }
            let path = entry.path();
            disk::remove_tree(&path).map_err(|e| StoreError::io(&path, e))
        })?;
        // Entered in this order, so that the longest idle one is evicted first, as before the restart.
        restored.sort_unstable_by_key(|restored| restored.active);
        let mut table = OpenSessionTable::default();
        for RestoredSession { session, active } in restored {
            // Where the clock was set back, the idle time starts at zero.
            let before = active.elapsed().unwrap_or_default();
            let session = Arc::new(session);
            let state = table.make_idle(&session, before);
            let id = session.id.clone();
            table.open.insert(id, SessionEntry { session, state });
        }
        Ok(Self {
            table: Mutex::new(table),
            evictions: Mutex::default(),
            reserved,
            max_sessions,
        })
    }

    /// Finds a session without using it: a status request does not keep it from expiring.
    pub(in crate::store::fs) fn get(
        &self,
        name: &Name,
        id: &UploadId,
    ) -> Result<Arc<UploadSession>> {
        let table = self.table.lock();
        let entry = table.open.get(id).map(|entry| &entry.session);
        let found = entry.filter(|session| session.repository == *name);
        found.map(Arc::clone).ok_or(StoreError::UploadUnknown)
    }

    /// Begins the use of a session by a request.
    pub(in crate::store::fs) fn acquire(
        self: &Arc<Self>,
        name: &Name,
        id: &UploadId,
    ) -> Result<SessionInUse> {
        let mut table = self.table.lock();
        let OpenSessionTable { open, idle, .. } = &mut *table;
        let entry = open
            .get_mut(id)
            // An identifier from another repository is as unknown as one that was never issued.
            .filter(|entry| entry.session.repository == *name)
            .ok_or(StoreError::UploadUnknown)?;
        match &mut entry.state {
            SessionState::InUse(requests) => *requests += 1,
            SessionState::Idle(key) => {
                idle.remove(key);
                entry.state = SessionState::InUse(1);
            }
        }
        Ok(self.in_use(&entry.session))
    }

    /// Enters a new session, which the request that opens it uses. Fails where all slots are taken.
    pub(in crate::store::fs) fn enter(
        self: &Arc<Self>,
        session: &Arc<UploadSession>,
    ) -> Result<SessionInUse> {
        let limit = self.max_sessions;
        // Counted and entered under one lock: two requests never both get the last slot.
        let mut table = self.table.lock();
        if table.open.len() as u64 >= limit {
            return Err(StoreError::TooManySessions { limit });
        }
        let entry = SessionEntry {
            session: Arc::clone(session),
            state: SessionState::InUse(1),
        };
        table.open.insert(session.id.clone(), entry);
        Ok(self.in_use(session))
    }

    /// Removes a session: requests no longer find it.
    pub(in crate::store::fs) fn remove(&self, id: &UploadId) {
        let mut table = self.table.lock();
        if let Some(SessionEntry { state, .. }) = table.open.remove(id)
            && let SessionState::Idle(key) = state
        {
            table.idle.remove(&key);
        }
    }

    /// Removes the sessions that have been idle for as long as `idle`.
    pub(in crate::store::fs) fn remove_idle(&self, idle: Duration) -> Vec<Arc<UploadSession>> {
        let mut table = self.table.lock();
        let old = table.idle.iter().filter(|(_, one)| one.time() >= idle);
        let old = old.map(|(key, _)| *key).collect();
        table.remove_all(old)
    }

    /// Removes the idle sessions that have to go for what is missing, in their order. Removes none if
    /// all of them would not be enough: no client is to lose its bytes in vain.
    fn remove_for(&self, shortage: Shortage) -> Vec<Arc<UploadSession>> {
        let mut table = self.table.lock();
        // The end of a session without bytes frees none.
        let first = match shortage {
            Shortage::Slot | Shortage::Files(_) => EvictionRank::Empty,
            Shortage::Bytes(_) => EvictionRank::Refused,
        };
        let (mut chosen, mut missing) = (Vec::new(), shortage.amount());
        for (key, idle) in table.idle.range((first, 0)..) {
            // Those that follow in the order have been idle for less.
            if missing == 0 || (key.0 == EvictionRank::Resumable && idle.time() < KEPT) {
                break;
            }
            missing = missing.saturating_sub(shortage.freed_by(&idle.session));
            chosen.push(*key);
        }
        if missing > 0 {
            chosen.clear();
        }
        table.remove_all(chosen)
    }

    /// Ends a session: it is unknown from now on, and its files go.
    pub(in crate::store::fs) fn end(&self, session: &UploadSession, layout: &Layout) -> Result<()> {
        // Marked first: a request that waits to append must not make the file again.
        session.mark_ended();
        self.remove(&session.id);
        session.remove_files(layout)
    }

    /// Ends the sessions that have been idle for as long as `idle`.
    pub(in crate::store::fs) fn expire(&self, idle: Duration, layout: &Layout) -> Expired {
        let mut expired = Expired::default();
        self.evictions.lock().log();
        for session in self.remove_idle(idle) {
            expired.sessions += 1;
            expired.bytes += session.offset();
            expired.failures.extend(self.end(&session, layout).err());
        }
        expired
    }

    /// Ends the idle sessions that have to go for what is missing. Returns whether there were any.
    pub(in crate::store::fs) fn evict(&self, shortage: Shortage, layout: &Layout) -> bool {
        // Out of the table under its lock, so that no two requests evict the same session. The files are
        // removed without it: that takes longer than other requests should wait.
        let evicted = self.remove_for(shortage);
        for session in &evicted {
            if let Err(error) = self.end(session, layout) {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "an evicted upload session could not be removed");
            }
        }
        let mut evictions = self.evictions.lock();
        evictions.sessions += evicted.len() as u64;
        evictions.bytes += evicted.iter().map(|session| session.offset()).sum::<u64>();
        evictions.log();
        !evicted.is_empty()
    }

    pub(in crate::store::fs) fn totals(&self) -> UploadTotals {
        let mut totals = UploadTotals::default();
        for SessionEntry { session, .. } in self.table.lock().open.values() {
            totals.sessions += 1;
            totals.bytes += session.offset();
            let oldest = totals.oldest.get_or_insert(session.created);
            *oldest = session.created.min(*oldest);
        }
        totals
    }

    fn in_use(self: &Arc<Self>, session: &Arc<UploadSession>) -> SessionInUse {
        SessionInUse {
            sessions: Arc::clone(self),
            session: Arc::clone(session),
        }
    }

    /// Ends the use of a session by a request.
    fn release(&self, session: &Arc<UploadSession>) {
        let mut table = self.table.lock();
        match table
            .open
            .get_mut(&session.id)
            .map(|entry| &mut entry.state)
        {
            Some(SessionState::InUse(requests)) if *requests > 1 => *requests -= 1,
            Some(SessionState::InUse(_)) => {
                let idle = table.make_idle(session, Duration::ZERO);
                if let Some(entry) = table.open.get_mut(&session.id) {
                    entry.state = idle;
                }
            }
            // The session has ended.
            Some(SessionState::Idle(_)) | None => {}
        }
    }
}

impl OpenSessionTable {
    fn make_idle(&mut self, session: &Arc<UploadSession>, before: Duration) -> SessionState {
        self.last += 1;
        let key = (session.rank(), self.last);
        let idle = IdleSession {
            session: Arc::clone(session),
            since: Instant::now(),
            before,
        };
        self.idle.insert(key, idle);
        SessionState::Idle(key)
    }

    fn remove_all(&mut self, keys: Vec<IdleKey>) -> Vec<Arc<UploadSession>> {
        let removed = keys.into_iter().filter_map(|key| self.idle.remove(&key));
        let removed: Vec<_> = removed.map(|idle| idle.session).collect();
        for session in &removed {
            self.open.remove(&session.id);
        }
        removed
    }
}

impl EvictionLog {
    /// Writes a line, unless there was one less than a minute ago or there is nothing to report.
    fn log(&mut self) {
        let is_early = self.logged.is_some_and(|logged| logged.elapsed() < PAUSE);
        if is_early || self.sessions == 0 {
            return;
        }
        let (sessions, bytes) = (self.sessions, self.bytes);
        tracing::warn!(
            sessions,
            bytes,
            "evicted idle upload sessions: uploads have reached their quota"
        );
        *self = Self {
            logged: Some(Instant::now()),
            ..Self::default()
        };
    }
}

impl Deref for SessionInUse {
    type Target = UploadSession;

    fn deref(&self) -> &UploadSession {
        &self.session
    }
}

impl Drop for SessionInUse {
    fn drop(&mut self) {
        self.sessions.release(&self.session);
    }
}
