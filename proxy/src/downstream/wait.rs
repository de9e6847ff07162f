//! How long a connection waits for a client to say what it wants.
//!
//! pingora bounds each read of a request's headers, so a byte now and then would hold a connection
//! for ever; here the whole of them has one deadline. Reading a body, and writing, are pingora's to
//! bound, and so is an HTTP/2 connection: its frames say nothing here of where requests begin.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::HeaderValue;
use service::connection::Requests;
use service::timer::LazyTimer;
use tokio::time::Instant;

/// The waits that a connection may cost between requests.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// From accepting the connection, or from a later request's first byte, to the end of the
    /// request's headers.
    pub(crate) header: Duration,
    /// From the end of a request to the first byte of the next.
    pub(crate) idle: Duration,
}

/// What the parts that serve one connection tell one another.
#[derive(Debug, Default)]
pub(super) struct Signals {
    /// The client has sent something, ever.
    spoken: AtomicBool,
    /// The current request got as far as the proxy's phases.
    seen: AtomicBool,
    /// Something was written in answer to the current request.
    answered: AtomicBool,
    /// How many requests have ended.
    ended: AtomicUsize,
    /// The request line has control characters, which pingora would escape and pass on. Its
    /// connection does not outlive it.
    unclean: AtomicBool,
    /// How many pieces of the request's body have come, which only HTTP/2 is asked for.
    pieces: AtomicUsize,
    /// The request's body is whole.
    whole: AtomicBool,
    /// The client was given up, because its body stood still.
    stalled: AtomicBool,
    /// The client's address as a header's value, written out once for all of its requests.
    client: Option<HeaderValue>,
    /// The connection's requests, where more than this one are its own.
    requests: Option<Requests>,
}

impl Signals {
    /// Of a connection from this client, if it has an address.
    pub(super) fn of_client(client: Option<IpAddr>, requests: Requests) -> Signals {
        // An address prints as visible ASCII.
        let client = client.and_then(|client| client.to_canonical().to_string().try_into().ok());
        Signals {
            client,
            requests: Some(requests),
            ..Signals::default()
        }
    }

    pub(super) fn client(&self) -> Option<HeaderValue> {
        self.client.clone()
    }

    pub(super) fn has_spoken(&self) -> bool {
        self.spoken.load(Ordering::Relaxed)
    }

    /// The connection is ready for a request: its first, or one after another.
    pub(super) fn ready(&self) {
        if self.seen.swap(false, Ordering::Relaxed) {
            self.ended.fetch_add(1, Ordering::Relaxed);
        }
        self.answered.store(false, Ordering::Relaxed);
    }

    /// The connection's requests.
    pub(super) fn requests(&self) -> Option<&Requests> {
        self.requests.as_ref()
    }

    /// The request has reached the proxy's phases: its connection is not idle.
    pub(super) fn begin(&self) {
        self.see();
        if let Some(requests) = &self.requests {
            requests.set_busy();
        }
    }

    /// Nothing is there of the next request, or not all of its head.
    fn idle(&self, now: Instant) {
        if let Some(requests) = &self.requests {
            requests.set_idle(now);
        }
    }

    /// Whoever serves the connection need not look at the request.
    pub(super) fn see(&self) {
        self.seen.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_seen(&self) -> bool {
        self.seen.load(Ordering::Relaxed)
    }

    pub(super) fn is_clean(&self) -> bool {
        !self.unclean.load(Ordering::Relaxed)
    }

    /// Something is written to the client.
    pub(super) fn answer(&self) {
        self.answered.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_answered(&self) -> bool {
        self.answered.load(Ordering::Relaxed)
    }

    /// A piece of the request's body has come.
    pub(super) fn hear(&self, last: bool) {
        self.pieces.fetch_add(1, Ordering::Relaxed);
        self.whole.fetch_or(last, Ordering::Relaxed);
    }

    pub(super) fn is_stalled(&self) -> bool {
        self.stalled.load(Ordering::Relaxed)
    }

    /// Returns once the body has stood still for twice the `limit`, which is taken for the client's
    /// fault. An upstream that takes nothing is not told from a client that sends nothing.
    ///
    /// pingora bounds the reading of a body on HTTP/1.1 alone.
    pub(super) async fn stall(&self, limit: Duration) {
        let mut pieces = 0;
        let mut still = 0;
        while still < 2 {
            tokio::time::sleep(limit).await;
            if self.whole.load(Ordering::Relaxed) {
                std::future::pending::<()>().await;
            }
            let now = self.pieces.load(Ordering::Relaxed);
            still = if now == pieces { still + 1 } else { 0 };
            pieces = now;
        }
        self.stalled.store(true, Ordering::Relaxed);
    }
}

/// The wait for the next request's headers.
///
/// The clock is read, and the timer armed, only when there is nothing to read: a request whose
/// headers come at once costs neither.
#[derive(Debug)]
pub(super) struct Wait {
    patience: Patience,
    /// The request that is waited for, by the number of those before it.
    number: usize,
    /// Its first byte is there. A new connection is not idle: its client came to say something.
    begun: bool,
    /// How much of its first line is there.
    line: Line,
    deadline: Option<Instant>,
    timer: LazyTimer,
    endless: bool,
}

/// A request line, of which empty ones before it are no part (RFC 9112 §2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    Empty,
    Begun,
    Whole,
}

impl Wait {
    pub(super) fn new(patience: Patience) -> Wait {
        Wait {
            patience,
            number: 0,
            begun: true,
            line: Line::Empty,
            deadline: None,
            timer: LazyTimer::default(),
            endless: false,
        }
    }

    /// The connection speaks HTTP/2, of which nothing is known here.
    pub(super) fn waive(&mut self) {
        self.endless = true;
        self.timer.disarm();
    }

    /// Whether it is for headers that are due, rather than for a request that may never come.
    pub(super) fn is_for_headers(&self) -> bool {
        self.begun
    }

    /// Bytes came.
    pub(super) fn read(&mut self, signals: &Signals, bytes: &[u8]) {
        signals.spoken.store(true, Ordering::Relaxed);
        if !self.is_on(signals) {
            return;
        }
        if !self.begun {
            self.begun = true;
            self.deadline = None;
        }
        if self.line != Line::Whole {
            self.read_line(signals, bytes);
        }
    }

    /// Looks through what is there of the request line, and of empty lines before it.
    fn read_line(&mut self, signals: &Signals, bytes: &[u8]) {
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, is_whole) = match line.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (line, false),
            };
            // The end of a line, or the half of it.
            let text = text.strip_suffix(b"\r").unwrap_or(text);
            if text.iter().any(u8::is_ascii_control) {
                signals.unclean.store(true, Ordering::Relaxed);
            }
            if !text.is_empty() {
                self.line = Line::Begun;
            }
            if is_whole && self.line == Line::Begun {
                self.line = Line::Whole;
                return;
            }
        }
    }

    /// Ready once the client has taken too long; must be asked when there is nothing to read.
    pub(super) fn poll(&mut self, signals: &Signals, context: &mut Context<'_>) -> Poll<()> {
        if !self.is_on(signals) {
            // pingora reads anew for the next request, and so comes back here.
            return Poll::Pending;
        }
        let limit = if self.begun {
            self.patience.header
        } else {
            self.patience.idle
        };
        let deadline = *self.deadline.get_or_insert_with(|| {
            let now = Instant::now();
            signals.idle(now);
            now + limit
        });
        self.timer.poll(context, deadline)
    }

    /// Whether headers are waited for; a request at work has no deadline here.
    fn is_on(&mut self, signals: &Signals) -> bool {
        if self.endless || signals.is_seen() {
            return false;
        }
        let ended = signals.ended.load(Ordering::Relaxed);
        if ended != self.number {
            self.number = ended;
            self.begun = false;
            self.line = Line::Empty;
            self.deadline = None;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    const NEVER: Duration = Duration::from_hours(1);
    const AT_ONCE: Duration = Duration::from_millis(1);

    fn wait(header: Duration, idle: Duration) -> (Wait, Signals) {
        (Wait::new(Patience { header, idle }), Signals::default())
    }

    async fn is_pending(wait: &mut Wait, signals: &Signals) -> bool {
        poll_fn(|context| Poll::Ready(wait.poll(signals, context).is_pending())).await
    }

    async fn end(wait: &mut Wait, signals: &Signals) {
        poll_fn(|context| wait.poll(signals, context)).await;
    }

    #[tokio::test]
    async fn a_silent_connection_ends() {
        let (mut wait, signals) = wait(AT_ONCE, NEVER);
        signals.ready();
        end(&mut wait, &signals).await;
    }

    #[tokio::test]
    async fn bytes_that_drip_move_no_deadline() {
        let (mut wait, signals) = wait(NEVER, NEVER);
        assert!(is_pending(&mut wait, &signals).await);
        let deadline = wait.deadline;
        wait.read(&signals, b"G");
        assert!(is_pending(&mut wait, &signals).await);
        assert_eq!(wait.deadline, deadline);
    }

    #[tokio::test]
    async fn a_request_at_work_has_no_deadline() {
        let (mut wait, signals) = wait(Duration::ZERO, Duration::ZERO);
        signals.see();
        assert!(is_pending(&mut wait, &signals).await);
        assert_eq!(wait.deadline, None);
    }

    #[tokio::test]
    async fn between_requests_the_idle_limit_holds_until_the_first_byte() {
        let (mut wait, signals) = wait(AT_ONCE, NEVER);
        wait.read(&signals, b"GET / HTTP/1.1\r\n\r\n");
        signals.see();
        signals.ready();
        assert!(is_pending(&mut wait, &signals).await);
        wait.read(&signals, b"G");
        end(&mut wait, &signals).await;
    }

    #[tokio::test]
    async fn an_idle_connection_ends_even_where_headers_had_longer() {
        let (mut wait, signals) = wait(NEVER, AT_ONCE);
        assert!(is_pending(&mut wait, &signals).await);
        signals.see();
        signals.ready();
        end(&mut wait, &signals).await;
    }

    #[tokio::test]
    async fn one_timer_serves_every_request() {
        let (mut wait, signals) = wait(NEVER, NEVER);
        assert!(is_pending(&mut wait, &signals).await);
        let armed = wait.timer.armed();
        assert!(armed.is_some());
        for _ in 0..3 {
            signals.see();
            signals.ready();
            assert!(is_pending(&mut wait, &signals).await);
        }
        assert_eq!(wait.timer.armed(), armed);
    }

    #[test]
    fn control_characters_are_seen_in_the_request_line_and_nowhere_else() {
        let is_clean = |pieces: &[&[u8]]| {
            let (mut wait, signals) = wait(NEVER, NEVER);
            for piece in pieces {
                wait.read(&signals, piece);
            }
            signals.is_clean()
        };
        for clean in [
            &[&b"GET /v2/ HTTP/1.1\r\nX: \t\x01\r\n\r\n"[..]][..],
            &[b"GET /v2/ HTTP/1.1\r", b"\nHost: \x01"],
            &[b"\r\n", b"GET ", b"/v2/\xc3\xa9 HTTP/1.1\n", b"\x01"],
        ] {
            assert!(is_clean(clean), "{clean:?}");
        }
        for unclean in [
            &[&b"GET /v2/?a=\x01 HTTP/1.1\r\n"[..]][..],
            &[b"GET /v2/?a=", b"\x00 HTTP/1.1\r\n"],
            &[b"GET /v2/?a=\tb HTTP/1.1\r\n"],
            &[b"GET /v2/?a=\rb HTTP/1.1\r\n"],
            &[b"\r\nGET /v2/\x7f HTTP/1.1\r\n"],
        ] {
            assert!(!is_clean(unclean), "{unclean:?}");
        }
    }

    #[tokio::test]
    async fn a_body_that_stands_still_is_told_from_one_that_moves_or_is_whole() {
        const LIMIT: Duration = Duration::from_millis(10);
        let signals = Signals::default();
        signals.hear(false);
        signals.stall(LIMIT).await;
        assert!(signals.is_stalled());
        for last in [false, true] {
            let signals = Signals::default();
            let moving = async {
                for _ in 0..20 {
                    signals.hear(last);
                    tokio::time::sleep(LIMIT / 2).await;
                }
            };
            tokio::select! {
                biased;
                () = signals.stall(LIMIT) => panic!("it moves, or is whole: {last}"),
                () = moving => {}
            }
            assert!(!signals.is_stalled());
        }
    }

    #[tokio::test]
    async fn http2_is_left_alone() {
        let (mut wait, signals) = wait(Duration::ZERO, Duration::ZERO);
        wait.waive();
        assert!(is_pending(&mut wait, &signals).await);
    }
}
