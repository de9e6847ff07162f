//! What every HTTP server can say of itself, with the registry's endpoints for labels.

use registry::metrics::label::{BYTES, LATENCY, Pair, Status};
use registry::oci::Endpoint;
use service::metrics::MetricsRegistry;
use service::metrics::{Counter, Counters, Gauges, Histograms};

/// The `http_*` families. An [`Exchange`](crate::exchange::Exchange) moves them.
pub struct HttpMetrics {
    /// Requests that ended, for whatever cause.
    pub requests: Counters<(Pair, Status)>,
    /// From the request's headers to the last byte of the response.
    pub duration: Histograms<Pair>,
    /// From the request's headers to the response's.
    pub ttfb: Histograms<Pair>,
    /// Requests being served now.
    pub in_flight: Gauges<Endpoint>,
    /// Request body bytes, as they arrive.
    pub request_body_bytes: Counters<Pair>,
    /// Response body bytes, as they are sent.
    pub response_body_bytes: Counters<Pair>,
    /// Sizes of request bodies that arrived whole.
    pub request_size: Histograms<Endpoint>,
    /// Sizes of response bodies that were sent whole.
    pub response_size: Histograms<Endpoint>,
    /// Requests that no other family sees.
    pub rejected: Counter,
}

impl HttpMetrics {
    /// Registers the families.
    pub fn new(registry: &MetricsRegistry) -> HttpMetrics {
        let pair = &["endpoint", "method"];
        HttpMetrics {
            requests: registry.counters(
                "http_requests_total",
                "Requests that ended, for whatever cause; counted when the last byte of the \
                 response was sent or the exchange broke off.",
                &["endpoint", "method", "status"],
            ),
            duration: registry.histograms(
                "http_request_duration_seconds",
                "Time from the request's headers read to the last byte of the response sent; \
                 observed when the request ends.",
                pair,
                LATENCY,
            ),
            ttfb: registry.histograms(
                "http_response_ttfb_seconds",
                "Time from the request's headers read to the response's headers; observed when \
                 these are there.",
                pair,
                LATENCY,
            ),
            in_flight: registry.gauges(
                "http_requests_in_flight",
                "Requests whose headers were read and that have not ended, now.",
                &["endpoint"],
            ),
            request_body_bytes: registry.counters(
                "http_request_body_bytes_total",
                "Request body bytes received from clients; counted as they arrive, whether or \
                 not the transfer completes.",
                pair,
            ),
            response_body_bytes: registry.counters(
                "http_response_body_bytes_total",
                "Response body bytes sent to clients; counted as they are sent, whether or not \
                 the transfer completes.",
                pair,
            ),
            request_size: registry.histograms(
                "http_request_size_bytes",
                "Sizes of request bodies; observed when a body has arrived whole.",
                &["endpoint"],
                BYTES,
            ),
            response_size: registry.histograms(
                "http_response_size_bytes",
                "Sizes of response bodies; observed when a body was sent whole.",
                &["endpoint"],
                BYTES,
            ),
            rejected: registry.counter(
                "http_rejected_total",
                "Requests that could not be parsed and were refused; counted when the refusal \
                 was sent. No other family sees them.",
            ),
        }
    }
}
