//! The registry's own side of its requests.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use http::StatusCode;

use super::label::{CLIENT_CLOSED_REQUEST, LATENCY, Pair, Status};
use service::metrics::{Counters, Histograms, Label as _, MetricsRegistry, families, labels};

labels! {
    /// Why an upload was refused.
    pub enum UploadRefusal: "reason" {
        Sessions = "sessions",
        Bytes = "bytes",
        Space = "space",
        ReadOnly = "read_only",
    }
}

families! {
    /// The `registry_http_*` families.
    pub struct Http {
        /// Requests to the registry itself; counted when the last byte of the response was handed
        /// over or the request was aborted.
        requests: Counters<(Pair, Status)> = "registry_http_requests_total",
        /// Time from a request's headers to the last byte of its response, in the registry itself;
        /// observed when the request ends.
        duration: Histograms<Pair> = "registry_http_request_duration_seconds" in LATENCY,
        /// Requests of uploads that were refused for want of a session, of bytes or of space on disk, or because
        /// the registry is read-only; counted when they are refused.
        refused: Counters<UploadRefusal> = "registry_uploads_refused_total",
    }
}

/// One request in flight, counted when it is dropped.
#[derive(Debug)]
pub struct Recording {
    http: Arc<Http>,
    pair: Pair,
    started: Instant,
    status: Option<StatusCode>,
}

impl Http {
    /// Declares the families.
    pub fn start(registry: &MetricsRegistry) -> Self {
        let http = Self::declare(registry);
        // The first increase must be seen.
        for &reason in UploadRefusal::ALL {
            http.refused.touch(reason);
        }
        http
    }

    /// Counts a request of an upload that was refused.
    pub fn refused(&self, reason: UploadRefusal) {
        self.refused.inc(reason);
    }

    /// Starts to record a request.
    pub fn begin(self: &Arc<Self>, pair: Pair) -> Recording {
        Recording {
            http: Arc::clone(self),
            pair,
            started: Instant::now(),
            status: None,
        }
    }
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http").finish_non_exhaustive()
    }
}

impl Recording {
    /// Notes the status of the response, whose headers are known now.
    pub fn responded(&mut self, status: StatusCode) {
        self.status = Some(status);
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        // A request that ends without a status was dropped: its client closed the connection.
        let status = self
            .status
            .map_or(CLIENT_CLOSED_REQUEST, |status| status.as_u16());
        self.http.requests.inc((self.pair, Status::of(status)));
        let seconds = self.started.elapsed().as_secs_f64();
        self.http.duration.observe(self.pair, seconds);
    }
}
