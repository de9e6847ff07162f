//! Maps the failure of an exchange to a status and an OCI error. This is the only place that does.

use std::borrow::Cow;
use std::io;

use bytes::Bytes;
use registry::metrics::label::CLIENT_CLOSED_REQUEST;
use registry::oci::{ErrorBody, ErrorCode};
use rustix::io::Errno;
use service::metrics::Label as _;
use service::tls::TlsFailure;

use crate::exchange::End;
use crate::metrics::UpstreamError;
use crate::metrics::label::Side;

/// Why an exchange failed. The log shows the variant's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The client closed its connection or reset its stream, so that it cannot get a response.
    ClientClosed,
    /// The client stopped sending its request body.
    ClientStalled,
    /// The client stopped reading the response.
    ClientNotReading,
    /// The request breaks a rule, so it is not passed on.
    Refused(Refusal),
    /// No connection to the upstream could be made.
    UpstreamUnreachable(UpstreamError),
    /// The upstream closed the connection, or its response breaks HTTP.
    UpstreamFailed(UpstreamError),
    /// The upstream did not respond in time.
    UpstreamTimeout,
    /// All replicas have as many requests in flight as they may have, and too many wait already, or this
    /// one did for too long.
    Overloaded,
    /// All replicas drain: the operator wants no new requests there.
    Drained,
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
    /// It is not HTTP.
    #[error("the request is not valid HTTP")]
    Malformed,
    /// A line ends without a carriage return.
    #[error("a line of the request ends with a bare line feed")]
    LineFeed,
    /// Its first line is not a method, a target and a version.
    #[error("the request line is not a method, a target and a version")]
    RequestLine,
    /// Its version is not spoken here.
    #[error("the request's version is not HTTP/1.0 or HTTP/1.1")]
    Version,
    /// It names no host.
    #[error("the request has no Host header")]
    NoHost,
    /// Its host is not valid, or it names several.
    #[error("the request's Host header is invalid or ambiguous")]
    Host,
    /// Its target is not a path.
    #[error("the request's target is not a path")]
    Target,
    /// Its request line has control characters.
    #[error("the request line has control characters")]
    ControlCharacters,
    /// It has too many headers, or too long ones.
    #[error("the request's headers are too many or too long")]
    HeadersTooLarge,
    /// One of its headers is invalid.
    #[error("a header of the request is invalid")]
    Header,
    /// The length of its body is in doubt.
    #[error("the length of the request's body is invalid or ambiguous")]
    Length,
    /// Its body is malformed.
    #[error("the framing of the request's body is invalid")]
    Body,
    /// It asks for a tunnel.
    #[error("the method CONNECT is not supported")]
    Connect,
    /// It changes something, and the upstream is to be read only.
    #[error("the registry is read-only here: pulls are allowed, pushes and deletes are not")]
    ReadOnly,
    /// It came without TLS.
    #[error("this port speaks HTTPS, and the request is plain HTTP: use https://")]
    PlainHttp,
    /// It has passed this proxy before.
    #[error("the request has passed this proxy before: the upstream is the proxy itself")]
    Loop,
    /// No upstream is for it.
    #[error(
        "no registry behind this proxy has this name: check the host, the first component of the \
         repository and ?ns= against the upstreams that are configured"
    )]
    NoUpstream,
    /// No upstream is for the registry that it names.
    #[error("the registry that ?ns= names is not configured at this proxy")]
    UnknownNs,
    /// The names in the catalog would not be those of clients.
    #[error("there is no catalog here: the repositories have other names at their registries")]
    NoCatalog,
    /// Its upload session has a tag that no replica's sessions have.
    #[error("the upload session is unknown: no replica of the registry has it")]
    UnknownSession,
}

impl Refusal {
    /// The status of the response.
    pub(crate) fn status(self) -> u16 {
        match self {
            Refusal::Connect | Refusal::ReadOnly => 405,
            Refusal::Loop => 508,
            Refusal::UnknownSession
            | Refusal::NoUpstream
            | Refusal::UnknownNs
            | Refusal::NoCatalog => 404,
            _ => 400,
        }
    }

    fn code(self) -> ErrorCode {
        match self {
            Refusal::UnknownSession => ErrorCode::BlobUploadUnknown,
            Refusal::NoUpstream | Refusal::UnknownNs => ErrorCode::NameUnknown,
            _ => ErrorCode::Unsupported,
        }
    }
}

impl Failure {
    /// Why no connection to the upstream could be made.
    pub(crate) fn to_connect(error: &io::Error) -> Failure {
        match Errno::from_io_error(error) {
            Some(Errno::MFILE | Errno::NFILE) => Failure::OutOfDescriptors,
            _ if TlsFailure::is_in(error) => Failure::UpstreamUnreachable(UpstreamError::Tls),
            _ if error.kind() == io::ErrorKind::TimedOut => Failure::UpstreamTimeout,
            _ => Failure::UpstreamUnreachable(UpstreamError::Connect),
        }
    }

    /// The reason that the upstream failed; `None` if another side did.
    pub(crate) fn upstream_error(self) -> Option<UpstreamError> {
        match self {
            Failure::UpstreamTimeout => Some(UpstreamError::Timeout),
            Failure::UpstreamUnreachable(reason) | Failure::UpstreamFailed(reason) => Some(reason),
            Failure::ClientClosed
            | Failure::ClientStalled
            | Failure::ClientNotReading
            | Failure::Refused(_)
            | Failure::Overloaded
            | Failure::Drained
            | Failure::ShutdownDeadline
            | Failure::OutOfDescriptors
            | Failure::Internal => None,
        }
    }

    /// Its name in the access log.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Failure::ClientClosed => "client_closed",
            Failure::ClientStalled => "client_stalled",
            Failure::ClientNotReading => "client_not_reading",
            Failure::Refused(_) => "refused",
            Failure::UpstreamUnreachable(_) => "upstream_unreachable",
            Failure::UpstreamFailed(_) => "upstream_failed",
            Failure::UpstreamTimeout => "upstream_timeout",
            Failure::Overloaded => "overloaded",
            Failure::Drained => "drained",
            Failure::ShutdownDeadline => "shutdown_deadline",
            Failure::OutOfDescriptors => "out_of_descriptors",
            Failure::Internal => "internal",
        }
    }

    /// What the access log says of it beside its name.
    pub(crate) fn reason(self) -> Option<Cow<'static, str>> {
        match self {
            Failure::Refused(refusal) => Some(refusal.to_string().into()),
            _ => Some(self.upstream_error()?.value().into()),
        }
    }

    /// The status that is counted and, if the client can still read a response, sent.
    pub(crate) fn status(self) -> u16 {
        match self {
            Failure::ClientClosed | Failure::ClientNotReading => CLIENT_CLOSED_REQUEST,
            Failure::ClientStalled => 408,
            Failure::Refused(refusal) => refusal.status(),
            Failure::UpstreamUnreachable(_) | Failure::UpstreamFailed(_) => 502,
            Failure::UpstreamTimeout => 504,
            Failure::Overloaded
            | Failure::Drained
            | Failure::ShutdownDeadline
            | Failure::OutOfDescriptors => 503,
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
            Failure::UpstreamUnreachable(_)
            | Failure::UpstreamFailed(_)
            | Failure::UpstreamTimeout => Some(Side::Upstream),
            Failure::Overloaded
            | Failure::Drained
            | Failure::ShutdownDeadline
            | Failure::OutOfDescriptors
            | Failure::Internal => None,
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
                return Some(ErrorBody::new(refusal.code(), refusal.to_string()));
            }
            Failure::ClientClosed | Failure::ClientNotReading => return None,
            Failure::ClientStalled => (
                ErrorCode::Unsupported,
                "timeout while reading the request's body",
            ),
            Failure::Drained => (
                ErrorCode::Unavailable,
                "the registry takes no new requests for now: its operator drains it",
            ),
            Failure::UpstreamUnreachable(_) => {
                (ErrorCode::Unavailable, "the registry is unreachable")
            }
            Failure::UpstreamFailed(_) => (
                ErrorCode::Unavailable,
                "the registry closed the connection or sent an invalid response",
            ),
            Failure::UpstreamTimeout => (
                ErrorCode::Unavailable,
                "the registry did not respond in time",
            ),
            Failure::Overloaded => (
                ErrorCode::Unavailable,
                "too many requests wait for the registry: try again later",
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

    /// The response as bytes of HTTP/1.1, for a connection that ends with it.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_has_its_own_message() {
        // A refusal that is missing here does not compile.
        let next = |refusal: &Refusal| match refusal {
            Refusal::Malformed => Some(Refusal::LineFeed),
            Refusal::LineFeed => Some(Refusal::RequestLine),
            Refusal::RequestLine => Some(Refusal::Version),
            Refusal::Version => Some(Refusal::NoHost),
            Refusal::NoHost => Some(Refusal::Host),
            Refusal::Host => Some(Refusal::Target),
            Refusal::Target => Some(Refusal::ControlCharacters),
            Refusal::ControlCharacters => Some(Refusal::HeadersTooLarge),
            Refusal::HeadersTooLarge => Some(Refusal::Header),
            Refusal::Header => Some(Refusal::Length),
            Refusal::Length => Some(Refusal::Body),
            Refusal::Body => Some(Refusal::Connect),
            Refusal::Connect => Some(Refusal::ReadOnly),
            Refusal::ReadOnly => Some(Refusal::PlainHttp),
            Refusal::PlainHttp => Some(Refusal::Loop),
            Refusal::Loop => Some(Refusal::NoUpstream),
            Refusal::NoUpstream => Some(Refusal::UnknownNs),
            Refusal::UnknownNs => Some(Refusal::NoCatalog),
            Refusal::NoCatalog => Some(Refusal::UnknownSession),
            Refusal::UnknownSession => None,
        };
        let mut messages = std::collections::HashSet::new();
        for refusal in std::iter::successors(Some(Refusal::Malformed), next) {
            let failure = Failure::Refused(refusal);
            assert!((400..600).contains(&failure.status()));
            assert_eq!(failure.upstream_error(), None);
            assert!(messages.insert(failure.body().unwrap()), "{refusal:?}");
        }
    }

    #[test]
    fn a_connection_that_cannot_be_made_has_a_reason() {
        let lack = io::Error::from(Errno::MFILE);
        assert_eq!(Failure::to_connect(&lack), Failure::OutOfDescriptors);
        let late = io::Error::from(io::ErrorKind::TimedOut);
        assert_eq!(Failure::to_connect(&late), Failure::UpstreamTimeout);
        let refused = Failure::to_connect(&io::Error::from(Errno::CONNREFUSED));
        assert_eq!(refused.upstream_error(), Some(UpstreamError::Connect));
        assert_eq!(refused.status(), 502);
    }
}
