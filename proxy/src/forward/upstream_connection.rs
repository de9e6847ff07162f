//! The upstream's side of one exchange: HTTP/1.1 over a connection of its own.

use std::io::{self, IoSlice};
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use http::{Method, StatusCode};
use service::tls::TlsFailure;
use tokio::net::TcpStream;

use super::buffers::SMALL;
use super::framing::{BodyLength, ResponseHead};
use super::head::{self, HeadEnd, MAX_HEAD};
use super::wire::{BodyError, Incoming, Io, Outgoing};
use crate::metrics::UpstreamError;
use crate::upstream::UpstreamStream;

/// The most interim responses before a final one.
const MAX_INTERIM: u8 = 16;

impl Io for UpstreamStream {
    fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut BytesMut,
    ) -> Poll<io::Result<usize>> {
        UpstreamStream::poll_read(self, context, buffer)
    }

    fn poll_write(
        &mut self,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        UpstreamStream::poll_write(self, context, slices)
    }

    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        UpstreamStream::poll_flush(self, context)
    }
}

/// A connection to the upstream while it carries one request.
pub(super) struct UpstreamConnection {
    pub(super) stream: UpstreamStream,
    /// It has carried other requests before.
    pub(super) is_reused: bool,
    pub(super) incoming: Incoming,
    pub(super) outgoing: Outgoing,
    head_end: HeadEnd,
    interim: u8,
    /// Of the final response, once its head is there.
    status: Option<StatusCode>,
    /// Something was received.
    has_heard: bool,
    /// The response lets it carry another request.
    keep_alive: bool,
}

impl UpstreamConnection {
    pub(super) fn new(stream: UpstreamStream, is_reused: bool) -> UpstreamConnection {
        UpstreamConnection {
            stream,
            is_reused,
            incoming: Incoming::new(BytesMut::new()),
            outgoing: Outgoing::new(),
            head_end: HeadEnd::default(),
            interim: 0,
            status: None,
            has_heard: false,
            keep_alive: false,
        }
    }

    /// Whether the upstream may have closed the connection before it saw the request.
    pub(super) fn may_be_stale(&self) -> bool {
        self.is_reused && !self.has_heard
    }

    /// Whether the upstream wants credentials; `None` if it has not responded.
    pub(super) fn is_unauthorized(&self) -> Option<bool> {
        Some(self.status? == StatusCode::UNAUTHORIZED)
    }

    /// The next head of a response to a request of this method, interim or final.
    pub(super) fn poll_head(
        &mut self,
        context: &mut Context<'_>,
        method: &Method,
    ) -> Poll<Result<ResponseHead, UpstreamError>> {
        loop {
            let buffer = &mut self.incoming.buffer;
            match self.head_end.find(buffer) {
                // Only before a request line may there be empty lines (RFC 9112 §2.2).
                Ok(Some((start, end))) if start == 0 && end <= MAX_HEAD => {
                    let bytes = buffer.split_to(end).freeze();
                    self.head_end = HeadEnd::default();
                    let head = head::response(&bytes, method).ok_or(UpstreamError::Protocol)?;
                    if head.status.is_informational() {
                        self.interim += 1;
                        if self.interim > MAX_INTERIM {
                            return Poll::Ready(Err(UpstreamError::Protocol));
                        }
                    } else {
                        self.incoming.begin(head.body);
                        self.keep_alive = head.keep_alive;
                        self.status = Some(head.status);
                    }
                    return Poll::Ready(Ok(head));
                }
                // What is not HTTP may never have the end of a line.
                Ok(None) if buffer.len() < MAX_HEAD && head::may_be_response(buffer) => {}
                Ok(_) | Err(head::BareLineFeed) => {
                    return Poll::Ready(Err(UpstreamError::Protocol));
                }
            }
            match ready!(self.incoming.poll_fill(&mut self.stream, context, SMALL)) {
                Ok(length) if length > 0 => self.has_heard = true,
                Err(error) if TlsFailure::is_in(&error) => {
                    return Poll::Ready(Err(UpstreamError::Tls));
                }
                Ok(_) | Err(_) => return Poll::Ready(Err(UpstreamError::Reset)),
            }
        }
    }

    /// The next bytes of the response's body, as they are there; none at its end.
    pub(super) fn poll_body(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<&[u8], UpstreamError>> {
        let piece = ready!(self.incoming.poll_piece(&mut self.stream, context));
        Poll::Ready(piece.map_err(|error| match error {
            BodyError::Cut => UpstreamError::Reset,
            BodyError::Malformed(_) => UpstreamError::Protocol,
        }))
    }

    /// Sends some of a piece of the request's body.
    pub(super) fn poll_send(
        &mut self,
        context: &mut Context<'_>,
        piece: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.outgoing.poll_send(&mut self.stream, context, piece)
    }

    /// The socket that the request's body may be written to as it is.
    pub(super) fn body_sink(&self) -> Option<&TcpStream> {
        self.stream.tcp().filter(|_| self.outgoing.is_plain())
    }

    /// Sends what is held back.
    pub(super) fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.outgoing.poll_flush(&mut self.stream, context)
    }

    /// The stream, if it can carry another request: both messages have ended, and nothing is left.
    pub(super) fn into_idle(self) -> Option<UpstreamStream> {
        let is_clean = self.keep_alive
            && self.incoming.is_whole()
            && self.incoming.buffer.is_empty()
            && self.outgoing.buffer.is_empty();
        is_clean.then_some(self.stream)
    }

    /// A body of this length follows the head of the request.
    pub(super) fn begin_body(&mut self, length: BodyLength) {
        self.outgoing.begin(length == BodyLength::Chunked);
    }
}
