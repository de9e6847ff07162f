//! Connections: accepted up to a cap, served as HTTP/1.1 or HTTP/2, drained at shutdown. At the
//! cap, an idle connection is closed for a new one ([`ConnectionCap`]).
//!
//! Bytes that are not a request never reach the handler: hyper responds with 400, or 431 if the
//! head is too large, without a body of ours, and closes the connection.

use std::convert::Infallible;
use std::error::Error;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::CONNECTION;
use http::{HeaderValue, Request, Response, Version};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::listen::{Listener, Peer};
use super::shutdown::{Drain, Shutdown, Trigger};
use super::tls::{self, Secured, Tls};

mod cap;
mod timeouts;

pub use cap::{ConnectionCap, ConnectionSlot, RequestGuard, Requests};
pub use timeouts::ConnectionTimeouts;
use timeouts::{BusyGuard, ConnectionActivity, TimedStream};

/// Connections to a metrics listener at a time: scrapers and probes, nobody else.
pub const METRICS_CONNECTIONS: usize = 64;

/// Requests at a time on one HTTP/2 connection to a metrics listener.
const METRICS_STREAMS: u32 = 8;

/// The most bytes of a request's headers.
const MAX_HEADERS: u32 = 64 * 1024;

/// The read buffer of an HTTP/1.1 connection. hyper's default grows to 400 KiB for each connection,
/// which the network rarely fills.
pub const READ_BUFFER: usize = 64 * 1024;

/// HTTP/2's windows: how much a client may send ahead of the store, for a stream and in all. Wide
/// enough to keep a fast network busy, narrow enough for many connections.
const STREAM_WINDOW: u32 = 1024 * 1024;
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;

/// How much of a response waits for an HTTP/2 client that does not read. hyper's default is 400 KiB for
/// each stream.
const SEND_BUFFER: usize = 64 * 1024;

/// The connections of a server's listeners, which share one cap.
pub struct Connections {
    cap: ConnectionCap,
    /// The most requests at a time on one HTTP/2 connection, where hyper's bound is too high.
    streams_each: Option<u32>,
    /// Room for HTTP/2 requests on all connections.
    streams: Arc<Semaphore>,
    timeouts: ConnectionTimeouts,
    shutdown: Shutdown,
    open: Drain,
    abort: (Trigger, Shutdown),
}

/// How a connection ends at a shutdown that is not insisted on.
#[derive(Default)]
struct Closing {
    /// It has carried a request of HTTP/2.
    http2: AtomicBool,
    /// The next response of HTTP/1.1 is the last one.
    after_response: AtomicBool,
}

/// A response's body that keeps its connection busy until it has been sent.
struct BusyBody<B> {
    body: B,
    busy: BusyGuard,
    http2: bool,
    _stream: Option<OwnedSemaphorePermit>,
}

impl Connections {
    /// No connections yet, of at most `cap` at a time, with at most so many HTTP/2 requests in all.
    pub fn new(
        cap: usize,
        streams: usize,
        timeouts: ConnectionTimeouts,
        shutdown: Shutdown,
    ) -> Self {
        Self {
            cap: ConnectionCap::new(cap),
            streams_each: None,
            streams: Arc::new(Semaphore::new(streams.min(Semaphore::MAX_PERMITS))),
            timeouts,
            shutdown,
            open: Drain::default(),
            abort: Shutdown::new(),
        }
    }

    /// The connections of a metrics listener.
    pub fn to_metrics(timeouts: ConnectionTimeouts, shutdown: Shutdown) -> Self {
        Self {
            streams_each: Some(METRICS_STREAMS),
            ..Self::new(
                METRICS_CONNECTIONS,
                METRICS_CONNECTIONS * METRICS_STREAMS as usize,
                timeouts,
                shutdown,
            )
        }
    }

    /// Counts the connections that are open.
    pub fn open(&self) -> Drain {
        self.open.clone()
    }

    /// Accepts and serves connections until shutdown, inside TLS where there is a certificate. At
    /// the cap, an idle connection is closed; while none is idle, clients wait in the listener's
    /// queue.
    pub async fn accept<H, F, B>(&self, mut listener: Listener, tls: Option<Tls>, handler: H)
    where
        H: Fn(Request<Incoming>, Peer) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<B>> + Send + 'static,
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let shutdown = self.shutdown.clone();
        loop {
            // Accept first, then wait for a slot: the kernel's queue absorbs a burst, and one
            // accepted connection at most waits here.
            let (stream, peer) = tokio::select! {
                () = shutdown.recv() => return,
                accepted = listener.accept() => accepted,
            };
            let slot = tokio::select! {
                () = shutdown.insisted() => return,
                slot = self.cap.admit_when_free() => slot,
            };
            // Counted before the task starts: a drain that begins in between must wait for it.
            let open = self.open.guard();
            let handler = handler.clone();
            let (builder, timeouts) = (builder(self.streams_each), self.timeouts);
            let streams = Arc::clone(&self.streams);
            let (tls, shutdown) = (tls.clone(), self.shutdown.clone());
            let abort = self.abort.1.clone();
            tokio::spawn(async move {
                let serve = async {
                    match tls::secure(tls.as_ref(), stream).await {
                        Ok(stream) => {
                            let served = (handler, peer, streams);
                            serve(stream, builder, served, &slot, timeouts, shutdown).await;
                        }
                        // Port scanners and health checks cause these: not worth a warning.
                        Err(error) => tracing::debug!(%error, "TLS handshake failed"),
                    }
                };
                // Dropping `serve` closes the socket, whatever state it is in.
                tokio::select! {
                    () = serve => {}
                    () = slot.evicted() => {}
                    () = abort.recv() => {}
                }
                // Only now: the socket's descriptor is free before a new connection takes the slot.
                drop((slot, open));
            });
        }
    }

    /// Waits until the requests in flight have ended, and closes the connections that are still
    /// open at the deadline or when the shutdown is hurried. Returns whether none had to be closed.
    pub async fn drain(&self, deadline: Duration) -> bool {
        let shutdown = self.shutdown.clone();
        let drained = self.open.wait_unhurried(deadline, &shutdown).await;
        self.abort.0.trigger();
        drained
    }
}

/// Serves one connection to its end; once shutdown begins, to the end of the requests in flight.
async fn serve<H, F, B>(
    stream: Secured,
    builder: auto::Builder<TokioExecutor>,
    (handler, peer, streams): (H, Peer, Arc<Semaphore>),
    slot: &ConnectionSlot,
    timeouts: ConnectionTimeouts,
    shutdown: Shutdown,
) where
    H: Fn(Request<Incoming>, Peer) -> F,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let activity = ConnectionActivity::new(slot.requests());
    let closing = Arc::new(Closing::default());
    let io = TokioIo::new(TimedStream::new(stream, Arc::clone(&activity), timeouts));
    let service = service_fn(|request: Request<Incoming>| {
        let busy = activity.begin();
        let http2 = request.version() == Version::HTTP_2;
        closing.http2.fetch_or(http2, Ordering::Relaxed);
        let response = handler(request, peer);
        let streams = http2.then(|| Arc::clone(&streams));
        let closing = Arc::clone(&closing);
        async move {
            // A stream for which there is no room waits here, and holds its headers at most.
            let stream = match streams {
                Some(streams) => streams.acquire_owned().await.ok(),
                None => None,
            };
            let mut response = response.await;
            if closing.after_response.load(Ordering::Relaxed) && !http2 {
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(CONNECTION, close);
            }
            Ok::<_, Infallible>(response.map(|body| BusyBody {
                body,
                busy,
                http2,
                _stream: stream,
            }))
        }
    });
    let mut connection = pin!(builder.serve_connection(io, service));
    let ending = async {
        shutdown.recv().await;
        // An HTTP/2 client is told at once, and loses nothing. One of HTTP/1.1 may be sending a request
        // just now: it is told with the next response, unless the time is short.
        if !closing.http2.load(Ordering::Relaxed) {
            closing.after_response.store(true, Ordering::Relaxed);
            shutdown.insisted().await;
        }
    };
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = ending => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        // Clients may disconnect at any time: not a fault of the server.
        tracing::debug!(error, "connection failed");
    }
}

/// `streams` bounds the requests at a time on an HTTP/2 connection, where hyper's bound is too
/// high.
fn builder(streams: Option<u32>) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    // hyper's limit would also close idle connections, and arms a timer for each request.
    // `TimedStream` has a limit for each, with one timer.
    builder
        .http1()
        .header_read_timeout(None)
        .max_buf_size(READ_BUFFER);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(MAX_HEADERS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER);
    if let Some(streams) = streams {
        builder.http2().max_concurrent_streams(streams);
    }
    builder
}

impl<B: Body<Data = Bytes> + Unpin> Body for BusyBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.get_mut();
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        // A client that stops reading over HTTP/1.1 blocks a write, which `TimedStream` sees
        // itself.
        if this.http2 && frame.is_some() {
            this.busy.produced();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
