//! A client's HTTP/2 connection: its streams are served by the task of the connection, so that they end
//! with it.
//!
//! h2 buffers what a client sends ahead of the upstream, up to the windows it was given, and what is
//! sent to a client that does not read. A stream's window is wide, for clients that are far away. What
//! a connection's streams may send ahead together grows with what the upstream takes of it, so that
//! clients whose uploads stall hold little, and the growth of all connections has a bound.

use std::future::poll_fn;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use futures_util::FutureExt as _;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version, header};
use pingora::protocols::http::v2::server::default_h2_options;
use service::seldom::Seldom;
use service::timer::LazyTimer;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};

use super::bounds::WindowGrowth;
use super::buffers::SMALL;
use super::client_connection::{ClientConnection, log_refused};
use super::client_side::ClientSide;
use super::forwarder::Forwarder;
use super::framing::{BodyLength, Fields, RequestHead, RequestLine, ResponseHead};
use super::prefixed::Prefixed;
use super::socket::Socket;
use crate::error::{Failure, Refusal};

/// How much a stream may send ahead of the upstream: with the protocol's default of 64 KiB a push over
/// a distance of 40 ms would crawl at 1.6 MB/s.
const STREAM_WINDOW: u32 = 8 << 20;
/// How much all streams of a connection may send ahead: at first, and at most.
const FIRST_WINDOW: u32 = 128 << 10;
const LAST_WINDOW: u32 = 32 << 20;
/// How much of a response waits in h2 for its client.
const SEND_BUFFER: usize = 64 << 10;
/// How many requests that can't be parsed a connection may send.
const MAX_REFUSED: usize = 32;
/// How long a client may take to see that its connection ends.
const GOODBYE: Duration = Duration::from_secs(1);

/// How long a client may take to read what was sent to it before the connection ended, and how long it may
/// say nothing meanwhile.
const LINGER: Duration = Duration::from_secs(30);
const SILENT: Duration = Duration::from_secs(2);

type Connection = h2::server::Connection<Prefixed, Bytes>;

/// Serves the streams of a connection that began with these bytes.
pub(super) async fn serve(
    forwarder: &Arc<Forwarder>,
    socket: Socket,
    first: BytesMut,
    client: ClientConnection,
) {
    let socket = Arc::new(socket);
    let io = Prefixed {
        first,
        socket: Arc::clone(&socket),
    };
    // pingora's options bound the headers and the number of streams.
    let mut options = default_h2_options();
    options
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(FIRST_WINDOW)
        .max_send_buffer_size(SEND_BUFFER);
    let handshake = timeout(forwarder.limits().header_timeout, options.handshake(io));
    match handshake.await {
        Ok(Ok(connection)) => {
            let streams = Streams::new(forwarder, client, connection);
            streams.serve().await;
            let _ = timeout(LINGER, linger(&socket)).await;
        }
        Ok(Err(error)) => tracing::debug!(%error, "HTTP/2 handshake failed"),
        Err(_) => tracing::debug!("HTTP/2 handshake timed out"),
    }
}

/// Lets a client have what was sent to it. It still says how much of it it has read, and closed at once,
/// the connection would be reset by that, and what is on its way be lost.
async fn linger(socket: &Socket) {
    socket.shut_down_writing();
    let mut said = BytesMut::with_capacity(SMALL);
    loop {
        said.clear();
        let read = poll_fn(|context| socket.poll_read(context, &mut said));
        match timeout(SILENT, read).await {
            Ok(Ok(length)) if length > 0 => {}
            _ => return,
        }
    }
}

/// The streams of a connection.
struct Streams<'f> {
    forwarder: &'f Arc<Forwarder>,
    client: ClientConnection,
    connection: Connection,
    window: Window,
    refused: usize,
}

impl<'f> Streams<'f> {
    fn new(
        forwarder: &'f Arc<Forwarder>,
        client: ClientConnection,
        connection: Connection,
    ) -> Streams<'f> {
        let window = Window {
            size: FIRST_WINDOW,
            consumed: Arc::default(),
            growth: forwarder.http2.window_growth(),
        };
        Streams {
            forwarder,
            client,
            connection,
            window,
            refused: 0,
        }
    }

    async fn serve(mut self) {
        let stopping = self.forwarder.stopping();
        let stopped = pin!(stopping.recv());
        let mut stopped = Seldom::new(stopped);
        let insisted = pin!(stopping.insisted());
        let mut insisted = Seldom::new(insisted);
        let mut is_draining = false;
        // A client that takes no notice of the end is not waited for.
        let mut is_insisted = false;
        let mut running = FuturesUnordered::new();
        let mut idle_since = Instant::now();
        loop {
            let limit = if is_insisted {
                GOODBYE
            } else {
                self.forwarder.limits().idle_timeout
            };
            tokio::select! {
                biased;
                Some(()) = running.next(), if !running.is_empty() => {
                    idle_since = Instant::now();
                }
                accepted = self.connection.accept() => match accepted {
                    Some(Ok((request, respond))) => {
                        if let Some(stream) = self.begin(request, respond) {
                            running.push(stream);
                        }
                        if self.refused >= MAX_REFUSED {
                            self.connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
                        }
                    }
                    Some(Err(_)) | None => break,
                },
                () = poll_fn(|context| stopped.poll(context, stopping.is_triggered())),
                    if !is_draining =>
                {
                    is_draining = true;
                    // First of all that no stream is accepted after the ones in flight, then which was the
                    // last (RFC 9113 §6.8): none is lost.
                    self.connection.graceful_shutdown();
                }
                () = poll_fn(|context| insisted.poll(context, stopping.is_insisted())),
                    if is_draining && !is_insisted =>
                {
                    is_insisted = true;
                    idle_since = Instant::now();
                }
                () = sleep_until(idle_since + limit), if running.is_empty() => return,
            }
            self.window.grow(&mut self.connection);
        }
        // The connection is gone: its streams find out, and end as their client's departure.
        let _ = timeout(GOODBYE, async { while running.next().await.is_some() {} }).await;
    }

    /// Begins to serve a request, unless it is refused.
    fn begin(
        &mut self,
        request: Request<RecvStream>,
        mut respond: SendResponse<Bytes>,
    ) -> Option<impl Future<Output = ()> + use<'f>> {
        let Some(permit) = self.forwarder.http2.stream() else {
            // Not one byte of it was looked at, so that the client may send it again.
            respond.send_reset(Reason::REFUSED_STREAM);
            self.forwarder.count_rejected();
            tracing::debug!("too many requests in flight: HTTP/2 stream refused");
            return None;
        };
        let (parts, body) = request.into_parts();
        let (mut head, refusal) = match request_head(parts, &body) {
            Ok(parsed) => parsed,
            Err(refusal) => {
                self.refused += 1;
                self.forwarder.count_rejected();
                log_refused(refusal);
                refuse(refusal, respond);
                return None;
            }
        };
        let busy = self.client.requests.begin();
        let client = self.client.clone();
        let consumed = Arc::clone(&self.window.consumed);
        let forwarder: &'f Arc<Forwarder> = self.forwarder;
        let serve = async move {
            let mut stream = Http2Stream::new(body, respond, consumed);
            let mut timer = LazyTimer::default();
            let settings = forwarder.settings();
            forwarder
                .forward(
                    &settings,
                    &mut head,
                    refusal,
                    &client,
                    &mut stream,
                    &mut timer,
                )
                .await;
            drop((busy, permit));
        };
        // A panic ends one stream, not those beside it.
        Some(AssertUnwindSafe(serve).catch_unwind().map(|_| ()))
    }
}

/// How much the streams of a connection may send ahead together.
struct Window {
    size: u32,
    /// What the upstream took of it since it last grew.
    consumed: Arc<AtomicU64>,
    growth: WindowGrowth,
}

impl Window {
    /// Doubles the window once as much was taken as it holds: a window that is used up in each round
    /// trip is what limits the client.
    fn grow(&mut self, connection: &mut Connection) {
        if self.size < LAST_WINDOW && self.consumed.load(Ordering::Relaxed) >= self.size.into() {
            self.consumed.store(0, Ordering::Relaxed);
            if self.growth.grow_by(self.size) {
                self.size *= 2;
                connection.set_target_window_size(self.size);
            }
        }
    }
}

/// What the framing table says of a request's pseudo-header fields and fields.
fn request_head(
    parts: http::request::Parts,
    body: &RecvStream,
) -> Result<(RequestHead, Option<Refusal>), Refusal> {
    let uri = parts.uri.into_parts();
    let target = match uri.path_and_query {
        Some(target) => target,
        // CONNECT has none (RFC 9113 §8.5).
        None if parts.method == Method::CONNECT => http::uri::PathAndQuery::from_static("/"),
        None => return Err(Refusal::Target),
    };
    // h2 drops a fragment before it can be seen.
    let is_bad = |byte: u8| byte.is_ascii_control() || byte == b' ';
    if target.as_str().bytes().any(is_bad) {
        return Err(Refusal::ControlCharacters);
    }
    if !target.as_str().is_ascii() {
        return Err(Refusal::Target);
    }
    let is_path = target.as_str().starts_with('/')
        || (target.as_str() == "*" && parts.method == Method::OPTIONS);
    if !is_path {
        return Err(Refusal::Target);
    }
    let authority = uri.authority.map(|authority| {
        // An authority has no byte that a value can't have.
        HeaderValue::from_str(authority.as_str()).map_err(|_| Refusal::Host)
    });
    let line = RequestLine {
        method: parts.method,
        target,
        authority: authority.transpose()?,
        version: Version::HTTP_2,
    };
    let mut fields = Fields::with_capacity(parts.headers.len());
    let mut name = None;
    for (next, value) in parts.headers {
        // A repeated field has its name only once.
        name = next.or(name);
        if let Some(name) = &name {
            fields.push(name.clone(), value)?;
        }
    }
    let (mut head, refusal) = line.with(fields)?;
    if head.body == BodyLength::None && !body.is_end_stream() {
        head.body = BodyLength::Chunked;
    }
    Ok((head, refusal))
}

/// Responds to a request that no exchange can begin for.
fn refuse(refusal: Refusal, mut respond: SendResponse<Bytes>) {
    let failure = Failure::Refused(refusal);
    let body = failure.body().unwrap_or_default();
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(failure.status()).unwrap_or_default();
    let headers: &mut HeaderMap = response.headers_mut();
    let json = HeaderValue::from_static("application/json");
    headers.insert(header::CONTENT_TYPE, json);
    headers.insert(header::CONTENT_LENGTH, body.len().into());
    // A client that has reset the stream needs no response.
    if let Ok(mut stream) = respond.send_response(response, false) {
        let _ = stream.send_data(body, true);
    }
}

/// A client's stream.
struct Http2Stream {
    body: RecvStream,
    /// What was read of the body and not used yet.
    piece: Bytes,
    is_whole: bool,
    respond: SendResponse<Bytes>,
    /// The response, once it has begun.
    response: Option<SendStream<Bytes>>,
    /// How much is left of a body of known length.
    left: Option<u64>,
    has_ended: bool,
    consumed: Arc<AtomicU64>,
}

impl Http2Stream {
    fn new(
        body: RecvStream,
        respond: SendResponse<Bytes>,
        consumed: Arc<AtomicU64>,
    ) -> Http2Stream {
        Http2Stream {
            is_whole: body.is_end_stream(),
            body,
            piece: Bytes::new(),
            respond,
            response: None,
            left: None,
            has_ended: false,
            consumed,
        }
    }
}

impl<'s> ClientSide<'s> for Http2Stream {
    fn poll_body(&mut self, context: &mut Context<'_>) -> Poll<Result<&[u8], Failure>> {
        while self.piece.is_empty() && !self.is_whole {
            match ready!(self.body.poll_data(context)) {
                Some(Ok(piece)) => self.piece = piece,
                Some(Err(_)) => return Poll::Ready(Err(Failure::ClientClosed)),
                None => self.is_whole = true,
            }
        }
        Poll::Ready(Ok(&self.piece))
    }

    fn consume_body(&mut self, used: usize) {
        self.piece.advance(used);
        self.consumed.fetch_add(used as u64, Ordering::Relaxed);
        // It fails for a stream that was reset, whose window is given back as a whole.
        let _ = self.body.flow_control().release_capacity(used);
    }

    fn body_source(&self) -> Option<(&'s TcpStream, u64)> {
        None
    }

    fn body_moved(&mut self, _: usize) {}

    fn body_sink(&self) -> Option<&'s TcpStream> {
        None
    }

    fn is_body_whole(&self) -> bool {
        self.is_whole && self.piece.is_empty()
    }

    fn can_body_arrive(&self, _: usize) -> bool {
        true
    }

    fn interim(&mut self, _: &ResponseHead) {
        // A client of HTTP/2 need not wait for one before its body.
    }

    fn begin_response(&mut self, head: ResponseHead) -> Result<(), Failure> {
        let mut response = Response::new(());
        *response.status_mut() = head.status;
        *response.headers_mut() = head.headers;
        self.has_ended = matches!(head.body, BodyLength::None | BodyLength::Known(0));
        self.left = match head.body {
            BodyLength::Known(length) => Some(length),
            _ => None,
        };
        let stream = self.respond.send_response(response, self.has_ended);
        self.response = Some(stream.map_err(|_| Failure::ClientClosed)?);
        Ok(())
    }

    fn poll_send(
        &mut self,
        context: &mut Context<'_>,
        piece: &[u8],
    ) -> Poll<Result<usize, Failure>> {
        let Some(stream) = &mut self.response else {
            return Poll::Ready(Err(Failure::Internal));
        };
        let mut capacity = stream.capacity();
        while capacity == 0 {
            stream.reserve_capacity(piece.len().min(SEND_BUFFER));
            capacity = match ready!(stream.poll_capacity(context)) {
                Some(Ok(capacity)) => capacity,
                Some(Err(_)) | None => return Poll::Ready(Err(Failure::ClientClosed)),
            };
        }
        let sent = capacity.min(piece.len());
        let data = Bytes::copy_from_slice(&piece[..sent]);
        self.left = self.left.map(|left| left.saturating_sub(sent as u64));
        // The stream ends with the last piece, which saves a frame.
        self.has_ended = self.left == Some(0);
        match stream.send_data(data, self.has_ended) {
            Ok(()) => Poll::Ready(Ok(sent)),
            Err(_) => Poll::Ready(Err(Failure::ClientClosed)),
        }
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        // The connection sends by itself.
        Poll::Ready(Ok(()))
    }

    fn end(&mut self) -> Result<(), Failure> {
        if let Some(stream) = &mut self.response
            && !std::mem::replace(&mut self.has_ended, true)
        {
            let ended = stream.send_data(Bytes::new(), true);
            ended.map_err(|_| Failure::ClientClosed)?;
        }
        Ok(())
    }

    fn abort(&mut self) {
        // A response that has begun is reset when it is dropped, after what was sent of it.
        if self.response.is_none() {
            self.respond.send_reset(Reason::INTERNAL_ERROR);
        }
    }

    fn poll_left(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let reset = match &mut self.response {
            Some(stream) => stream.poll_reset(context),
            None => self.respond.poll_reset(context),
        };
        reset.map(|_| ())
    }

    fn is_half_closed(&self) -> bool {
        // A stream ends with its body, and a connection that ends takes its streams with it.
        false
    }
}
