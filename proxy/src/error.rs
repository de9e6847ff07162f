//! From a failed exchange to the answer a client gets: the only mapping.

use bytes::Bytes;
use pingora::{Error, ErrorSource, ErrorType};
use registry::oci::{ErrorBody, ErrorCode};

use crate::exchange::CLIENT_CLOSED_REQUEST;

/// Why an exchange failed, as far as a client or an operator needs to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The client broke off: there is nobody to answer.
    ClientGone,
    /// The client stopped sending its request body.
    ClientStalled,
    /// The client stopped reading the response.
    ClientNotReading,
    /// The request breaks a rule of HTTP.
    BadRequest,
    /// No connection to the upstream could be made.
    UpstreamUnreachable,
    /// The upstream broke off, or answered what is not HTTP.
    UpstreamBroken,
    /// The upstream did not answer in time.
    UpstreamTimeout,
    /// A fault of ours.
    Internal,
}

impl Failure {
    /// Who failed, and how. `request_whole` says whether the client had sent all of its body:
    /// an upstream that waits in vain for the rest of a body is not to blame.
    pub(crate) fn of(error: &Error, request_whole: bool) -> Failure {
        use ErrorType::{
            BindError, ConnectError, ConnectNoRoute, ConnectProxyFailure, ConnectRefused,
            ConnectTimedout, ConnectionClosed, H2Error, HTTPStatus, InvalidHTTPHeader, ReadError,
            ReadTimedout, SocketError, TLSHandshakeFailure, TLSHandshakeTimedout, WriteError,
            WriteTimedout,
        };
        match (error.esource(), error.etype()) {
            (ErrorSource::Upstream, ReadTimedout) if !request_whole => Failure::ClientStalled,
            (
                ErrorSource::Upstream,
                ReadTimedout | WriteTimedout | ConnectTimedout | TLSHandshakeTimedout,
            ) => Failure::UpstreamTimeout,
            (
                _,
                ConnectError | ConnectNoRoute | ConnectProxyFailure | ConnectRefused
                | ConnectTimedout | BindError | SocketError | TLSHandshakeFailure,
            ) => Failure::UpstreamUnreachable,
            (ErrorSource::Upstream, _) => Failure::UpstreamBroken,
            (ErrorSource::Downstream, ReadError | WriteError | ConnectionClosed | H2Error) => {
                Failure::ClientGone
            }
            (ErrorSource::Downstream, ReadTimedout) => Failure::ClientStalled,
            (ErrorSource::Downstream, WriteTimedout) => Failure::ClientNotReading,
            (_, HTTPStatus(400)) | (ErrorSource::Downstream, InvalidHTTPHeader) => {
                Failure::BadRequest
            }
            (ErrorSource::Downstream, _) => Failure::ClientGone,
            (ErrorSource::Internal | ErrorSource::Unset, _) => Failure::Internal,
        }
    }

    /// The status that is counted, and sent where somebody is there to read it.
    pub(crate) fn status(self) -> u16 {
        match self {
            Failure::ClientGone | Failure::ClientNotReading => CLIENT_CLOSED_REQUEST,
            Failure::ClientStalled => 408,
            Failure::BadRequest => 400,
            Failure::UpstreamUnreachable | Failure::UpstreamBroken => 502,
            Failure::UpstreamTimeout => 504,
            Failure::Internal => 500,
        }
    }

    /// The body to answer with; `None` where nobody is there to read it.
    pub(crate) fn body(self) -> Option<Bytes> {
        let (code, message) = match self {
            Failure::ClientGone | Failure::ClientNotReading => return None,
            Failure::ClientStalled => (ErrorCode::Unsupported, "the request body stopped arriving"),
            Failure::BadRequest => (ErrorCode::Unsupported, "the request has no Host header"),
            Failure::UpstreamUnreachable => {
                (ErrorCode::Unavailable, "the registry cannot be reached")
            }
            Failure::UpstreamBroken => (
                ErrorCode::Unavailable,
                "the registry broke off the connection",
            ),
            Failure::UpstreamTimeout => (
                ErrorCode::Unavailable,
                "the registry did not answer in time",
            ),
            Failure::Internal => (ErrorCode::Unavailable, "the request could not be served"),
        };
        Some(ErrorBody::new(code, message).to_json().into())
    }
}
