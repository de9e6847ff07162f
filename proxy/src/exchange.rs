//! One observed request and its response.
//!
//! The phases of the proxy feed an [`Exchange`] what happens: headers, pieces of bodies, and how it
//! ended; it alone decides what that means for the metrics. Nothing of pingora is here, so that the
//! accounting can be tested by itself. An exchange that nobody ends (a panic, a runtime torn down)
//! records itself when it is dropped, so that no gauge drifts and no request is lost from the counts.
//!
//! Recording takes no lock and allocates nothing, but for the copy of a manifest's body whose digest
//! was not seen lately.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, header};
use registry::metrics::label::{Client, Method, Pair};
use registry::oci::{Endpoint, ErrorCode, Route};
use registry::service::exposition::Registry;

use self::body::Body;
use self::error_code::Code;
use self::kind::{Kinds, Reading};
use self::operation::{Operation, Outcome};
use crate::metrics::label::{ManifestOperation, Scheme, Side, Transfer};
use crate::metrics::{Handle, Metrics, Rules};
use crate::sessions::{Sessions, Visit};

mod auth;
mod body;
mod error_code;
mod kind;
mod operation;
mod record;
mod repository;
mod session;

pub use self::kind::Unread;

/// The status that stands for a client that left before a response began.
pub const CLIENT_CLOSED_REQUEST: u16 = 499;

/// What all exchanges share: where they are counted, and what must be remembered from one to the
/// next.
pub struct Recorder {
    /// What the exchanges move.
    pub metrics: Metrics,
    kinds: Kinds,
    sessions: Arc<Sessions>,
}

impl Recorder {
    /// Registers every family that exchanges move. `repositories` says which are shown by name.
    pub fn new(registry: &Registry, repositories: Rules) -> Recorder {
        Recorder {
            metrics: Metrics::new(registry, repositories),
            kinds: Kinds::default(),
            sessions: Sessions::new(registry),
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
    Whole,
    /// It broke off.
    Broken {
        /// The status to count where no response began.
        status: u16,
        /// Who broke it off; `None` for the proxy itself.
        side: Option<Side>,
    },
}

/// One request under observation, from its headers to the last byte of its response.
pub struct Exchange {
    recorder: Arc<Recorder>,
    started: Instant,
    pair: Pair,
    operation: Operation,
    client: Client,
    scheme: Scheme,
    request: Body,
    response: Body,
    head: Option<Head>,
    ended: Option<u16>,
    /// Of a manifest that is pulled, resolved or pushed.
    reading: Option<Reading>,
    code: Code,
    /// Of a request for an upload session.
    visit: Visit,
    /// Of a request for something of a repository.
    repository: Option<Handle>,
}

/// The response's headers.
#[derive(Clone, Copy)]
struct Head {
    status: u16,
    after: Duration,
    by: By,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    Upstream,
    Proxy,
}

impl Exchange {
    /// Begins when a request's headers have been read.
    pub fn begin(recorder: &Arc<Recorder>, request: &Request<'_>) -> Exchange {
        let started = Instant::now();
        let mut route = Route::parse(request.path);
        let (path, query) = (request.path, request.query);
        let is_opaque = recorder.sessions.is_session(route.endpoint, path, query);
        if is_opaque {
            route.endpoint = Endpoint::UploadSession;
        }
        let pair = Pair::of(route.endpoint, Method::of(request.method));
        let visit = match pair.endpoint() {
            Endpoint::UploadSession => recorder.sessions.visit(path, query, started),
            _ => Visit::default(),
        };
        if is_opaque {
            // What looks like a repository's name in it need not be one.
            route.repository = visit.repository();
        }
        let repositories = &recorder.metrics.repositories;
        let repository = route.repository.map(|name| repositories.find(name));
        let operation = Operation::of(pair, &route, request.query);
        let agent = request.headers.get(header::USER_AGENT);
        let agent = agent.and_then(|value| value.to_str().ok());
        recorder.metrics.http.in_flight.add(pair.endpoint(), 1.0);
        Exchange {
            recorder: Arc::clone(recorder),
            started,
            pair,
            operation,
            client: Client::of(agent.unwrap_or_default()),
            scheme: auth::scheme(request.headers),
            request: Body::default(),
            response: Body::default(),
            head: None,
            ended: None,
            reading: (operation.on_manifests() == Some(ManifestOperation::Push))
                .then(|| Reading::with_body(recorder, request.headers)),
            code: Code::None,
            visit,
            repository,
        }
    }

    /// Body bytes arrived from the client; `last` once the body is whole.
    pub fn request_body(&mut self, piece: &[u8], last: bool) {
        let bytes = piece.len() as u64;
        if bytes > 0 {
            self.request.moved += bytes;
            let metrics = &self.recorder.metrics;
            metrics.http.request_body_bytes.add(self.pair, bytes);
            if let Some(repository) = &mut self.repository {
                let repositories = &metrics.repositories;
                repositories.bytes(repository, Transfer::Upload, bytes);
            }
            if self.operation.carries_blob() {
                self.request.touch(self.started.elapsed());
            }
            if let Some(reading) = &mut self.reading {
                reading.piece(piece);
            }
        }
        self.request.last |= last;
    }

    /// The upstream's response headers are there: the final ones, not a 1xx, as the client will see
    /// them. To be called before it sees them: its next request may rely on what they say.
    pub fn response_head(&mut self, request: &Request<'_>, status: u16, headers: &HeaderMap) {
        if self.head.is_some() {
            return;
        }
        let after = self.answer(status, By::Upstream);
        self.follow_session(request, status, headers, self.started + after);
        self.admit_repository(request, status, self.started + after);
        let recorder = &self.recorder;
        if matches!(status, 301 | 302 | 303 | 307 | 308) {
            let endpoint = self.pair.endpoint();
            recorder.metrics.transfers.redirects.inc(endpoint);
        }
        if let Some(result) = auth::result(self.scheme, status) {
            recorder.metrics.clients.auth.inc((self.scheme, result));
        }
        if self.pair.method() == Method::Head
            || matches!(status, 204 | 304)
            || is(headers, header::CONTENT_LENGTH, b"0")
        {
            self.response.last = true;
        } else {
            self.code = Code::of(status, headers);
        }
        match (self.operation.on_manifests(), status) {
            (Some(ManifestOperation::Pull), 200) => {
                self.reading = Some(Reading::pulled(recorder, headers));
            }
            (Some(ManifestOperation::Pull | ManifestOperation::Resolve), ..400) => {
                self.reading = Some(Reading::without_body(headers));
            }
            _ => {
                if let Some(reading) = &mut self.reading {
                    reading.pushed(recorder, headers);
                }
            }
        }
    }

    /// The proxy answers by itself, with an error of this code and a body of this length.
    pub fn own_answer(&mut self, status: u16, code: ErrorCode, length: usize) {
        if self.head.is_some() {
            return;
        }
        self.answer(status, By::Proxy);
        self.response.seen = length as u64;
        self.response.last = true;
        if length > 0 {
            self.code = Code::Known(code.into());
        }
    }

    fn answer(&mut self, status: u16, by: By) -> Duration {
        let after = self.started.elapsed();
        let ttfb = &self.recorder.metrics.http.ttfb;
        ttfb.observe(self.pair, after.as_secs_f64());
        self.head = Some(Head { status, after, by });
        after
    }

    /// Body bytes of the response are about to be sent; `last` if no more will come.
    pub fn response_body(&mut self, piece: &[u8], last: bool) {
        self.response.seen += piece.len() as u64;
        self.response.last |= last;
        self.code.piece(piece);
        if let Some(reading) = &mut self.reading
            && self.operation.on_manifests() == Some(ManifestOperation::Pull)
        {
            reading.piece(piece);
        }
    }

    /// How many body bytes have been sent to the client so far, in all.
    pub fn sent(&mut self, in_all: u64) {
        if in_all > self.response.moved {
            let bytes = in_all - self.response.moved;
            let metrics = &self.recorder.metrics;
            metrics.http.response_body_bytes.add(self.pair, bytes);
            if let Some(repository) = &mut self.repository {
                let repositories = &metrics.repositories;
                repositories.bytes(repository, Transfer::Download, bytes);
            }
            self.response.moved = in_all;
        }
    }

    /// Ends the exchange. What is returned is counted when it has been read.
    pub fn finish(&mut self, end: End) -> Option<Unread> {
        if self.ended.is_some() {
            return None;
        }
        let (instead, side) = match end {
            End::Whole => (CLIENT_CLOSED_REQUEST, None),
            End::Broken { status, side } => (status, side),
        };
        // A client may break off what it sends, or close, once it has the answer.
        let whole = end == End::Whole || self.response.is_whole();
        let outcome = Outcome {
            status: self.head.map_or(instead, |head| head.status),
            whole,
        };
        self.ended = Some(outcome.status);
        self.record(outcome, side)
    }

    /// Whether the whole request body has arrived.
    pub fn request_is_whole(&self) -> bool {
        self.request.last
    }

    /// Whether it was recorded as ended.
    pub fn has_ended(&self) -> bool {
        self.ended.is_some()
    }

    /// What the access log says of this exchange, once it has ended.
    pub fn summary(&self) -> Summary {
        let status = self.ended.or(self.head.map(|head| head.status));
        Summary {
            endpoint: self.pair.endpoint(),
            status: status.unwrap_or(CLIENT_CLOSED_REQUEST),
            received: self.request.moved,
            sent: self.response.moved,
            duration: self.started.elapsed(),
            ttfb: self.head.map(|head| head.after),
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        // Only a panic or a runtime that is torn down gets here unfinished: our fault, not the
        // client's.
        self.finish(End::Broken {
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
