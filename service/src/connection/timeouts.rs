//! Time limits of a connection, kept where its bytes pass.
//!
//! hyper cannot tell that a client has stopped reading a response, nor an idle connection from one
//! whose headers arrive byte by byte. This stream sees every wait. A timer is armed when a read or
//! a write has to wait, and the deadline is checked when the timer fires, so a request on a busy
//! connection arms no timer.
//!
//! The counters are relaxed, though HTTP/2 streams update them from tasks of their own: no other
//! memory depends on them, and limits are seconds long, so a count seen a moment late is no harm.

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

/// How long a closed connection is still read. Closing while a client is sending makes its kernel
/// reset the connection and discard the response that it has not read yet (RFC 9112, section 9.6).
const LINGER: Duration = Duration::from_secs(2);

/// The first bytes of an HTTP/2 client (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2";

/// The time limits of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionTimeouts {
    /// From a request's first byte to the end of its headers.
    pub header: Duration,
    /// Between requests.
    pub idle: Duration,
    /// For a client to take the next bytes of a response.
    pub stall: Duration,
}

/// The requests of a connection, as far as its time limits depend on them.
#[derive(Debug)]
pub(super) struct ConnectionActivity {
    opened: Instant,
    /// Requests whose response has not ended.
    requests: Requests,
    /// Requests that have begun.
    begun: AtomicU64,
    /// Responses that are being sent over HTTP/2.
    sending: AtomicUsize,
    /// When one of these responses last produced bytes, in milliseconds after `opened`.
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
    /// Since when a write waits for the client.
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
    /// The response produces bytes to send over HTTP/2. A client that stops reading one stream need
    /// not block the connection: it is noticed because these calls stop.
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

    /// When a connection that receives nothing is closed; `None` while a request is in flight,
    /// whose client has nothing to send.
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
        // HTTP/2 frames between requests are pings and settings, not the start of a head; and what
        // arrives during a request is its body, or pipelined.
        if self.http2 || self.activity.requests.is_busy() {
            return;
        }
        let begun = self.activity.begun.load(Ordering::Relaxed);
        if self.head.is_none_or(|(_, before)| before != begun) {
            self.head = Some((Instant::now(), begun));
        }
    }

    /// Returns a write's outcome, or a timeout if the client has read nothing for too long.
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
        // While a request is in flight there is no deadline. There may be one later, and hyper need
        // not poll again before it: so check again when the earliest one could have passed.
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
                // End of stream, as if the client had closed: hyper then closes without a response.
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
            // A flush that is done does not prove that the client has read anything.
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
        // Read and discard: bytes left in the socket's buffer would make the kernel send a reset.
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
