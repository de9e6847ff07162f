//! What every HTTP server can say of itself, with the registry's endpoints for labels.

use crate::metrics::label::BYTES;
use registry::metrics::label::{LATENCY, Pair, Status};
use registry::oci::Endpoint;
use service::metrics::{Counter, Counters, Gauges, Histograms, families};

families! {
    /// The `http_*` families. An [`Exchange`](crate::exchange::Exchange) records all of them but
    /// `rejected`: a request that cannot be parsed has no exchange.
    pub struct HttpMetrics {
        /// Requests that ended, whatever ended them; counted when the last byte of the response was
        /// sent or the exchange failed.
        pub requests: Counters<(Pair, Status)> = "http_requests_total",
        /// Time from the request's headers to the last byte of the response sent; observed when the
        /// request ends.
        pub duration: Histograms<Pair> = "http_request_duration_seconds" in LATENCY,
        /// Time from the request's headers to the response's headers; observed when the response's
        /// headers arrive.
        pub ttfb: Histograms<Pair> = "http_response_ttfb_seconds" in LATENCY,
        /// Requests in flight: their headers were read and they have not ended.
        pub in_flight: Gauges<Endpoint> = "http_requests_in_flight",
        /// Request body bytes received from clients; counted as they arrive, whether or not the
        /// transfer completes.
        pub request_body_bytes: Counters<Pair> = "http_request_body_bytes_total",
        /// Response body bytes sent to clients; counted as they are sent, whether or not the transfer
        /// completes.
        pub response_body_bytes: Counters<Pair> = "http_response_body_bytes_total",
        /// Sizes of request bodies; observed when a body has arrived whole.
        pub request_size: Histograms<Endpoint> = "http_request_size_bytes" in BYTES,
        /// Sizes of response bodies; observed when a body was sent whole.
        pub response_size: Histograms<Endpoint> = "http_response_size_bytes" in BYTES,
        /// Requests that could not be parsed and were refused; counted when the refusal is sent. No
        /// other family counts them.
        pub rejected: Counter = "http_rejected_total",
    }
}

impl HttpMetrics {
    /// How many requests are in flight, of all endpoints.
    pub fn requests_in_flight(&self) -> u64 {
        let each = Endpoint::ALL.iter();
        let sum: f64 = each.map(|endpoint| self.in_flight.value(*endpoint)).sum();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a count of whole requests; the cast keeps to the range"
        )]
        let sum = sum as u64;
        sum
    }
}
