//! What an exchange knows: the request's head, and what happened so far.

use std::ops::Range;
use std::time::{Duration, Instant};

use http::HeaderMap;
use registry::metrics::label::{Client, Pair};

use super::body_progress::BodyProgress;
use super::operation::RequestOperation;
use crate::sessions::SessionHandle;

/// The head of a request.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The method.
    pub method: &'a str,
    /// The target without the query.
    pub path: &'a str,
    /// The query, without its `?`.
    pub query: Option<&'a str>,
    /// The headers.
    pub headers: &'a HeaderMap,
}

/// What happened so far.
pub(super) struct Facts {
    pub(super) started: Instant,
    pub(super) pair: Pair,
    pub(super) operation: RequestOperation,
    pub(super) client: Client,
    /// Where the path names the repository, and its tag or digest. An opaque Location names none.
    pub(super) repository: Option<Range<usize>>,
    pub(super) reference: Option<Range<usize>>,
    pub(super) request: BodyProgress,
    pub(super) response: BodyProgress,
    pub(super) head: Option<ResponseStart>,
    /// The status that was counted, once the exchange has ended.
    pub(super) ended: Option<u16>,
    /// The session of a request for an upload session. Held until the exchange ends, so that the
    /// session does not expire meanwhile.
    pub(super) session: SessionHandle,
}

/// What is kept of the response's head.
#[derive(Clone, Copy)]
pub(super) struct ResponseStart {
    pub(super) status: u16,
    /// The time since the request's headers.
    pub(super) after: Duration,
    pub(super) responder: Responder,
}

/// The side that wrote the response's head.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Responder {
    Upstream,
    Proxy,
}

impl Facts {
    /// Notes that the response's head arrived now.
    pub(super) fn response_began(&mut self, status: u16, responder: Responder) -> Instant {
        let after = self.started.elapsed();
        self.head = Some(ResponseStart {
            status,
            after,
            responder,
        });
        self.started + after
    }
}
