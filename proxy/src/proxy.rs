//! The phases of a proxied request, about a line each. What they mean for the metrics is
//! [`Exchange`]'s to say, what an error means for the client [`Failure`]'s, and where a request
//! goes [`Upstream`]'s.

use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderValue, Method};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModules;
use pingora::protocols::Digest;
use pingora::proxy::{FailToProxy, ProxyHttp, Session};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType, OrErr as _, Result};

use crate::admin::Admin;
use crate::downstream::{body_moved, is_stalled, request_seen};
use crate::error::Failure;
use crate::exchange::{End, Exchange, Observer, Request};
use crate::metrics::Awaited;
use crate::upstream::Upstream;
use service::limits::Limits;

mod behind;
mod forward;
mod log;
mod request;

/// What every request needs, shared by all workers.
pub(crate) struct Proxy {
    pub(crate) upstream: Arc<Upstream>,
    /// The pages that the proxy itself answers.
    pub(crate) admin: Arc<Admin>,
    /// `None` observes nothing, at no cost.
    pub(crate) observer: Option<Observer>,
    pub(crate) limits: Limits,
    pub(crate) access_log: bool,
}

/// What is known of one request while it is served.
#[derive(Default)]
pub(crate) struct Context {
    exchange: Option<Exchange>,
    /// What the access log needs, until it has it.
    asked: Option<log::LoggedRequest>,
    request_id: Option<HeaderValue>,
    /// The request body has arrived whole.
    request_whole: bool,
    /// The upstream's answer.
    awaited: Awaited,
}

/// A request that pingora does not see to its end: the shutdown's deadline cut it, or a panic, or its
/// body stood still on HTTP/2.
impl Drop for Context {
    fn drop(&mut self) {
        let Some(exchange) = &mut self.exchange else {
            return;
        };
        if exchange.has_ended() {
            return;
        }
        let failure = match (std::thread::panicking(), is_stalled()) {
            (true, _) => Failure::Internal,
            (false, true) => Failure::ClientStalled,
            (false, false) => Failure::ShutdownDeadline,
        };
        exchange.finish(failure.end());
        if let Some(asked) = self.asked.take() {
            asked.log(exchange, self.request_id.as_ref());
        }
        log::aborted(failure, self.request_id.as_ref());
    }
}

#[async_trait]
impl ProxyHttp for Proxy {
    type CTX = Context;

    fn new_ctx(&self) -> Context {
        request_seen();
        Context::default()
    }

    /// Nothing that would change what the upstream says, such as compression.
    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    async fn early_request_filter(&self, session: &mut Session, ctx: &mut Context) -> Result<()> {
        self.bound(session);
        let head = session.req_header();
        let path = head.uri.path();
        if self.admin.owns(path) {
            return Ok(());
        }
        ctx.request_id = Some(forward::request_id(&head.headers));
        if let Some(observer) = &self.observer {
            ctx.exchange = Some(observer.begin(&asked(head)));
            ctx.asked = self.access_log.then(|| log::LoggedRequest::of(head));
        }
        request::check(head)?;
        request::to_origin_form(session)?;
        request::forget_case(session);
        Ok(())
    }

    async fn request_filter(&self, session: &mut Session, _ctx: &mut Context) -> Result<bool> {
        if !self.admin.owns(session.req_header().uri.path()) {
            return Ok(false);
        }
        let answer = self.admin.respond(session.req_header()).await;
        let (head, mut body) = answer.into_parts();
        let head = ResponseHeader::from(head);
        let empty = body.is_end_stream();
        session.write_response_header(Box::new(head), empty).await?;
        while let Some(frame) = body.frame().await {
            let frame = frame.or_err(ErrorType::WriteError, "a slow scraper")?;
            let last = body.is_end_stream();
            session
                .write_response_body(frame.into_data().ok(), last)
                .await?;
        }
        Ok(true)
    }

    async fn upstream_peer(&self, _: &mut Session, ctx: &mut Context) -> Result<Box<HttpPeer>> {
        let peer = self.upstream.peer();
        peer.inspect_err(|_| self.no_address(ctx))
    }

    fn fail_to_connect(
        &self,
        _session: &mut Session,
        _peer: &HttpPeer,
        ctx: &mut Context,
        mut error: Box<Error>,
    ) -> Box<Error> {
        self.upstream_failed(ctx, &error);
        // Nothing was sent: another try, at the next address if there is one, can do no harm. How
        // many there are is the server's to bound.
        error.set_retry(true);
        error
    }

    async fn connected_to_upstream(
        &self,
        _session: &mut Session,
        reused: bool,
        _peer: &HttpPeer,
        _fd: RawFd,
        digest: Option<&Digest>,
        _ctx: &mut Context,
    ) -> Result<()> {
        self.connected(reused, digest);
        Ok(())
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        ctx: &mut Context,
    ) -> Result<()> {
        ctx.awaited.begin();
        forward::add_headers(session, request, ctx.request_id.as_ref());
        forward::add_host(request, &self.upstream)
    }

    async fn upstream_response_filter(
        &self,
        _session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut Context,
    ) -> Result<()> {
        self.upstream_answered(ctx, response);
        Ok(())
    }

    fn error_while_proxy(
        &self,
        _peer: &HttpPeer,
        session: &mut Session,
        mut error: Box<Error>,
        ctx: &mut Context,
        reused: bool,
    ) -> Box<Error> {
        self.upstream_failed(ctx, &error);
        behind::decide_retry(session, &mut error, reused);
        error
    }

    async fn request_body_filter(
        &self,
        _session: &mut Session,
        body: &mut Option<Bytes>,
        last: bool,
        ctx: &mut Context,
    ) -> Result<()> {
        if let Some(exchange) = &mut ctx.exchange {
            exchange.request_body(body.as_deref().unwrap_or_default(), last);
        }
        ctx.request_whole |= last;
        body_moved(last);
        // pingora ends a chunked upload twice where its last piece is empty, which poisons the
        // upstream's connection: its issue 935.
        if last && body.as_ref().is_some_and(Bytes::is_empty) {
            *body = None;
        }
        Ok(())
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut Context,
    ) -> Result<()> {
        forward::localize(session, response, &self.upstream)?;
        forward::unchunk(session, response);
        if let Some(exchange) = &mut ctx.exchange
            && !response.status.is_informational()
        {
            let request = asked(session.req_header());
            exchange.response_head(&request, response.status.as_u16(), &response.headers);
        }
        Ok(())
    }

    fn response_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        last: bool,
        ctx: &mut Context,
    ) -> Result<Option<Duration>> {
        if let Some(exchange) = &mut ctx.exchange {
            exchange.response_body(body.as_deref().unwrap_or_default(), last);
            // What has been written to the client, not what is about to be.
            exchange.sent(session.body_bytes_sent() as u64);
        }
        Ok(None)
    }

    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &Error,
        ctx: &mut Context,
    ) -> FailToProxy {
        let failure = Failure::of(error, ctx.request_whole);
        let status = failure.status();
        if let Some(answer) = failure.response()
            && session
                .response_written()
                .is_none_or(|head| head.status.is_informational())
            && let body = Bytes::from(answer.to_json())
            && let Ok(head) = forward::error_head(status, body.len())
        {
            let body = if session.req_header().method == Method::HEAD {
                Bytes::new()
            } else {
                body
            };
            if let Some(exchange) = &mut ctx.exchange {
                exchange.proxy_response(status, answer.code(), body.len());
            }
            // A client that is gone by now needs no answer.
            let _ = session
                .as_downstream_mut()
                .write_error_response(head, body)
                .await;
        }
        FailToProxy {
            error_code: status,
            can_reuse_downstream: false,
        }
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, ctx: &mut Context) {
        let failure = error.map(|error| Failure::of(error, ctx.request_whole));
        if let Some(exchange) = &mut ctx.exchange {
            exchange.sent(session.body_bytes_sent() as u64);
            let unread = exchange.finish(failure.map_or(End::Complete, Failure::end));
            if let Some(unread) = unread {
                tokio::task::spawn_blocking(move || unread.count());
            }
            if let Some(asked) = ctx.asked.take() {
                asked.log(exchange, ctx.request_id.as_ref());
            }
        }
        if let (Some(failure), Some(error)) = (failure, error) {
            log::failure(failure, error, &self.upstream, ctx.request_id.as_ref());
        }
    }

    /// We say it ourselves, once, without the query string that pingora would print.
    fn suppress_error_log(&self, _: &Session, _: &Context, _: &Error) -> bool {
        true
    }
}

/// A request as its exchange wants to know it.
fn asked(head: &RequestHeader) -> Request<'_> {
    Request {
        method: head.method.as_str(),
        path: head.uri.path(),
        query: head.uri.query(),
        headers: &head.headers,
    }
}

impl Proxy {
    /// pingora's defaults let a client hold a connection, or a transfer, for ever.
    fn bound(&self, session: &mut Session) {
        let downstream = session.as_downstream_mut();
        // The connection itself bounds its idle times, without a timer for each request.
        if downstream.get_keepalive().is_some() {
            downstream.set_keepalive(Some(0));
        }
        downstream.set_read_timeout(Some(self.limits.body_stall));
        downstream.set_write_timeout(Some(self.limits.body_stall));
        downstream.set_total_drain_timeout(Some(Duration::from_secs(10)));
        // A client may send its next request before it has the answer to this one; pingora would
        // take that for an error and cut the answer.
        downstream.set_pipelining_enabled(true);
        // An answer to an upload that comes before its end (401, 413) is read by the client only
        // if the connection is drained rather than reset.
        downstream.set_close_on_response_before_downstream_finish(false);
    }
}

#[cfg(test)]
mod tests;
