//! What is known of a client's connection, whichever version of HTTP it speaks.

use http::HeaderValue;
use service::connection::Requests;
use service::runtime::WorkerId;

use crate::error::Refusal;

/// What is known of a client's connection.
#[derive(Clone)]
pub(crate) struct ClientConnection {
    /// The client's address as a header's value, written out once for all of its requests.
    pub(crate) address: Option<HeaderValue>,
    /// What the client says of others is believed.
    pub(crate) is_trusted: bool,
    /// What it says is encrypted.
    pub(crate) is_tls: bool,
    /// It is on this machine or has shown a certificate. Others may not push with the proxy's own
    /// credentials, also if their connection is older than the rule.
    pub(crate) may_push: bool,
    pub(crate) requests: Requests,
    /// The worker that serves it.
    pub(crate) worker: WorkerId,
}

/// Logs a request that no exchange could begin for.
pub(super) fn log_refused(refusal: Refusal) {
    tracing::debug!(%refusal, "request refused");
}
