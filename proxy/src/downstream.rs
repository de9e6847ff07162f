//! Clients' connections: accepting them, and what pingora reads and writes them through.
//!
//! pingora's own listeners are not used. Accepting here is what lets us cap and count connections,
//! survive a shortage of file descriptors, know each bound address before anything is served, and
//! give every worker its share of the connections. [`App`] stands before pingora's proxy for the
//! one thing that the proxy has no phase for: requests refused before any phase ran.

use std::future::poll_fn;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use http::HeaderValue;
use pingora::apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream, ServerApp};
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v2::server::H2Options;
use pingora::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown as ShutdownIo, SocketDigest,
    Ssl, TimingDigest, UniqueID, UniqueIDType, raw_connect::ProxyDigest,
};
use pingora::proxy::{HttpProxy, ProxyHttp};
use pingora::server::ShutdownWatch;
use registry::service::listen::{Listener, Peer, Stream};
use registry::service::shutdown::{Drain, DrainGuard, Shutdown, Trigger};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufWriter, ReadBuf};
use tokio::task::JoinSet;

use crate::error::Failure;
use crate::metrics::{ConnectionMetrics, ConnectionRefusal, HttpMetrics};

mod counted;
mod wait;

use self::counted::Counted;
pub(crate) use self::wait::Patience;
use self::wait::{Signals, Wait};

/// Enough for the headers and the body of a small answer to leave in one write.
const WRITE_BUFFER: usize = 4 << 10;

/// How long what is cut off may take to be gone: no longer than it takes to be told.
const CUT: Duration = Duration::from_secs(1);

/// The first bytes of an HTTP/2 connection, RFC 9113 §3.4.
const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

tokio::task_local! {
    /// What happens on the HTTP/1.1 connection that this task serves.
    static SIGNALS: Arc<Signals>;
}

/// Says that the request which this task serves has reached the proxy's phases.
pub(crate) fn request_seen() {
    let _ = SIGNALS.try_with(|signals| signals.see());
}

/// Says that a piece of the body has come of the request which this task serves.
pub(crate) fn body_moved(last: bool) {
    let _ = SIGNALS.try_with(|signals| signals.hear(last));
}

/// Whether the request which this task serves was given up, because its body stood still.
pub(crate) fn is_stalled() -> bool {
    SIGNALS
        .try_with(|signals| signals.is_stalled())
        .unwrap_or(false)
}

/// Whether the request line came without control characters, which pingora shows to nobody.
pub(crate) fn is_clean() -> bool {
    SIGNALS
        .try_with(|signals| signals.is_clean())
        .unwrap_or(true)
}

/// The address of the client whose HTTP/1.1 connection this task serves, if it has one.
pub(crate) fn client() -> Option<HeaderValue> {
    SIGNALS.try_with(|signals| signals.client()).ok().flatten()
}

/// The proxy, and before it the count of the requests that it refuses to look at.
pub(crate) struct App<P> {
    proxy: Arc<HttpProxy<P>>,
    metrics: Option<Arc<HttpMetrics>>,
    connections: Option<Arc<ConnectionMetrics>>,
    /// HTTP/2 streams, whose tasks are pingora's, and when to cut them.
    streams: Drain,
    cut: (Trigger, Shutdown),
    body_stall: Duration,
}

impl<P> App<P> {
    pub(crate) fn new(
        proxy: HttpProxy<P>,
        metrics: Option<Arc<HttpMetrics>>,
        connections: Option<Arc<ConnectionMetrics>>,
        body_stall: Duration,
    ) -> App<P> {
        App {
            proxy: Arc::new(proxy),
            metrics,
            connections,
            streams: Drain::default(),
            cut: Shutdown::new(),
            body_stall,
        }
    }

    /// Ends every HTTP/2 stream that is left, and returns once they have, as soon as may be.
    pub(crate) async fn cut_streams(&self) {
        self.cut.0.trigger();
        self.streams.wait(CUT).await;
    }

    fn count_rejected(&self) {
        if let Some(metrics) = &self.metrics {
            metrics.rejected.inc(());
        }
    }
}

impl<P: ProxyHttp<CTX: Send + Sync> + Send + Sync + 'static> App<P> {
    /// Serves one HTTP/2 stream, which has a task of its own. Whatever gets here was parsed, and the
    /// proxy refuses nothing but CONNECT.
    async fn serve_stream(&self, session: ServerSession, has_body: bool, shutdown: &ShutdownWatch) {
        let signals = Arc::new(Signals::default());
        let _guard = self.streams.guard();
        let mut cut = self.cut.1.clone();
        let served = self.proxy.process_new_http(session, shutdown);
        let served = SIGNALS.scope(Arc::clone(&signals), served);
        tokio::select! {
            _ = served => {}
            () = cut.recv() => {}
            () = signals.stall(self.body_stall), if has_body => {}
        }
        if !signals.is_seen() {
            self.count_rejected();
        }
    }
}

/// What `async_trait` makes of an asynchronous method.
type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

// Written out, so that the future of a request over HTTP/1.1 is pingora's own: another around it
// would be an allocation, and move the session, for each request.
impl<P: ProxyHttp<CTX: Send + Sync> + Send + Sync + 'static> HttpServerApp for App<P> {
    fn process_new_http<'a, 'b, 'c>(
        self: &'a Arc<Self>,
        mut session: ServerSession,
        shutdown: &'b ShutdownWatch,
    ) -> Boxed<'c, Option<ReusedHttpStream>>
    where
        'a: 'c,
        'b: 'c,
        Self: 'c,
    {
        if session.is_http2() {
            let has_body = !session.is_body_empty();
            return Box::pin(async move {
                self.serve_stream(session, has_body, shutdown).await;
                None
            });
        }
        let _ = SIGNALS.try_with(|signals| signals.ready());
        self.proxy.process_new_http(session, shutdown)
    }

    fn h2_options(&self) -> Option<H2Options> {
        self.proxy.h2_options()
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        self.proxy.server_options()
    }

    fn http_cleanup<'a, 'b>(&'a self) -> Boxed<'b, ()>
    where
        'a: 'b,
        Self: 'b,
    {
        self.proxy.http_cleanup()
    }
}

/// Accepts connections until the shutdown, each in a task of its own, at most `limit` at a time:
/// more are closed at once, so that those that are served keep what they need.
///
/// Returns when the listener is closed, with the connections that are left: whoever drops them cuts
/// them off. `connections` tells when the last of them has ended.
pub(crate) async fn accept<P: ProxyHttp<CTX: Send + Sync> + Send + Sync + 'static>(
    mut listener: Listener,
    app: Arc<App<P>>,
    connections: Drain,
    limit: usize,
    patience: Patience,
    shutdown: ShutdownWatch,
) -> JoinSet<()> {
    let mut stop = shutdown.clone();
    let mut serving = JoinSet::new();
    loop {
        let (stream, peer) = tokio::select! {
            accepted = listener.accept() => accepted,
            // One that has ended is forgotten; one that panicked has said so.
            Some(_) = serving.join_next() => continue,
            _ = stop.wait_for(|stopping| *stopping) => break,
        };
        if connections.count() >= limit {
            if let Some(metrics) = &app.connections {
                metrics.rejected.inc(ConnectionRefusal::Limit);
            }
            continue;
        }
        let counted = Counted::new(app.connections.clone());
        let guard = connections.guard();
        let app = Arc::clone(&app);
        let shutdown = shutdown.clone();
        serving.spawn(async move {
            let client = match &peer {
                Peer::Tcp(address) => Some(address.ip()),
                Peer::Unix => None,
            };
            let signals = Arc::new(Signals::of_client(client));
            let wait = Wait::new(patience);
            let connection =
                Connection::new(stream, peer, Arc::clone(&signals), wait, (counted, guard));
            let served = app.process_new(Box::new(connection), &shutdown);
            SIGNALS.scope(Arc::clone(&signals), served).await;
            // A request that is refused is its connection's last.
            if !signals.is_seen() && signals.is_answered() {
                app.count_rejected();
            }
        });
    }
    drop(listener);
    // Idle connections are told only once nobody can become a new one.
    app.http_cleanup().await;
    serving
}

/// A client's connection as pingora sees it.
#[derive(Debug)]
struct Connection {
    io: BufWriter<Stream>,
    /// Bytes that were read ahead to tell HTTP/2 from HTTP/1.1, and how many of them are consumed.
    ahead: Vec<u8>,
    consumed: usize,
    digest: Arc<SocketDigest>,
    signals: Arc<Signals>,
    wait: Wait,
    counted: Counted,
    _guard: DrainGuard,
}

impl Connection {
    fn new(
        stream: Stream,
        peer: Peer,
        signals: Arc<Signals>,
        wait: Wait,
        (counted, guard): (Counted, DrainGuard),
    ) -> Connection {
        let digest = SocketDigest::from_raw_fd(fd(&stream));
        // Known already: else each request would ask the kernel.
        let address = match peer {
            Peer::Tcp(address) => Some(address.into()),
            Peer::Unix => None,
        };
        // The cell was made a line ago: it is empty.
        let _ = digest.peer_addr.set(address);
        Connection {
            io: BufWriter::with_capacity(WRITE_BUFFER, stream),
            ahead: Vec::new(),
            consumed: 0,
            digest: Arc::new(digest),
            signals,
            wait,
            counted,
            _guard: guard,
        }
    }

    /// Reads from the client, who has no more to say once it has taken too long to say it.
    fn poll_client(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // pingora flushes an answer of a known length at its end only. Whoever comes to read has nothing
        // to write for now, and an upstream that pauses must not hold back what it sent before. What
        // can't be written now is told by the next write.
        if !self.io.buffer().is_empty() {
            let _ = Pin::new(&mut self.io).poll_flush(context);
        }
        let before = buffer.filled().len();
        if let Poll::Ready(read) = Pin::new(self.io.get_mut()).poll_read(context, buffer) {
            self.wait.read(&self.signals, &buffer.filled()[before..]);
            return Poll::Ready(read);
        }
        ready!(self.wait.poll(&self.signals, context));
        if self.wait.is_for_headers() {
            self.counted.timed_out();
        }
        Poll::Ready(Ok(()))
    }
}

/// What ends a connection does not end it in silence. A request that panics is answered if nothing was
/// said yet; of an answer that breaks off, the client gets what there was.
impl Drop for Connection {
    fn drop(&mut self) {
        let panicked = std::thread::panicking();
        let last = if panicked && self.signals.is_seen() && !self.signals.is_answered() {
            Failure::Internal.whole_answer()
        } else {
            self.io.buffer().to_vec()
        };
        if last.is_empty() {
            return;
        }
        // Nothing may wait here. So little fits into the buffer of a socket that is not written to.
        let _ = match self.io.get_ref() {
            Stream::Tcp(stream) => stream.try_write(&last),
            Stream::Unix(stream) => stream.try_write(&last),
        };
    }
}

fn fd(stream: &Stream) -> RawFd {
    match stream {
        Stream::Tcp(stream) => stream.as_raw_fd(),
        Stream::Unix(stream) => stream.as_raw_fd(),
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.consumed < self.ahead.len() {
            let ahead = &self.ahead[self.consumed..];
            let taken = ahead.len().min(buffer.remaining());
            buffer.put_slice(&ahead[..taken]);
            self.consumed += taken;
            if self.consumed == self.ahead.len() {
                self.ahead = Vec::new();
                self.consumed = 0;
            }
            return Poll::Ready(Ok(()));
        }
        self.poll_client(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.io).poll_write(context, bytes));
        self.signals.answer();
        Poll::Ready(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.io).poll_write_vectored(context, bytes));
        self.signals.answer();
        Poll::Ready(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

#[async_trait]
impl Peek for Connection {
    /// Reads ahead no further than the bytes can still be what the caller hopes for: a short
    /// HTTP/1.1 request must not wait for bytes that will never come.
    async fn try_peek(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        while self.ahead.len() < buffer.len() && H2_PREFACE.starts_with(&self.ahead) {
            let mut chunk = [0; H2_PREFACE.len()];
            let wanted = buffer.len() - self.ahead.len();
            let wanted = wanted.min(chunk.len());
            let mut chunk = ReadBuf::new(&mut chunk[..wanted]);
            poll_fn(|context| self.poll_client(context, &mut chunk)).await?;
            if chunk.filled().is_empty() {
                break;
            }
            self.ahead.extend_from_slice(chunk.filled());
        }
        if self.ahead == H2_PREFACE {
            self.wait.waive();
            // It is refused by frames, if at all.
            self.signals.see();
        }
        let known = self.ahead.len().min(buffer.len());
        buffer[..known].copy_from_slice(&self.ahead[..known]);
        Ok(true)
    }
}

#[async_trait]
impl ShutdownIo for Connection {
    async fn shutdown(&mut self) {
        // The peer may be gone already, which is what we want of it.
        let _ = AsyncWriteExt::shutdown(self).await;
    }
}

impl UniqueID for Connection {
    fn id(&self) -> UniqueIDType {
        fd(self.io.get_ref())
    }
}

impl Ssl for Connection {}

impl GetTimingDigest for Connection {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for Connection {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
    }
}

impl GetSocketDigest for Connection {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        Some(Arc::clone(&self.digest))
    }
}

#[cfg(test)]
mod tests;
