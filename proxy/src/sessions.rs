//! A bounded table of the upload sessions that pass through the proxy.
//!
//! A session is identified by the Location that its registry handed out; see [`LocationKey`]. Four
//! things happen to it: it is opened, continued, ended or expired. It enters the table with the 202
//! that opens it. A session that was opened elsewhere (on another replica, or before the proxy
//! started) enters with the first successful response to a request for it; of several such requests
//! at once, the first that gets its response brings the session in, and the others find it there.
//! A session leaves the table once: completed, cancelled, failed or expired. So the sessions that
//! entered are always those that left and those that are in the table, and no count is lowered by
//! an event that may come twice or never.
//!
//! A session stays open when one of its requests is refused or its client disconnects: uploads can
//! be resumed. It has failed when the registry no longer knows it, or refuses for good to complete
//! it.
//!
//! Requests for upload sessions, and no others, take one of the `SHARDS` locks. The [`table`]
//! module holds what the locks protect.

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
pub use self::table::SessionTable;
use self::table::TrackedSession;

/// How many sessions are tracked at a time. They take a few megabytes.
const LIMIT: usize = 10_000;
/// How long a session may be idle: the default of our own registry.
const EXPIRE: Duration = Duration::from_hours(24);

/// A request's hold on its session: as long as it exists, the session does not expire.
#[derive(Default)]
pub struct SessionHandle(Option<Arc<TrackedSession>>);

/// A request for a session and the head of its response.
#[derive(Clone, Copy, Debug)]
pub struct SessionResponse<'a> {
    /// The request's method.
    pub method: Method,
    /// The request's path.
    pub path: &'a str,
    /// The request's query.
    pub query: Option<&'a str>,
    /// The repository in the path, if there is one.
    pub repository: Option<&'a str>,
    /// The response's status.
    pub status: u16,
    /// The response's Location, as the client will see it.
    pub location: Option<&'a str>,
}

/// What a response does to a session.
enum SessionChange {
    /// The session continues, perhaps at another Location.
    Continued,
    /// The session has ended.
    Ended(SessionOutcome),
    /// The response says nothing about the session.
    Unchanged,
}

impl SessionTable {
    /// An empty table. Its gauges are updated whenever `registry` is gathered.
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

    /// Whether a path that looks like `endpoint` is the Location of an open session. Costs one
    /// atomic load where no open session has such a path.
    ///
    /// A path that no endpoint of the specification has is compared alone; one that such an
    /// endpoint may have, for instance the start of an upload, is compared together with the query.
    pub fn is_session(&self, endpoint: Endpoint, path: &str, query: Option<&str>) -> bool {
        // Relaxed: the count is raised before the client learns the Location.
        if self.look_alikes[endpoint as usize].load(Ordering::Relaxed) == 0 {
            return false;
        }
        let hash = location::hash_path(&self.hasher, path);
        let shard = self.shard(hash).lock();
        let Some(there) = shard.get(&hash) else {
            return false;
        };
        is_unspecified(endpoint) || {
            let query = location::hash_query(&self.hasher, query);
            there
                .iter()
                .any(|session| session.query_hash.load(Ordering::Relaxed) == query)
        }
    }

    /// A session was opened: a request for `path` got a 202 with this `location`.
    ///
    /// Call it before the client receives the response: the client's next request may arrive
    /// before this exchange ends.
    pub fn opened(&self, path: &str, location: &str, repository: Option<&str>, now: Instant) {
        self.metrics.events.inc(SessionEvent::Started);
        let location = LocationKey::of_location(&self.hasher, location, path);
        let session = TrackedSession {
            first_seen: now,
            was_opened_here: true,
            repository: keepable(repository),
            last_used: AtomicU64::new(self.millis(now)),
            query_hash: AtomicU64::new(location.query_hash),
            location: Mutex::new(location),
        };
        // A session that was opened here never yields to an entry that is there already.
        let _ = self.open(session);
    }

    /// The session that a request is for. Called when the request begins.
    pub fn find(&self, path: &str, query: Option<&str>, now: Instant) -> SessionHandle {
        let hash = location::hash_path(&self.hasher, path);
        let shard = self.shard(hash).lock();
        let Some(there) = shard.get(&hash) else {
            return SessionHandle::default();
        };
        let session = table::by_query(there, || location::hash_query(&self.hasher, query));
        if let Some(session) = session {
            self.touch(session, now);
        }
        // Cloned under the lock: the count of clones is what keeps the session from expiring.
        SessionHandle(session.cloned())
    }

    /// The head of the response to a session's request arrived. Call it before the client receives
    /// the response, for the same reason as [`SessionTable::opened`].
    pub fn responded(&self, handle: &SessionHandle, response: SessionResponse<'_>, now: Instant) {
        let change = response.change();
        let meanwhile = match &handle.0 {
            None if response.is_success() => self.seen_meanwhile(response),
            _ => None,
        };
        if let Some(session) = handle.0.as_ref().or(meanwhile.as_ref()) {
            self.touch(session, now);
            match change {
                SessionChange::Continued => self.continued(session, response),
                SessionChange::Ended(outcome) => self.end(session, outcome, now),
                SessionChange::Unchanged => {}
            }
        } else if response.is_success() {
            // Only a success proves that the session exists: a client may name one that does not.
            match change {
                SessionChange::Continued => self.first_seen(response, now),
                // It enters and leaves at once, so both are counted and the table is not touched.
                SessionChange::Ended(outcome) => {
                    self.metrics.events.inc(SessionEvent::Unknown);
                    self.metrics.ended(outcome);
                }
                SessionChange::Unchanged => {}
            }
        }
    }

    /// Expires the sessions that were idle for too long, and sets the gauges.
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
                        let since = session.first_seen;
                        oldest = Some(oldest.map_or(since, |oldest| oldest.min(since)));
                    }
                    !is_expired
                });
                !there.is_empty()
            });
        }
        // After the shards' locks are released: a session's own lock is taken before a shard's.
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

    /// Notes that a session is in use. `fetch_max`, because two requests may do so at once, the
    /// later first.
    fn touch(&self, session: &TrackedSession, now: Instant) {
        let now = self.millis(now);
        session.last_used.fetch_max(now, Ordering::Relaxed);
    }

    fn millis(&self, now: Instant) -> u64 {
        millis(now.saturating_duration_since(self.origin))
    }

    /// A session continues at the response's Location, or where it is.
    fn continued(&self, session: &Arc<TrackedSession>, response: SessionResponse<'_>) {
        if let Some(location) = response.location {
            let location = LocationKey::of_location(&self.hasher, location, response.path);
            self.continue_at(session, location);
        }
    }

    /// The session that another request brought into the table after this request began, when both
    /// were the first for it.
    fn seen_meanwhile(&self, response: SessionResponse<'_>) -> Option<Arc<TrackedSession>> {
        let location = LocationKey::new(&self.hasher, response.path, response.query);
        let shard = self.shard(location.path_hash).lock();
        table::opened_elsewhere(&shard, location).cloned()
    }

    /// A session that was opened elsewhere is seen for the first time.
    fn first_seen(&self, response: SessionResponse<'_>, now: Instant) {
        let location = match response.location {
            Some(location) => LocationKey::of_location(&self.hasher, location, response.path),
            None => LocationKey::new(&self.hasher, response.path, response.query),
        };
        let opened = self.open(TrackedSession {
            first_seen: now,
            was_opened_here: false,
            repository: keepable(response.repository),
            last_used: AtomicU64::new(self.millis(now)),
            query_hash: AtomicU64::new(location.query_hash),
            location: Mutex::new(location),
        });
        match opened {
            Ok(()) => self.metrics.events.inc(SessionEvent::Unknown),
            Err(first) => self.continued(&first, response),
        }
    }
}

impl SessionHandle {
    /// The repository of the session, if the request that opened it named one.
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
                // The client can try again: with credentials, later, with the right range.
                401 | 403 | 407 | 408 | 411 | 416 | 425 | 429 | 499 => SessionChange::Unchanged,
                400..500 => SessionChange::Ended(SessionOutcome::Failed),
                // A 5xx leaves the session open: the client may send the PUT again.
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

/// Whether the specification defines nothing at paths of this endpoint.
fn is_unspecified(endpoint: Endpoint) -> bool {
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

/// A repository's name, if it is short enough: the table's memory is bounded only if each name is.
fn keepable(repository: Option<&str>) -> Option<Box<str>> {
    repository
        .filter(|name| name.len() <= Name::MAX_LENGTH)
        .map(Box::from)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
