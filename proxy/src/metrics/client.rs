//! Which clients send requests, what for, and with which credentials.

use registry::metrics::label::Client;
use service::metrics::{Counters, families};

use super::label::{AuthResult, AuthScheme, Purpose};

families! {
    /// The families of clients. An [`Exchange`](crate::exchange::Exchange) moves them.
    pub struct ClientMetrics {
        /// Requests by the family of their client; counted when they end. pull is a GET of a manifest
        /// or blob, push is every request that writes one, other is everything else, HEAD included.
        pub requests: Counters<(Client, Purpose)> = "client_requests_total",
        /// Requests by the scheme of their credentials and the upstream's verdict; counted when the
        /// response's headers arrive. challenge is a 401 to a request without credentials, ok any
        /// other status below 500 but 401 and 403.
        pub auth: Counters<(AuthScheme, AuthResult)> = "auth_total",
    }
}
