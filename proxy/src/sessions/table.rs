//! The shards of the table and the four changes of a session: open, continue, end, expire.
//!
//! [`SessionTable`]'s parent module decides which response causes which change.
//!
//! Locks are taken in one order: a session's `location` first, then one shard; never two shards at
//! once. `open`, the count of sessions, is not under any lock, so it may exceed the limit by the
//! number of threads for a moment, but no session is in the table uncounted.

use std::collections::HashMap;
use std::hash::RandomState;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use registry::oci::Endpoint;

use super::location::LocationKey;
use crate::metrics::{SessionMetrics, SessionOutcome};

/// How many parts the table has, each under a lock of its own.
pub(super) const SHARDS: usize = 16;

/// Sessions by the hash of their path. Most paths have one session.
pub(super) type TableShard = HashMap<u64, Vec<Arc<TrackedSession>>>;

/// The table of upload sessions.
pub struct SessionTable {
    pub(super) metrics: SessionMetrics,
    pub(super) shards: [Mutex<TableShard>; SHARDS],
    pub(super) open: AtomicUsize,
    /// For each endpoint, how many open sessions have a path that looks like that endpoint's.
    pub(super) look_alikes: [AtomicUsize; Endpoint::ALL.len()],
    pub(super) hasher: RandomState,
    pub(super) limit: usize,
    pub(super) origin: Instant,
}

/// A session that is or was in the table.
pub(super) struct TrackedSession {
    pub(super) first_seen: Instant,
    /// The 202 that opened it came through this proxy.
    pub(super) was_opened_here: bool,
    pub(super) repository: Option<Box<str>>,
    /// The time of its last request, in milliseconds since the table's origin.
    pub(super) last_used: AtomicU64,
    /// Its current location. Locked while the session moves or ends, before any shard.
    pub(super) location: Mutex<LocationKey>,
    /// A copy of the location's query hash, for comparing under a shard's lock, where `location`
    /// must not be locked.
    pub(super) query_hash: AtomicU64,
}

impl SessionTable {
    pub(super) fn shard(&self, path_hash: u64) -> &Mutex<TableShard> {
        &self.shards[shard_index(path_hash)]
    }

    /// Adds a session. One that was opened elsewhere yields to the same session where another
    /// request has added it first, and that one is returned.
    pub(super) fn open(&self, session: TrackedSession) -> Result<(), Arc<TrackedSession>> {
        let location = *session.location.lock();
        let now = session.first_seen;
        // Counted before it is added, so that sessions opened at once cannot exceed the limit.
        if self.open.fetch_add(1, Ordering::Relaxed) >= self.limit
            && !self.expire_idlest(location.path_hash, now)
        {
            // Every tracked session has a request in flight: this one is not tracked. It is
            // counted as expired, so that the events still add up.
            self.count_end(&session, SessionOutcome::Expired, now);
            return Ok(());
        }
        let mut shard = self.shard(location.path_hash).lock();
        // Looked up under the lock that adds it: two requests that both found nothing before must
        // not both add the session.
        if !session.was_opened_here
            && let Some(first) = opened_elsewhere(&shard, location)
        {
            self.open.fetch_sub(1, Ordering::Relaxed);
            return Err(Arc::clone(first));
        }
        self.add_to(&mut shard, location, Arc::new(session));
        Ok(())
    }

    /// Moves a session to another location, unless it has left the table.
    pub(super) fn continue_at(&self, session: &Arc<TrackedSession>, location: LocationKey) {
        // Held for the whole move: of two responses at once, the second must find the session
        // where the first has put it.
        let mut current = session.location.lock();
        if *current != location && self.remove(*current, session) {
            *current = location;
            session
                .query_hash
                .store(location.query_hash, Ordering::Relaxed);
            let mut shard = self.shard(location.path_hash).lock();
            self.add_to(&mut shard, location, Arc::clone(session));
        }
    }

    /// Removes a session that has ended, and counts its end.
    pub(super) fn end(&self, session: &Arc<TrackedSession>, outcome: SessionOutcome, now: Instant) {
        // Held until the session is removed: a move at the same time would add it again.
        let location = session.location.lock();
        // Only the request that removes it counts the end.
        if self.remove(*location, session) {
            self.count_end(session, outcome, now);
        }
    }

    /// Counts a session as expired. The caller has removed it from its shard, and has released the
    /// shard's lock.
    pub(super) fn expire(&self, session: &TrackedSession, now: Instant) {
        self.uncount_look_alike(*session.location.lock());
        self.count_end(session, SessionOutcome::Expired, now);
    }

    /// Expires the session that was idle for longest in the first shard that has an idle one,
    /// beginning with the shard of `path_hash`. False if no session is idle.
    ///
    /// Only one shard is searched as a rule: the exact oldest would need all locks.
    fn expire_idlest(&self, path_hash: u64, now: Instant) -> bool {
        let first = shard_index(path_hash);
        for shard in self.shards[first..].iter().chain(&self.shards[..first]) {
            let mut shard = shard.lock();
            let idle = shard
                .values()
                .flatten()
                .filter(|session| session.is_idle())
                .min_by_key(|session| session.last_used.load(Ordering::Relaxed))
                .cloned();
            let Some(session) = idle else { continue };
            for there in shard.values_mut() {
                there.retain(|other| !Arc::ptr_eq(other, &session));
            }
            shard.retain(|_, there| !there.is_empty());
            // `expire` locks the session, which comes before a shard.
            drop(shard);
            self.expire(&session, now);
            return true;
        }
        false
    }

    fn add_to(&self, shard: &mut TableShard, location: LocationKey, session: Arc<TrackedSession>) {
        if let Some(endpoint) = location.looks_like {
            self.look_alikes[endpoint as usize].fetch_add(1, Ordering::Relaxed);
        }
        shard.entry(location.path_hash).or_default().push(session);
    }

    /// Removes a session from its shard. False if another thread has removed it.
    fn remove(&self, location: LocationKey, session: &Arc<TrackedSession>) -> bool {
        let mut shard = self.shard(location.path_hash).lock();
        let Some(there) = shard.get_mut(&location.path_hash) else {
            return false;
        };
        let Some(at) = there.iter().position(|other| Arc::ptr_eq(other, session)) else {
            return false;
        };
        there.swap_remove(at);
        if there.is_empty() {
            shard.remove(&location.path_hash);
        }
        drop(shard);
        self.uncount_look_alike(location);
        true
    }

    fn uncount_look_alike(&self, location: LocationKey) {
        if let Some(endpoint) = location.looks_like {
            self.look_alikes[endpoint as usize].fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn count_end(&self, session: &TrackedSession, outcome: SessionOutcome, now: Instant) {
        self.open.fetch_sub(1, Ordering::Relaxed);
        self.metrics.ended(outcome);
        // The age of a session that was opened elsewhere is not known.
        if session.was_opened_here {
            let duration = now.saturating_duration_since(session.first_seen);
            self.metrics
                .duration
                .observe(outcome, duration.as_secs_f64());
        }
    }
}

impl TrackedSession {
    /// Whether no request for it is in flight. To be called under the lock of its shard: handles
    /// are made under it, so that no new one can appear meanwhile.
    pub(super) fn is_idle(self: &Arc<Self>) -> bool {
        Arc::strong_count(self) == 1
    }
}

/// The shard of a path: by its hash's highest bits, because the map inside takes others.
fn shard_index(path_hash: u64) -> usize {
    (path_hash >> 60) as usize % SHARDS
}

/// The session that a query belongs to, among those that share a path.
///
/// A session that has its path alone is found by any query: a registry may change the query of a
/// Location with each response, and a client may use an older one.
pub(super) fn by_query(
    there: &[Arc<TrackedSession>],
    query_hash: impl FnOnce() -> u64,
) -> Option<&Arc<TrackedSession>> {
    if let [only] = there {
        return Some(only);
    }
    let query_hash = query_hash();
    there
        .iter()
        .find(|session| session.query_hash.load(Ordering::Relaxed) == query_hash)
}

/// The session at a location, if it was opened elsewhere.
pub(super) fn opened_elsewhere(
    shard: &TableShard,
    location: LocationKey,
) -> Option<&Arc<TrackedSession>> {
    let session = by_query(shard.get(&location.path_hash)?, || location.query_hash)?;
    (!session.was_opened_here).then_some(session)
}
