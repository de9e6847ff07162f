//! The metrics listener: the page and the probes, for those who watch over the registry.

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use tokio::task::spawn_blocking;

use crate::service::auth::BasicAuth;
use crate::service::exposition::Registry;
use crate::service::page::Wanted;
use crate::service::shutdown::Shutdown;

const PLAIN: &str = "text/plain; charset=utf-8";

/// The metrics page, `/livez` and `/readyz`.
pub(super) struct Pages {
    registry: Registry,
    path: String,
    auth: Option<BasicAuth>,
    shutdown: Shutdown,
}

impl Pages {
    pub(super) fn new(
        registry: Registry,
        path: String,
        auth: Option<BasicAuth>,
        shutdown: Shutdown,
    ) -> Self {
        Self {
            registry,
            path,
            auth,
            shutdown,
        }
    }

    /// Answers a request, whose body nobody wants.
    pub(super) async fn handle<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
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
            // A registry that is stopping ends what it is at, but is not to be sent more.
            "/readyz" if self.shutdown.is_triggered() => {
                text(StatusCode::SERVICE_UNAVAILABLE, "stopping\n")
            }
            _ => text(StatusCode::OK, "ok\n"),
        };
        if *method == Method::HEAD {
            answer.map(|_| Full::default())
        } else {
            answer.map(Full::new)
        }
    }

    async fn metrics(&self, headers: &HeaderMap) -> Response<Bytes> {
        if let Some(auth) = &self.auth
            && let Some(refusal) = auth.check(headers).await.refusal()
        {
            return refusal;
        }
        let wanted = Wanted::of(headers);
        let registry = self.registry.clone();
        match spawn_blocking(move || wanted.encode(&registry.gather())).await {
            Ok(page) => wanted.respond(page),
            Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "no page\n"),
        }
    }
}

fn text(status: StatusCode, text: &'static str) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from_static(text.as_bytes()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(PLAIN));
    headers.insert(CONTENT_LENGTH, text.len().into());
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
