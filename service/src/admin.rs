//! The metrics endpoint, the status page and the probes of a server, on a listener of their own or
//! beside others.
//!
//! Deliberately not here: where an exposition comes from ([`Scrape`]), and what a refusal looks
//! like to a registry's client ([`Refuse`]).

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use super::auth::BasicAuth;
use super::connection::{ConnectionTimeouts, Connections};
use super::listen::{BindError, Inheritance, ListenAddr, Listener};
use super::metrics::MetricsRegistry;
use super::scrape::{EncodedExposition, EncodedExpositions, ExpositionBody, ScrapeFormat};
use super::shutdown::Shutdown;
use super::tls::Tls;

mod status_page;

pub use self::status_page::{StatusPage, StatusPageFields, StatusPageListeners};

/// How long a scrape in flight may still take when everything else has ended.
const DRAIN: Duration = Duration::from_secs(1);

/// The path of the probe that says whether the process runs.
pub const LIVE: &str = "/livez";
const READY: &str = super::health::READY;
const PLAIN: &str = "text/plain; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";
/// Where the status page is.
const ROOT: &str = "/";

/// What makes the exposition.
pub trait Scrape: Send + Sync + 'static {
    /// The exposition in a format. A scraper may tell how long it waits. `None` where there is no
    /// exposition, because the process ends or encoding failed.
    fn scrape(
        &self,
        format: ScrapeFormat,
        timeout: Option<Duration>,
    ) -> impl Future<Output = Option<Arc<EncodedExposition>>> + Send;
}

/// Makes the exposition of the process's own families.
pub struct OwnFamilies {
    registry: MetricsRegistry,
    /// One exposition is made at a time, so that many scrapers take no more memory than one.
    making: Semaphore,
    expositions: EncodedExpositions,
}

/// Whether the process should get traffic: not before everything listens, not once it drains, and
/// not while what it depends on is unhealthy.
#[derive(Debug, Default)]
pub struct Readiness {
    serving: AtomicBool,
    /// `None` until the first result.
    health: Mutex<Option<Result<(), String>>>,
}

/// Makes the Content-Type and the body of a refusal.
pub type Refuse = fn(StatusCode, &'static str) -> (&'static str, Bytes);

/// The metrics endpoint, the status page and the probes of one listener.
pub struct AdminEndpoints<S> {
    /// `None` where this listener does not serve the metrics.
    metrics: Option<Arc<S>>,
    path: String,
    /// Who may scrape; `None`: everybody who reaches the listener.
    auth: Option<BasicAuth>,
    /// `None` where this listener does not serve it.
    page: Option<Arc<StatusPage>>,
    readiness: Arc<Readiness>,
    refuse: Refuse,
}

/// A bound listener for metrics and probes alone.
pub struct AdminListener<S> {
    listener: Listener,
    tls: Option<Tls>,
    endpoints: SharedEndpoints<S>,
}

/// The endpoints of a listener that serves, which a reload replaces.
pub type SharedEndpoints<S> = Arc<ArcSwap<AdminEndpoints<S>>>;

impl OwnFamilies {
    /// Makes the exposition of the families of `registry`.
    pub fn new(registry: MetricsRegistry) -> Self {
        Self {
            registry,
            making: Semaphore::new(1),
            expositions: EncodedExpositions::default(),
        }
    }
}

impl Scrape for OwnFamilies {
    async fn scrape(
        &self,
        format: ScrapeFormat,
        _: Option<Duration>,
    ) -> Option<Arc<EncodedExposition>> {
        let registry = self.registry.clone();
        // Always a permit: the semaphore is never closed.
        let _making = self.making.acquire().await;
        // Gathering and compression take a while: neither may hold up a worker that serves.
        let encode = move || ScrapeFormat::encode(&registry.gather(), &[format]);
        let (mut encoded, _) = spawn_blocking(encode).await.ok()?;
        let (_, bytes) = encoded.pop()?;
        Some(self.expositions.add(bytes))
    }
}

impl Readiness {
    /// Sets whether requests can be served.
    pub fn set_serving(&self, is_serving: bool) {
        self.serving.store(is_serving, Ordering::Release);
    }

    /// Sets whether what the process depends on is healthy, or the reason why it is not, which a
    /// readiness probe gets.
    pub fn set_health(&self, health: Result<(), String>) {
        *self.health.lock() = Some(health);
    }

    /// Fails with the body of the probe's response.
    fn check(&self) -> Result<(), String> {
        if !self.serving.load(Ordering::Acquire) {
            return Err("not ready\n".to_owned());
        }
        match &*self.health.lock() {
            None => Err("not ready\n".to_owned()),
            Some(Ok(())) => Ok(()),
            Some(Err(reason)) => Err(format!("not ready: {reason}\n")),
        }
    }
}

/// A refusal as plain text.
pub fn refuse_in_text(_: StatusCode, message: &'static str) -> (&'static str, Bytes) {
    (PLAIN, format!("{message}\n").into())
}

impl<S: Scrape> AdminEndpoints<S> {
    /// The endpoints of a listener, with the metrics at `path` or without, which only those who
    /// know the password of `auth` may scrape.
    pub fn new(
        metrics: Option<Arc<S>>,
        path: String,
        auth: Option<BasicAuth>,
        readiness: Arc<Readiness>,
        refuse: Refuse,
    ) -> Self {
        Self {
            metrics,
            path,
            auth,
            page: None,
            readiness,
            refuse,
        }
    }

    /// The same with a status page at `/`, for those who may scrape.
    #[must_use]
    pub fn with_page(self, page: Option<Arc<StatusPage>>) -> Self {
        Self { page, ..self }
    }

    /// The same with the metrics at another path, which others may scrape, and without a page.
    #[must_use]
    pub fn with(&self, path: String, auth: Option<BasicAuth>) -> Self {
        let metrics = self.metrics.clone();
        Self::new(
            metrics,
            path,
            auth,
            Arc::clone(&self.readiness),
            self.refuse,
        )
    }

    /// Whether `/` is the status page.
    pub fn has_page(&self) -> bool {
        self.page.is_some()
    }

    /// Whether a path is one of these endpoints, other than the status page. The configuration sees to
    /// it that none is a registry's.
    pub fn owns(&self, path: &str) -> bool {
        path == self.path || matches!(path, LIVE | READY)
    }

    /// Responds to a request. Its body is not read.
    pub async fn respond(&self, request: &Parts) -> Response<ExpositionBody> {
        let path = request.uri.path();
        let is_ours = self.owns(path) || (path == ROOT && self.has_page());
        let is_allowed = matches!(request.method, Method::GET | Method::HEAD);
        let mut response = match path {
            _ if !is_ours => self.refuse(StatusCode::NOT_FOUND, "not found"),
            _ if !is_allowed => self.refuse(
                StatusCode::METHOD_NOT_ALLOWED,
                "only GET and HEAD are allowed",
            ),
            LIVE => text(StatusCode::OK, "ok\n"),
            READY => match self.readiness.check() {
                Ok(()) => text(StatusCode::OK, "ok\n"),
                Err(reason) => text(StatusCode::SERVICE_UNAVAILABLE, reason),
            },
            ROOT => self.visit(request).await,
            _ => match &self.metrics {
                Some(metrics) => self.scrape(metrics.as_ref(), &request.headers).await,
                None => self.refuse(StatusCode::NOT_FOUND, "metrics are not served here"),
            },
        };
        // HEAD gets the headers that GET would get, Content-Length among them (RFC 9110, section
        // 9.3.2).
        if request.method == Method::HEAD {
            *response.body_mut() = ExpositionBody::default();
        }
        response
    }

    /// The response to somebody who does not know the password, where there is one.
    async fn refuse_stranger(&self, headers: &HeaderMap) -> Option<Response<ExpositionBody>> {
        let verdict = self.auth.as_ref()?.check(headers).await;
        Some(verdict.refusal()?.map(ExpositionBody::from))
    }

    /// The status page.
    async fn visit(&self, request: &Parts) -> Response<ExpositionBody> {
        let Some(page) = &self.page else {
            return self.refuse(StatusCode::NOT_FOUND, "not found");
        };
        if let Some(refusal) = self.refuse_stranger(&request.headers).await {
            return refusal;
        }
        if self.auth.is_none() && !page.permits(request) {
            return text(StatusCode::FORBIDDEN, status_page::WRONG_HOST);
        }
        let mut response = respond(StatusCode::OK, HTML, page.html());
        response.headers_mut().extend(page.headers());
        response
    }

    async fn scrape(&self, metrics: &S, headers: &HeaderMap) -> Response<ExpositionBody> {
        // Before anything is gathered: a stranger must not cause that work.
        if let Some(refusal) = self.refuse_stranger(headers).await {
            return refusal;
        }
        // Not trusted: NaN, a negative and a huge number fail here, where `from_secs_f64` would
        // panic.
        let timeout = headers
            .get("x-prometheus-scrape-timeout-seconds")
            .and_then(|value| value.to_str().ok()?.parse().ok())
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let format = ScrapeFormat::of(headers);
        match metrics.scrape(format, timeout).await {
            Some(exposition) => format.respond(exposition),
            None => text(StatusCode::SERVICE_UNAVAILABLE, "no metrics\n"),
        }
    }

    fn refuse(&self, status: StatusCode, message: &'static str) -> Response<ExpositionBody> {
        let (content_type, body) = (self.refuse)(status, message);
        let mut response = respond(status, content_type, body);
        // A 405 response must have this header (RFC 9110, section 15.5.6).
        if status == StatusCode::METHOD_NOT_ALLOWED {
            let allow = HeaderValue::from_static("GET, HEAD");
            response.headers_mut().insert(ALLOW, allow);
        }
        response
    }
}

fn text(status: StatusCode, text: impl Into<Bytes>) -> Response<ExpositionBody> {
    respond(status, PLAIN, text.into())
}

fn respond(
    status: StatusCode,
    content_type: &'static str,
    body: Bytes,
) -> Response<ExpositionBody> {
    let length = body.len();
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CONTENT_LENGTH, length.into());
    // A cached probe would tell of a process that was ready once.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

impl<S: Scrape> AdminListener<S> {
    /// Listens at the address of `metrics.listen` for these endpoints. With `tls` it serves HTTPS.
    pub async fn bind(
        inheritance: &Inheritance,
        address: &ListenAddr,
        tls: Option<Tls>,
        endpoints: AdminEndpoints<S>,
    ) -> Result<Self, BindError> {
        Ok(Self {
            listener: inheritance.listen(address, "metrics.listen").await?,
            tls,
            endpoints: Arc::new(ArcSwap::from_pointee(endpoints)),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> &ListenAddr {
        self.listener.address()
    }

    /// The certificates, where it serves HTTPS.
    pub fn tls(&self) -> Option<&Tls> {
        self.tls.as_ref()
    }

    /// The endpoints, to replace them while they are served.
    pub fn endpoints(&self) -> SharedEndpoints<S> {
        Arc::clone(&self.endpoints)
    }

    /// Serves the endpoints until the shutdown, and the scrapes in flight for a second more.
    pub async fn serve(self, timeouts: ConnectionTimeouts, shutdown: Shutdown) {
        if let Some(tls) = self.tls.clone() {
            tokio::spawn(tls.watch(shutdown.clone()));
        }
        let connections = Connections::to_metrics(timeouts, shutdown);
        let endpoints = self.endpoints;
        let handler = move |request: Request<Incoming>, _| {
            let endpoints = endpoints.load_full();
            async move {
                let (head, _) = request.into_parts();
                endpoints.respond(&head).await
            }
        };
        connections.accept(self.listener, self.tls, handler).await;
        connections.drain(DRAIN).await;
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    fn endpoints(readiness: &Arc<Readiness>) -> AdminEndpoints<OwnFamilies> {
        let families = Arc::new(OwnFamilies::new(MetricsRegistry::new("test_")));
        let path = "/metrics".to_owned();
        let readiness = Arc::clone(readiness);
        AdminEndpoints::new(Some(families), path, None, readiness, refuse_in_text)
    }

    async fn respond_to(
        endpoints: &AdminEndpoints<OwnFamilies>,
        method: Method,
        path: &str,
    ) -> (u16, String) {
        let request = Request::builder().method(method).uri(path);
        let (head, ()) = request.body(()).unwrap().into_parts();
        let response = endpoints.respond(&head).await;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn a_process_is_ready_while_it_serves_and_its_dependency_is_healthy() {
        let readiness = Arc::default();
        let endpoints = endpoints(&readiness);
        let probe = || respond_to(&endpoints, Method::GET, READY);
        readiness.set_serving(true);
        assert_eq!(probe().await, (503, "not ready\n".to_owned()));
        readiness.set_health(Ok(()));
        assert_eq!(probe().await, (200, "ok\n".to_owned()));
        readiness.set_health(Err("the disk is gone".to_owned()));
        let reason = "not ready: the disk is gone\n";
        assert_eq!(probe().await, (503, reason.to_owned()));
        readiness.set_health(Ok(()));
        readiness.set_serving(false);
        assert_eq!(probe().await.0, 503);
        assert_eq!(respond_to(&endpoints, Method::GET, LIVE).await.0, 200);
    }

    #[tokio::test]
    async fn other_methods_and_paths_are_refused_and_a_head_has_no_body() {
        let endpoints = endpoints(&Arc::default());
        assert_eq!(respond_to(&endpoints, Method::POST, LIVE).await.0, 405);
        assert_eq!(respond_to(&endpoints, Method::GET, "/v2/").await.0, 404);
        let head = respond_to(&endpoints, Method::HEAD, LIVE).await;
        assert_eq!(head, (200, String::new()));
        assert_eq!(respond_to(&endpoints, Method::GET, "/metrics").await.0, 200);
    }
}
