//! The proxy's own pages: metrics and probes, on every listener or on one of their own.
//!
//! No path here can be a registry's: the configuration refuses those of `/v2`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use parking_lot::Mutex;
use registry::oci::{ErrorBody, ErrorCode};
use service::auth::BasicAuth;
use service::connection::{ConnectionTimeouts, Connections};
use service::listen::Listener;
use service::scrape::ExpositionBody;
use service::scrape::ScrapeFormat;
use service::shutdown::Shutdown;
use service::tls::Tls;

use crate::aggregate::Aggregate;

/// How long a scrape in flight may still take when all else has ended.
const DRAIN: Duration = Duration::from_secs(1);

/// Whether the process should get traffic: false before everything listens and once it drains, and
/// while what is behind it is not known to be well.
#[derive(Debug, Default)]
pub struct Readiness {
    serving: AtomicBool,
    /// `None` until it is known; else why what is behind the proxy can't serve, if it can't.
    behind: Mutex<Option<Result<(), String>>>,
}

impl Readiness {
    /// Says that requests can be served, or no longer.
    pub fn set(&self, ready: bool) {
        self.serving.store(ready, Ordering::Release);
    }

    /// Says whether what is behind the proxy can serve, or why not: a probe is told that much.
    pub fn set_behind(&self, state: Result<(), String>) {
        *self.behind.lock() = Some(state);
    }

    /// Fails with what a probe is told.
    fn check(&self) -> Result<(), String> {
        let not_ready = Err("not ready\n".to_owned());
        if !self.serving.load(Ordering::Acquire) {
            return not_ready;
        }
        match &*self.behind.lock() {
            None => not_ready,
            Some(Ok(())) => Ok(()),
            Some(Err(why)) => Err(format!("not ready: {why}\n")),
        }
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
    pub async fn answer(&self, request: &Parts) -> Response<ExpositionBody> {
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
            "/readyz" => match self.readiness.check() {
                Ok(()) => text(StatusCode::OK, "ok\n"),
                Err(why) => text(StatusCode::SERVICE_UNAVAILABLE, why),
            },
            path if path == self.path => match &self.metrics {
                Some(metrics) => self.page(metrics, &request.headers).await,
                None => refuse(StatusCode::NOT_FOUND, "metrics are not served here"),
            },
            _ => refuse(StatusCode::NOT_FOUND, "there is no such page"),
        };
        if head {
            *answer.body_mut() = ExpositionBody::default();
        }
        answer
    }

    async fn page(&self, metrics: &Aggregate, headers: &HeaderMap) -> Response<ExpositionBody> {
        if let Some(auth) = &self.auth
            && let Some(refusal) = auth.check(headers).await.refusal()
        {
            return refusal.map(ExpositionBody::from);
        }
        let scraper_waits = headers
            .get("x-prometheus-scrape-timeout-seconds")
            .and_then(|value| value.to_str().ok()?.parse().ok())
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let wanted = ScrapeFormat::of(headers);
        match metrics.scrape(wanted, scraper_waits).await {
            Some(exposition) => wanted.respond(exposition),
            None => text(StatusCode::SERVICE_UNAVAILABLE, "no metrics\n"),
        }
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<ExpositionBody> {
    respond(status, "text/plain; charset=utf-8", body.into())
}

fn refuse(status: StatusCode, message: &str) -> Response<ExpositionBody> {
    let body = ErrorBody::new(ErrorCode::Unsupported, message).to_json();
    let mut answer = respond(status, "application/json", body.into());
    if status == StatusCode::METHOD_NOT_ALLOWED {
        answer
            .headers_mut()
            .insert(header::ALLOW, http::HeaderValue::from_static("GET, HEAD"));
    }
    answer
}

fn respond(
    status: StatusCode,
    content_type: &'static str,
    body: Bytes,
) -> Response<ExpositionBody> {
    let length = body.len();
    let mut answer = Response::new(body.into());
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
    listener: Listener,
    tls: Option<Tls>,
    admin: Arc<Admin>,
    timeouts: ConnectionTimeouts,
    shutdown: Shutdown,
) {
    if let Some(tls) = tls.clone() {
        tokio::spawn(tls.watch(shutdown.clone()));
    }
    let connections = Connections::to_metrics(timeouts, shutdown);
    let handler = move |request: Request<Incoming>| {
        let admin = Arc::clone(&admin);
        async move {
            let (head, _) = request.into_parts();
            admin.answer(&head).await
        }
    };
    connections.accept(listener, tls, handler).await;
    connections.drain(DRAIN).await;
}
