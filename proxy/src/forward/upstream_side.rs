//! The upstream's side of one exchange: a connection, or the registry in this process.

use std::io;
use std::task::{Context, Poll, ready};

use http::{HeaderMap, Method, StatusCode, Version};
use http_body::SizeHint;
use registry::server::in_process::{InProcess, InProcessCall};
use tokio::net::TcpStream;

use super::framing::{BodyLength, Fields, RequestHead, ResponseHead, StatusLine};
use super::upstream_connection::UpstreamConnection;
use crate::metrics::UpstreamError;

/// The upstream's side of one exchange.
pub(super) enum UpstreamSide {
    Connection(UpstreamConnection),
    InProcess(InProcessSide),
}

/// A call of the registry in this process.
pub(super) struct InProcessSide {
    call: InProcessCall,
    /// The client waits for `100 Continue` before it sends its body.
    expects: bool,
    is_head: bool,
}

impl InProcessSide {
    /// Begins the call. It takes the request's headers, which no one needs any more.
    pub(super) fn call(
        registry: &InProcess,
        request: &mut RequestHead,
        host: &http::HeaderValue,
    ) -> InProcessSide {
        let (mut head, ()) = http::Request::new(()).into_parts();
        head.method = request.method.clone();
        head.uri = request.target.clone().into();
        head.version = Version::HTTP_11;
        head.headers = std::mem::take(&mut request.headers);
        let host = request.host.as_ref().unwrap_or(host);
        head.headers.insert(http::header::HOST, host.clone());
        let expects = head.headers.remove(http::header::EXPECT);
        let length = match request.body {
            BodyLength::None => SizeHint::with_exact(0),
            BodyLength::Known(length) => SizeHint::with_exact(length),
            BodyLength::Chunked | BodyLength::UntilClose => SizeHint::new(),
        };
        InProcessSide {
            call: registry.call(head, length),
            expects: expects
                .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue")),
            is_head: request.method == Method::HEAD,
        }
    }

    fn poll_head(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<ResponseHead, UpstreamError>> {
        let Poll::Ready(head) = self.call.poll_head(context) else {
            // As a connection's server does: once the body is asked for.
            if self.expects && self.call.wants_body() {
                self.expects = false;
                let status = StatusCode::CONTINUE;
                let head = ResponseHead::own(status, HeaderMap::new(), BodyLength::None);
                return Poll::Ready(Ok(head));
            }
            return Poll::Pending;
        };
        let mut fields = Fields::with_capacity(head.headers.len());
        let mut name = None;
        for (next, value) in head.headers {
            name = next.or(name);
            if let Some(name) = &name {
                let pushed = fields.push(name.clone(), value);
                pushed.map_err(|_| UpstreamError::Protocol)?;
            }
        }
        let line = StatusLine {
            status: head.status,
            reason: bytes::Bytes::new(),
            version: Version::HTTP_11,
        };
        let method = if self.is_head {
            Method::HEAD
        } else {
            Method::GET
        };
        Poll::Ready(line.with(fields, &method).ok_or(UpstreamError::Protocol))
    }
}

impl UpstreamSide {
    /// Whether the upstream may have closed the connection before it saw the request.
    pub(super) fn may_be_stale(&self) -> bool {
        match self {
            UpstreamSide::Connection(connection) => connection.may_be_stale(),
            UpstreamSide::InProcess(_) => false,
        }
    }

    /// Whether the upstream wants credentials; `None` if it has not responded.
    pub(super) fn is_unauthorized(&self) -> Option<bool> {
        match self {
            UpstreamSide::Connection(connection) => connection.is_unauthorized(),
            UpstreamSide::InProcess(_) => None,
        }
    }

    /// The next head of a response to a request of this method, interim or final.
    pub(super) fn poll_head(
        &mut self,
        context: &mut Context<'_>,
        method: &Method,
    ) -> Poll<Result<ResponseHead, UpstreamError>> {
        match self {
            UpstreamSide::Connection(connection) => connection.poll_head(context, method),
            UpstreamSide::InProcess(side) => side.poll_head(context),
        }
    }

    /// The next bytes of the response's body, as they are there; none at its end.
    pub(super) fn poll_body(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<&[u8], UpstreamError>> {
        match self {
            UpstreamSide::Connection(connection) => connection.poll_body(context),
            UpstreamSide::InProcess(side) => {
                let piece = ready!(side.call.poll_body(context));
                // The registry has logged why.
                Poll::Ready(piece.map_err(|_| UpstreamError::Reset))
            }
        }
    }

    /// So many bytes of the last piece of the response's body were used.
    pub(super) fn consume(&mut self, used: usize) {
        match self {
            UpstreamSide::Connection(connection) => connection.incoming.consume(used),
            UpstreamSide::InProcess(side) => side.call.consume(used),
        }
    }

    /// The socket that so many bytes of the response's body are still to be read from, if nothing but
    /// them is.
    pub(super) fn body_source(&self) -> Option<(&TcpStream, u64)> {
        let UpstreamSide::Connection(connection) = self else {
            return None;
        };
        Some((connection.stream.tcp()?, connection.incoming.on_socket()?))
    }

    /// So many bytes of the response's body were read from the socket.
    pub(super) fn body_moved(&mut self, bytes: usize) {
        if let UpstreamSide::Connection(connection) = self {
            connection.incoming.moved(bytes as u64);
        }
    }

    /// The socket that the request's body may be written to as it is.
    pub(super) fn body_sink(&self) -> Option<&TcpStream> {
        match self {
            UpstreamSide::Connection(connection) => connection.body_sink(),
            UpstreamSide::InProcess(_) => None,
        }
    }

    /// Sends some of a piece of the request's body.
    pub(super) fn poll_send(
        &mut self,
        context: &mut Context<'_>,
        piece: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self {
            UpstreamSide::Connection(connection) => connection.poll_send(context, piece),
            UpstreamSide::InProcess(side) => {
                let sent = ready!(side.call.poll_send(context, piece));
                Poll::Ready(sent.ok_or(io::ErrorKind::BrokenPipe.into()))
            }
        }
    }

    /// Sends what is held back.
    pub(super) fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            UpstreamSide::Connection(connection) => connection.poll_flush(context),
            UpstreamSide::InProcess(_) => Poll::Ready(Ok(())),
        }
    }

    /// The request's body has ended.
    pub(super) fn end(&mut self) {
        match self {
            UpstreamSide::Connection(connection) => connection.outgoing.end(),
            UpstreamSide::InProcess(side) => side.call.end(),
        }
    }
}
