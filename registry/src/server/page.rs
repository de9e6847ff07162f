//! The metrics listener: the page and the probes, for those who watch over the registry.

use bytes::Bytes;
use http::header::{ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;

use crate::service::exposition::{Registry, negotiate};
use crate::service::shutdown::Shutdown;

const PLAIN: &str = "text/plain; charset=utf-8";

/// `/metrics`, `/livez` and `/readyz`.
pub(super) struct Pages {
    registry: Registry,
    shutdown: Shutdown,
}

impl Pages {
    pub(super) fn new(registry: Registry, shutdown: Shutdown) -> Self {
        Self { registry, shutdown }
    }

    /// Answers a request, whose body nobody wants.
    pub(super) fn handle<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        let answer = match request.uri().path() {
            "/metrics" | "/livez" | "/readyz"
                if !matches!(*request.method(), Method::GET | Method::HEAD) =>
            {
                let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "method not allowed\n");
                let allow = HeaderValue::from_static("GET, HEAD");
                answer.headers_mut().insert(ALLOW, allow);
                answer
            }
            "/metrics" => self.metrics(request),
            // A registry that is stopping ends what it is at, but is not to be sent more.
            "/readyz" if self.shutdown.is_triggered() => {
                text(StatusCode::SERVICE_UNAVAILABLE, "stopping\n")
            }
            "/livez" | "/readyz" => text(StatusCode::OK, "ok\n"),
            _ => text(StatusCode::NOT_FOUND, "not found\n"),
        };
        if request.method() == Method::HEAD {
            leave_body_out(answer)
        } else {
            answer
        }
    }

    fn metrics<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        let accept = request.headers().get(ACCEPT);
        let format = negotiate(accept.and_then(|accept| accept.to_str().ok()));
        let mut page = String::new();
        format.write(&self.registry.gather(), &mut page);
        respond(StatusCode::OK, format.content_type(), page.into())
    }
}

fn text(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    respond(status, PLAIN, Bytes::from_static(text.as_bytes()))
}

fn respond(status: StatusCode, media_type: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let length = body.len();
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(CONTENT_LENGTH, length.into());
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn leave_body_out(response: Response<Full<Bytes>>) -> Response<Full<Bytes>> {
    response.map(|_| Full::default())
}
