//! What only the access log needs to know of a request.

use std::time::Duration;

use http::header::{AUTHORIZATION, USER_AGENT};
use http::{HeaderName, HeaderValue, Version};
use service::log::{AccessEvent, is_authorized};
use service::metrics::Label as _;
use service::trace_context::{NewTraceparent, trace_id};

use super::client_connection::ClientConnection;
use super::framing::RequestHead;
use crate::error::Failure;
use crate::exchange::Summary;
use crate::forwarded::ClientClaims;
use crate::upstream::Upstream;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// What only the access log needs to know of a request. It is made while the access log is on, and
/// boxed: each connection keeps room for what it holds.
pub(super) struct LoggedRequest {
    address: Option<HeaderValue>,
    user_agent: Option<HeaderValue>,
    /// Only the name of the user is logged, and only if that is wanted.
    credentials: Option<HeaderValue>,
    protocol: &'static str,
    is_tls: bool,
    trace: RequestTrace,
    /// How often the request was tried to be sent.
    attempts: u32,
    /// The replica that it was tried at last.
    replica: Option<usize>,
    queue: Option<Duration>,
    connect: Option<Duration>,
}

/// The trace that a request is part of.
enum RequestTrace {
    None,
    /// The client's: the value of a valid `traceparent`.
    Continued(HeaderValue),
    /// One that begins here.
    Begun(NewTraceparent),
}

/// What is known of a request from its head, and the upstream that it is for, if there is one.
#[derive(Clone, Copy)]
pub(super) struct LoggedTarget<'r> {
    pub(super) path: &'r str,
    pub(super) request_id: &'r str,
    pub(super) upstream: Option<&'r Upstream>,
}

impl LoggedRequest {
    /// Begins a trace where the client has none, if it is to.
    pub(super) fn new(
        request: &RequestHead,
        connection: &ClientConnection,
        claims: Option<&ClientClaims>,
        begins_trace: bool,
    ) -> Box<LoggedRequest> {
        let headers = &request.headers;
        Box::new(LoggedRequest {
            address: address(connection, claims),
            user_agent: headers.get(USER_AGENT).cloned(),
            credentials: headers.get(AUTHORIZATION).cloned(),
            protocol: match request.version {
                Version::HTTP_10 => "HTTP/1.0",
                Version::HTTP_2 => "HTTP/2",
                _ => "HTTP/1.1",
            },
            is_tls: connection.is_tls,
            trace: RequestTrace::of(request, begins_trace),
            attempts: 0,
            replica: None,
            queue: None,
            connect: None,
        })
    }

    /// The trace that begins with this request, if one does.
    pub(super) fn begun_trace(&self) -> Option<NewTraceparent> {
        match self.trace {
            RequestTrace::Begun(traceparent) => Some(traceparent),
            RequestTrace::None | RequestTrace::Continued(_) => None,
        }
    }

    /// The request is tried to be sent to this replica.
    pub(super) fn attempt(&mut self, replica: Option<usize>) {
        self.attempts += 1;
        self.replica = replica;
    }

    /// It waited so long for a replica.
    pub(super) fn queued(&mut self, waited: Duration) {
        self.queue = Some(self.queue.unwrap_or_default() + waited);
    }

    /// A connection was made, or could not be made, in so much time.
    pub(super) fn connecting(&mut self, took: Duration) {
        self.connect = Some(self.connect.unwrap_or_default() + took);
    }

    /// Hands the event of the request's end to the log.
    pub(super) fn log(
        &self,
        target: LoggedTarget<'_>,
        summary: &Summary,
        failure: Option<Failure>,
        log: impl FnOnce(&AccessEvent<'_>),
    ) {
        let part = |range: &Option<std::ops::Range<usize>>| target.path.get(range.clone()?);
        let replicas = target.upstream.and_then(Upstream::replicas);
        let name = |replica| replicas.and_then(|replicas| replicas.name_of(replica));
        let reason = failure.and_then(Failure::reason);
        log(&AccessEvent {
            endpoint: summary.endpoint.value(),
            repository: part(&summary.repository),
            reference: part(&summary.reference),
            method: summary.method.value(),
            path: target.path,
            protocol: self.protocol,
            is_tls: self.is_tls,
            status: summary.status,
            bytes_in: summary.received,
            bytes_out: summary.sent,
            duration: summary.duration,
            ttfb: summary.ttfb,
            queue: self.queue,
            connect: self.connect,
            retries: self.attempts.saturating_sub(1),
            client: summary.client.value(),
            user_agent: self.user_agent.as_ref().map(HeaderValue::as_bytes),
            client_address: self
                .address
                .as_ref()
                .and_then(|address| address.to_str().ok()),
            credentials: self.credentials.as_ref().map(HeaderValue::as_bytes),
            is_authorized: summary.is_upstreams && is_authorized(summary.status),
            upstream: target.upstream.map(Upstream::name),
            replica: self.replica.and_then(name),
            request_id: Some(target.request_id),
            trace_id: self.trace.id(),
            failure: failure.map(Failure::name),
            reason: reason.as_deref(),
        });
    }
}

impl RequestTrace {
    fn of(request: &RequestHead, begins: bool) -> RequestTrace {
        let mut values = request.headers.get_all(TRACEPARENT).iter();
        match (values.next(), values.next()) {
            (Some(value), None) if trace_id(value.as_bytes()).is_some() => {
                RequestTrace::Continued(value.clone())
            }
            _ if begins => RequestTrace::Begun(NewTraceparent::new(rand::random(), rand::random())),
            _ => RequestTrace::None,
        }
    }

    fn id(&self) -> Option<&str> {
        match self {
            RequestTrace::None => None,
            RequestTrace::Continued(value) => trace_id(value.as_bytes()),
            RequestTrace::Begun(value) => trace_id(value.as_bytes()),
        }
    }
}

/// The client's address: the one that a trusted peer gives, or that of the connection.
fn address(connection: &ClientConnection, claims: Option<&ClientClaims>) -> Option<HeaderValue> {
    let claimed = claims.and_then(|claims| claims.address);
    match claimed {
        Some(address) => address.to_string().try_into().ok(),
        None => connection.address.clone(),
    }
}
