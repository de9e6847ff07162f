//! A client's connection from its first byte to its last, whichever version of HTTP it speaks.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use service::seldom::Seldom;
use service::timer::LazyTimer;
use tokio::time::timeout;

use super::client_connection::{ClientConnection, log_refused};
use super::forwarder::Forwarder;
use super::http1::{Http1, Next};
use super::http2;
use super::socket::Socket;

/// How long a client that is still sending may take to read a response that ends its connection.
const LINGER: Duration = Duration::from_secs(10);

/// How the HTTP/1.1 part of a connection ended.
enum Ended {
    Closed,
    /// Within a response.
    Cut,
    /// It speaks HTTP/2. These bytes are the first of it.
    Http2(BytesMut),
}

/// Serves the requests of a connection, until the client or the proxy ends it. `first` was read of it
/// already. `timed_out` is called
/// if a request's head does not arrive in time.
pub(crate) async fn serve(
    forwarder: &Arc<Forwarder>,
    socket: Socket,
    first: BytesMut,
    client: ClientConnection,
    timed_out: impl FnOnce(),
) {
    let ended = {
        let is_draining = AtomicBool::new(false);
        let stopping = forwarder.stopping();
        let stopped = pin!(stopping.recv());
        let mut stopped = Seldom::new(stopped);
        let insisted = pin!(stopping.insisted());
        let mut insisted = Seldom::new(insisted);
        let connection = Http1::new(&socket, first, forwarder.head_timeouts(), &is_draining);
        let mut served = pin!(serve_http1(
            forwarder,
            connection,
            &client,
            &is_draining,
            timed_out
        ));
        let mut closes_idle = false;
        poll_fn(|context| {
            if let std::task::Poll::Ready(ended) = served.as_mut().poll(context) {
                return std::task::Poll::Ready(ended);
            }
            if !is_draining.load(Ordering::Relaxed)
                && stopped.poll(context, stopping.is_triggered()).is_ready()
            {
                is_draining.store(true, Ordering::Relaxed);
            }
            if !is_draining.load(Ordering::Relaxed) {
                return std::task::Poll::Pending;
            }
            // A connection between two requests, or before its first one, ends at once. After a takeover
            // there is time: its client may be sending a request just now, and is told with the response.
            let is_due = forwarder.closes_idle();
            if !closes_idle && insisted.poll(context, is_due).is_ready() {
                closes_idle = true;
            }
            if closes_idle && !client.requests.is_busy() {
                return std::task::Poll::Ready(Ended::Closed);
            }
            std::task::Poll::Pending
        })
        .await
    };
    match ended {
        Ended::Http2(first) => http2::serve(forwarder, socket, first, client).await,
        Ended::Closed => socket.announce_end(),
        Ended::Cut => {}
    }
}

async fn serve_http1(
    forwarder: &Forwarder,
    mut connection: Http1<'_>,
    client: &ClientConnection,
    is_draining: &AtomicBool,
    timed_out: impl FnOnce(),
) -> Ended {
    let mut timer = LazyTimer::default();
    let mut settings = forwarder.cached_settings();
    loop {
        let requests = &client.requests;
        let next = poll_fn(|context| {
            connection.poll_next(context, &mut timer, |now| requests.set_idle(now))
        });
        match next.await {
            Next::Request(mut head, refusal) => {
                requests.set_busy();
                forwarder
                    .forward(
                        settings.load(),
                        &mut head,
                        refusal,
                        client,
                        &mut connection,
                        &mut timer,
                    )
                    .await;
                if !connection.finish() {
                    break;
                }
                if is_draining.load(Ordering::Relaxed) && forwarder.closes_idle() {
                    return Ended::Closed;
                }
            }
            Next::Refused(refusal) => {
                connection.refuse(refusal);
                forwarder.count_rejected();
                log_refused(refusal);
                break;
            }
            Next::Http2(first) => return Ended::Http2(first),
            Next::TimedOut => {
                timed_out();
                return Ended::Closed;
            }
            Next::Idle | Next::Closed => return Ended::Closed,
        }
    }
    if connection.is_aborted() {
        return Ended::Cut;
    }
    if !connection.must_linger() {
        return Ended::Closed;
    }
    let _ = timeout(LINGER, poll_fn(|context| connection.poll_linger(context))).await;
    Ended::Closed
}
