//! The connections of clients.

use service::metrics::{Counter, Counters, Gauge, MetricsRegistry, families, labels};

labels! {
    /// Why the proxy closed a connection.
    pub enum ConnectionRefusal: "reason" {
        /// The maximum of connections was reached: an idle one was closed for the new one or, if
        /// there was none, the new one.
        Limit = "limit",
        /// The TLS handshake failed.
        Tls = "tls",
        /// It did not begin with the header of the PROXY protocol.
        ProxyProtocol = "proxy_protocol",
        /// The headers of a request did not arrive in time.
        Timeout = "timeout",
    }
}

families! {
    /// The `connections_*` families.
    pub struct ConnectionMetrics {
        /// Client connections that are open.
        pub active: Gauge = "connections_active",
        /// Client connections that were accepted.
        pub total: Counter = "connections_total",
        /// Client connections that the proxy closed: at the maximum of connections (`limit`: an idle
        /// connection, or the new one if none is idle), after a failed TLS handshake (`tls`), without the header of the PROXY
        /// protocol (`proxy_protocol`), or because a request's headers did not arrive in time (`timeout`).
        pub rejected: Counters<ConnectionRefusal> = "connections_rejected_total",
    }
}

impl ConnectionMetrics {
    /// Declares the families.
    pub fn new(registry: &MetricsRegistry) -> ConnectionMetrics {
        let metrics = ConnectionMetrics::declare(registry);
        metrics.active.touch(());
        metrics.rejected.touch(ConnectionRefusal::Limit);
        metrics.rejected.touch(ConnectionRefusal::Tls);
        metrics.rejected.touch(ConnectionRefusal::Timeout);
        metrics
    }
}
