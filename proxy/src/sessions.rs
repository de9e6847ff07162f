//! The upload sessions that are open, as far as the proxy saw: a bounded table.
//!
//! A session is known by the Location that its registry handed out, which may be anything; see
//! [`LocationKey`]. It enters the table with the 202 that starts it, or with the first success of a
//! request for one that was opened elsewhere, and leaves it once: completed, cancelled, failed or
//! expired. So what has entered is always what has left and what is there; nothing is counted down
//! by an event that may come twice or never. Of several requests that are at once the first for one
//! session, the first that is answered brings it in, and the others find it there.
//!
//! A session that is refused, or whose client goes away, in the midst stays open: uploads can be
//! resumed. It has failed if the registry doesn't know it any more, or will not complete it for
//! what it is.
//!
//! One lock in [`SHARDS`] is taken by requests for upload sessions only; what is under it, and how a
//! session moves, is the [`table`]'s.

use std::hash::RandomState;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use registry::metrics::label::Method;
use registry::oci::{Endpoint, Name};
use service::metrics::MetricsRegistry;

use crate::metrics::{SessionEvent, SessionMetrics, SessionOutcome};

mod location;
mod table;

use self::location::LocationKey;
use self::table::{SHARDS, TableShard, TrackedSession};

/// How many sessions are followed at a time: some megabytes.
const LIMIT: usize = 10_000;
/// How long a session may be idle: as long as the registry of ours lets it, by default.
const EXPIRE: Duration = Duration::from_hours(24);

/// The table.
pub struct SessionTable {
    metrics: SessionMetrics,
    shards: [Mutex<TableShard>; SHARDS],
    open: AtomicUsize,
    /// How many open sessions have a path that looks like another endpoint's, for each of those.
    look_alikes: [AtomicUsize; Endpoint::ALL.len()],
    hasher: RandomState,
    limit: usize,
    origin: Instant,
}

/// A request for a session, from its start to its end: meanwhile the session does not expire.
#[derive(Default)]
pub struct SessionHandle(Option<Arc<TrackedSession>>);

/// A request for a session and the head of its response.
#[derive(Clone, Copy, Debug)]
pub struct SessionResponse<'a> {
    /// The request's method.
    pub method: Method,
    /// Its path.
    pub path: &'a str,
    /// Its query.
    pub query: Option<&'a str>,
    /// The repository in its path, if there is one.
    pub repository: Option<&'a str>,
    /// The answer's status.
    pub status: u16,
    /// The answer's Location, as the client is told it.
    pub location: Option<&'a str>,
}

/// What an answer means for a session.
enum SessionChange {
    /// It goes on, perhaps at another Location.
    Continued,
    Ended(SessionOutcome),
    /// Nothing is known that was not known before.
    Unchanged,
}

impl SessionTable {
    /// An empty table, whose gauges are brought up to date whenever `registry` is gathered.
    pub fn new(registry: &MetricsRegistry) -> Arc<SessionTable> {
        let sessions = Arc::new(SessionTable::with_limit(registry, LIMIT));
        let table = Arc::clone(&sessions);
        registry.before_gather(move || table.refresh(Instant::now()));
        sessions
    }

    fn with_limit(registry: &MetricsRegistry, limit: usize) -> SessionTable {
        SessionTable {
            metrics: SessionMetrics::new(registry),
            shards: Default::default(),
            open: AtomicUsize::new(0),
            look_alikes: Default::default(),
            hasher: RandomState::new(),
            limit,
            origin: Instant::now(),
        }
    }

    /// Whether a path that looks like `endpoint` is a session's Location all the same. Free where
    /// no such Location is open.
    ///
    /// A path of no meaning is told by itself; one that has a meaning of its own, such as the start
    /// of an upload, only together with the query.
    pub fn is_session(&self, endpoint: Endpoint, path: &str, query: Option<&str>) -> bool {
        if self.look_alikes[endpoint as usize].load(Ordering::Relaxed) == 0 {
            return false;
        }
        let hash = location::hash_path(&self.hasher, path);
        let shard = self.shard(hash).lock();
        let Some(there) = shard.get(&hash) else {
            return false;
        };
        has_no_meaning(endpoint) || {
            let query = location::hash_query(&self.hasher, query);
            there
                .iter()
                .any(|session| session.query_hash.load(Ordering::Relaxed) == query)
        }
    }

    /// An upload was begun by a request for `path`: its answer was 202, and `location` is what the
    /// client is about to be told.
    ///
    /// To be called before the client is told: its next request may be faster than the end of this
    /// one.
    pub fn opened(&self, path: &str, location: &str, repository: Option<&str>, now: Instant) {
        self.metrics.events.inc(SessionEvent::Started);
        let location = LocationKey::of_location(&self.hasher, location, path);
        let session = TrackedSession {
            first_seen: now,
            was_opened_here: true,
            repository: fit(repository),
            last_used: AtomicU64::new(self.millis(now)),
            query_hash: AtomicU64::new(location.query_hash),
            location: Mutex::new(location),
        };
        // Nobody has adopted what is only now begun.
        let _ = self.open(session);
    }

    /// A request for a session begins.
    pub fn find(&self, path: &str, query: Option<&str>, now: Instant) -> SessionHandle {
        let hash = location::hash_path(&self.hasher, path);
        let shard = self.shard(hash).lock();
        let Some(there) = shard.get(&hash) else {
            return SessionHandle::default();
        };
        let session = table::by_query(there, || location::hash_query(&self.hasher, query));
        if let Some(session) = session {
            session
                .last_used
                .fetch_max(self.millis(now), Ordering::Relaxed);
        }
        SessionHandle(session.cloned())
    }

    /// The head of the answer to a session's request has come. To be called before the client is
    /// told, as [`SessionTable::opened`] is.
    pub fn responded(&self, handle: &SessionHandle, response: SessionResponse<'_>, now: Instant) {
        let change = response.change();
        let meanwhile = match &handle.0 {
            None if response.is_success() => self.seen_meanwhile(response),
            _ => None,
        };
        if let Some(session) = handle.0.as_ref().or(meanwhile.as_ref()) {
            session
                .last_used
                .fetch_max(self.millis(now), Ordering::Relaxed);
            match change {
                SessionChange::Continued => self.continued(session, response),
                SessionChange::Ended(outcome) => self.end(session, outcome, now),
                SessionChange::Unchanged => {}
            }
        } else if response.is_success() {
            match change {
                SessionChange::Continued => self.first_seen(response, now),
                SessionChange::Ended(outcome) => {
                    self.metrics.events.inc(SessionEvent::Unknown);
                    self.metrics.ended(outcome);
                }
                SessionChange::Unchanged => {}
            }
        }
    }

    /// Lets go of what has been idle for too long, and sets the gauges.
    fn refresh(&self, now: Instant) {
        let idle_since = self.millis(now).checked_sub(millis(EXPIRE));
        let mut oldest: Option<Instant> = None;
        let mut expired = Vec::new();
        for shard in &self.shards {
            shard.lock().retain(|_, there| {
                there.retain(|session| {
                    let is_expired = idle_since
                        .is_some_and(|since| session.last_used.load(Ordering::Relaxed) <= since)
                        && session.is_idle();
                    if is_expired {
                        expired.push(Arc::clone(session));
                    } else {
                        oldest =
                            Some(oldest.map_or(session.first_seen, |o| o.min(session.first_seen)));
                    }
                    !is_expired
                });
                !there.is_empty()
            });
        }
        for session in expired {
            self.expire(&session, now);
        }
        let age = oldest.map_or(Duration::ZERO, |oldest| {
            now.saturating_duration_since(oldest)
        });
        self.metrics.oldest_age.set((), age.as_secs_f64());
        let open = self.open.load(Ordering::Relaxed);
        self.metrics.active.set((), open as f64);
    }

    fn millis(&self, now: Instant) -> u64 {
        millis(now.saturating_duration_since(self.origin))
    }

    /// A session goes on where its answer says.
    fn continued(&self, session: &Arc<TrackedSession>, response: SessionResponse<'_>) {
        if let Some(location) = response.location {
            let location = LocationKey::of_location(&self.hasher, location, response.path);
            self.continue_at(session, location);
        }
    }

    /// The session that another request has brought here since this one came, which then was the
    /// first for it. One that was started here meanwhile is not what the request was for.
    fn seen_meanwhile(&self, response: SessionResponse<'_>) -> Option<Arc<TrackedSession>> {
        let location = LocationKey::new(&self.hasher, response.path, response.query);
        let shard = self.shard(location.path_hash).lock();
        table::opened_elsewhere(&shard, location).cloned()
    }

    /// A session that was opened elsewhere is carried on with.
    fn first_seen(&self, response: SessionResponse<'_>, now: Instant) {
        let location = match response.location {
            Some(location) => LocationKey::of_location(&self.hasher, location, response.path),
            None => LocationKey::new(&self.hasher, response.path, response.query),
        };
        let entered = self.open(TrackedSession {
            first_seen: now,
            was_opened_here: false,
            repository: fit(response.repository),
            last_used: AtomicU64::new(self.millis(now)),
            query_hash: AtomicU64::new(location.query_hash),
            location: Mutex::new(location),
        });
        match entered {
            Ok(()) => self.metrics.events.inc(SessionEvent::Unknown),
            Err(first) => self.continued(&first, response),
        }
    }
}

impl SessionHandle {
    /// The repository of the session, where it is known and its request said so.
    pub fn repository(&self) -> Option<&str> {
        self.0.as_ref()?.repository.as_deref()
    }
}

impl SessionResponse<'_> {
    fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    fn change(&self) -> SessionChange {
        match self.method {
            Method::Patch | Method::Get => match self.status {
                200..300 => SessionChange::Continued,
                404 | 410 => SessionChange::Ended(SessionOutcome::Failed),
                _ => SessionChange::Unchanged,
            },
            Method::Put => match self.status {
                202 => SessionChange::Continued,
                200..300 => SessionChange::Ended(SessionOutcome::Completed),
                // Who may not, was too early or too much, or went away, can come again.
                401 | 403 | 407 | 408 | 411 | 416 | 425 | 429 | 499 => SessionChange::Unchanged,
                400..500 => SessionChange::Ended(SessionOutcome::Failed),
                _ => SessionChange::Unchanged,
            },
            Method::Delete => match self.status {
                200..300 => SessionChange::Ended(SessionOutcome::Cancelled),
                404 | 410 => SessionChange::Ended(SessionOutcome::Failed),
                _ => SessionChange::Unchanged,
            },
            Method::Head | Method::Post | Method::Options | Method::Other => {
                SessionChange::Unchanged
            }
        }
    }
}

/// Whether nothing of the specification is at paths that look like this.
fn has_no_meaning(endpoint: Endpoint) -> bool {
    match endpoint {
        Endpoint::Other | Endpoint::Extension | Endpoint::Token => true,
        Endpoint::Base
        | Endpoint::Catalog
        | Endpoint::Tags
        | Endpoint::Manifest
        | Endpoint::Blob
        | Endpoint::UploadStart
        | Endpoint::UploadSession
        | Endpoint::Referrers => false,
    }
}

/// A repository's name, if it is short enough to be kept.
fn fit(repository: Option<&str>) -> Option<Box<str>> {
    repository
        .filter(|name| name.len() <= Name::MAX_LENGTH)
        .map(Box::from)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
