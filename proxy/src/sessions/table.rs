//! The table's inner parts: where a session is, and how it comes, moves and goes.
//!
//! What a request and its answer mean for a session is not said here.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

use super::SessionTable;
use super::location::LocationKey;
use crate::metrics::SessionOutcome;

/// Parts of the table, each under a lock of its own.
pub(super) const SHARDS: usize = 16;

/// SessionTable by the hash of their path: mostly one each.
pub(super) type TableShard = HashMap<u64, Vec<Arc<TrackedSession>>>;

/// A session that is in the table, or was.
pub(super) struct TrackedSession {
    pub(super) first_seen: Instant,
    /// It was started here, not found under way.
    pub(super) was_opened_here: bool,
    pub(super) repository: Option<Box<str>>,
    /// When it was last heard of, in milliseconds since the table's origin.
    pub(super) last_used: AtomicU64,
    /// Where it is now; held while it moves. Taken before a shard's lock.
    pub(super) location: Mutex<LocationKey>,
    /// Of the query of the location, to be compared under a shard's lock.
    pub(super) query_hash: AtomicU64,
}

impl SessionTable {
    pub(super) fn shard(&self, path: u64) -> &Mutex<TableShard> {
        // The map itself uses other bits.
        &self.shards[(path >> 60) as usize % SHARDS]
    }

    /// Enters a session. One that was found under way gives way to the same one where another
    /// request has adopted it first, and that is returned.
    pub(super) fn open(&self, session: TrackedSession) -> Result<(), Arc<TrackedSession>> {
        let location = *session.location.lock();
        let now = session.first_seen;
        if self.open.fetch_add(1, Ordering::Relaxed) >= self.limit
            && !self.expire_idlest(location.path_hash, now)
        {
            // So many requests for sessions are under way at once: this one is not followed.
            self.count_end(&session, SessionOutcome::Expired, now);
            return Ok(());
        }
        let mut shard = self.shard(location.path_hash).lock();
        if !session.was_opened_here
            && let Some(first) = opened_elsewhere(&shard, location)
        {
            self.open.fetch_sub(1, Ordering::Relaxed);
            return Err(Arc::clone(first));
        }
        self.add(&mut shard, location, Arc::new(session));
        Ok(())
    }

    /// Enters a session at a place.
    fn add(&self, shard: &mut TableShard, location: LocationKey, session: Arc<TrackedSession>) {
        if let Some(endpoint) = location.looks_like {
            self.look_alikes[endpoint as usize].fetch_add(1, Ordering::Relaxed);
        }
        shard.entry(location.path_hash).or_default().push(session);
    }

    /// Takes a session from its location; false if somebody else has.
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
        self.forget(location);
        true
    }

    fn forget(&self, location: LocationKey) {
        if let Some(endpoint) = location.looks_like {
            self.look_alikes[endpoint as usize].fetch_sub(1, Ordering::Relaxed);
        }
    }

    pub(super) fn continue_at(&self, session: &Arc<TrackedSession>, location: LocationKey) {
        let mut current = session.location.lock();
        if *current != location && self.remove(*current, session) {
            *current = location;
            session
                .query_hash
                .store(location.query_hash, Ordering::Relaxed);
            let mut shard = self.shard(location.path_hash).lock();
            self.add(&mut shard, location, Arc::clone(session));
        }
    }

    pub(super) fn end(&self, session: &Arc<TrackedSession>, outcome: SessionOutcome, now: Instant) {
        // Held until it is out: else it could move meanwhile, and stay.
        let location = session.location.lock();
        if self.remove(*location, session) {
            self.count_end(session, outcome, now);
        }
    }

    /// A session was taken from the table by hand.
    pub(super) fn expire(&self, session: &TrackedSession, now: Instant) {
        self.forget(*session.location.lock());
        self.count_end(session, SessionOutcome::Expired, now);
    }

    fn count_end(&self, session: &TrackedSession, outcome: SessionOutcome, now: Instant) {
        self.open.fetch_sub(1, Ordering::Relaxed);
        self.metrics.ended(outcome);
        if session.was_opened_here {
            let duration = now.saturating_duration_since(session.first_seen);
            self.metrics
                .duration
                .observe(outcome, duration.as_secs_f64());
        }
    }

    /// Lets the session give way that has been idle for the longest, of those that share a lock
    /// with the newcomer if one of them is idle at all. False if none is, anywhere.
    fn expire_idlest(&self, path: u64, now: Instant) -> bool {
        let first = (path >> 60) as usize % SHARDS;
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
            drop(shard);
            self.expire(&session, now);
            return true;
        }
        false
    }
}

impl TrackedSession {
    /// Whether no request for it is under way.
    pub(super) fn is_idle(self: &Arc<Self>) -> bool {
        Arc::strong_count(self) == 1
    }
}

/// Which of the sessions that share a path a query is for.
///
/// A Location may change its query with each answer, and a client may keep to an older one; but
/// where several share a path, it is the query that tells them apart.
pub(super) fn by_query(
    there: &[Arc<TrackedSession>],
    query: impl FnOnce() -> u64,
) -> Option<&Arc<TrackedSession>> {
    if let [only] = there {
        return Some(only);
    }
    let query = query();
    there
        .iter()
        .find(|session| session.query_hash.load(Ordering::Relaxed) == query)
}

/// The session at a location, if it was found under way.
pub(super) fn opened_elsewhere(
    shard: &TableShard,
    location: LocationKey,
) -> Option<&Arc<TrackedSession>> {
    let session = by_query(shard.get(&location.path_hash)?, || location.query_hash)?;
    (!session.was_opened_here).then_some(session)
}
