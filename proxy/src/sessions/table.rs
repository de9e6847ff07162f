//! The table's inner parts: where a session is, and how it comes, moves and goes.
//!
//! What a request and its answer mean for a session is not said here.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

use super::Sessions;
use super::location::LocationKey;
use crate::metrics::SessionOutcome;

/// Parts of the table, each under a lock of its own.
pub(super) const SHARDS: usize = 16;

/// Sessions by the hash of their path: mostly one each.
pub(super) type Shard = HashMap<u64, Vec<Arc<Session>>>;

/// A session that is in the table, or was.
pub(super) struct Session {
    pub(super) since: Instant,
    /// It was started here, not found under way.
    pub(super) is_started: bool,
    pub(super) repository: Option<Box<str>>,
    /// When it was last heard of, in milliseconds since the table's origin.
    pub(super) used: AtomicU64,
    /// Where it is now; held while it moves. Taken before a shard's lock.
    pub(super) place: Mutex<LocationKey>,
    /// Of the query of the place, to be compared under a shard's lock.
    pub(super) query: AtomicU64,
}

impl Sessions {
    pub(super) fn shard(&self, path: u64) -> &Mutex<Shard> {
        // The map itself uses other bits.
        &self.shards[(path >> 60) as usize % SHARDS]
    }

    /// Enters a session. One that was found under way gives way to the same one where another
    /// request has adopted it first, and that is returned.
    pub(super) fn insert(&self, session: Session) -> Result<(), Arc<Session>> {
        let place = *session.place.lock();
        let now = session.since;
        if self.open.fetch_add(1, Ordering::Relaxed) >= self.limit
            && !self.make_room(place.path, now)
        {
            // So many requests for sessions are under way at once: this one is not followed.
            self.count_end(&session, SessionOutcome::Expired, now);
            return Ok(());
        }
        let mut shard = self.shard(place.path).lock();
        if !session.is_started
            && let Some(first) = adopted(&shard, place)
        {
            self.open.fetch_sub(1, Ordering::Relaxed);
            return Err(Arc::clone(first));
        }
        self.put(&mut shard, place, Arc::new(session));
        Ok(())
    }

    /// Enters a session at a place.
    fn put(&self, shard: &mut Shard, place: LocationKey, session: Arc<Session>) {
        if let Some(odd) = place.odd {
            self.odd[odd as usize].fetch_add(1, Ordering::Relaxed);
        }
        shard.entry(place.path).or_default().push(session);
    }

    /// Takes a session from its place; false if somebody else has.
    fn take(&self, place: LocationKey, session: &Arc<Session>) -> bool {
        let mut shard = self.shard(place.path).lock();
        let Some(there) = shard.get_mut(&place.path) else {
            return false;
        };
        let Some(at) = there.iter().position(|other| Arc::ptr_eq(other, session)) else {
            return false;
        };
        there.swap_remove(at);
        if there.is_empty() {
            shard.remove(&place.path);
        }
        drop(shard);
        self.forget(place);
        true
    }

    fn forget(&self, place: LocationKey) {
        if let Some(odd) = place.odd {
            self.odd[odd as usize].fetch_sub(1, Ordering::Relaxed);
        }
    }

    pub(super) fn relocate(&self, session: &Arc<Session>, place: LocationKey) {
        let mut current = session.place.lock();
        if *current != place && self.take(*current, session) {
            *current = place;
            session.query.store(place.query, Ordering::Relaxed);
            let mut shard = self.shard(place.path).lock();
            self.put(&mut shard, place, Arc::clone(session));
        }
    }

    pub(super) fn end(&self, session: &Arc<Session>, outcome: SessionOutcome, now: Instant) {
        // Held until it is out: else it could move meanwhile, and stay.
        let place = session.place.lock();
        if self.take(*place, session) {
            self.count_end(session, outcome, now);
        }
    }

    /// A session was taken from the table by hand.
    pub(super) fn left(&self, session: &Session, outcome: SessionOutcome, now: Instant) {
        self.forget(*session.place.lock());
        self.count_end(session, outcome, now);
    }

    fn count_end(&self, session: &Session, outcome: SessionOutcome, now: Instant) {
        self.open.fetch_sub(1, Ordering::Relaxed);
        self.metrics.ended(outcome);
        if session.is_started {
            let duration = now.saturating_duration_since(session.since);
            self.metrics
                .duration
                .observe(outcome, duration.as_secs_f64());
        }
    }

    /// Lets the session give way that has been idle for the longest, of those that share a lock
    /// with the newcomer if one of them is idle at all. False if none is, anywhere.
    fn make_room(&self, path: u64, now: Instant) -> bool {
        let first = (path >> 60) as usize % SHARDS;
        for shard in self.shards[first..].iter().chain(&self.shards[..first]) {
            let mut shard = shard.lock();
            let idle = shard
                .values()
                .flatten()
                .filter(|session| session.is_idle())
                .min_by_key(|session| session.used.load(Ordering::Relaxed))
                .cloned();
            let Some(session) = idle else { continue };
            for there in shard.values_mut() {
                there.retain(|other| !Arc::ptr_eq(other, &session));
            }
            shard.retain(|_, there| !there.is_empty());
            drop(shard);
            self.left(&session, SessionOutcome::Expired, now);
            return true;
        }
        false
    }
}

impl Session {
    /// Whether no request for it is under way.
    pub(super) fn is_idle(self: &Arc<Self>) -> bool {
        Arc::strong_count(self) == 1
    }
}

/// Which of the sessions that share a path a query is for.
///
/// A Location may change its query with each answer, and a client may keep to an older one; but
/// where several share a path, it is the query that tells them apart.
pub(super) fn find(there: &[Arc<Session>], query: impl FnOnce() -> u64) -> Option<&Arc<Session>> {
    if let [only] = there {
        return Some(only);
    }
    let query = query();
    there
        .iter()
        .find(|session| session.query.load(Ordering::Relaxed) == query)
}

/// The session at a place, if it was found under way.
pub(super) fn adopted(shard: &Shard, place: LocationKey) -> Option<&Arc<Session>> {
    let session = find(shard.get(&place.path)?, || place.query)?;
    (!session.is_started).then_some(session)
}
