//! Clients' connections: accepting them, and what pingora reads and writes them through.
//!
//! pingora's own listeners are not used. Accepting here is what lets us cap and count connections,
//! survive a shortage of file descriptors, know each bound address before anything is served, and
//! give every worker its share of the connections. [`App`] stands before pingora's proxy for the
//! one thing that the proxy has no phase for: requests refused before any phase ran.

use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use pingora::apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream, ServerApp};
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v2::server::H2Options;
use pingora::proxy::{HttpProxy, ProxyHttp};
use pingora::server::ShutdownWatch;
use service::connection::ConnectionCap;
use service::listen::{Listener, Peer};
use service::shutdown::{Drain, Shutdown, Trigger};
use tokio::task::JoinSet;

use crate::metrics::{ConnectionMetrics, ConnectionRefusal, HttpMetrics};

mod connection;
mod counted;
mod wait;

use self::connection::Connection;
use self::counted::Counted;
pub(crate) use self::wait::Patience;
use self::wait::{Signals, Wait};

/// How long what is cut off may take to be gone: no longer than it takes to be told.
const CUT: Duration = Duration::from_secs(1);

tokio::task_local! {
    /// What happens on the HTTP/1.1 connection that this task serves.
    static SIGNALS: Arc<Signals>;
}

/// Says that the request which this task serves has reached the proxy's phases.
pub(crate) fn request_seen() {
    let _ = SIGNALS.try_with(|signals| signals.begin());
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

    /// A connection was closed because there were as many as are allowed.
    fn count_over_limit(&self) {
        if let Some(metrics) = &self.connections {
            metrics.rejected.inc(ConnectionRefusal::Limit);
        }
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
        let _request = connection::requests(&session).map(|requests| requests.begin());
        let _guard = self.streams.guard();
        let cut = self.cut.1.clone();
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

/// Accepts connections until the shutdown, each in a task of its own. At the `cap`, an idle one is
/// closed for the new one; while there is none the new one is closed at once, so that those that are
/// served keep what they need.
///
/// Returns when the listener is closed, with the connections that are left: whoever drops them cuts
/// them off. `connections` tells when the last of them has ended.
pub(crate) async fn accept<P: ProxyHttp<CTX: Send + Sync> + Send + Sync + 'static>(
    mut listener: Listener,
    app: Arc<App<P>>,
    connections: Drain,
    cap: ConnectionCap,
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
        let admitted = tokio::select! {
            admitted = cap.admit() => admitted,
            _ = stop.wait_for(|stopping| *stopping) => break,
        };
        let Some(slot) = admitted else {
            app.count_over_limit();
            continue;
        };
        let counted = Counted::new(app.connections.clone());
        let guard = connections.guard();
        let app = Arc::clone(&app);
        let shutdown = shutdown.clone();
        serving.spawn(async move {
            let client = match &peer {
                Peer::Tcp(address) => Some(address.ip()),
                Peer::Unix => None,
            };
            let signals = Arc::new(Signals::of_client(client, slot.requests()));
            let wait = Wait::new(patience);
            let connection =
                Connection::new(stream, peer, Arc::clone(&signals), wait, (counted, guard));
            let served = app.process_new(Box::new(connection), &shutdown);
            let served = SIGNALS.scope(Arc::clone(&signals), served);
            // pingora takes a new connection for one at work, and would wait for its first request.
            let silent = async {
                let mut stop = shutdown.clone();
                let _ = stop.wait_for(|stopping| *stopping).await;
                if signals.has_spoken() {
                    pending::<()>().await;
                }
            };
            tokio::select! {
                biased;
                _ = served => {}
                () = silent => {}
                () = slot.evicted() => app.count_over_limit(),
            }
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

#[cfg(test)]
mod tests;
