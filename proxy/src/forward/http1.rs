//! A client's HTTP/1.1 connection: one request after another.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use http::Version;
use service::timer::LazyTimer;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::buffers::SMALL;
use super::client_side::ClientSide;
use super::framing::{BodyLength, RequestHead, ResponseHead};
use super::head::{self, HeadEnd, MAX_HEAD};
use super::socket::{Closed, Socket};
use super::wire::{BodyError, Incoming, Outgoing};
use crate::error::{Failure, Refusal};

/// The first bytes of an HTTP/2 connection (RFC 9113 §3.4).
pub(crate) const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The waits that a connection may cost between requests.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeadTimeouts {
    /// From accepting the connection, or from a later request's first byte, to the end of the
    /// request's headers.
    pub(crate) header: Duration,
    /// From the end of a request to the first byte of the next.
    pub(crate) idle: Duration,
}

/// A client's connection.
pub(super) struct Http1<'s> {
    socket: &'s Socket,
    incoming: Incoming,
    outgoing: Outgoing,
    /// The server is shutting down: no connection outlives its request.
    is_draining: &'s AtomicBool,
    wait: HeadWait,
    /// The version of the current request.
    version: Version,
    phase: Phase,
    /// The connection may carry another request after this one.
    keep_alive: bool,
    /// The response's body ends with the connection.
    is_until_close: bool,
    /// Waits for the client to close what it has not closed yet: for all of its requests, since each wait
    /// that begins and ends takes locks.
    closed: Option<Pin<Box<dyn Future<Output = Closed> + Send + 's>>>,
    is_half_closed: bool,
}

/// How far the current request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// There is none.
    Idle,
    /// No final response has begun.
    Request,
    Response,
    /// The client can't get the rest of its response.
    Aborted,
}

/// What a client sent.
pub(super) enum Next {
    Request(Box<RequestHead>, Option<Refusal>),
    /// What can't be parsed.
    Refused(Refusal),
    /// The preface of HTTP/2; the bytes after the first of it, and they.
    Http2(BytesMut),
    /// Nothing more.
    Closed,
    /// Not enough of a request's head, in time.
    TimedOut,
    /// Nothing, for too long.
    Idle,
}

/// The wait for a request's head. The clock is read, and the timer armed, only when there is nothing
/// to read.
struct HeadWait {
    timeouts: HeadTimeouts,
    end: HeadEnd,
    is_first: bool,
    /// A byte of the head is there. A new connection is not idle: its client came to say something.
    has_begun: bool,
    deadline: Option<Instant>,
}

impl<'s> Http1<'s> {
    pub(super) fn new(
        socket: &'s Socket,
        first: BytesMut,
        timeouts: HeadTimeouts,
        is_draining: &'s AtomicBool,
    ) -> Http1<'s> {
        Http1 {
            socket,
            incoming: Incoming::new(first),
            outgoing: Outgoing::new(),
            is_draining,
            wait: HeadWait {
                timeouts,
                end: HeadEnd::default(),
                is_first: true,
                has_begun: true,
                deadline: None,
            },
            version: Version::HTTP_11,
            phase: Phase::Idle,
            keep_alive: false,
            is_until_close: false,
            closed: None,
            is_half_closed: false,
        }
    }

    /// The next request. `idle` is called when there is nothing to read for now.
    pub(super) fn poll_next(
        &mut self,
        context: &mut Context<'_>,
        timer: &mut LazyTimer,
        mut idle: impl FnMut(Instant),
    ) -> Poll<Next> {
        loop {
            if let Some(next) = self.parse() {
                return Poll::Ready(next);
            }
            let mut socket = self.socket;
            match self.incoming.poll_fill(&mut socket, context, SMALL) {
                Poll::Ready(Ok(length)) if length > 0 => {
                    if !self.wait.has_begun {
                        self.wait.has_begun = true;
                        self.wait.deadline = None;
                    }
                }
                Poll::Ready(_) => return Poll::Ready(Next::Closed),
                Poll::Pending => {
                    self.incoming.release();
                    let wait = &mut self.wait;
                    let (limit, end) = if wait.has_begun {
                        (wait.timeouts.header, Next::TimedOut)
                    } else {
                        (wait.timeouts.idle, Next::Idle)
                    };
                    let deadline = *wait.deadline.get_or_insert_with(|| {
                        let now = Instant::now();
                        idle(now);
                        now + limit
                    });
                    ready!(timer.poll(context, deadline));
                    return Poll::Ready(end);
                }
            }
        }
    }

    /// What the bytes that are there say, if there are enough of them.
    fn parse(&mut self) -> Option<Next> {
        let buffer = &mut self.incoming.buffer;
        if self.wait.is_first {
            let known = buffer.len().min(H2_PREFACE.len());
            if known == H2_PREFACE.len() && buffer.starts_with(H2_PREFACE) {
                return Some(Next::Http2(std::mem::take(buffer)));
            }
            if H2_PREFACE.starts_with(&buffer[..known]) {
                return None;
            }
        }
        let (start, end) = match self.wait.end.find(buffer) {
            Err(head::BareLineFeed) => return Some(Next::Refused(Refusal::LineFeed)),
            Ok(None) if buffer.len() >= MAX_HEAD => {
                buffer.advance(self.wait.end.start());
                let bytes = std::mem::take(buffer).freeze();
                return Some(match head::too_large(&bytes) {
                    Ok(head) => self.begin(head, Some(Refusal::HeadersTooLarge)),
                    Err(refusal) => Next::Refused(refusal),
                });
            }
            // What is not HTTP, such as a TLS handshake, may never have the end of a line.
            Ok(None) if !head::may_be_request(buffer) => {
                return Some(Next::Refused(Refusal::Malformed));
            }
            Ok(None) => return None,
            Ok(Some(found)) => found,
        };
        buffer.advance(start);
        let bytes = buffer.split_to(end - start).freeze();
        Some(match head::request(&bytes) {
            Ok((head, refusal)) => self.begin(head, refusal),
            Err(refusal) => Next::Refused(refusal),
        })
    }

    fn begin(&mut self, head: RequestHead, refusal: Option<Refusal>) -> Next {
        self.incoming.begin(head.body);
        self.version = head.version;
        self.phase = Phase::Request;
        self.keep_alive = head.keep_alive && refusal.is_none();
        self.wait.is_first = false;
        Next::Request(Box::new(head), refusal)
    }

    /// The request has ended. Returns whether another one may follow.
    pub(super) fn finish(&mut self) -> bool {
        if self.phase != Phase::Aborted {
            self.phase = Phase::Idle;
        }
        self.wait.end = HeadEnd::default();
        self.wait.has_begun = !self.incoming.buffer.is_empty();
        self.wait.deadline = None;
        self.outgoing.release();
        self.keep_alive && self.incoming.is_whole()
    }

    /// Responds to what can't be parsed; the connection ends with it.
    pub(super) fn refuse(&mut self, refusal: Refusal) {
        self.phase = Phase::Response;
        self.keep_alive = false;
        let response = Failure::Refused(refusal).to_http1();
        self.outgoing.buffer.extend_from_slice(&response);
    }

    /// Whether the client can't get the rest of its response.
    pub(super) fn is_aborted(&self) -> bool {
        self.phase == Phase::Aborted
    }

    /// Whether the client may still be sending, and would lose its response if the connection were
    /// just closed.
    pub(super) fn must_linger(&self) -> bool {
        let is_read = self.incoming.is_whole() && self.incoming.buffer.is_empty();
        let is_done = is_read && self.outgoing.buffer.is_empty();
        !self.is_aborted() && !is_done
    }

    /// Ends the connection such that a client which is still sending gets its response: closed at
    /// once, unread bytes would make the kernel reset it (RFC 9112 §9.6).
    pub(super) fn poll_linger(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let mut socket = self.socket;
        if ready!(self.outgoing.poll_flush(&mut socket, context)).is_err() {
            return Poll::Ready(());
        }
        self.socket.shut_down_writing();
        loop {
            self.incoming.buffer.clear();
            let read = self.incoming.poll_fill(&mut socket, context, SMALL);
            if !ready!(read).is_ok_and(|length| length > 0) {
                return Poll::Ready(());
            }
        }
    }

    fn write_head(&mut self, head: &ResponseHead) {
        let out = self.outgoing.head();
        out.reserve(1024);
        out.extend_from_slice(b"HTTP/1.1 ");
        out.extend_from_slice(head.status.as_str().as_bytes());
        out.extend_from_slice(b" ");
        let reason = match &head.reason[..] {
            b"" => head
                .status
                .canonical_reason()
                .unwrap_or_default()
                .as_bytes(),
            reason => reason,
        };
        out.extend_from_slice(reason);
        out.extend_from_slice(b"\r\n");
        for (name, value) in &head.headers {
            out.extend_from_slice(name.as_str().as_bytes());
            out.extend_from_slice(b": ");
            out.extend_from_slice(value.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
    }
}

impl<'s> ClientSide<'s> for Http1<'s> {
    fn poll_body(&mut self, context: &mut Context<'_>) -> Poll<Result<&[u8], Failure>> {
        let mut socket = self.socket;
        let piece = ready!(self.incoming.poll_piece(&mut socket, context));
        Poll::Ready(piece.map_err(|error| match error {
            BodyError::Cut => Failure::ClientClosed,
            BodyError::Malformed(refusal) => Failure::Refused(refusal),
        }))
    }

    fn consume_body(&mut self, used: usize) {
        self.incoming.consume(used);
    }

    fn body_source(&self) -> Option<(&'s TcpStream, u64)> {
        Some((self.socket.tcp()?, self.incoming.on_socket()?))
    }

    fn body_moved(&mut self, bytes: usize) {
        self.incoming.moved(bytes as u64);
    }

    fn body_sink(&self) -> Option<&'s TcpStream> {
        self.socket.tcp().filter(|_| self.outgoing.is_plain())
    }

    fn is_body_whole(&self) -> bool {
        self.incoming.is_whole()
    }

    fn can_body_arrive(&self, on_their_way: usize) -> bool {
        let arrived = self.socket.unread() + on_their_way as u64;
        let missing = self.incoming.missing();
        missing.is_none_or(|missing| missing <= arrived)
    }

    fn interim(&mut self, head: &ResponseHead) {
        // HTTP/1.0 has none (RFC 9110 §15.2).
        if self.version == Version::HTTP_11 {
            self.write_head(head);
            self.outgoing.buffer.extend_from_slice(b"\r\n");
        }
    }

    fn begin_response(&mut self, head: ResponseHead) -> Result<(), Failure> {
        // The rest of a body that the response did not wait for is not worth waiting for.
        self.keep_alive &= self.incoming.is_whole() && !self.is_draining.load(Ordering::Relaxed);
        let is_endless = matches!(head.body, BodyLength::Chunked | BodyLength::UntilClose);
        let is_chunked = is_endless && self.version == Version::HTTP_11;
        self.write_head(&head);
        if is_chunked {
            let field = b"transfer-encoding: chunked\r\n";
            self.outgoing.buffer.extend_from_slice(field);
        }
        if !self.keep_alive {
            let field = b"connection: close\r\n";
            self.outgoing.buffer.extend_from_slice(field);
        }
        self.outgoing.buffer.extend_from_slice(b"\r\n");
        self.outgoing.begin(is_chunked);
        self.is_until_close = is_endless && !is_chunked;
        self.phase = Phase::Response;
        Ok(())
    }

    fn poll_send(
        &mut self,
        context: &mut Context<'_>,
        piece: &[u8],
    ) -> Poll<Result<usize, Failure>> {
        let mut socket = self.socket;
        let sent = self.outgoing.poll_send(&mut socket, context, piece);
        sent.map_err(|_| Failure::ClientClosed)
    }

    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        let mut socket = self.socket;
        let flushed = self.outgoing.poll_flush(&mut socket, context);
        flushed.map_err(|_| Failure::ClientClosed)
    }

    fn end(&mut self) -> Result<(), Failure> {
        self.outgoing.end();
        Ok(())
    }

    fn abort(&mut self) {
        self.keep_alive = false;
        self.phase = Phase::Aborted;
        // A body that ends with its connection looks whole unless the connection is reset.
        if self.is_until_close {
            self.socket.reset_at_close();
        }
    }

    fn poll_left(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let socket = self.socket;
        let closed = self.closed.get_or_insert_with(|| Box::pin(socket.closed()));
        if !self.is_half_closed {
            if ready!(closed.as_mut().poll(context)) == Closed::Both {
                return Poll::Ready(());
            }
            self.is_half_closed = true;
            *closed = Box::pin(socket.reset());
        }
        closed.as_mut().poll(context).map(|_| ())
    }

    fn is_half_closed(&self) -> bool {
        self.is_half_closed
    }
}

/// A request that panics is answered, if nothing was said yet.
impl Drop for Http1<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() && self.phase == Phase::Request {
            // Nothing may wait here. So little fits into the buffer of a socket that was not written to.
            let _ = self.socket.try_write(&Failure::Internal.to_http1());
        }
    }
}
