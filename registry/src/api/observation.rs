//! Observes one request. It is recorded when its response's last byte is sent, or when it is aborted.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use http::header::USER_AGENT;
use http::request::Parts;
use http::{HeaderName, StatusCode};

use crate::metrics::http::Http;
use crate::metrics::http::Recording;
use crate::metrics::label::{CLIENT_CLOSED_REQUEST, Client, Method, Pair};
use crate::oci::Route;
use service::log::{AccessEvent, MAX_REFERENCE, MAX_REPOSITORY, cut, request_id};
use service::metrics::Label;

/// Where requests are recorded.
#[derive(Clone, Debug, Default)]
pub struct Recorders {
    /// The request metrics, if there are any.
    pub metrics: Option<Arc<Http>>,
    /// Whether each request is an event in the log. A reload changes it.
    pub access_log: Arc<AtomicBool>,
}

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The observation of one request. Dropping it records the request: so an aborted request, whose future
/// hyper drops, is counted like any other.
#[derive(Debug)]
pub(super) struct Observation {
    recording: Option<Recording>,
    /// Boxed: without an access log, an observation stays small.
    access: Option<Box<AccessRecord>>,
}

/// The request's line in the access log, which dropping it writes. Names of the path are cut to the
/// logged length at once, because the record lives as long as the request.
struct AccessRecord {
    started: Instant,
    responded: Option<(StatusCode, Instant)>,
    endpoint: &'static str,
    method: &'static str,
    client: &'static str,
    repository: Option<Box<str>>,
    reference: Option<Box<str>>,
    request_id: Option<Box<str>>,
    received: u64,
    sent: u64,
}

impl Observation {
    /// Begins with a request's headers.
    pub(super) fn begin(recorders: &Recorders, head: &Parts, route: &Route<'_>) -> Self {
        let method = Method::of(head.method.as_str());
        let recording = recorders.metrics.as_ref();
        Self {
            recording: recording.map(|http| http.begin(Pair::of(route.endpoint, method))),
            access: recorders.access_log.load(Ordering::Relaxed).then(|| {
                // The log gets only the client's family: the text may be long and say anything.
                let agent = head.headers.get(USER_AGENT);
                let agent = agent.and_then(|agent| agent.to_str().ok());
                let id = head.headers.get(X_REQUEST_ID);
                // Other identifiers, of any length and characters, do not belong in a log.
                let id = id.and_then(|id| request_id(id.as_bytes()));
                Box::new(AccessRecord {
                    started: Instant::now(),
                    responded: None,
                    endpoint: route.endpoint.as_str(),
                    method: method.value(),
                    client: Client::of(agent.unwrap_or_default()).value(),
                    repository: route
                        .repository
                        .map(|name| cut(name, MAX_REPOSITORY).into()),
                    reference: route
                        .reference()
                        .map(|name| cut(name, MAX_REFERENCE).into()),
                    request_id: id.map(Box::from),
                    received: 0,
                    sent: 0,
                })
            }),
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

    /// Adds bytes of the response's body that were handed to hyper.
    pub(super) fn sent(&mut self, bytes: usize) {
        if let Some(access) = &mut self.access {
            access.sent += bytes as u64;
        }
    }
}

impl AccessRecord {
    /// The event with what is known so far.
    fn event(&self) -> AccessEvent<'_> {
        let millis = |at: Instant| at.duration_since(self.started).as_secs_f64() * 1e3;
        let status = self.responded.map(|(status, _)| status.as_u16());
        AccessEvent {
            endpoint: self.endpoint,
            repository: self.repository.as_deref(),
            reference: self.reference.as_deref(),
            method: self.method,
            // Dropped before a response began: the client closed the connection.
            status: status.unwrap_or(CLIENT_CLOSED_REQUEST),
            bytes_in: self.received,
            bytes_out: self.sent,
            duration_ms: millis(Instant::now()),
            ttfb_ms: self.responded.map(|(_, at)| millis(at)),
            client: self.client,
            client_address: None,
            request_id: self.request_id.as_deref(),
        }
    }
}

impl Drop for AccessRecord {
    fn drop(&mut self) {
        self.event().emit();
    }
}

impl fmt::Debug for AccessRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessRecord").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    #[test]
    fn the_access_log_has_the_repository_the_reference_and_a_valid_request_id() {
        let recorders = Recorders {
            metrics: None,
            access_log: Arc::new(true.into()),
        };
        for (sent, logged) in [
            ("4bf9-2.a_b", Some("4bf9-2.a_b")),
            ("4bf9 status=200", None),
        ] {
            let request = Request::get("/v2/team/app/manifests/1?token=secret");
            let request = request.header("x-request-id", sent);
            let (head, ()) = request.body(()).unwrap().into_parts();
            let route = Route::parse(head.uri.path());
            let mut observation = Observation::begin(&recorders, &head, &route);
            observation.responded(StatusCode::OK);
            let event = observation.access.as_ref().unwrap().event();
            assert_eq!(event.request_id, logged);
            assert_eq!(event.repository, Some("team/app"));
            assert_eq!(event.reference, Some("1"));
            assert_eq!(event.status, 200);
        }
    }

    #[test]
    fn names_of_the_path_are_cut_to_the_logged_length() {
        let recorders = Recorders {
            metrics: None,
            access_log: Arc::new(true.into()),
        };
        let long = "n".repeat(20_000);
        let request = Request::get(format!("/v2/{long}/manifests/{long}"));
        let (head, ()) = request.body(()).unwrap().into_parts();
        let route = Route::parse(head.uri.path());
        let observation = Observation::begin(&recorders, &head, &route);
        let event = observation.access.as_ref().unwrap().event();
        assert_eq!(event.repository.map(str::len), Some(MAX_REPOSITORY));
        assert!(
            event
                .reference
                .is_none_or(|name| name.len() == MAX_REFERENCE)
        );
    }
}
