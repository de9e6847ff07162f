//! Responses of the proxy's own: errors, the metrics, the status page, the probes.

use std::future::poll_fn;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, Request, Uri, header};
use http_body_util::BodyExt as _;
use service::admin::LIVE;
use service::timer::LazyTimer;
use tokio::time::Instant;

use super::client_side::ClientSide;
use super::framing::{BodyLength, RequestHead, ResponseHead};
use crate::admin::Admin;
use crate::cors::CrossOrigin;
use crate::error::{Failure, Refusal};

/// A response to a client that must keep reading.
pub(super) struct OwnResponse<'c, C> {
    client: &'c mut C,
    timer: &'c mut LazyTimer,
    /// How long the client may take nothing.
    stall: Duration,
}

impl<'c, C> OwnResponse<'c, C> {
    pub(super) fn new(
        client: &'c mut C,
        timer: &'c mut LazyTimer,
        stall: Duration,
    ) -> OwnResponse<'c, C> {
        OwnResponse {
            client,
            timer,
            stall,
        }
    }

    /// Sends it whole.
    pub(super) async fn send<'s>(mut self, head: ResponseHead, body: &[u8]) -> Result<(), Failure>
    where
        C: ClientSide<'s>,
    {
        self.client.begin_response(head)?;
        self.piece(body).await?;
        self.end().await
    }

    /// Serves the metrics, the status page and the probes.
    pub(super) async fn serve_admin<'s>(
        mut self,
        admin: &Admin,
        request: &RequestHead,
    ) -> Result<(), Failure>
    where
        C: ClientSide<'s>,
    {
        let (mut parts, ()) = Request::new(()).into_parts();
        parts.method = request.method.clone();
        parts.uri = if is_root_probe(request) {
            Uri::from_static(LIVE)
        } else {
            request.target.clone().into()
        };
        parts.headers = request.headers.clone();
        if let Some(host) = &request.host {
            // The head has it apart from its other fields.
            parts.headers.insert(header::HOST, host.clone());
        }
        let (parts, mut body) = admin.respond(&parts).await.into_parts();
        let is_bodiless = request.method == Method::HEAD;
        let length = match http_body::Body::size_hint(&body).exact() {
            _ if is_bodiless => BodyLength::None,
            Some(length) => BodyLength::Known(length),
            None => BodyLength::Chunked,
        };
        let head = ResponseHead::own(parts.status, parts.headers, length);
        self.client.begin_response(head)?;
        if !is_bodiless {
            while let Some(frame) = body.frame().await {
                let Ok(frame) = frame else {
                    return Err(Failure::Internal);
                };
                if let Ok(piece) = frame.into_data() {
                    self.piece(&piece).await?;
                }
            }
        }
        self.end().await
    }

    async fn piece<'s>(&mut self, mut bytes: &[u8]) -> Result<(), Failure>
    where
        C: ClientSide<'s>,
    {
        while !bytes.is_empty() {
            let mut since = None;
            let sent = poll_fn(|context| {
                let sent = self.client.poll_send(context, bytes);
                self.within(sent, context, &mut since)
            });
            bytes = &bytes[sent.await?..];
        }
        Ok(())
    }

    async fn end<'s>(mut self) -> Result<(), Failure>
    where
        C: ClientSide<'s>,
    {
        self.client.end()?;
        let mut since = None;
        poll_fn(|context| {
            let flushed = self.client.poll_flush(context);
            self.within(flushed, context, &mut since)
        })
        .await
    }

    /// Gives a client up that takes nothing for too long.
    fn within<T>(
        &mut self,
        sent: Poll<Result<T, Failure>>,
        context: &mut Context<'_>,
        since: &mut Option<Instant>,
    ) -> Poll<Result<T, Failure>> {
        if sent.is_ready() {
            return sent;
        }
        let since = *since.get_or_insert_with(Instant::now);
        ready!(self.timer.poll(context, since + self.stall));
        Poll::Ready(Err(Failure::ClientNotReading))
    }
}

/// The headers of a failure's response, whose body has so many bytes.
pub(super) fn error_headers(
    failure: Failure,
    length: usize,
    cors: Option<&CrossOrigin<'_>>,
) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(3);
    let json = HeaderValue::from_static("application/json");
    headers.insert(header::CONTENT_TYPE, json);
    headers.insert(header::CONTENT_LENGTH, length.into());
    if matches!(
        failure,
        Failure::Refused(Refusal::Connect | Refusal::ReadOnly)
    ) {
        headers.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    if failure == Failure::Overloaded {
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    if let Some(cors) = cors {
        // So that a user interface can show why.
        cors.apply(&mut headers);
    }
    headers
}

/// Whether a request for `/` gets a response of the proxy's own: a probe, since many balancers can probe
/// nothing else, and a browser where the status page is there. Any other gets what the upstream has.
pub(super) fn is_for_root(request: &RequestHead, admin: &Admin) -> bool {
    is_root(request) && (admin.has_page() || !accepts_html(request))
}

fn is_root_probe(request: &RequestHead) -> bool {
    is_root(request) && !accepts_html(request)
}

fn is_root(request: &RequestHead) -> bool {
    request.target.path() == "/" && matches!(request.method, Method::GET | Method::HEAD)
}

/// Whether it comes from a browser that wants a page.
fn accepts_html(request: &RequestHead) -> bool {
    let mut all = request.headers.get_all(header::ACCEPT).iter();
    all.any(|accept| has_html(&String::from_utf8_lossy(accept.as_bytes())))
}

/// Whether `text/html` is among what is accepted, and not with `q=0` (RFC 9110, section 12.4.2).
fn has_html(accept: &str) -> bool {
    accept.to_ascii_lowercase().split(',').any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let is_html = parts.next() == Some("text/html");
        let quality = parts.find_map(|part| part.strip_prefix("q=")?.parse::<f32>().ok());
        is_html && quality.is_none_or(|quality| quality > 0.0)
    })
}

#[cfg(test)]
mod tests {
    use super::has_html;

    #[test]
    fn a_page_is_wanted_where_html_is_accepted_at_all() {
        for accept in [
            "text/html",
            "TEXT/HTML; q=0.1",
            "application/json, text/html;charset=utf-8;q=1",
            "text/html;q=x",
        ] {
            assert!(has_html(accept), "{accept}");
        }
        for accept in [
            "",
            "*/*",
            "text/html;q=0",
            "text/html; level=1; q=0.000",
            "application/xhtml+xml",
            "text/htmlx",
        ] {
            assert!(!has_html(accept), "{accept}");
        }
    }
}
