//! Time limits of a connection, kept where its bytes pass.
//!
//! hyper reads, parses and writes; it can't know that a client has stopped reading what it asked
//! for, or tell an idle connection from one whose headers drip in. Here every wait is seen. Timers
//! are armed when there is something to wait for and looked at when they fire, so a busy
//! connection pays for no timer at each request.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::cap::{RequestGuard, Requests};
use crate::timer::LazyTimer;

/// How long a closed connection is still listened to. A client that is sending has to be let
/// finish or stop: closing on it makes its kernel throw away the answer it has not read yet.
const LINGER: Duration = Duration::from_secs(2);

/// What an HTTP/2 client's first bytes are (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2";

/// The waits that a connection may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionTimeouts {
    /// From a request's first byte to the end of its headers.
    pub header: Duration,
    /// Between requests.
    pub idle: Duration,
    /// For a client to take the next bytes of a response.
    pub stall: Duration,
}

/// What a connection's requests tell of themselves to its time limits.
#[derive(Debug)]
pub(super) struct ConnectionActivity {
    opened: Instant,
    /// Requests whose response has not ended.
    requests: Requests,
    /// Requests that have begun.
    begun: AtomicU64,
    /// Responses that are being sent over HTTP/2.
    sending: AtomicUsize,
    /// When one of them last had bytes to send, in milliseconds after `opened`.
    produced: AtomicU64,
}

/// A request in flight, until it is dropped.
#[derive(Debug)]
pub(super) struct BusyGuard {
    activity: Arc<ConnectionActivity>,
    sending: bool,
    _request: RequestGuard,
}

/// A connection's bytes, under its time limits.
#[derive(Debug)]
pub(super) struct TimedStream<T> {
    inner: T,
    activity: Arc<ConnectionActivity>,
    timeouts: ConnectionTimeouts,
    reads: LazyTimer,
    writes: LazyTimer,
    /// The first byte after the last request, and how many requests had begun by then.
    head: Option<(Instant, u64)>,
    /// Since when the client takes nothing.
    blocked: Option<Instant>,
    /// Since when the connection is shut down.
    shut: Option<Instant>,
    read_before: bool,
    http2: bool,
}

impl ConnectionActivity {
    pub(super) fn new(requests: Requests) -> Arc<Self> {
        Arc::new(Self {
            opened: Instant::now(),
            requests,
            begun: AtomicU64::new(0),
            sending: AtomicUsize::new(0),
            produced: AtomicU64::new(0),
        })
    }

    /// A request begins.
    pub(super) fn begin(self: &Arc<Self>) -> BusyGuard {
        let request = self.requests.begin();
        self.begun.fetch_add(1, Ordering::Relaxed);
        BusyGuard {
            activity: Arc::clone(self),
            sending: false,
            _request: request,
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn last_produced(&self) -> Instant {
        self.opened + Duration::from_millis(self.produced.load(Ordering::Relaxed))
    }
}

impl BusyGuard {
    /// The response has bytes to send over HTTP/2. A client that takes no more of them shows in
    /// the lack of calls: it need not block the connection.
    pub(super) fn produced(&mut self) {
        let produced = &self.activity.produced;
        produced.store(self.activity.now(), Ordering::Relaxed);
        if !self.sending {
            self.sending = true;
            self.activity.sending.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for BusyGuard {
    fn drop(&mut self) {
        if self.sending {
            self.activity.sending.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl<T> TimedStream<T> {
    pub(super) fn new(
        inner: T,
        activity: Arc<ConnectionActivity>,
        timeouts: ConnectionTimeouts,
    ) -> Self {
        Self {
            inner,
            activity,
            timeouts,
            reads: LazyTimer::default(),
            writes: LazyTimer::default(),
            head: None,
            blocked: None,
            shut: None,
            read_before: false,
            http2: false,
        }
    }

    /// When a connection from which nothing comes is given up; `None` while that is as it should
    /// be, because a request is at work.
    fn read_deadline(&mut self) -> Option<Instant> {
        if self.activity.requests.is_busy() {
            let sending = self.activity.sending.load(Ordering::Relaxed) > 0;
            return sending.then(|| self.activity.last_produced() + self.timeouts.stall);
        }
        let begun = self.activity.begun.load(Ordering::Relaxed);
        match self.head {
            Some((first_byte, before)) if before == begun => {
                Some(first_byte + self.timeouts.header)
            }
            _ => Some(self.activity.requests.last_ended() + self.timeouts.idle),
        }
    }

    fn note_read(&mut self, bytes: &[u8]) {
        if !self.read_before {
            self.read_before = true;
            self.http2 = bytes.starts_with(PREFACE);
        }
        if self.http2 || self.activity.requests.is_busy() {
            return;
        }
        let begun = self.activity.begun.load(Ordering::Relaxed);
        if self.head.is_none_or(|(_, before)| before != begun) {
            self.head = Some((Instant::now(), begun));
        }
    }

    /// Passes a write's outcome on, unless the client has taken nothing for too long.
    fn written<R>(
        &mut self,
        cx: &mut Context<'_>,
        outcome: Poll<io::Result<R>>,
    ) -> Poll<io::Result<R>> {
        if outcome.is_ready() {
            self.blocked = None;
            return outcome;
        }
        let blocked = *self.blocked.get_or_insert_with(Instant::now);
        ready!(self.writes.poll(cx, blocked + self.timeouts.stall));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for TimedStream<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        if let Poll::Ready(outcome) = Pin::new(&mut this.inner).poll_read(cx, buf) {
            this.note_read(&buf.filled()[before..]);
            return Poll::Ready(outcome);
        }
        // While a request is at work there is no deadline, but there will be one, and nobody may
        // ask again before it: so look again when the earliest could have passed.
        let timeouts = this
            .timeouts
            .header
            .min(this.timeouts.idle)
            .min(this.timeouts.stall);
        loop {
            let deadline = this.read_deadline();
            let wake = deadline.unwrap_or_else(|| Instant::now() + timeouts);
            ready!(this.reads.poll(cx, wake));
            if deadline.is_some() {
                // No more bytes, as if the client had closed: hyper closes without a word.
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for TimedStream<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.inner).poll_write(cx, buf);
        this.written(cx, outcome)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.inner).poll_write_vectored(cx, bufs);
        this.written(cx, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match Pin::new(&mut this.inner).poll_flush(cx) {
            Poll::Pending => this.written(cx, Poll::Pending),
            ready @ Poll::Ready(_) => ready,
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.shut.is_none() {
            let outcome = Pin::new(&mut this.inner).poll_shutdown(cx);
            ready!(this.written(cx, outcome))?;
        }
        let shut = *this.shut.get_or_insert_with(Instant::now);
        let mut scratch = [0; 4096];
        loop {
            let mut scratch = ReadBuf::new(&mut scratch);
            match Pin::new(&mut this.inner).poll_read(cx, &mut scratch) {
                Poll::Ready(Ok(())) if !scratch.filled().is_empty() => {}
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending => {
                    ready!(this.reads.poll(cx, shut + LINGER));
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }
}
