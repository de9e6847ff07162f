//! Who asks: with what, for what, and with which right.

use registry::metrics::label::Client;
use service::metrics::Counters;
use service::metrics::MetricsRegistry;

use super::label::{AuthResult, Purpose, Scheme};

/// The families of clients. An [`Exchange`](crate::exchange::Exchange) moves them.
pub struct ClientMetrics {
    /// Requests by client and by what they are about.
    pub requests: Counters<(Client, Purpose)>,
    /// What became of the requests' credentials.
    pub auth: Counters<(Scheme, AuthResult)>,
}

impl ClientMetrics {
    /// Registers the families.
    pub fn new(registry: &MetricsRegistry) -> ClientMetrics {
        ClientMetrics {
            requests: registry.counters(
                "client_requests_total",
                "Requests by the family of their client, counted when they end: pull is a GET of \
                 a manifest or blob, push whatever writes one, other anything else, a HEAD too.",
                &["client", "operation"],
            ),
            auth: registry.counters(
                "auth_total",
                "Requests by the scheme of their credentials and what the upstream made of them; \
                 counted when its response's headers are there. challenge is a 401 to a request \
                 without credentials, ok any other answer below 500 but 401 and 403.",
                &["scheme", "result"],
            ),
        }
    }
}
