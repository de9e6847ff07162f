//! The metrics listener: the page and the probes, for those who watch over the registry.

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use crate::store::fs::Presence;
use service::auth::BasicAuth;
use service::metrics::MetricsRegistry;
use service::scrape::ScrapeFormat;
use service::scrape::{EncodedExpositions, ExpositionBody};
use service::shutdown::Shutdown;

const PLAIN: &str = "text/plain; charset=utf-8";

/// The metrics page, `/livez` and `/readyz`.
pub(super) struct Pages {
    registry: MetricsRegistry,
    path: String,
    auth: Option<BasicAuth>,
    presence: Option<Presence>,
    shutdown: Shutdown,
    /// One page is made at a time.
    making: Semaphore,
    expositions: EncodedExpositions,
}

impl Pages {
    pub(super) fn new(
        registry: MetricsRegistry,
        path: String,
        auth: Option<BasicAuth>,
        presence: Option<Presence>,
        shutdown: Shutdown,
    ) -> Self {
        Self {
            registry,
            path,
            auth,
            presence,
            shutdown,
            making: Semaphore::new(1),
            expositions: EncodedExpositions::default(),
        }
    }

    /// Answers a request, whose body nobody wants.
    pub(super) async fn handle<B>(&self, request: &Request<B>) -> Response<ExpositionBody> {
        let (method, path) = (request.method(), request.uri().path());
        let is_page = path == self.path;
        let answer = match path {
            _ if !is_page && !matches!(path, "/livez" | "/readyz") => {
                text(StatusCode::NOT_FOUND, "not found\n")
            }
            _ if !matches!(*method, Method::GET | Method::HEAD) => {
                let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "method not allowed\n");
                let allow = HeaderValue::from_static("GET, HEAD");
                answer.headers_mut().insert(ALLOW, allow);
                answer
            }
            _ if is_page => self.metrics(request.headers()).await,
            "/readyz" => self.ready(),
            _ => text(StatusCode::OK, "ok\n"),
        };
        if *method == Method::HEAD {
            answer.map(|_| ExpositionBody::default())
        } else {
            answer
        }
    }

    /// A registry that is stopping ends what it is at, but is not to be sent more; and one without its
    /// data can do nothing.
    fn ready(&self) -> Response<ExpositionBody> {
        let lost = self.presence.as_ref().and_then(Presence::lost);
        if self.shutdown.is_triggered() {
            text(StatusCode::SERVICE_UNAVAILABLE, "stopping\n")
        } else if let Some(lost) = lost {
            text(StatusCode::SERVICE_UNAVAILABLE, format!("{lost}\n"))
        } else {
            text(StatusCode::OK, "ok\n")
        }
    }

    async fn metrics(&self, headers: &HeaderMap) -> Response<ExpositionBody> {
        if let Some(auth) = &self.auth
            && let Some(refusal) = auth.check(headers).await.refusal()
        {
            return refusal.map(ExpositionBody::from);
        }
        let wanted = ScrapeFormat::of(headers);
        let registry = self.registry.clone();
        let _making = self.making.acquire().await;
        let encoded =
            spawn_blocking(move || ScrapeFormat::encode(&registry.gather(), &[wanted])).await;
        match encoded.unwrap_or_default().0.pop() {
            Some((_, bytes)) => wanted.respond(self.expositions.add(bytes)),
            None => text(StatusCode::INTERNAL_SERVER_ERROR, "no page\n"),
        }
    }
}

fn text(status: StatusCode, text: impl Into<Bytes>) -> Response<ExpositionBody> {
    let text = text.into();
    let length = text.len();
    let mut response = Response::new(text.into());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(PLAIN));
    headers.insert(CONTENT_LENGTH, length.into());
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
