//! The log events of a request: one access event, and one more if it failed.
//!
//! Neither contains a header, a query string or an address of the upstream: those may hold tokens
//! and signatures.

use http::{HeaderValue, Uri, header};
use pingora::Error;
use pingora::http::RequestHeader;
use registry::metrics::label::{Client, Method};
use registry::oci::{Endpoint, Route};
use service::log::AccessEvent;
use service::metrics::Label as _;

use crate::error::Failure;
use crate::exchange::Exchange;
use crate::upstream::Upstream;

/// What the access log needs of a request's head. It is kept because a request may be aborted where
/// its head is gone. Making it copies no text.
pub(super) struct LoggedRequest {
    uri: Uri,
    method: Method,
    client: Client,
}

impl LoggedRequest {
    pub(super) fn of(head: &RequestHeader) -> LoggedRequest {
        let agent = head
            .headers
            .get(header::USER_AGENT)
            .and_then(|value| value.to_str().ok());
        LoggedRequest {
            uri: head.uri.clone(),
            method: Method::of(head.method.as_str()),
            client: Client::of(agent.unwrap_or("")),
        }
    }

    /// Logs the request, which must have ended.
    pub(super) fn log(&self, exchange: &Exchange, request_id: Option<&HeaderValue>) {
        let route = Route::parse(self.uri.path());
        let summary = exchange.summary();
        // An upload's Location may have any shape, and can be as good as a password.
        let is_opaque = summary.endpoint == Endpoint::UploadSession
            && route.endpoint != Endpoint::UploadSession;
        AccessEvent {
            endpoint: summary.endpoint.value(),
            repository: route.repository.filter(|_| !is_opaque),
            reference: route.reference().filter(|_| !is_opaque),
            method: self.method.value(),
            status: summary.status,
            bytes_in: summary.received,
            bytes_out: summary.sent,
            duration_ms: summary.duration.as_secs_f64() * 1e3,
            ttfb_ms: summary.ttfb.map(|ttfb| ttfb.as_secs_f64() * 1e3),
            client: self.client.value(),
            request_id: request_id.map(text),
        }
        .emit();
    }
}

/// Logs that the proxy aborted a request.
pub(super) fn aborted(failure: Failure, request_id: Option<&HeaderValue>) {
    let id = request_id.map(text);
    if failure == Failure::ClientStalled {
        tracing::debug!(?failure, request_id = id, "client aborted the request");
    } else {
        tracing::warn!(?failure, request_id = id, "request aborted");
    }
}

/// Logs a request that failed, once.
pub(super) fn failure(
    failure: Failure,
    error: &Error,
    upstream: &Upstream,
    request_id: Option<&HeaderValue>,
) {
    let id = request_id.map(text);
    let reason = error.etype().as_str();
    match failure {
        Failure::ClientClosed | Failure::ClientNotReading | Failure::ClientStalled => {
            tracing::debug!(
                ?failure,
                reason,
                request_id = id,
                "client aborted the request"
            );
        }
        Failure::Refused(refusal) => {
            tracing::debug!(%refusal, reason, request_id = id, "request refused");
        }
        Failure::UpstreamUnreachable | Failure::UpstreamFailed | Failure::UpstreamTimeout => {
            tracing::warn!(
                upstream = upstream.name(),
                ?failure,
                reason,
                request_id = id,
                "upstream failed"
            );
        }
        Failure::ShutdownDeadline | Failure::OutOfDescriptors | Failure::Internal => {
            tracing::error!(?failure, reason, request_id = id, "request failed");
        }
    }
}

fn text(request_id: &HeaderValue) -> &str {
    request_id.to_str().unwrap_or("")
}
