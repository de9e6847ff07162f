//! One observed request and its response.
//!
//! The forwarding loop reports to an [`Exchange`] what happens: headers, pieces of bodies, and the
//! end. The exchange holds the facts for the access log; where metrics are on, its
//! [`ExchangeRecording`] turns them into metrics. Nothing of sockets is here, so the accounting is
//! tested without a network. An exchange that is not ended (after a panic, or when the runtime is
//! torn down) records itself when it is dropped: no gauge drifts, and no request goes uncounted.
//!
//! Recording a pull takes no lock but the shared lock of the cache of manifest kinds, and allocates
//! only to copy the body of a manifest whose digest is not in that cache. A request of an upload also
//! locks one shard of the sessions' table, and the first success of a repository admits it to the
//! table of repositories.

use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, header};
use registry::metrics::label::{CLIENT_CLOSED_REQUEST, Client, Method, Pair};
use registry::oci::{Endpoint, ErrorCode, Route};
use service::metrics::MetricsRegistry;

use self::body_progress::BodyProgress;
use self::facts::{Facts, Responder};
use self::operation::{ExchangeOutcome, RequestOperation};
use self::recording::ExchangeRecording;
use crate::metrics::label::Side;
use crate::sessions::{SessionHandle, SessionTable};

mod auth;
mod body_progress;
mod deferred_count;
mod error_code;
mod facts;
mod manifest_kind;
mod operation;
mod recorder;
mod recording;
mod repository;
mod upload_session;

pub use self::deferred_count::DeferredCount;
pub use self::facts::Request;
pub use self::recorder::Recorder;

/// What exchanges are observed for. Clones are the same one.
#[derive(Clone)]
pub enum Observer {
    /// The metrics, and the access log if it is on.
    Metrics(Arc<Recorder>),
    /// The access log alone. It needs the upload sessions, too, to name the endpoint of a request
    /// for a Location that looks like no upload session.
    AccessLog(Arc<SessionTable>),
}

impl Observer {
    /// For the access log alone where there is no recorder.
    pub fn new(recorder: Option<&Arc<Recorder>>) -> Observer {
        match recorder {
            Some(recorder) => Observer::Metrics(Arc::clone(recorder)),
            // These sessions count into a registry that no scrape gathers.
            None => Observer::AccessLog(SessionTable::new(&MetricsRegistry::new(""))),
        }
    }

    /// The same, if anything is to be observed: without metrics and an access log nothing is.
    pub fn if_needed(&self, access_log: bool) -> Option<Observer> {
        match self {
            Observer::Metrics(_) => Some(self.clone()),
            Observer::AccessLog(_) => access_log.then(|| self.clone()),
        }
    }

    /// Begins an exchange. Called when a request's headers have been read.
    pub fn begin(&self, request: &Request<'_>) -> Exchange<Awaiting> {
        match self {
            Observer::Metrics(recorder) => Exchange::begin(recorder, request),
            Observer::AccessLog(sessions) => Exchange::observe(sessions, None, request),
        }
    }
}

/// How an exchange ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The response was sent whole.
    Complete,
    /// The exchange was aborted.
    Aborted {
        /// The status to count if no response began.
        status: u16,
        /// The side that aborted it; `None` for the proxy itself.
        side: Option<Side>,
    },
}

/// A phase of an exchange: the request was read, and no response has begun.
#[derive(Debug)]
pub enum Awaiting {}

/// A phase of an exchange: the response has begun.
#[derive(Debug)]
pub enum Responding {}

/// One request under observation, from its headers to the last byte of its response. The request's
/// body may arrive in either phase; a response begins once, and an exchange ends once.
pub struct Exchange<Phase> {
    open: OpenExchange,
    phase: PhantomData<Phase>,
}

/// An exchange that has ended and was recorded.
pub struct EndedExchange {
    open: OpenExchange,
    /// The operation of a manifest whose kind is not known yet: count it on a blocking thread.
    pub deferred: Option<DeferredCount>,
}

/// What an exchange is, in each of its phases.
struct OpenExchange {
    facts: Facts,
    sessions: Arc<SessionTable>,
    /// `None` if metrics are off, and once the exchange has ended.
    recording: Option<ExchangeRecording>,
}

impl Exchange<Awaiting> {
    /// Begins an exchange with metrics. Called when a request's headers have been read.
    pub fn begin(recorder: &Arc<Recorder>, request: &Request<'_>) -> Self {
        Self::observe(&recorder.sessions, Some(recorder), request)
    }

    fn observe(
        sessions: &Arc<SessionTable>,
        recorder: Option<&Arc<Recorder>>,
        request: &Request<'_>,
    ) -> Self {
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
            // An opaque Location may contain what only looks like a repository's name. The name is
            // known from the request that opened the session.
            route.repository = session.repository();
        }
        let operation = RequestOperation::of(pair, &route, query);
        let agent = request.headers.get(header::USER_AGENT);
        let agent = agent.and_then(|value| value.to_str().ok());
        let client = Client::of(agent.unwrap_or_default());
        let recording = recorder.map(|recorder| {
            ExchangeRecording::begin(recorder, pair, operation, route.repository, request.headers)
        });
        let part = |part: Option<&str>| within(path, part.filter(|_| !is_opaque)?);
        let open = OpenExchange {
            facts: Facts {
                started,
                pair,
                operation,
                client,
                repository: part(route.repository),
                reference: part(route.reference()),
                request: BodyProgress::default(),
                response: BodyProgress::default(),
                head: None,
                ended: None,
                session,
            },
            sessions: Arc::clone(sessions),
            recording,
        };
        Exchange {
            open,
            phase: PhantomData,
        }
    }

    /// The head of the upstream's final response (not a 1xx) arrived. `headers` are those that the
    /// client will see. Call it before the client sees them: its next request may rely on them.
    pub fn response_head(
        mut self,
        request: &Request<'_>,
        status: u16,
        headers: &HeaderMap,
    ) -> Exchange<Responding> {
        let now = self.open.facts.response_began(status, Responder::Upstream);
        self.open.report_to_session(request, status, headers, now);
        let facts = &mut self.open.facts;
        // These responses have no body (RFC 9110 §6.4.1), so no last piece will follow.
        facts.response.ended |= facts.pair.method() == Method::Head
            || matches!(status, 204 | 304)
            || is(headers, header::CONTENT_LENGTH, b"0");
        if let Some(recording) = &mut self.open.recording {
            recording.response_head(facts, request, headers);
        }
        self.responding()
    }

    /// The proxy itself responds, with an error of this code and a body of this length.
    pub fn proxy_response(
        mut self,
        status: u16,
        code: ErrorCode,
        length: usize,
    ) -> Exchange<Responding> {
        let facts = &mut self.open.facts;
        facts.response_began(status, Responder::Proxy);
        facts.response.seen = length as u64;
        facts.response.ended = true;
        if let Some(recording) = &mut self.open.recording {
            recording.proxy_response(facts, code);
        }
        self.responding()
    }

    fn responding(self) -> Exchange<Responding> {
        Exchange {
            open: self.open,
            phase: PhantomData,
        }
    }
}

impl<Phase> Exchange<Phase> {
    /// Body bytes arrived from the client. `last` says that the body is complete.
    pub fn request_body(&mut self, piece: &[u8], last: bool) {
        if !piece.is_empty() {
            self.request_moved(piece.len() as u64);
            if let Some(recording) = &mut self.open.recording {
                recording.request_piece(piece);
            }
        }
        self.open.facts.request.ended |= last;
    }

    /// So many body bytes arrived from the client, seen by the kernel alone.
    pub fn request_moved(&mut self, bytes: u64) {
        let facts = &mut self.open.facts;
        facts.request.moved += bytes;
        if let Some(recording) = &mut self.open.recording {
            recording.request_moved(facts, bytes);
        }
    }

    /// Whether what the request's body says matters.
    pub fn reads_request(&self) -> bool {
        let recording = self.open.recording.as_ref();
        recording.is_some_and(ExchangeRecording::reads_request)
    }

    /// Ends the exchange and records it.
    pub fn end(mut self, end: End) -> EndedExchange {
        let deferred = self.open.end(end);
        EndedExchange {
            open: self.open,
            deferred,
        }
    }
}

impl Exchange<Responding> {
    /// Whether what the response's body says matters.
    pub fn reads_response(&self) -> bool {
        let recording = self.open.recording.as_ref();
        recording.is_some_and(|recording| recording.reads_response(&self.open.facts))
    }

    /// Body bytes of the response are about to be sent. `last` says that no more will come.
    pub fn response_body(&mut self, piece: &[u8], last: bool) {
        let response = &mut self.open.facts.response;
        response.seen += piece.len() as u64;
        response.ended |= last;
        if let Some(recording) = &mut self.open.recording {
            recording.response_body(&self.open.facts, piece);
        }
    }

    /// So many body bytes of the response are sent, seen by the kernel alone.
    pub fn response_moved(&mut self, bytes: u64) {
        self.open.facts.response.seen += bytes;
    }

    /// How many body bytes have been sent to the client in total.
    pub fn sent(&mut self, total: u64) {
        let response = &mut self.open.facts.response;
        // A total that is reported twice counts once.
        if total > response.moved {
            let bytes = total - response.moved;
            response.moved = total;
            if let Some(recording) = &mut self.open.recording {
                recording.sent(&self.open.facts, bytes);
            }
        }
    }
}

impl EndedExchange {
    /// The figures for the access log.
    pub fn summary(&self) -> Summary {
        let facts = &self.open.facts;
        Summary {
            endpoint: facts.pair.endpoint(),
            method: facts.pair.method(),
            client: facts.client,
            repository: facts.repository.clone(),
            reference: facts.reference.clone(),
            status: facts.ended.unwrap_or(CLIENT_CLOSED_REQUEST),
            received: facts.request.moved,
            sent: facts.response.moved,
            duration: facts.started.elapsed(),
            ttfb: facts.head.map(|head| head.after),
            is_upstreams: facts
                .head
                .is_some_and(|head| head.responder == Responder::Upstream),
        }
    }
}

impl OpenExchange {
    fn end(&mut self, end: End) -> Option<DeferredCount> {
        let facts = &mut self.facts;
        if facts.ended.is_some() {
            return None;
        }
        let (without_head, side) = match end {
            End::Complete => (CLIENT_CLOSED_REQUEST, None),
            End::Aborted { status, side } => (status, side),
        };
        // A client may abort its upload, or close, once it has the whole response.
        let whole = end == End::Complete || facts.response.is_whole();
        let outcome = ExchangeOutcome {
            status: facts.head.map_or(without_head, |head| head.status),
            whole,
        };
        facts.ended = Some(outcome.status);
        self.recording.take()?.record(facts, outcome, side)
    }
}

impl Drop for OpenExchange {
    fn drop(&mut self) {
        // Only a panic, or a runtime that is torn down, drops an exchange that has not ended. That
        // is the proxy's fault, so it counts as 500 and blames no side.
        self.end(End::Aborted {
            status: 500,
            side: None,
        });
    }
}

/// Where a part of a text is in it; `None` if it is of another text.
fn within(text: &str, part: &str) -> Option<Range<usize>> {
    let start = (part.as_ptr() as usize).checked_sub(text.as_ptr() as usize)?;
    let range = start..start + part.len();
    text.get(range.clone()).is_some().then_some(range)
}

fn is(headers: &HeaderMap, name: header::HeaderName, value: &[u8]) -> bool {
    headers
        .get(name)
        .is_some_and(|found| found.as_bytes() == value)
}

/// The figures of an exchange that the access log prints.
#[derive(Clone, Debug)]
pub struct Summary {
    /// The endpoint of the request.
    pub endpoint: Endpoint,
    /// Its method.
    pub method: Method,
    /// The family of the client.
    pub client: Client,
    /// Where the path names the repository, if it does.
    pub repository: Option<Range<usize>>,
    /// Where the path has the tag or digest, if it has one.
    pub reference: Option<Range<usize>>,
    /// The status as it is counted.
    pub status: u16,
    /// Request body bytes.
    pub received: u64,
    /// Response body bytes.
    pub sent: u64,
    /// The time from the request's headers until now.
    pub duration: Duration,
    /// The time from the request's headers to the response's.
    pub ttfb: Option<Duration>,
    /// Whether the response is the upstream's, and not the proxy's own.
    pub is_upstreams: bool,
}

#[cfg(test)]
mod tests;
