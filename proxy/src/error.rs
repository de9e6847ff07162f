//! Maps the failure of an exchange to a status and an OCI error. This is the only place that does.

use bytes::Bytes;
use pingora::{Error, ErrorSource, ErrorType};
use registry::metrics::label::CLIENT_CLOSED_REQUEST;
use registry::oci::{ErrorBody, ErrorCode};
use rustix::io::Errno;

use crate::exchange::End;
use crate::metrics::UpstreamError;
use crate::metrics::label::Side;

/// Why an exchange failed. The log shows the variant's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The client closed its connection or reset its stream: nobody would read a response.
    ClientClosed,
    /// The client stopped sending its request body.
    ClientStalled,
    /// The client stopped reading the response.
    ClientNotReading,
    /// The request breaks a rule, so it is not passed on.
    Refused(Refusal),
    /// No connection to the upstream could be made.
    UpstreamUnreachable,
    /// The upstream closed the connection, or its response breaks HTTP.
    UpstreamFailed,
    /// The upstream did not respond in time.
    UpstreamTimeout,
    /// The deadline of the shutdown passed before the exchange ended.
    ShutdownDeadline,
    /// This process may open no more file descriptors.
    OutOfDescriptors,
    /// A fault of the proxy itself.
    Internal,
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// It names no host.
    #[error("the request has no Host header")]
    NoHost,
    /// Its target is not a path.
    #[error("the request's target is not a path")]
    Target,
    /// Its target has control characters.
    #[error("the request's target has control characters")]
    ControlCharacters,
    /// It has too many headers, or too long ones.
    #[error("the request's headers are too many or too long")]
    HeadersTooLarge,
    /// One of its headers is invalid.
    #[error("a header of the request is invalid")]
    Header,
    /// The framing of its body is invalid.
    #[error("the framing of the request's body is invalid")]
    Body,
    /// It breaks another rule of HTTP.
    #[error("the request breaks a rule of HTTP")]
    Rule,
}

impl Refusal {
    /// The refusal as an error for pingora. It is the error's cause, where [`Refusal::of`] finds it.
    pub(crate) fn error<T>(self) -> pingora::Result<T> {
        Error::e_because(ErrorType::Custom("Refused"), "", self)
    }

    fn of(error: &Error) -> Option<Refusal> {
        if let Some(refusal) = error.root_cause().downcast_ref() {
            return Some(*refusal);
        }
        match error.etype() {
            // pingora's names for an invalid chunked body.
            ErrorType::Custom("InvalidChunk" | "InvalidTrailerEnd") => Some(Refusal::Body),
            ErrorType::InvalidHTTPHeader => Some(Refusal::Header),
            ErrorType::HTTPStatus(400) => Some(Refusal::Rule),
            _ => None,
        }
    }
}

impl Failure {
    /// Which side failed, and how. `request_whole` says whether the client had sent its whole body:
    /// an upstream that times out while it waits for the rest of a body is not to blame.
    pub(crate) fn of(error: &Error, request_whole: bool) -> Failure {
        use ErrorType::{
            BindError, ConnectError, ConnectNoRoute, ConnectProxyFailure, ConnectRefused,
            ConnectTimedout, ReadTimedout, SocketError, TLSHandshakeFailure, TLSHandshakeTimedout,
            WriteTimedout,
        };
        // An invalid response has the same types of errors, and is not the client's fault.
        if *error.esource() != ErrorSource::Upstream
            && let Some(refusal) = Refusal::of(error)
        {
            return Failure::Refused(refusal);
        }
        // Before the source is asked: pingora blames the upstream where the connection's socket
        // could not be made.
        if is_out_of_descriptors(error) {
            return Failure::OutOfDescriptors;
        }
        match (error.esource(), error.etype()) {
            (ErrorSource::Downstream, ReadTimedout) => Failure::ClientStalled,
            (ErrorSource::Downstream, WriteTimedout) => Failure::ClientNotReading,
            (ErrorSource::Downstream, _) => Failure::ClientClosed,
            // The upstream's timeout is the longer one, but a client that sends a byte now and then
            // never reaches its own.
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
            (ErrorSource::Upstream, _) => Failure::UpstreamFailed,
            (ErrorSource::Internal | ErrorSource::Unset, _) => Failure::Internal,
        }
    }

    /// The status that is counted and, if the client can still read a response, sent.
    pub(crate) fn status(self) -> u16 {
        match self {
            Failure::ClientClosed | Failure::ClientNotReading => CLIENT_CLOSED_REQUEST,
            Failure::ClientStalled => 408,
            Failure::Refused(_) => 400,
            Failure::UpstreamUnreachable | Failure::UpstreamFailed => 502,
            Failure::UpstreamTimeout => 504,
            Failure::ShutdownDeadline | Failure::OutOfDescriptors => 503,
            Failure::Internal => 500,
        }
    }

    /// How the exchange ends.
    pub(crate) fn end(self) -> End {
        let side = match self {
            Failure::ClientClosed
            | Failure::ClientStalled
            | Failure::ClientNotReading
            | Failure::Refused(_) => Some(Side::Client),
            Failure::UpstreamUnreachable | Failure::UpstreamFailed | Failure::UpstreamTimeout => {
                Some(Side::Upstream)
            }
            Failure::ShutdownDeadline | Failure::OutOfDescriptors | Failure::Internal => None,
        };
        End::Aborted {
            status: self.status(),
            side,
        }
    }

    /// The OCI error to respond with; `None` if the client cannot read a response.
    pub(crate) fn response(self) -> Option<ErrorBody> {
        let (code, message) = match self {
            Failure::Refused(refusal) => {
                return Some(ErrorBody::new(ErrorCode::Unsupported, refusal.to_string()));
            }
            Failure::ClientClosed | Failure::ClientNotReading => return None,
            Failure::ClientStalled => (
                ErrorCode::Unsupported,
                "timeout while reading the request's body",
            ),
            Failure::UpstreamUnreachable => (ErrorCode::Unavailable, "the registry is unreachable"),
            Failure::UpstreamFailed => (
                ErrorCode::Unavailable,
                "the registry closed the connection or sent an invalid response",
            ),
            Failure::UpstreamTimeout => (
                ErrorCode::Unavailable,
                "the registry did not respond in time",
            ),
            Failure::ShutdownDeadline => (ErrorCode::Unavailable, "the proxy is shutting down"),
            Failure::OutOfDescriptors => (
                ErrorCode::Unavailable,
                "the proxy is overloaded: try again later",
            ),
            Failure::Internal => (ErrorCode::Unavailable, "internal error"),
        };
        Some(ErrorBody::new(code, message))
    }

    /// The body of the response, if there is one.
    pub(crate) fn body(self) -> Option<Bytes> {
        Some(self.response()?.to_json().into())
    }

    /// The response as bytes of HTTP/1.1, for a connection that pingora no longer serves.
    pub(crate) fn to_http1(self) -> Vec<u8> {
        let body = self.body().unwrap_or_default();
        let status = http::StatusCode::from_u16(self.status()).unwrap_or_default();
        let head = format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
             connection: close\r\n\r\n",
            body.len()
        );
        [head.as_bytes(), &body].concat()
    }
}

/// The reason that the upstream failed; `None` if another side did.
pub(crate) fn upstream_error(error: &Error, request_whole: bool) -> Option<UpstreamError> {
    use ErrorType::{
        ConnectionClosed, HandshakeError, InvalidCert, ReadError, TLSHandshakeFailure,
        TLSWantX509Lookup, WriteError,
    };
    match Failure::of(error, request_whole) {
        Failure::UpstreamTimeout => Some(UpstreamError::Timeout),
        Failure::UpstreamUnreachable | Failure::UpstreamFailed => Some(match error.etype() {
            TLSHandshakeFailure | TLSWantX509Lookup | HandshakeError | InvalidCert => {
                UpstreamError::Tls
            }
            ReadError | WriteError | ConnectionClosed => UpstreamError::Reset,
            _ if Failure::of(error, true) == Failure::UpstreamUnreachable => UpstreamError::Connect,
            _ => UpstreamError::Protocol,
        }),
        Failure::ClientClosed
        | Failure::ClientStalled
        | Failure::ClientNotReading
        | Failure::Refused(_)
        | Failure::ShutdownDeadline
        | Failure::OutOfDescriptors
        | Failure::Internal => None,
    }
}

/// Whether the process or the system had no file descriptor left for a connection.
fn is_out_of_descriptors(error: &Error) -> bool {
    // pingora wraps the system's error, sometimes more than once.
    let cause = error.root_cause().downcast_ref::<std::io::Error>();
    cause
        .and_then(Errno::from_io_error)
        .is_some_and(|errno| matches!(errno, Errno::MFILE | Errno::NFILE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_failures_of_the_upstream_have_a_reason() {
        use ErrorType::{
            ConnectNoRoute, ConnectRefused, ConnectTimedout, ConnectionClosed, H2Error,
            InvalidHTTPHeader, ReadError, ReadTimedout, TLSHandshakeFailure, TLSHandshakeTimedout,
            WriteError, WriteTimedout,
        };
        let reason = |error: ErrorType, request_whole| {
            upstream_error(&Error::explain(error, "").into_up(), request_whole)
        };
        for (error, expected) in [
            (ConnectRefused, UpstreamError::Connect),
            (ConnectNoRoute, UpstreamError::Connect),
            (ConnectTimedout, UpstreamError::Timeout),
            (TLSHandshakeTimedout, UpstreamError::Timeout),
            (ReadTimedout, UpstreamError::Timeout),
            (WriteTimedout, UpstreamError::Timeout),
            (TLSHandshakeFailure, UpstreamError::Tls),
            (ErrorType::InvalidCert, UpstreamError::Tls),
            (ReadError, UpstreamError::Reset),
            (WriteError, UpstreamError::Reset),
            (ConnectionClosed, UpstreamError::Reset),
            (InvalidHTTPHeader, UpstreamError::Protocol),
            (H2Error, UpstreamError::Protocol),
            (ErrorType::Custom("InvalidChunk"), UpstreamError::Protocol),
        ] {
            assert_eq!(reason(error.clone(), true), Some(expected), "{error:?}");
        }
        assert_eq!(reason(ReadTimedout, false), None, "the client stalled");
        let gone = Error::explain(ConnectionClosed, "").into_down();
        assert_eq!(upstream_error(&gone, true), None);
    }

    fn downstream(error: ErrorType) -> Failure {
        Failure::of(&Error::explain(error, "").into_down(), false)
    }

    #[test]
    fn every_refusal_passes_through_pingora_and_has_its_own_message() {
        // A refusal that is missing here does not compile.
        let next = |refusal: &Refusal| match refusal {
            Refusal::NoHost => Some(Refusal::Target),
            Refusal::Target => Some(Refusal::ControlCharacters),
            Refusal::ControlCharacters => Some(Refusal::HeadersTooLarge),
            Refusal::HeadersTooLarge => Some(Refusal::Header),
            Refusal::Header => Some(Refusal::Body),
            Refusal::Body => Some(Refusal::Rule),
            Refusal::Rule => None,
        };
        let mut messages = std::collections::HashSet::new();
        for refusal in std::iter::successors(Some(Refusal::NoHost), next) {
            let error = refusal.error::<()>().unwrap_err();
            let failure = Failure::of(&error, true);
            assert_eq!(failure, Failure::Refused(refusal));
            assert_eq!(failure.status(), 400);
            assert!(messages.insert(failure.body().unwrap()), "{refusal:?}");
        }
    }

    #[test]
    fn a_malformed_body_is_refused_and_is_not_a_closed_connection() {
        let malformed = downstream(ErrorType::Custom("InvalidChunk"));
        assert_eq!(malformed, Failure::Refused(Refusal::Body));
        assert_eq!(
            downstream(ErrorType::ConnectionClosed),
            Failure::ClientClosed
        );
    }

    #[test]
    fn a_malformed_response_is_the_upstreams_fault() {
        for error in [
            ErrorType::Custom("InvalidChunk"),
            ErrorType::InvalidHTTPHeader,
        ] {
            let error = Error::explain(error, "").into_up();
            assert_eq!(Failure::of(&error, true), Failure::UpstreamFailed);
        }
    }

    #[test]
    fn a_connect_error_of_the_client_is_not_the_upstreams_fault() {
        assert_eq!(downstream(ErrorType::ConnectError), Failure::ClientClosed);
    }

    #[test]
    fn a_lack_of_descriptors_is_not_the_upstreams_fault() {
        let lack = std::io::Error::from(Errno::MFILE);
        let inner = Error::because(ErrorType::SocketError, "a socket", lack);
        let error = Error::because(ErrorType::InternalError, "connecting", inner).into_up();
        assert_eq!(Failure::of(&error, true), Failure::OutOfDescriptors);
        assert_eq!(Failure::OutOfDescriptors.status(), 503);
    }

    #[test]
    fn an_upstream_that_waits_for_the_rest_of_a_body_is_not_to_blame() {
        let error = Error::explain(ErrorType::ReadTimedout, "").into_up();
        assert_eq!(Failure::of(&error, false), Failure::ClientStalled);
        assert_eq!(Failure::of(&error, true), Failure::UpstreamTimeout);
    }
}
