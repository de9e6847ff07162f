//! One exchange as the metrics and the log see it.

use std::sync::LazyLock;

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method};
use registry::oci::ErrorBody;
use service::log::AccessEvent;
use service::metrics::Label as _;

use super::framing::{RequestHead, ResponseHead};
use super::headers;
use super::shared::Shared;
use crate::error::Failure;
use crate::exchange::{End, Exchange, Request};
use crate::metrics::{Awaited, UpstreamError};

/// The sessions' table knows a request by its target alone.
static NO_HEADERS: LazyLock<HeaderMap> = LazyLock::new(HeaderMap::new);

/// An exchange under observation. It is counted and logged once: when it ends, or when it is dropped
/// because the shutdown cut it, or by a panic.
pub(super) struct Observed<'f> {
    shared: &'f Shared,
    /// What the log says of the request, and the sessions' table knows it by.
    target: PathAndQuery,
    method: Method,
    pub(super) request_id: HeaderValue,
    exchange: Option<Exchange>,
    awaited: Awaited,
    sent: u64,
    has_ended: bool,
}

impl<'f> Observed<'f> {
    pub(super) fn begin(shared: &'f Shared, request: &RequestHead) -> Observed<'f> {
        let observer = shared.observer.as_ref();
        Observed {
            shared,
            target: request.target.clone(),
            method: request.method.clone(),
            request_id: headers::request_id(&request.headers),
            exchange: observer.map(|observer| observer.begin(&asked(request))),
            awaited: Awaited::default(),
            sent: 0,
            has_ended: false,
        }
    }

    /// A connection to the upstream was taken, or made in so much time.
    pub(super) fn connected(&self, made_in: Option<std::time::Duration>) {
        if let Some(metrics) = self.shared.upstream.metrics() {
            metrics.connected(made_in.is_none(), made_in);
        }
    }

    /// The request is sent to the upstream.
    pub(super) fn request_sent(&mut self) {
        self.awaited.begin();
    }

    /// The upstream failed, if it was the upstream.
    pub(super) fn upstream_failed(&mut self, reason: Option<UpstreamError>) {
        if let (Some(metrics), Some(reason)) = (self.shared.upstream.metrics(), reason) {
            metrics.failed(&mut self.awaited, reason);
        }
    }

    /// Bytes of the request's body were taken by the upstream.
    pub(super) fn request_body(&mut self, piece: &[u8]) {
        if let Some(exchange) = &mut self.exchange {
            exchange.request_body(piece, false);
        }
    }

    /// Bytes of the request's body were taken by the upstream, unseen.
    pub(super) fn request_moved(&mut self, bytes: usize) {
        if let Some(exchange) = &mut self.exchange {
            exchange.request_moved(bytes as u64);
        }
    }

    /// Whether the request's body has to be looked at.
    pub(super) fn reads_request(&self) -> bool {
        self.exchange.as_ref().is_some_and(Exchange::reads_request)
    }

    /// Whether the response's body has to be looked at.
    pub(super) fn reads_response(&self) -> bool {
        self.exchange.as_ref().is_some_and(Exchange::reads_response)
    }

    /// Bytes of the response's body were sent, unseen.
    pub(super) fn response_moved(&mut self, bytes: usize) {
        self.sent += bytes as u64;
        if let Some(exchange) = &mut self.exchange {
            exchange.response_moved(bytes as u64);
            exchange.sent(self.sent);
        }
    }

    /// The request's body is whole.
    pub(super) fn request_ended(&mut self) {
        if let Some(exchange) = &mut self.exchange {
            exchange.request_body(&[], true);
        }
    }

    /// The head of the upstream's final response arrived.
    pub(super) fn response_head(&mut self, head: &ResponseHead) {
        if let Some(metrics) = self.shared.upstream.metrics() {
            let remaining = head.headers.get("ratelimit-remaining");
            metrics.responded(&mut self.awaited, remaining.map(HeaderValue::as_bytes));
        }
        if let Some(exchange) = &mut self.exchange {
            let request = Request {
                method: self.method.as_str(),
                path: self.target.path(),
                query: self.target.query(),
                headers: &NO_HEADERS,
            };
            exchange.response_head(&request, head.status.as_u16(), &head.headers);
        }
    }

    /// Bytes of the response's body were sent.
    pub(super) fn response_body(&mut self, piece: &[u8]) {
        self.sent += piece.len() as u64;
        if let Some(exchange) = &mut self.exchange {
            exchange.response_body(piece, false);
            exchange.sent(self.sent);
        }
    }

    /// The response's body was sent whole.
    pub(super) fn response_ended(&mut self) {
        if let Some(exchange) = &mut self.exchange {
            exchange.response_body(&[], true);
        }
    }

    /// The proxy itself responds, with a body of this length.
    pub(super) fn own_response(&mut self, failure: Failure, body: &ErrorBody, length: usize) {
        if let Some(exchange) = &mut self.exchange {
            exchange.proxy_response(failure.status(), body.code(), length);
        }
        self.sent = 0;
    }

    /// The proxy's own response was sent.
    pub(super) fn own_response_sent(&mut self, length: usize) {
        if let Some(exchange) = &mut self.exchange {
            exchange.sent(length as u64);
        }
    }

    /// The exchange ends: whole, or by a failure.
    pub(super) fn end(&mut self, failure: Option<Failure>) {
        if std::mem::replace(&mut self.has_ended, true) {
            return;
        }
        if let Some(exchange) = &mut self.exchange {
            let unread = exchange.finish(failure.map_or(End::Complete, Failure::end));
            if let Some(unread) = unread {
                tokio::task::spawn_blocking(move || unread.count());
            }
        }
        self.log_access();
        if let Some(failure) = failure {
            self.log_failure(failure);
        }
    }

    fn log_access(&self) {
        let Some(exchange) = self.exchange.as_ref().filter(|_| self.shared.access_log) else {
            return;
        };
        let summary = exchange.summary();
        let path = self.target.path();
        let part = |range: &Option<std::ops::Range<usize>>| {
            let range = range.clone()?;
            path.get(range)
        };
        AccessEvent {
            endpoint: summary.endpoint.value(),
            repository: part(&summary.repository),
            reference: part(&summary.reference),
            method: summary.method.value(),
            status: summary.status,
            bytes_in: summary.received,
            bytes_out: summary.sent,
            duration_ms: summary.duration.as_secs_f64() * 1e3,
            ttfb_ms: summary.ttfb.map(|ttfb| ttfb.as_secs_f64() * 1e3),
            client: summary.client.value(),
            request_id: Some(self.id()),
        }
        .emit();
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
                    upstream = self.shared.upstream.name(),
                    ?failure,
                    reason,
                    request_id = id,
                    "upstream failed"
                );
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
        self.request_id.to_str().unwrap_or("")
    }
}

impl Drop for Observed<'_> {
    fn drop(&mut self) {
        self.end(Some(if std::thread::panicking() {
            Failure::Internal
        } else {
            Failure::ShutdownDeadline
        }));
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
