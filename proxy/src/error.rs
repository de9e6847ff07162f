//! From a failed exchange to the answer a client gets: the only mapping.

use bytes::Bytes;
use pingora::{Error, ErrorSource, ErrorType};
use registry::metrics::label::CLIENT_CLOSED_REQUEST;
use registry::oci::{ErrorBody, ErrorCode};
use rustix::io::Errno;

use crate::exchange::End;
use crate::metrics::UpstreamError;
use crate::metrics::label::Side;

/// Why an exchange failed, as far as a client or an operator needs to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The client broke off: there is nobody to answer.
    ClientGone,
    /// The client stopped sending its request body.
    ClientStalled,
    /// The client stopped reading the response.
    ClientNotReading,
    /// The request is refused for what it is.
    Refused(Refusal),
    /// No connection to the upstream could be made.
    UpstreamUnreachable,
    /// The upstream broke off, or answered what is not HTTP.
    UpstreamBroken,
    /// The upstream did not answer in time.
    UpstreamTimeout,
    /// The shutdown's deadline came first.
    Cut,
    /// This process may open no more file descriptors.
    Exhausted,
    /// A fault of ours.
    Internal,
}

/// What is wrong with a request that is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// It does not say which host it is for.
    #[error("the request has no Host header")]
    NoHost,
    /// Its target is no path.
    #[error("the request's target is not a path")]
    Target,
    /// Its target has characters that no target may have.
    #[error("the request's target has control characters")]
    ControlCharacters,
    /// It has more headers, or longer ones, than are passed on.
    #[error("the request's headers are too many or too long")]
    HeadersTooLarge,
    /// One of its headers breaks a rule.
    #[error("a header of the request is not allowed")]
    Header,
    /// Its body is not framed as it says.
    #[error("the request's body is not well-formed")]
    Body,
    /// Another rule of HTTP is broken.
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
            // pingora's own words for a chunked body that is none.
            ErrorType::Custom("InvalidChunk" | "InvalidTrailerEnd") => Some(Refusal::Body),
            ErrorType::InvalidHTTPHeader => Some(Refusal::Header),
            ErrorType::HTTPStatus(400) => Some(Refusal::Rule),
            _ => None,
        }
    }
}

impl Failure {
    /// Who failed, and how. `request_whole` says whether the client had sent all of its body:
    /// an upstream that waits in vain for the rest of a body is not to blame.
    pub(crate) fn of(error: &Error, request_whole: bool) -> Failure {
        use ErrorType::{
            BindError, ConnectError, ConnectNoRoute, ConnectProxyFailure, ConnectRefused,
            ConnectTimedout, ReadTimedout, SocketError, TLSHandshakeFailure, TLSHandshakeTimedout,
            WriteTimedout,
        };
        if *error.esource() != ErrorSource::Upstream
            && let Some(refusal) = Refusal::of(error)
        {
            return Failure::Refused(refusal);
        }
        if is_exhausted(error) {
            return Failure::Exhausted;
        }
        match (error.esource(), error.etype()) {
            (ErrorSource::Downstream, ReadTimedout) => Failure::ClientStalled,
            (ErrorSource::Downstream, WriteTimedout) => Failure::ClientNotReading,
            (ErrorSource::Downstream, _) => Failure::ClientGone,
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
            (ErrorSource::Internal | ErrorSource::Unset, _) => Failure::Internal,
        }
    }

    /// The status that is counted, and sent where somebody is there to read it.
    pub(crate) fn status(self) -> u16 {
        match self {
            Failure::ClientGone | Failure::ClientNotReading => CLIENT_CLOSED_REQUEST,
            Failure::ClientStalled => 408,
            Failure::Refused(_) => 400,
            Failure::UpstreamUnreachable | Failure::UpstreamBroken => 502,
            Failure::UpstreamTimeout => 504,
            Failure::Cut | Failure::Exhausted => 503,
            Failure::Internal => 500,
        }
    }

    /// What it means for the exchange.
    pub(crate) fn end(self) -> End {
        let side = match self {
            Failure::ClientGone
            | Failure::ClientStalled
            | Failure::ClientNotReading
            | Failure::Refused(_) => Some(Side::Client),
            Failure::UpstreamUnreachable | Failure::UpstreamBroken | Failure::UpstreamTimeout => {
                Some(Side::Upstream)
            }
            Failure::Cut | Failure::Exhausted | Failure::Internal => None,
        };
        End::Aborted {
            status: self.status(),
            side,
        }
    }

    /// The error to answer with; `None` where nobody is there to read it.
    pub(crate) fn answer(self) -> Option<ErrorBody> {
        let (code, message) = match self {
            Failure::Refused(refusal) => {
                return Some(ErrorBody::new(ErrorCode::Unsupported, refusal.to_string()));
            }
            Failure::ClientGone | Failure::ClientNotReading => return None,
            Failure::ClientStalled => (ErrorCode::Unsupported, "the request body stopped arriving"),
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
            Failure::Cut => (ErrorCode::Unavailable, "the proxy is shutting down"),
            Failure::Exhausted => (
                ErrorCode::Unavailable,
                "too much is being served at once: try again",
            ),
            Failure::Internal => (ErrorCode::Unavailable, "the request could not be served"),
        };
        Some(ErrorBody::new(code, message))
    }

    /// The answer's body, if there is one.
    pub(crate) fn body(self) -> Option<Bytes> {
        Some(self.answer()?.to_json().into())
    }

    /// The answer as it goes over an HTTP/1.1 connection of which nobody is in charge any more.
    pub(crate) fn whole_answer(self) -> Vec<u8> {
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

/// How the upstream failed, if it is the upstream that did.
pub(crate) fn upstream_error(error: &Error, request_whole: bool) -> Option<UpstreamError> {
    use ErrorType::{
        ConnectionClosed, HandshakeError, InvalidCert, ReadError, TLSHandshakeFailure,
        TLSWantX509Lookup, WriteError,
    };
    match Failure::of(error, request_whole) {
        Failure::UpstreamTimeout => Some(UpstreamError::Timeout),
        Failure::UpstreamUnreachable | Failure::UpstreamBroken => Some(match error.etype() {
            TLSHandshakeFailure | TLSWantX509Lookup | HandshakeError | InvalidCert => {
                UpstreamError::Tls
            }
            ReadError | WriteError | ConnectionClosed => UpstreamError::Reset,
            _ if Failure::of(error, true) == Failure::UpstreamUnreachable => UpstreamError::Connect,
            _ => UpstreamError::Protocol,
        }),
        Failure::ClientGone
        | Failure::ClientStalled
        | Failure::ClientNotReading
        | Failure::Refused(_)
        | Failure::Cut
        | Failure::Exhausted
        | Failure::Internal => None,
    }
}

/// Whether the system had no file descriptor left to connect with.
fn is_exhausted(error: &Error) -> bool {
    let cause = error.root_cause().downcast_ref::<std::io::Error>();
    cause
        .and_then(Errno::from_io_error)
        .is_some_and(|errno| matches!(errno, Errno::MFILE | Errno::NFILE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_upstreams_failures_are_counted_as_such_each_by_its_reason() {
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
    fn every_refusal_is_known_again_with_a_message_of_its_own() {
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
    fn a_malformed_body_is_the_clients_fault_and_not_its_departure() {
        let malformed = downstream(ErrorType::Custom("InvalidChunk"));
        assert_eq!(malformed, Failure::Refused(Refusal::Body));
        assert_eq!(downstream(ErrorType::ConnectionClosed), Failure::ClientGone);
    }

    #[test]
    fn a_malformed_answer_is_the_upstreams_fault() {
        for error in [
            ErrorType::Custom("InvalidChunk"),
            ErrorType::InvalidHTTPHeader,
        ] {
            let error = Error::explain(error, "").into_up();
            assert_eq!(Failure::of(&error, true), Failure::UpstreamBroken);
        }
    }

    #[test]
    fn whoever_sends_more_than_was_asked_for_is_not_the_upstream() {
        assert_eq!(downstream(ErrorType::ConnectError), Failure::ClientGone);
    }

    #[test]
    fn a_lack_of_descriptors_is_no_fault_of_the_upstream() {
        let lack = std::io::Error::from(Errno::MFILE);
        let inner = Error::because(ErrorType::SocketError, "a socket", lack);
        let error = Error::because(ErrorType::InternalError, "connecting", inner).into_up();
        assert_eq!(Failure::of(&error, true), Failure::Exhausted);
        assert_eq!(Failure::Exhausted.status(), 503);
    }

    #[test]
    fn an_upstream_that_waits_for_the_rest_of_a_body_is_not_to_blame() {
        let error = Error::explain(ErrorType::ReadTimedout, "").into_up();
        assert_eq!(Failure::of(&error, false), Failure::ClientStalled);
        assert_eq!(Failure::of(&error, true), Failure::UpstreamTimeout);
    }
}
