//! What is known of a client's connection, whichever version of HTTP it speaks.

use http::HeaderValue;
use service::connection::Requests;

use crate::error::Refusal;

/// What is known of a client's connection.
pub(crate) struct ClientConnection {
    /// The client's address as a header's value, written out once for all of its requests.
    pub(crate) address: Option<HeaderValue>,
    pub(crate) requests: Requests,
}

/// Logs a request that no exchange could begin for.
pub(super) fn log_refused(refusal: Refusal) {
    tracing::debug!(%refusal, "request refused");
}
