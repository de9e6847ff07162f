//! One exchange as the metrics and the log see it.

use std::sync::LazyLock;
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method};
use registry::oci::ErrorBody;
use service::metrics::Label as _;

use super::framing::{RequestHead, ResponseHead};
use super::logged_request::{LoggedRequest, LoggedTarget};
use super::settings::ForwardSettings;
use crate::error::Failure;
use crate::exchange::{Awaiting, End, Exchange, Request, Responding};
use crate::metrics::{Awaited, UpstreamError, UpstreamMetrics};
use crate::upstream::Upstream;

/// The sessions' table knows a request by its target alone.
static NO_HEADERS: LazyLock<HeaderMap> = LazyLock::new(HeaderMap::new);

/// An exchange under observation, in one of its phases. It is counted and logged once: when it ends, or
/// when it is dropped because the shutdown cut it, or by a panic.
pub(super) struct Observed<'f, Phase> {
    /// `None` once it has ended or gone into another phase.
    open: Option<OpenRequest<'f, Phase>>,
}

/// A request that has not ended.
struct OpenRequest<'f, Phase> {
    facts: RequestFacts<'f>,
    exchange: Option<Exchange<Phase>>,
    /// `None` while the access log is off.
    logged: Option<Box<LoggedRequest>>,
    awaited: Awaited,
    sent: u64,
}

/// What is known of a request from its head.
struct RequestFacts<'f> {
    settings: &'f ForwardSettings,
    /// `None` of a request that is for none.
    upstream: Option<&'f Upstream>,
    /// What the log says of the request, and the sessions' table knows it by.
    target: PathAndQuery,
    method: Method,
    id: HeaderValue,
}

impl<'f> Observed<'f, Awaiting> {
    pub(super) fn begin(
        (settings, upstream): (&'f ForwardSettings, Option<&'f Upstream>),
        request: &RequestHead,
        id: &HeaderValue,
        logged: Option<Box<LoggedRequest>>,
    ) -> Self {
        let observer = settings.observer.as_ref();
        Observed {
            open: Some(OpenRequest {
                facts: RequestFacts {
                    settings,
                    upstream,
                    target: request.target.clone(),
                    method: request.method.clone(),
                    id: id.clone(),
                },
                exchange: observer.map(|observer| observer.begin(&asked(request))),
                logged,
                awaited: Awaited::default(),
                sent: 0,
            }),
        }
    }

    /// The request is tried to be sent to this replica.
    pub(super) fn attempt(&mut self, replica: Option<usize>) {
        if let Some(logged) = self.logged() {
            logged.attempt(replica);
        }
    }

    /// It waited so long for a replica.
    pub(super) fn queued(&mut self, waited: Duration) {
        if let Some(logged) = self.logged() {
            logged.queued(waited);
        }
    }

    /// A connection to the upstream was made, or could not be made, in so much time.
    pub(super) fn connecting(&mut self, took: Duration) {
        if let Some(logged) = self.logged() {
            logged.connecting(took);
        }
    }

    fn logged(&mut self) -> Option<&mut LoggedRequest> {
        self.open.as_mut()?.logged.as_deref_mut()
    }

    /// A connection to the upstream was taken, or made in so much time.
    pub(super) fn connected(&self, made_in: Option<Duration>) {
        if let Some(metrics) = self.open.as_ref().and_then(OpenRequest::upstream) {
            metrics.connected(made_in.is_none(), made_in);
        }
    }

    /// The request is sent to the upstream.
    pub(super) fn request_sent(&mut self) {
        if let Some(open) = &mut self.open {
            open.awaited.begin();
        }
    }

    /// The head of the upstream's final response arrived.
    pub(super) fn response_head(mut self, head: &ResponseHead) -> Observed<'f, Responding> {
        let Some(mut open) = self.open.take() else {
            return Observed::default();
        };
        if let Some(metrics) = open.facts.metrics() {
            let remaining = head.headers.get("ratelimit-remaining");
            metrics.responded(&mut open.awaited, remaining.map(HeaderValue::as_bytes));
        }
        open.responding(|exchange, facts| {
            let request = Request {
                method: facts.method.as_str(),
                path: facts.target.path(),
                query: facts.target.query(),
                headers: &NO_HEADERS,
            };
            exchange.response_head(&request, head.status.as_u16(), &head.headers)
        })
    }

    /// The proxy itself responds, with a body of this length.
    pub(super) fn own_response(
        mut self,
        failure: Failure,
        body: &ErrorBody,
        length: usize,
    ) -> Observed<'f, Responding> {
        let Some(open) = self.open.take() else {
            return Observed::default();
        };
        open.responding(|exchange, _| {
            exchange.proxy_response(failure.status(), body.code(), length)
        })
    }
}

impl<Phase> Observed<'_, Phase> {
    /// The upstream failed, if it was the upstream.
    pub(super) fn upstream_failed(&mut self, reason: Option<UpstreamError>) {
        if let (Some(open), Some(reason)) = (&mut self.open, reason)
            && let Some(metrics) = open.facts.metrics()
        {
            metrics.failed(&mut open.awaited, reason);
        }
    }

    /// Bytes of the request's body were taken by the upstream.
    pub(super) fn request_body(&mut self, piece: &[u8]) {
        if let Some(exchange) = self.exchange() {
            exchange.request_body(piece, false);
        }
    }

    /// Bytes of the request's body were taken by the upstream, unseen.
    pub(super) fn request_moved(&mut self, bytes: usize) {
        if let Some(exchange) = self.exchange() {
            exchange.request_moved(bytes as u64);
        }
    }

    /// Whether the request's body has to be looked at.
    pub(super) fn reads_request(&mut self) -> bool {
        self.exchange()
            .is_some_and(|exchange| exchange.reads_request())
    }

    /// The request's body is whole.
    pub(super) fn request_ended(&mut self) {
        if let Some(exchange) = self.exchange() {
            exchange.request_body(&[], true);
        }
    }

    /// The exchange ends: whole, or by a failure.
    pub(super) fn end(mut self, failure: Option<Failure>) {
        if let Some(open) = self.open.take() {
            open.end(failure);
        }
    }

    fn exchange(&mut self) -> Option<&mut Exchange<Phase>> {
        self.open.as_mut()?.exchange.as_mut()
    }
}

impl Observed<'_, Responding> {
    /// Whether the response's body has to be looked at.
    pub(super) fn reads_response(&mut self) -> bool {
        self.exchange()
            .is_some_and(|exchange| exchange.reads_response())
    }

    /// Bytes of the response's body were sent, unseen.
    pub(super) fn response_moved(&mut self, bytes: usize) {
        self.sent(bytes, |exchange| exchange.response_moved(bytes as u64));
    }

    /// Bytes of the response's body were sent.
    pub(super) fn response_body(&mut self, piece: &[u8]) {
        self.sent(piece.len(), |exchange| exchange.response_body(piece, false));
    }

    /// The response's body was sent whole.
    pub(super) fn response_ended(&mut self) {
        if let Some(exchange) = self.exchange() {
            exchange.response_body(&[], true);
        }
    }

    /// The proxy's own response was sent.
    pub(super) fn own_response_sent(&mut self, length: usize) {
        self.sent(length, |_| ());
    }

    fn sent(&mut self, bytes: usize, seen: impl FnOnce(&mut Exchange<Responding>)) {
        if let Some(open) = &mut self.open {
            open.sent += bytes as u64;
            if let Some(exchange) = &mut open.exchange {
                seen(exchange);
                exchange.sent(open.sent);
            }
        }
    }
}

impl<'f> OpenRequest<'f, Awaiting> {
    fn responding(
        self,
        respond: impl FnOnce(Exchange<Awaiting>, &RequestFacts<'f>) -> Exchange<Responding>,
    ) -> Observed<'f, Responding> {
        let exchange = self.exchange.map(|exchange| respond(exchange, &self.facts));
        Observed {
            open: Some(OpenRequest {
                facts: self.facts,
                exchange,
                logged: self.logged,
                awaited: self.awaited,
                sent: self.sent,
            }),
        }
    }
}

impl<Phase> OpenRequest<'_, Phase> {
    fn upstream(&self) -> Option<&UpstreamMetrics> {
        self.facts.metrics()
    }

    fn end(self, failure: Option<Failure>) {
        if let Some(exchange) = self.exchange {
            let mut ended = exchange.end(failure.map_or(End::Complete, Failure::end));
            if let Some(unread) = ended.deferred.take() {
                tokio::task::spawn_blocking(move || unread.count());
            }
            if let (Some(logged), Some(log)) = (&self.logged, &self.facts.settings.access_log) {
                let target = LoggedTarget {
                    path: self.facts.target.path(),
                    request_id: self.facts.id(),
                    upstream: self.facts.upstream,
                };
                logged.log(target, &ended.summary(), failure, |event| log.log(event));
            }
        }
        if let Some(failure) = failure {
            self.facts.log_failure(failure);
        }
    }
}

impl<'f> RequestFacts<'f> {
    fn metrics(&self) -> Option<&'f UpstreamMetrics> {
        self.upstream?.metrics()
    }

    /// Logs a request that failed, once. No event has a header, a query or an address of the
    /// upstream: those may hold tokens and signatures.
    fn log_failure(&self, failure: Failure) {
        let id = self.id();
        match failure {
            Failure::ClientClosed | Failure::ClientNotReading | Failure::ClientStalled => {
                tracing::debug!(?failure, request_id = id, "client aborted the request");
            }
            Failure::Refused(refusal) => {
                tracing::debug!(%refusal, request_id = id, "request refused");
            }
            Failure::UpstreamUnreachable(_)
            | Failure::UpstreamFailed(_)
            | Failure::UpstreamTimeout => {
                let reason = failure.upstream_error().map_or("", |reason| reason.value());
                tracing::warn!(
                    upstream = self.upstream.map(Upstream::name),
                    ?failure,
                    reason,
                    request_id = id,
                    "upstream failed"
                );
            }
            Failure::Overloaded => {
                let upstream = self.upstream.map(Upstream::name);
                tracing::warn!(
                    upstream,
                    request_id = id,
                    "too many requests wait for a replica"
                );
            }
            Failure::Drained => {
                let upstream = self.upstream.map(Upstream::name);
                tracing::debug!(upstream, request_id = id, "all replicas drain");
            }
            Failure::ShutdownDeadline => {
                tracing::warn!(?failure, request_id = id, "request aborted");
            }
            Failure::OutOfDescriptors | Failure::Internal => {
                tracing::error!(?failure, request_id = id, "request failed");
            }
        }
    }

    fn id(&self) -> &str {
        self.id.to_str().unwrap_or("")
    }
}

impl<Phase> Default for Observed<'_, Phase> {
    /// One that has ended.
    fn default() -> Self {
        Observed { open: None }
    }
}

impl<Phase> Drop for Observed<'_, Phase> {
    fn drop(&mut self) {
        if let Some(open) = self.open.take() {
            open.end(Some(if std::thread::panicking() {
                Failure::Internal
            } else {
                Failure::ShutdownDeadline
            }));
        }
    }
}

/// A request as its exchange wants to know it.
fn asked(head: &RequestHead) -> Request<'_> {
    Request {
        method: head.method.as_str(),
        path: head.target.path(),
        query: head.target.query(),
        headers: &head.headers,
    }
}
