//! One observed request and its response.
//!
//! The phases of the proxy feed an [`Exchange`] what happens: headers, pieces of bodies, and how it
//! ended. It knows what the access log says of the request; where the metrics are on, its
//! [`ExchangeRecording`] decides what that means for them. Nothing of pingora is here, so that the
//! accounting can be tested by itself. An exchange that nobody ends (a panic, a runtime torn down)
//! records itself when it is dropped, so that no gauge drifts and no request is lost from the counts.
//!
//! Recording takes no lock but the shared one of a cache of digests, and allocates nothing but the
//! copy of a manifest's body whose digest was not seen lately.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, header};
use registry::metrics::label::{CLIENT_CLOSED_REQUEST, Method, Pair};
use registry::oci::{Endpoint, ErrorCode, Route};
use service::metrics::MetricsRegistry;

use self::body_progress::BodyProgress;
use self::manifest_kind::KnownKinds;
use self::operation::{ExchangeOutcome, RequestOperation};
use self::recording::ExchangeRecording;
use crate::metrics::label::Side;
use crate::metrics::{Metrics, Rules};
use crate::sessions::{SessionHandle, SessionTable};

mod auth;
mod body_progress;
mod deferred_count;
mod error_code;
mod manifest_kind;
mod operation;
mod recording;
mod repository;
mod upload_session;

pub use self::deferred_count::DeferredCount;

/// What all exchanges share: where they are counted, and what must be remembered from one to the
/// next.
pub struct Recorder {
    /// What the exchanges move.
    pub metrics: Metrics,
    kinds: KnownKinds,
    sessions: Arc<SessionTable>,
}

impl Recorder {
    /// Registers every family that exchanges move. `repositories` says which are shown by name.
    pub fn new(registry: &MetricsRegistry, repositories: Rules) -> Recorder {
        Recorder {
            metrics: Metrics::new(registry, repositories),
            kinds: KnownKinds::default(),
            sessions: SessionTable::new(registry),
        }
    }
}

/// What exchanges are for.
pub enum Observer {
    /// The metrics, and the access log if it is on.
    Metrics(Arc<Recorder>),
    /// The access log alone. It names the endpoint of a request for an upload session, so it needs
    /// the sessions all the same.
    AccessLog(Arc<SessionTable>),
}

impl Observer {
    /// `None` if there is neither a recorder nor an access log: then nothing is observed, at no
    /// cost.
    pub fn new(recorder: Option<&Arc<Recorder>>, access_log: bool) -> Option<Observer> {
        match recorder {
            Some(recorder) => Some(Observer::Metrics(Arc::clone(recorder))),
            // What these sessions count is gathered by nobody.
            None => access_log
                .then(|| Observer::AccessLog(SessionTable::new(&MetricsRegistry::new("")))),
        }
    }

    /// Begins an exchange when a request's headers have been read.
    pub fn begin(&self, request: &Request<'_>) -> Exchange {
        match self {
            Observer::Metrics(recorder) => Exchange::begin(recorder, request),
            Observer::AccessLog(sessions) => Exchange::observe(sessions, None, request),
        }
    }
}

/// A request as its headers tell it.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Its method.
    pub method: &'a str,
    /// Its target without the query.
    pub path: &'a str,
    /// What follows the path's `?`.
    pub query: Option<&'a str>,
    /// Its headers.
    pub headers: &'a HeaderMap,
}

/// How an exchange ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The response was sent whole.
    Complete,
    /// It broke off.
    Aborted {
        /// The status to count where no response began.
        status: u16,
        /// Who broke it off; `None` for the proxy itself.
        side: Option<Side>,
    },
}

/// One request under observation, from its headers to the last byte of its response.
pub struct Exchange {
    facts: Facts,
    sessions: Arc<SessionTable>,
    /// `None` where the metrics are off.
    recording: Option<ExchangeRecording>,
}

/// What happened so far.
struct Facts {
    started: Instant,
    pair: Pair,
    operation: RequestOperation,
    request: BodyProgress,
    response: BodyProgress,
    head: Option<ResponseHead>,
    ended: Option<u16>,
    /// Of a request for an upload session.
    session: SessionHandle,
}

/// The response's headers.
#[derive(Clone, Copy)]
struct ResponseHead {
    status: u16,
    after: Duration,
    responder: Responder,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Responder {
    Upstream,
    Proxy,
}

impl Exchange {
    /// Begins, and is recorded, when a request's headers have been read.
    pub fn begin(recorder: &Arc<Recorder>, request: &Request<'_>) -> Exchange {
        Exchange::observe(&recorder.sessions, Some(recorder), request)
    }

    fn observe(
        sessions: &Arc<SessionTable>,
        recorder: Option<&Arc<Recorder>>,
        request: &Request<'_>,
    ) -> Exchange {
        let started = Instant::now();
        let mut route = Route::parse(request.path);
        let (path, query) = (request.path, request.query);
        let is_opaque = sessions.is_session(route.endpoint, path, query);
        if is_opaque {
            route.endpoint = Endpoint::UploadSession;
        }
        let pair = Pair::of(route.endpoint, Method::of(request.method));
        let session = if pair.endpoint() == Endpoint::UploadSession {
            sessions.find(path, query, started)
        } else {
            SessionHandle::default()
        };
        if is_opaque {
            // What looks like a repository's name in it need not be one.
            route.repository = session.repository();
        }
        let operation = RequestOperation::of(pair, &route, query);
        let recording = recorder.map(|recorder| {
            ExchangeRecording::begin(recorder, pair, operation, route.repository, request.headers)
        });
        Exchange {
            facts: Facts {
                started,
                pair,
                operation,
                request: BodyProgress::default(),
                response: BodyProgress::default(),
                head: None,
                ended: None,
                session,
            },
            sessions: Arc::clone(sessions),
            recording,
        }
    }

    /// Body bytes arrived from the client; `last` once the body is whole.
    pub fn request_body(&mut self, piece: &[u8], last: bool) {
        let facts = &mut self.facts;
        if !piece.is_empty() {
            facts.request.moved += piece.len() as u64;
            if let Some(recording) = &mut self.recording {
                recording.request_body(facts, piece);
            }
        }
        facts.request.last |= last;
    }

    /// The upstream's response headers are there: the final ones, not a 1xx, as the client will see
    /// them. To be called before it sees them: its next request may rely on what they say.
    pub fn response_head(&mut self, request: &Request<'_>, status: u16, headers: &HeaderMap) {
        if self.facts.head.is_some() {
            return;
        }
        let now = self.facts.response_began(status, Responder::Upstream);
        self.follow_session(request, status, headers, now);
        let facts = &mut self.facts;
        facts.response.last |= facts.pair.method() == Method::Head
            || matches!(status, 204 | 304)
            || is(headers, header::CONTENT_LENGTH, b"0");
        if let Some(recording) = &mut self.recording {
            recording.response_head(facts, request, headers);
        }
    }

    /// The proxy answers by itself, with an error of this code and a body of this length.
    pub fn proxy_response(&mut self, status: u16, code: ErrorCode, length: usize) {
        let facts = &mut self.facts;
        if facts.head.is_some() {
            return;
        }
        facts.response_began(status, Responder::Proxy);
        facts.response.seen = length as u64;
        facts.response.last = true;
        if let Some(recording) = &mut self.recording {
            recording.proxy_response(facts, code);
        }
    }

    /// Body bytes of the response are about to be sent; `last` if no more will come.
    pub fn response_body(&mut self, piece: &[u8], last: bool) {
        let response = &mut self.facts.response;
        response.seen += piece.len() as u64;
        response.last |= last;
        if let Some(recording) = &mut self.recording {
            recording.response_body(&self.facts, piece);
        }
    }

    /// How many body bytes have been sent to the client so far, in all.
    pub fn sent(&mut self, in_all: u64) {
        let response = &mut self.facts.response;
        if in_all > response.moved {
            let bytes = in_all - response.moved;
            response.moved = in_all;
            if let Some(recording) = &mut self.recording {
                recording.sent(&self.facts, bytes);
            }
        }
    }

    /// Ends the exchange. What is returned is counted when it has been read.
    pub fn finish(&mut self, end: End) -> Option<DeferredCount> {
        let facts = &mut self.facts;
        if facts.ended.is_some() {
            return None;
        }
        let (instead, side) = match end {
            End::Complete => (CLIENT_CLOSED_REQUEST, None),
            End::Aborted { status, side } => (status, side),
        };
        // A client may break off what it sends, or close, once it has the answer.
        let whole = end == End::Complete || facts.response.is_whole();
        let outcome = ExchangeOutcome {
            status: facts.head.map_or(instead, |head| head.status),
            whole,
        };
        facts.ended = Some(outcome.status);
        self.recording.take()?.record(facts, outcome, side)
    }

    /// Whether it was recorded as ended.
    pub fn has_ended(&self) -> bool {
        self.facts.ended.is_some()
    }

    /// What the access log says of this exchange, once it has ended.
    pub fn summary(&self) -> Summary {
        let facts = &self.facts;
        let status = facts.ended.or(facts.head.map(|head| head.status));
        Summary {
            endpoint: facts.pair.endpoint(),
            status: status.unwrap_or(CLIENT_CLOSED_REQUEST),
            received: facts.request.moved,
            sent: facts.response.moved,
            duration: facts.started.elapsed(),
            ttfb: facts.head.map(|head| head.after),
        }
    }
}

impl Facts {
    /// The response's headers are there, now.
    fn response_began(&mut self, status: u16, responder: Responder) -> Instant {
        let after = self.started.elapsed();
        self.head = Some(ResponseHead {
            status,
            after,
            responder,
        });
        self.started + after
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        // Only a panic or a runtime that is torn down gets here unfinished: our fault, not the
        // client's.
        self.finish(End::Aborted {
            status: 500,
            side: None,
        });
    }
}

fn is(headers: &HeaderMap, name: header::HeaderName, value: &[u8]) -> bool {
    headers
        .get(name)
        .is_some_and(|found| found.as_bytes() == value)
}

/// The figures of an exchange that the access log prints.
#[derive(Clone, Copy, Debug)]
pub struct Summary {
    /// What was asked for.
    pub endpoint: Endpoint,
    /// The status as it is counted.
    pub status: u16,
    /// Request body bytes.
    pub received: u64,
    /// Response body bytes.
    pub sent: u64,
    /// From the request's headers until now.
    pub duration: Duration,
    /// From the request's headers to the response's.
    pub ttfb: Option<Duration>,
}

#[cfg(test)]
mod tests;
