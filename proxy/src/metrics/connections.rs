//! The connections of clients.

use service::metrics::MetricsRegistry;
use service::metrics::{Counter, Counters, Gauge, labels};

labels! {
    /// Why a connection was not served.
    pub enum ConnectionRefusal {
        /// As many as are allowed were there: an idle one was closed for the new one, or the new
        /// one was.
        Limit = "limit",
        /// There was no agreement on how to speak in private.
        Tls = "tls",
        /// No request came in time.
        Timeout = "timeout",
    }
}

/// The `connections_*` families.
pub struct ConnectionMetrics {
    /// Those that are open.
    pub active: Gauge,
    /// Those that were served.
    pub total: Counter,
    /// Those that were not.
    pub rejected: Counters<ConnectionRefusal>,
}

impl ConnectionMetrics {
    /// Registers the families.
    pub fn new(registry: &MetricsRegistry) -> ConnectionMetrics {
        let metrics = ConnectionMetrics {
            active: registry.gauge(
                "connections_active",
                "Connections of clients that are open, now.",
            ),
            total: registry.counter(
                "connections_total",
                "Connections of clients that were taken on; counted when they are accepted.",
            ),
            rejected: registry.counters(
                "connections_rejected_total",
                "Connections of clients that were closed by us: because there were as many as are \
                 allowed (`limit`: one that was idle, else the new one), after a failed TLS handshake (`tls`), or because \
                 a request's headers did not come in time (`timeout`).",
                &["reason"],
            ),
        };
        metrics.active.touch(());
        metrics.rejected.touch(ConnectionRefusal::Limit);
        metrics.rejected.touch(ConnectionRefusal::Timeout);
        metrics
    }
}
