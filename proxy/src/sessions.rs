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
use self::table::{SHARDS, Session, Shard};

/// How many sessions are followed at a time: some megabytes.
const LIMIT: usize = 10_000;
/// How long a session may be idle: as long as the registry of ours lets it, by default.
const EXPIRE: Duration = Duration::from_hours(24);

/// The table.
pub struct Sessions {
    metrics: SessionMetrics,
    shards: [Mutex<Shard>; SHARDS],
    open: AtomicUsize,
    /// How many open sessions have a path that looks like another endpoint's, for each of those.
    odd: [AtomicUsize; Endpoint::ALL.len()],
    hasher: RandomState,
    limit: usize,
    origin: Instant,
}

/// A request for a session, from its start to its end: meanwhile the session does not expire.
#[derive(Default)]
pub struct Visit(Option<Arc<Session>>);

/// A request for a session and the head of its answer.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
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
enum Step {
    /// It goes on, perhaps at another Location.
    Carry,
    End(SessionOutcome),
    /// Nothing is known that was not known before.
    Nothing,
}

impl Sessions {
    /// An empty table, whose gauges are brought up to date whenever `registry` is gathered.
    pub fn new(registry: &MetricsRegistry) -> Arc<Sessions> {
        let sessions = Arc::new(Sessions::with_limit(registry, LIMIT));
        let table = Arc::clone(&sessions);
        registry.before_gather(move || table.refresh(Instant::now()));
        sessions
    }

    fn with_limit(registry: &MetricsRegistry, limit: usize) -> Sessions {
        Sessions {
            metrics: SessionMetrics::new(registry),
            shards: Default::default(),
            open: AtomicUsize::new(0),
            odd: Default::default(),
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
        if self.odd[endpoint as usize].load(Ordering::Relaxed) == 0 {
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
                .any(|session| session.query.load(Ordering::Relaxed) == query)
        }
    }

    /// An upload was begun by a request for `path`: its answer was 202, and `location` is what the
    /// client is about to be told.
    ///
    /// To be called before the client is told: its next request may be faster than the end of this
    /// one.
    pub fn start(&self, path: &str, location: &str, repository: Option<&str>, now: Instant) {
        self.metrics.events.inc(SessionEvent::Started);
        let place = LocationKey::of_location(&self.hasher, location, path);
        let session = Session {
            since: now,
            is_started: true,
            repository: fit(repository),
            used: AtomicU64::new(self.millis(now)),
            query: AtomicU64::new(place.query),
            place: Mutex::new(place),
        };
        // Nobody has adopted what is only now begun.
        let _ = self.insert(session);
    }

    /// A request for a session begins.
    pub fn visit(&self, path: &str, query: Option<&str>, now: Instant) -> Visit {
        let hash = location::hash_path(&self.hasher, path);
        let shard = self.shard(hash).lock();
        let Some(there) = shard.get(&hash) else {
            return Visit::default();
        };
        let session = table::find(there, || location::hash_query(&self.hasher, query));
        if let Some(session) = session {
            session.used.fetch_max(self.millis(now), Ordering::Relaxed);
        }
        Visit(session.cloned())
    }

    /// The head of the answer to a session's request has come. To be called before the client is
    /// told, as [`Sessions::start`] is.
    pub fn answered(&self, visit: &Visit, answer: Answer<'_>, now: Instant) {
        let step = answer.step();
        let adopted = match &visit.0 {
            None if answer.is_success() => self.adopted(answer),
            _ => None,
        };
        if let Some(session) = visit.0.as_ref().or(adopted.as_ref()) {
            session.used.fetch_max(self.millis(now), Ordering::Relaxed);
            match step {
                Step::Carry => self.carry(session, answer),
                Step::End(outcome) => self.end(session, outcome, now),
                Step::Nothing => {}
            }
        } else if answer.is_success() {
            match step {
                Step::Carry => self.adopt(answer, now),
                Step::End(outcome) => {
                    self.metrics.events.inc(SessionEvent::Unknown);
                    self.metrics.ended(outcome);
                }
                Step::Nothing => {}
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
                        .is_some_and(|since| session.used.load(Ordering::Relaxed) <= since)
                        && session.is_idle();
                    if is_expired {
                        expired.push(Arc::clone(session));
                    } else {
                        oldest = Some(oldest.map_or(session.since, |o| o.min(session.since)));
                    }
                    !is_expired
                });
                !there.is_empty()
            });
        }
        for session in expired {
            self.left(&session, SessionOutcome::Expired, now);
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
    fn carry(&self, session: &Arc<Session>, answer: Answer<'_>) {
        if let Some(location) = answer.location {
            let place = LocationKey::of_location(&self.hasher, location, answer.path);
            self.relocate(session, place);
        }
    }

    /// The session that another request has brought here since this one came, which then was the
    /// first for it. One that was started here meanwhile is not what the request was for.
    fn adopted(&self, answer: Answer<'_>) -> Option<Arc<Session>> {
        let place = LocationKey::new(&self.hasher, answer.path, answer.query);
        let shard = self.shard(place.path).lock();
        table::adopted(&shard, place).cloned()
    }

    /// A session that was opened elsewhere is carried on with.
    fn adopt(&self, answer: Answer<'_>, now: Instant) {
        let place = match answer.location {
            Some(location) => LocationKey::of_location(&self.hasher, location, answer.path),
            None => LocationKey::new(&self.hasher, answer.path, answer.query),
        };
        let entered = self.insert(Session {
            since: now,
            is_started: false,
            repository: fit(answer.repository),
            used: AtomicU64::new(self.millis(now)),
            query: AtomicU64::new(place.query),
            place: Mutex::new(place),
        });
        match entered {
            Ok(()) => self.metrics.events.inc(SessionEvent::Unknown),
            Err(first) => self.carry(&first, answer),
        }
    }
}

impl Visit {
    /// The repository of the session, where it is known and its request said so.
    pub fn repository(&self) -> Option<&str> {
        self.0.as_ref()?.repository.as_deref()
    }
}

impl Answer<'_> {
    fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    fn step(&self) -> Step {
        match self.method {
            Method::Patch | Method::Get => match self.status {
                200..300 => Step::Carry,
                404 | 410 => Step::End(SessionOutcome::Failed),
                _ => Step::Nothing,
            },
            Method::Put => match self.status {
                202 => Step::Carry,
                200..300 => Step::End(SessionOutcome::Completed),
                // Who may not, was too early or too much, or went away, can come again.
                401 | 403 | 407 | 408 | 411 | 416 | 425 | 429 | 499 => Step::Nothing,
                400..500 => Step::End(SessionOutcome::Failed),
                _ => Step::Nothing,
            },
            Method::Delete => match self.status {
                200..300 => Step::End(SessionOutcome::Cancelled),
                404 | 410 => Step::End(SessionOutcome::Failed),
                _ => Step::Nothing,
            },
            Method::Head | Method::Post | Method::Options | Method::Other => Step::Nothing,
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
