//! The metrics endpoint and the probes, on the main listeners or on one of their own. None of their
//! paths is a registry's: the configuration refuses those of `/v2`.

use bytes::Bytes;
use http::StatusCode;
use registry::oci::{ErrorBody, ErrorCode};

use crate::aggregate::Aggregate;

/// The endpoints of one listener.
pub type Admin = service::admin::AdminEndpoints<Aggregate>;

/// A refusal as an OCI error: a registry's client may have sent the request.
pub(crate) fn refuse(_: StatusCode, message: &'static str) -> (&'static str, Bytes) {
    let body = ErrorBody::new(ErrorCode::Unsupported, message).to_json();
    ("application/json", body.into())
}
