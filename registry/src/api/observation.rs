//! Observes one request. It is recorded when its response's last byte is sent, or when it is aborted.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use http::header::USER_AGENT;
use http::request::Parts;
use http::{HeaderName, HeaderValue, StatusCode, Version};

use crate::metrics::http::Http;
use crate::metrics::http::Recording;
use crate::metrics::label::{CLIENT_CLOSED_REQUEST, Client, Method, Pair};
use crate::oci::Route;
use crate::store::fs::PullTimes;
use service::listen::Peer;
use service::log::{
    AccessEvent, AccessLog, MAX_REFERENCE, MAX_REPOSITORY, MAX_USER_AGENT, cut, request_id,
};
use service::metrics::Label;
use service::trace_context::trace_id;

/// Where requests are recorded.
#[derive(Clone, Debug, Default)]
pub struct Recorders {
    /// The request metrics, if there are any.
    pub metrics: Option<Arc<Http>>,
    /// The access log, if requests may be in it.
    pub access_log: Option<AccessLog>,
    /// Where pulls are remembered, if the store does.
    pub pulls: Option<Arc<PullTimes>>,
}

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The longest path that is kept for the log.
const MAX_PATH: usize = 2048;

/// The observation of one request. Dropping it records the request: so an aborted request, whose future
/// hyper drops, is counted like any other.
#[derive(Debug)]
pub(super) struct Observation {
    recording: Option<Recording>,
    /// Boxed: without an access log, an observation stays small.
    access: Option<Box<AccessRecord>>,
}

/// The request's line in the access log, which dropping it writes. Texts are cut to the logged length
/// at once, because the record lives as long as the request.
struct AccessRecord {
    log: AccessLog,
    started: Instant,
    responded: Option<(StatusCode, Instant)>,
    is_whole: bool,
    endpoint: &'static str,
    method: &'static str,
    client: &'static str,
    protocol: &'static str,
    path: Box<str>,
    repository: Option<Box<str>>,
    reference: Option<Box<str>>,
    user_agent: Option<Box<[u8]>>,
    address: Option<IpAddr>,
    request_id: Option<Box<str>>,
    trace_id: Option<Box<str>>,
    received: u64,
    sent: u64,
}

impl Observation {
    /// Begins with a request's headers.
    pub(super) fn begin(
        recorders: &Recorders,
        head: &Parts,
        route: &Route<'_>,
        peer: Option<Peer>,
    ) -> Self {
        let method = Method::of(head.method.as_str());
        let recording = recorders.metrics.as_ref();
        let log = recorders.access_log.as_ref().filter(|log| log.is_on());
        Self {
            recording: recording.map(|http| http.begin(Pair::of(route.endpoint, method))),
            access: log.map(|log| Box::new(AccessRecord::new(log, head, route, peer))),
        }
    }

    /// Sets how many bytes of the request's body were received.
    pub(super) fn received(&mut self, bytes: u64) {
        if let Some(access) = &mut self.access {
            access.received = bytes;
        }
    }

    /// Notes that a response begins, with this status.
    pub(super) fn responded(&mut self, status: StatusCode) {
        if let Some(recording) = &mut self.recording {
            recording.responded(status);
        }
        if let Some(access) = &mut self.access {
            // Timed apart from the end: the body of a blob may take minutes after this.
            access.responded = Some((status, Instant::now()));
        }
    }

    /// All bytes of the response's body were handed to hyper.
    pub(super) fn sent_whole(&mut self) {
        if let Some(access) = &mut self.access {
            access.is_whole = true;
        }
    }

    /// Adds bytes of the response's body that were handed to hyper.
    pub(super) fn sent(&mut self, bytes: usize) {
        if let Some(access) = &mut self.access {
            access.sent += bytes as u64;
        }
    }
}

impl AccessRecord {
    fn new(log: &AccessLog, head: &Parts, route: &Route<'_>, peer: Option<Peer>) -> Self {
        let header = |name| head.headers.get(name).map(HeaderValue::as_bytes);
        let agent = head.headers.get(USER_AGENT);
        let family = agent.and_then(|agent| agent.to_str().ok());
        let agent = agent.map(HeaderValue::as_bytes);
        // Other identifiers, of any length and characters, do not belong in a log.
        let id = header(X_REQUEST_ID).and_then(request_id);
        Self {
            log: log.clone(),
            started: Instant::now(),
            responded: None,
            is_whole: false,
            endpoint: route.endpoint.as_str(),
            method: Method::of(head.method.as_str()).value(),
            client: Client::of(family.unwrap_or_default()).value(),
            protocol: match head.version {
                Version::HTTP_10 => "HTTP/1.0",
                Version::HTTP_2 => "HTTP/2",
                _ => "HTTP/1.1",
            },
            path: cut(head.uri.path(), MAX_PATH).into(),
            repository: route
                .repository
                .map(|name| cut(name, MAX_REPOSITORY).into()),
            reference: route
                .reference()
                .map(|name| cut(name, MAX_REFERENCE).into()),
            // One byte more than is logged shows that there was more.
            user_agent: agent.map(|agent| agent[..agent.len().min(MAX_USER_AGENT + 4)].into()),
            address: peer.and_then(|peer| match peer {
                Peer::Tcp(address) => Some(address.ip()),
                Peer::Unix => None,
            }),
            request_id: id.map(Box::from),
            trace_id: header(TRACEPARENT).and_then(trace_id).map(Box::from),
            received: 0,
            sent: 0,
        }
    }

    /// Why the request failed, if it did; its response's status says the rest.
    fn failure(&self) -> Option<&'static str> {
        match self.responded {
            // Dropped before a response began: the client closed the connection.
            None => Some("client_closed"),
            Some(_) if !self.is_whole => Some("aborted"),
            Some(_) => None,
        }
    }

    /// Hands the event with what is known so far to the log.
    fn log(&self, log: impl FnOnce(&AccessEvent<'_>)) {
        // As the proxy writes it: an IPv4 address that came as an IPv6 one is itself.
        let address = self.address.map(|ip| ip.to_canonical().to_string());
        log(&AccessEvent {
            client_address: address.as_deref(),
            ..self.event()
        });
    }

    /// The event with what is known so far.
    fn event(&self) -> AccessEvent<'_> {
        let since = |at: Instant| at.duration_since(self.started);
        let status = self.responded.map(|(status, _)| status.as_u16());
        AccessEvent {
            endpoint: self.endpoint,
            repository: self.repository.as_deref(),
            reference: self.reference.as_deref(),
            method: self.method,
            path: &self.path,
            protocol: self.protocol,
            status: status.unwrap_or(CLIENT_CLOSED_REQUEST),
            bytes_in: self.received,
            bytes_out: self.sent,
            duration: self.started.elapsed(),
            ttfb: self.responded.map(|(_, at)| since(at)),
            client: self.client,
            user_agent: self.user_agent.as_deref(),
            request_id: self.request_id.as_deref(),
            trace_id: self.trace_id.as_deref(),
            failure: self.failure(),
            ..AccessEvent::default()
        }
    }
}

impl Drop for AccessRecord {
    fn drop(&mut self) {
        self.log(|event| self.log.log(event));
    }
}

impl fmt::Debug for AccessRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessRecord").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::Mutex;

    use http::Request;
    use http::request::Builder;
    use serde_json::Value;
    use service::log::LogConfig;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The line of a request.
    fn logged(request: Builder, observe: impl FnOnce(&mut Observation)) -> Value {
        let lines = Lines::default();
        let log = AccessLog::to(&LogConfig::default(), lines.clone()).unwrap();
        let recorders = Recorders {
            metrics: None,
            access_log: Some(log.clone()),
            pulls: None,
        };
        let (head, ()) = request.body(()).unwrap().into_parts();
        let route = Route::parse(head.uri.path());
        let peer = Peer::Tcp("[::ffff:192.0.2.7]:1".parse().unwrap());
        let mut observation = Observation::begin(&recorders, &head, &route, Some(peer));
        observe(&mut observation);
        drop(observation);
        log.flush();
        let lines = lines.0.lock().unwrap();
        serde_json::from_slice(&lines).unwrap()
    }

    #[test]
    fn the_access_log_has_what_is_known_of_a_request() {
        for (sent, in_log) in [
            ("4bf9-2.a_b", Some("4bf9-2.a_b")),
            ("4bf9 status=200", None),
        ] {
            let request = Request::get("/v2/team/app/manifests/1?token=secret")
                .header("x-request-id", sent)
                .header("user-agent", "oras/1.2");
            let line = logged(request, |observation| {
                observation.responded(StatusCode::OK);
                observation.sent(7);
                observation.sent_whole();
            });
            assert_eq!(line.get("request_id").and_then(Value::as_str), in_log);
            assert_eq!(line["repository"], "team/app");
            assert_eq!(line["reference"], "1");
            assert_eq!(
                (&line["status"], &line["bytes_out"]),
                (&200.into(), &7.into())
            );
            assert_eq!(line["client_address"], "192.0.2.7");
            assert_eq!(line["user_agent"], "oras/1.2");
            assert_eq!(line.get("failure"), None);
            assert!(!line.to_string().contains("secret"), "{line}");
        }
    }

    #[test]
    fn a_request_that_was_cut_is_a_failure() {
        let request = || Request::get("/v2/a/blobs/x");
        let before = logged(request(), |_| ());
        assert_eq!(
            (&before["status"], &before["failure"]),
            (&499.into(), &"client_closed".into())
        );
        let during = logged(request(), |observation| {
            observation.responded(StatusCode::OK);
        });
        assert_eq!(
            (&during["status"], &during["failure"]),
            (&200.into(), &"aborted".into())
        );
    }

    #[test]
    fn a_trace_is_that_of_a_valid_header() {
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        for (end, id) in [("01", Some(trace)), ("0", None)] {
            let value = format!("00-{trace}-00f067aa0ba902b7-{end}");
            let request = Request::get("/v2/").header("traceparent", value);
            let line = logged(request, |_| ());
            assert_eq!(line.get("trace_id").and_then(Value::as_str), id);
        }
    }

    #[test]
    fn texts_are_cut_to_the_logged_length() {
        let long = "n".repeat(20_000);
        let request = Request::get(format!("/v2/{long}/manifests/{long}"));
        let line = logged(request.header("user-agent", &long), |_| ());
        let length = |field: &str| line[field].as_str().map(str::len);
        assert_eq!(length("repository"), Some(MAX_REPOSITORY));
        assert_eq!(length("user_agent"), Some(MAX_USER_AGENT));
        assert!(length("reference").is_none_or(|length| length == MAX_REFERENCE));
    }
}
