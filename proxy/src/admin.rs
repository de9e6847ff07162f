//! The proxy's own pages: metrics and probes, on every listener or on one of their own.
//!
//! No path here can be a registry's: the configuration refuses those of `/v2`.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use registry::oci::{ErrorBody, ErrorCode};
use registry::service::auth::BasicAuth;
use registry::service::listen::Listener;
use registry::service::page::Wanted;
use registry::service::shutdown::Shutdown;
use registry::service::tls::{self, Secured, Tls};
use tokio::sync::Semaphore;

use crate::aggregate::Aggregate;

/// Connections to the listener for the pages alone: scrapers and probes, nobody else. More wait.
const CONNECTIONS: usize = 64;

/// How long a scraper may take to say what it wants.
const HEADER_TIMEOUT: Duration = Duration::from_secs(15);

/// Whether the process should get traffic: false before everything listens and once it drains, and
/// while what is behind it is not known to be well.
#[derive(Debug, Default)]
pub struct Readiness {
    serving: AtomicBool,
    behind: AtomicBool,
}

impl Readiness {
    /// Says that requests can be served, or no longer.
    pub fn set(&self, ready: bool) {
        self.serving.store(ready, Ordering::Release);
    }

    /// Says whether what is behind the proxy is well.
    pub fn set_behind(&self, is_well: bool) {
        self.behind.store(is_well, Ordering::Release);
    }

    fn is_ready(&self) -> bool {
        self.serving.load(Ordering::Acquire) && self.behind.load(Ordering::Acquire)
    }
}

/// The pages of one listener.
pub struct Admin {
    /// Where the metrics are, and the page: `None` where this listener doesn't serve them.
    metrics: Option<Arc<Aggregate>>,
    path: String,
    /// Who may see them; `None`: whoever reaches the listener.
    auth: Option<BasicAuth>,
    readiness: Arc<Readiness>,
}

impl Admin {
    /// The pages of a listener, with the metrics or without, which only those who are known to
    /// `auth` may see.
    pub fn new(
        metrics: Option<Arc<Aggregate>>,
        path: String,
        auth: Option<BasicAuth>,
        readiness: Arc<Readiness>,
    ) -> Admin {
        Admin {
            metrics,
            path,
            auth,
            readiness,
        }
    }

    /// The most series of our own that the metrics can ever have, where they are served.
    pub fn max_series(&self) -> Option<usize> {
        self.metrics.as_ref().map(|metrics| metrics.max_series())
    }

    /// Whether a path is one of the proxy's own, which are neither forwarded nor counted.
    pub fn owns(&self, path: &str) -> bool {
        path == self.path || path == "/livez" || path == "/readyz"
    }

    /// Answers a request for a path that is [owned](Admin::owns).
    pub async fn answer(&self, request: &Parts) -> Response<Bytes> {
        let head = match request.method {
            Method::GET => false,
            Method::HEAD => true,
            _ => {
                return refuse(
                    StatusCode::METHOD_NOT_ALLOWED,
                    "only GET and HEAD are allowed",
                );
            }
        };
        let mut answer = match request.uri.path() {
            "/livez" => text(StatusCode::OK, "ok\n"),
            "/readyz" if self.readiness.is_ready() => text(StatusCode::OK, "ok\n"),
            "/readyz" => text(StatusCode::SERVICE_UNAVAILABLE, "not ready\n"),
            path if path == self.path => match &self.metrics {
                Some(metrics) => self.page(metrics, &request.headers).await,
                None => refuse(StatusCode::NOT_FOUND, "metrics are not served here"),
            },
            _ => refuse(StatusCode::NOT_FOUND, "there is no such page"),
        };
        if head {
            std::mem::take(answer.body_mut());
        }
        answer
    }

    async fn page(&self, metrics: &Arc<Aggregate>, headers: &HeaderMap) -> Response<Bytes> {
        if let Some(auth) = &self.auth
            && let Some(refusal) = auth.check(headers).await.refusal()
        {
            return refusal;
        }
        let scraper_waits = headers
            .get("x-prometheus-scrape-timeout-seconds")
            .and_then(|value| value.to_str().ok()?.parse().ok())
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let wanted = Wanted::of(headers);
        wanted.respond(metrics.page(wanted, scraper_waits).await)
    }
}

fn text(status: StatusCode, body: &'static str) -> Response<Bytes> {
    respond(
        status,
        "text/plain; charset=utf-8",
        Bytes::from_static(body.as_bytes()),
    )
}

fn refuse(status: StatusCode, message: &str) -> Response<Bytes> {
    let body = ErrorBody::new(ErrorCode::Unsupported, message).to_json();
    let mut answer = respond(status, "application/json", body.into());
    if status == StatusCode::METHOD_NOT_ALLOWED {
        answer
            .headers_mut()
            .insert(header::ALLOW, http::HeaderValue::from_static("GET, HEAD"));
    }
    answer
}

fn respond(status: StatusCode, content_type: &'static str, body: Bytes) -> Response<Bytes> {
    let length = body.len();
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        http::HeaderValue::from_static(content_type),
    );
    headers.insert(header::CONTENT_LENGTH, http::HeaderValue::from(length));
    answer
}

/// Serves the pages on a listener of their own until the shutdown, inside TLS where there is a
/// certificate.
pub(crate) async fn serve(
    mut listener: Listener,
    tls: Option<Tls>,
    admin: Arc<Admin>,
    mut shutdown: Shutdown,
) {
    if let Some(tls) = tls.clone() {
        tokio::spawn(tls.watch(shutdown.clone()));
    }
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let accept = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place, listener.accept().await.0)
        };
        let (place, stream) = tokio::select! {
            accepted = accept => accepted,
            () = shutdown.recv() => return,
        };
        let (tls, admin, shutdown) = (tls.clone(), Arc::clone(&admin), shutdown.clone());
        tokio::spawn(async move {
            // Whoever does not speak TLS, or HTTP, has no business here.
            if let Ok(stream) = tls::secure(tls.as_ref(), stream).await {
                converse(stream, admin, shutdown).await;
            }
            drop(place);
        });
    }
}

async fn converse(stream: Secured, admin: Arc<Admin>, mut shutdown: Shutdown) {
    let service = service_fn(move |request: Request<Incoming>| {
        let admin = Arc::clone(&admin);
        async move {
            let (head, _) = request.into_parts();
            Ok::<_, Infallible>(admin.answer(&head).await.map(Full::new))
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        // Whatever a scraper does wrong is its own loss.
        _ = connection.as_mut() => {}
        () = shutdown.recv() => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}
