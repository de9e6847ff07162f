//! One request's observation: recorded when its last byte has gone, or when it was given up.

use std::fmt;
use std::time::Instant;

use http::StatusCode;
use http::header::USER_AGENT;
use http::request::Parts;

use super::Recorders;
use crate::metrics::http::{CLIENT_LEFT, Recording};
use crate::metrics::label::{Client, Method, Pair};
use crate::oci::{Endpoint, Name, Reference, Route};
use crate::service::cells::Label;
use crate::service::log::AccessEvent;

/// What is recorded of one request, when it is dropped.
#[derive(Debug)]
pub(super) struct Observation {
    recording: Option<Recording>,
    access: Option<Box<Access>>,
}

/// What the access log will say. Only what a repository or reference may be spelt as is kept:
/// whatever else stands in a path is nothing to log.
struct Access {
    started: Instant,
    answered: Option<(StatusCode, Instant)>,
    endpoint: &'static str,
    method: &'static str,
    client: &'static str,
    repository: Option<Name>,
    reference: Option<Reference>,
    received: u64,
    sent: u64,
}

impl Observation {
    /// A request's headers are here.
    pub(super) fn begin(recorders: &Recorders, head: &Parts, route: &Route<'_>) -> Self {
        let method = Method::of(head.method.as_str());
        let recording = recorders.metrics.as_ref();
        Self {
            recording: recording.map(|http| http.begin(Pair::of(route.endpoint, method))),
            access: recorders.access_log.then(|| {
                let agent = head.headers.get(USER_AGENT);
                let agent = agent.and_then(|agent| agent.to_str().ok());
                Box::new(Access {
                    started: Instant::now(),
                    answered: None,
                    endpoint: route.endpoint.as_str(),
                    method: method.value(),
                    client: Client::of(agent.unwrap_or_default()).value(),
                    repository: route.repository.and_then(|name| Name::parse(name).ok()),
                    reference: reference(route),
                    received: 0,
                    sent: 0,
                })
            }),
        }
    }

    /// So many bytes of the request's body were read.
    pub(super) fn received(&mut self, bytes: u64) {
        if let Some(access) = &mut self.access {
            access.received = bytes;
        }
    }

    /// A response begins.
    pub(super) fn answered(&mut self, status: StatusCode) {
        if let Some(recording) = &mut self.recording {
            recording.answered(status);
        }
        if let Some(access) = &mut self.access {
            access.answered = Some((status, Instant::now()));
        }
    }

    /// So many more bytes of the response's body were handed over.
    pub(super) fn sent(&mut self, bytes: usize) {
        if let Some(access) = &mut self.access {
            access.sent += bytes as u64;
        }
    }
}

/// A tag or digest that a path names. A session's identifier is neither, whatever it looks like.
fn reference(route: &Route<'_>) -> Option<Reference> {
    match route.endpoint {
        Endpoint::Manifest | Endpoint::Blob | Endpoint::Referrers => {
            Reference::from_segment(route.tail).ok()
        }
        _ => None,
    }
}

impl Drop for Access {
    fn drop(&mut self) {
        let millis = |at: Instant| at.duration_since(self.started).as_secs_f64() * 1e3;
        let status = self.answered.map(|(status, _)| status.as_u16());
        AccessEvent {
            endpoint: self.endpoint,
            repository: self.repository.as_ref().map(Name::as_str),
            reference: self.reference.as_ref().map(Reference::as_str),
            method: self.method,
            status: status.unwrap_or(CLIENT_LEFT),
            bytes_in: self.received,
            bytes_out: self.sent,
            duration_ms: millis(Instant::now()),
            ttfb_ms: self.answered.map(|(_, at)| millis(at)),
            client: self.client,
            request_id: None,
            trace_id: None,
        }
        .emit();
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access").finish_non_exhaustive()
    }
}
