//! One observed request and its response.
//!
//! The phases of the proxy feed an [`Exchange`] what happens, in bytes and statuses; it alone
//! decides what that means for the metrics. Nothing of pingora is here, so that the accounting can
//! be tested by itself. An exchange that nobody ends (a panic, a runtime torn down) records itself
//! when it is dropped, so that no gauge drifts and no request is lost from the counts.

use std::sync::Arc;
use std::time::{Duration, Instant};

use registry::metrics::label::{Method, Pair, Status};
use registry::oci::{Endpoint, Route};

use crate::metrics::HttpMetrics;

/// The status that stands for a client that left before a response began.
pub const CLIENT_CLOSED_REQUEST: u16 = 499;

/// One request under observation, from its headers to the last byte of its response.
pub struct Exchange {
    metrics: Arc<HttpMetrics>,
    started: Instant,
    pair: Pair,
    in_flight: Endpoint,
    status: Option<u16>,
    ended: Option<u16>,
    ttfb: Option<Duration>,
    received: u64,
    sent: u64,
    request_whole: bool,
    response_whole: bool,
}

impl Exchange {
    /// Begins when a request's headers have been read.
    pub fn begin(metrics: &Arc<HttpMetrics>, method: &str, path: &str) -> Exchange {
        let route = Route::parse(path);
        let pair = Pair::of(route.endpoint, Method::of(method));
        let in_flight = pair.endpoint();
        metrics.in_flight.add(in_flight, 1.0);
        Exchange {
            metrics: Arc::clone(metrics),
            started: Instant::now(),
            pair,
            in_flight,
            status: None,
            ended: None,
            ttfb: None,
            received: 0,
            sent: 0,
            request_whole: false,
            response_whole: false,
        }
    }

    /// Body bytes arrived from the client; `last` once the body is whole.
    pub fn request_body(&mut self, bytes: u64, last: bool) {
        if bytes > 0 {
            self.received += bytes;
            self.metrics.request_body_bytes.add(self.pair, bytes);
        }
        self.request_whole |= last;
    }

    /// The response's headers are there: the final ones, not a 1xx.
    pub fn response_head(&mut self, status: u16) {
        if self.status.is_none() {
            let ttfb = self.started.elapsed();
            self.metrics.ttfb.observe(self.pair, ttfb.as_secs_f64());
            self.ttfb = Some(ttfb);
            self.status = Some(status);
        }
    }

    /// How many body bytes have been sent to the client so far, in all.
    pub fn response_body(&mut self, sent_in_all: u64) {
        if sent_in_all > self.sent {
            self.metrics
                .response_body_bytes
                .add(self.pair, sent_in_all - self.sent);
            self.sent = sent_in_all;
        }
    }

    /// Ends the exchange. `failure` is the status to count where no response began;
    /// `None` says that the response was sent whole.
    pub fn finish(&mut self, failure: Option<u16>) {
        if self.ended.is_some() {
            return;
        }
        self.response_whole = failure.is_none();
        let status = self.status.or(failure).unwrap_or(CLIENT_CLOSED_REQUEST);
        self.ended = Some(status);
        let metrics = &self.metrics;
        metrics.requests.inc((self.pair, Status::of(status)));
        metrics
            .duration
            .observe(self.pair, self.started.elapsed().as_secs_f64());
        if self.request_whole && self.received > 0 {
            metrics
                .request_size
                .observe(self.in_flight, self.received as f64);
        }
        if self.response_whole && self.sent > 0 {
            metrics
                .response_size
                .observe(self.in_flight, self.sent as f64);
        }
        metrics.in_flight.sub(self.in_flight, 1.0);
    }

    /// Whether the whole request body has arrived.
    pub fn request_is_whole(&self) -> bool {
        self.request_whole
    }

    /// Whether it was recorded as ended.
    pub fn has_ended(&self) -> bool {
        self.ended.is_some()
    }

    /// What the access log says of this exchange, once it has ended.
    pub fn summary(&self) -> Summary {
        Summary {
            endpoint: self.in_flight,
            status: self.ended.or(self.status).unwrap_or(CLIENT_CLOSED_REQUEST),
            received: self.received,
            sent: self.sent,
            duration: self.started.elapsed(),
            ttfb: self.ttfb,
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        // Only a panic or a runtime that is torn down gets here unfinished: our fault, not the
        // client's.
        self.finish(Some(500));
    }
}

/// The figures of an exchange that the access log prints.
#[derive(Clone, Copy, Debug)]
pub struct Summary {
    /// What was asked for.
    pub endpoint: Endpoint,
    /// The status as it is counted.
    pub status: u16,
    /// Request body bytes.
    pub received: u64,
    /// Response body bytes.
    pub sent: u64,
    /// From the request's headers until now.
    pub duration: Duration,
    /// From the request's headers to the response's.
    pub ttfb: Option<Duration>,
}

#[cfg(test)]
mod tests {
    use registry::service::exposition::Registry;

    use super::*;

    fn metrics() -> Arc<HttpMetrics> {
        Arc::new(HttpMetrics::new(&Registry::new("octoserve_")))
    }

    #[expect(clippy::cast_possible_truncation, reason = "a small count")]
    fn in_flight(metrics: &HttpMetrics, endpoint: Endpoint) -> i64 {
        metrics.in_flight.value(endpoint) as i64
    }

    fn blob() -> Pair {
        Pair::of(Endpoint::Blob, Method::Get)
    }

    fn blob_request(metrics: &Arc<HttpMetrics>) -> Exchange {
        let digest = "a".repeat(64);
        Exchange::begin(
            metrics,
            "GET",
            &format!("/v2/team/app/blobs/sha256:{digest}"),
        )
    }

    #[test]
    fn a_request_is_in_flight_until_it_ends_and_counted_once() {
        let metrics = metrics();
        let mut exchange = blob_request(&metrics);
        assert_eq!(in_flight(&metrics, Endpoint::Blob), 1);
        exchange.request_body(0, true);
        exchange.response_head(200);
        exchange.response_body(10);
        exchange.response_body(30);
        exchange.finish(None);
        exchange.finish(Some(500));
        drop(exchange);
        assert_eq!(in_flight(&metrics, Endpoint::Blob), 0);
        assert_eq!(metrics.requests.value((blob(), Status::of(200))), 1);
        assert_eq!(metrics.requests.value((blob(), Status::of(500))), 0);
        assert_eq!(metrics.response_body_bytes.value(blob()), 30);
        assert_eq!(metrics.response_size.count(Endpoint::Blob), 1);
        assert_eq!(metrics.request_size.count(Endpoint::Blob), 0);
        assert_eq!(metrics.duration.count(blob()), 1);
        assert_eq!(metrics.ttfb.count(blob()), 1);
    }

    #[test]
    fn bytes_of_a_transfer_show_while_it_runs() {
        let metrics = metrics();
        let mut exchange = blob_request(&metrics);
        exchange.response_head(200);
        exchange.response_body(64);
        assert_eq!(metrics.response_body_bytes.value(blob()), 64);
        assert_eq!(metrics.requests.value((blob(), Status::of(200))), 0);
        exchange.response_body(100);
        assert_eq!(metrics.response_body_bytes.value(blob()), 100);
    }

    #[test]
    fn a_cut_download_keeps_its_status_and_has_no_size() {
        let metrics = metrics();
        let mut exchange = blob_request(&metrics);
        exchange.response_head(200);
        exchange.response_body(64);
        exchange.finish(Some(CLIENT_CLOSED_REQUEST));
        assert_eq!(metrics.requests.value((blob(), Status::of(200))), 1);
        assert_eq!(metrics.response_size.count(Endpoint::Blob), 0);
    }

    #[test]
    fn a_client_that_leaves_before_the_response_is_499() {
        let metrics = metrics();
        blob_request(&metrics).finish(Some(CLIENT_CLOSED_REQUEST));
        assert_eq!(metrics.requests.value((blob(), Status::of(499))), 1);
        assert_eq!(metrics.ttfb.count(blob()), 0);
    }

    #[test]
    fn an_exchange_that_nobody_ends_is_our_fault_and_leaves_no_gauge_behind() {
        let metrics = metrics();
        drop(blob_request(&metrics));
        assert_eq!(metrics.requests.value((blob(), Status::of(500))), 1);
        assert_eq!(in_flight(&metrics, Endpoint::Blob), 0);
    }

    #[test]
    fn a_cut_upload_counts_its_bytes_and_no_size() {
        let metrics = metrics();
        let pair = Pair::of(Endpoint::UploadSession, Method::Patch);
        let mut exchange = Exchange::begin(&metrics, "PATCH", "/v2/a/blobs/uploads/1");
        exchange.request_body(7, false);
        exchange.finish(Some(CLIENT_CLOSED_REQUEST));
        assert_eq!(metrics.request_body_bytes.value(pair), 7);
        assert_eq!(metrics.request_size.count(Endpoint::UploadSession), 0);
    }

    #[test]
    fn a_method_that_an_endpoint_does_not_have_is_counted_as_other() {
        let metrics = metrics();
        Exchange::begin(&metrics, "BREW", "/v2/a/manifests/latest").finish(None);
        let pair = Pair::of(Endpoint::Other, Method::of("BREW"));
        assert_eq!(metrics.requests.value((pair, Status::of(499))), 1);
        assert_eq!(in_flight(&metrics, Endpoint::Manifest), 0);
    }
}
