//! What is seen of the upstream while a request is passed on to it.

use std::time::Duration;

use http::{HeaderName, HeaderValue};
use pingora::Error;
use pingora::http::ResponseHeader;
use pingora::protocols::Digest;
use pingora::proxy::Session;

use super::{Context, Proxy};
use crate::error::upstream_error;
use crate::metrics::UpstreamError;

const RATELIMIT_REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");

impl Proxy {
    /// There is nowhere to send a request.
    pub(super) fn no_address(&self, ctx: &mut Context) {
        if let Some(metrics) = self.upstream.metrics() {
            metrics.failed(&mut ctx.awaited, UpstreamError::Dns);
        }
    }

    /// A connection to the upstream was taken.
    pub(super) fn connected(&self, reused: bool, digest: Option<&Digest>) {
        if self.upstream.has_connections()
            && let Some(metrics) = self.upstream.metrics()
        {
            metrics.connected(reused, digest.and_then(establishment));
        }
    }

    /// The head of an answer came from the upstream.
    pub(super) fn upstream_answered(&self, ctx: &mut Context, response: &ResponseHeader) {
        if let Some(metrics) = self.upstream.metrics()
            && !response.status.is_informational()
        {
            let ratelimit = response.headers.get(RATELIMIT_REMAINING);
            metrics.responded(&mut ctx.awaited, ratelimit.map(HeaderValue::as_bytes));
        }
    }

    /// An attempt ended with an error, which may be the upstream's or not.
    pub(super) fn upstream_failed(&self, ctx: &mut Context, error: &Error) {
        if let Some(metrics) = self.upstream.metrics()
            && let Some(reason) = upstream_error(error, ctx.request_whole)
        {
            metrics.failed(&mut ctx.awaited, reason);
        }
    }
}

/// How long it took to make a connection, with all its layers.
fn establishment(digest: &Digest) -> Option<Duration> {
    let layers = digest.timing_digest.iter().flatten();
    let durations = layers.map(|layer| layer.establishment_duration);
    durations.sum()
}

/// Lets a request that failed on its way be sent again if that can do no harm: one that changes
/// nothing, and whose body is still there. On a connection that was there already the upstream may
/// just have hung up. This is what pingora does where it is not asked.
pub(super) fn decide_retry(session: &Session, error: &mut Error, reused: bool) {
    let downstream = session.as_ref();
    if session.req_header().method.is_idempotent() && !downstream.retry_buffer_truncated() {
        error.retry.decide_reuse(reused);
    } else {
        error.set_retry(false);
    }
}
