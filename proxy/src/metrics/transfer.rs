//! Transfers of bodies: aborted, their speed, and those that a redirect takes elsewhere.

use crate::metrics::label::SPEED;
use registry::oci::Endpoint;
use service::metrics::{Counters, Histograms, families};

use super::label::{Side, Transfer};

families! {
    /// The families of transfers. An [`Exchange`](crate::exchange::Exchange) moves them.
    pub struct TransferMetrics {
        /// Transfers that one side aborted in a request or response body; counted when the exchange
        /// ends. Transfers that the proxy cuts at its shutdown are not counted.
        pub aborted: Counters<(Endpoint, Side)> = "transfers_aborted_total",
        /// Speed of blobs over 1 MiB, from the first to the last byte of the body; observed when a
        /// GET got 200 and was sent whole, and when a request of an upload arrived whole
        /// and was accepted.
        pub speed: Histograms<Transfer> = "transfer_speed_bytes_per_second" in SPEED,
        /// Responses that redirect the client; counted when the response's headers arrive. What the
        /// client fetches there does not pass the proxy.
        pub redirects: Counters<Endpoint> = "redirects_total",
    }
}
