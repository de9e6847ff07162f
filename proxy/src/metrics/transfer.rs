//! How bodies travel: cut, at which speed, or past the proxy.

use registry::metrics::label::SPEED;
use registry::oci::Endpoint;
use service::metrics::MetricsRegistry;
use service::metrics::{Counters, Histograms};

use super::label::{Side, Transfer};

/// The families of transfers. An [`Exchange`](crate::exchange::Exchange) moves them.
pub struct TransferMetrics {
    /// Bodies that a side cut.
    pub aborted: Counters<(Endpoint, Side)>,
    /// How fast blobs moved, in bytes a second.
    pub speed: Histograms<Transfer>,
    /// Answers that send the client elsewhere.
    pub redirects: Counters<Endpoint>,
}

impl TransferMetrics {
    /// Registers the families.
    pub fn new(registry: &MetricsRegistry) -> TransferMetrics {
        TransferMetrics {
            aborted: registry.counters(
                "transfers_aborted_total",
                "Transfers whose request or response body was cut by a side; counted when the \
                 exchange ends. Not those that the proxy itself cuts at its shutdown.",
                &["endpoint", "side"],
            ),
            speed: registry.histograms(
                "transfer_speed_bytes_per_second",
                "Speed of blobs over 1 MiB from the first to the last byte of the body; observed \
                 when a GET was answered with 200 and sent whole, or an upload's request, each \
                 by itself, arrived whole and was accepted.",
                &["direction"],
                SPEED,
            ),
            redirects: registry.counters(
                "redirects_total",
                "Answers that redirect the client: what it fetches there passes the proxy by. \
                 Counted when the response's headers are there.",
                &["endpoint"],
            ),
        }
    }
}
