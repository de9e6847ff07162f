//! The open upload sessions: a table in memory, which the directory of uploads restores.
//!
//! A session is idle while no request is for it. The idle ones stand in one order: by [`Rank`], then
//! by how long they have been idle. That order alone says which session gives way where something
//! else needs its slot, its bytes or its files. A session that a request is for is not in it, so it
//! neither gives way nor expires.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;

use super::quota::{Bounds, Held, Wanted};
use super::session::{Restored, Session};
use crate::oci::Name;
use crate::store::fs::Inner;
use crate::store::fs::file::each_entry;
use crate::store::fs::layout::Layout;
use crate::store::{Result, StoreError, UploadId};

/// For how long a session that holds bytes is kept whoever needs them: a client that is still there
/// takes less between two requests.
const KEPT: Duration = Duration::from_secs(5);

/// The pause between two lines in the log about sessions that gave way.
const PAUSE: Duration = Duration::from_mins(1);

/// All open sessions.
pub(in crate::store::fs) struct Sessions {
    table: Mutex<Table>,
    gave_way: Mutex<GaveWay>,
    pub(in crate::store::fs) held: Held,
    pub(in crate::store::fs) bounds: Bounds,
}

#[derive(Default)]
struct Table {
    open: HashMap<UploadId, Entry>,
    /// The sessions that no request is for, in the order in which they give way.
    idle: BTreeMap<IdleKey, Idle>,
    /// The number of the last session that became idle.
    last: u64,
}

struct Entry {
    session: Arc<Session>,
    state: State,
}

enum State {
    /// So many requests are for it.
    InUse(usize),
    Idle(IdleKey),
}

/// The rank, then the order in which sessions became idle.
type IdleKey = (Rank, u64);

/// Which sessions give way before others: the first ones here go first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::store::fs) enum Rank {
    /// It holds no bytes: its client loses nothing.
    Empty,
    /// It was refused for want of space. Most clients begin anew then and never come back to it.
    Refused,
    /// It holds bytes that its client may go on from.
    Resumable,
}

/// A session that no request is for.
struct Idle {
    session: Arc<Session>,
    since: Instant,
    /// For how long it had been idle by then: a restart makes no session younger.
    before: Duration,
}

impl Idle {
    fn time(&self) -> Duration {
        self.since.elapsed() + self.before
    }
}

/// A request for a session, from its start to its end.
pub(in crate::store::fs) struct InUse {
    sessions: Arc<Sessions>,
    session: Arc<Session>,
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

/// Sessions that gave way and are not in the log yet. A flood evicts thousands a second: one line
/// for a minute tells as much.
#[derive(Default)]
struct GaveWay {
    told: Option<Instant>,
    sessions: u64,
    bytes: u64,
}

impl Sessions {
    /// Restores the sessions that a former run left, and removes what is none.
    pub(in crate::store::fs) fn restore(layout: &Layout, bounds: Bounds) -> Result<Self> {
        let (mut restored, held) = (Vec::<Restored>::new(), Held::default());
        each_entry(&layout.uploads(), |entry| {
            let name = entry.file_name();
            let session = match name.to_str().and_then(UploadId::parse) {
                Some(id) => Session::restore(layout, id, &held)?,
                None => None,
            };
            if let Some(session) = session {
                restored.push(session);
                return Ok(());
            }
            let path = entry.path();
            fs::remove_dir_all(&path).map_err(|e| StoreError::io(&path, e))
        })?;
        restored.sort_unstable_by_key(|restored| restored.active);
        let mut table = Table::default();
        for Restored { session, active } in restored {
            // A clock that was set back makes it begin anew.
            let before = active.elapsed().unwrap_or_default();
            let session = Arc::new(session);
            let state = table.make_idle(&session, before);
            let id = session.id.clone();
            table.open.insert(id, Entry { session, state });
        }
        Ok(Self {
            table: Mutex::new(table),
            gave_way: Mutex::default(),
            held,
            bounds,
        })
    }

    /// A session, as it stands.
    pub(in crate::store::fs) fn get(&self, name: &Name, id: &UploadId) -> Result<Arc<Session>> {
        let table = self.table.lock();
        let entry = table.open.get(id).map(|entry| &entry.session);
        let found = entry.filter(|session| session.repository == *name);
        found.map(Arc::clone).ok_or(StoreError::UploadUnknown)
    }

    /// A request for a session begins.
    pub(in crate::store::fs) fn take(
        self: &Arc<Self>,
        name: &Name,
        id: &UploadId,
    ) -> Result<InUse> {
        let mut table = self.table.lock();
        let Table { open, idle, .. } = &mut *table;
        let entry = open
            .get_mut(id)
            .filter(|entry| entry.session.repository == *name)
            .ok_or(StoreError::UploadUnknown)?;
        match &mut entry.state {
            State::InUse(requests) => *requests += 1,
            State::Idle(key) => {
                idle.remove(key);
                entry.state = State::InUse(1);
            }
        }
        Ok(self.in_use(&entry.session))
    }

    /// Enters a new session, as long as there may be one more. The request that begins it is the
    /// first one for it.
    pub(in crate::store::fs) fn enter(self: &Arc<Self>, session: &Arc<Session>) -> Result<InUse> {
        let limit = self.bounds.max_sessions;
        let mut table = self.table.lock();
        if table.open.len() as u64 >= limit {
            return Err(StoreError::TooManySessions { limit });
        }
        let entry = Entry {
            session: Arc::clone(session),
            state: State::InUse(1),
        };
        table.open.insert(session.id.clone(), entry);
        Ok(self.in_use(session))
    }

    /// Removes a session; whoever asks for it from now on does not find it.
    pub(in crate::store::fs) fn remove(&self, id: &UploadId) {
        let mut table = self.table.lock();
        if let Some(Entry { state, .. }) = table.open.remove(id)
            && let State::Idle(key) = state
        {
            table.idle.remove(&key);
        }
    }

    /// Removes the sessions that have been idle for as long as `idle`.
    pub(in crate::store::fs) fn remove_idle(&self, idle: Duration) -> Vec<Arc<Session>> {
        let mut table = self.table.lock();
        let old = table.idle.iter().filter(|(_, one)| one.time() >= idle);
        let old = old.map(|(key, _)| *key).collect();
        table.remove_all(old)
    }

    /// Removes the idle sessions that have to go for what is wanted, in their order. None, if all of
    /// them were not enough: then nobody is to lose anything.
    fn remove_for(&self, wanted: Wanted) -> Vec<Arc<Session>> {
        let mut table = self.table.lock();
        let first = match wanted {
            Wanted::Slot | Wanted::Files(_) => Rank::Empty,
            Wanted::Bytes(_) => Rank::Refused,
        };
        let (mut chosen, mut missing) = (Vec::new(), wanted.amount());
        for (key, idle) in table.idle.range((first, 0)..) {
            // Those that come after it have been idle for less.
            if missing == 0 || (key.0 == Rank::Resumable && idle.time() < KEPT) {
                break;
            }
            missing = missing.saturating_sub(wanted.freed_by(&idle.session));
            chosen.push(*key);
        }
        if missing > 0 {
            chosen.clear();
        }
        table.remove_all(chosen)
    }

    pub(in crate::store::fs) fn totals(&self) -> UploadTotals {
        let mut totals = UploadTotals::default();
        for Entry { session, .. } in self.table.lock().open.values() {
            totals.sessions += 1;
            totals.bytes += session.offset();
            let oldest = totals.oldest.get_or_insert(session.created);
            *oldest = session.created.min(*oldest);
        }
        totals
    }

    fn in_use(self: &Arc<Self>, session: &Arc<Session>) -> InUse {
        InUse {
            sessions: Arc::clone(self),
            session: Arc::clone(session),
        }
    }

    /// A request for a session has ended.
    fn give_back(&self, session: &Arc<Session>) {
        let mut table = self.table.lock();
        match table
            .open
            .get_mut(&session.id)
            .map(|entry| &mut entry.state)
        {
            Some(State::InUse(requests)) if *requests > 1 => *requests -= 1,
            Some(State::InUse(_)) => {
                let idle = table.make_idle(session, Duration::ZERO);
                if let Some(entry) = table.open.get_mut(&session.id) {
                    entry.state = idle;
                }
            }
            // The session has ended.
            Some(State::Idle(_)) | None => {}
        }
    }
}

impl Table {
    fn make_idle(&mut self, session: &Arc<Session>, before: Duration) -> State {
        self.last += 1;
        let key = (session.rank(), self.last);
        let idle = Idle {
            session: Arc::clone(session),
            since: Instant::now(),
            before,
        };
        self.idle.insert(key, idle);
        State::Idle(key)
    }

    fn remove_all(&mut self, keys: Vec<IdleKey>) -> Vec<Arc<Session>> {
        let removed = keys.into_iter().filter_map(|key| self.idle.remove(&key));
        let removed: Vec<_> = removed.map(|idle| idle.session).collect();
        for session in &removed {
            self.open.remove(&session.id);
        }
        removed
    }
}

impl GaveWay {
    /// Writes a line, unless there was one a short while ago or there is nothing to tell.
    fn tell(&mut self) {
        let is_early = self.told.is_some_and(|told| told.elapsed() < PAUSE);
        if is_early || self.sessions == 0 {
            return;
        }
        let (sessions, bytes) = (self.sessions, self.bytes);
        tracing::warn!(
            sessions,
            bytes,
            "idle upload sessions were evicted: uploads have reached one of their bounds"
        );
        *self = Self {
            told: Some(Instant::now()),
            ..Self::default()
        };
    }
}

/// Ends the sessions that have been idle for as long as `idle`.
pub(in crate::store::fs) fn expire(inner: &Inner, idle: Duration) -> Expired {
    let mut expired = Expired::default();
    inner.sessions.gave_way.lock().tell();
    for session in inner.sessions.remove_idle(idle) {
        expired.sessions += 1;
        expired.bytes += session.offset();
        expired.failures.extend(session.end(inner).err());
    }
    expired
}

/// Ends the idle sessions that have to go for what is wanted. Whether there were any.
pub(in crate::store::fs) fn give_way(inner: &Inner, wanted: Wanted) -> bool {
    let ended = inner.sessions.remove_for(wanted);
    for session in &ended {
        if let Err(error) = session.end(inner) {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "an evicted upload session could not be removed");
        }
    }
    let mut gave_way = inner.sessions.gave_way.lock();
    gave_way.sessions += ended.len() as u64;
    gave_way.bytes += ended.iter().map(|session| session.offset()).sum::<u64>();
    gave_way.tell();
    !ended.is_empty()
}

impl Deref for InUse {
    type Target = Session;

    fn deref(&self) -> &Session {
        &self.session
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.sessions.give_back(&self.session);
    }
}
