//! The proxy's families, one struct each, registered on an injected [`MetricsRegistry`].
//!
//! Which moves when is said by the `HELP` of each; the README has them all.

mod aggregate;
mod client;
mod connections;
mod http;
pub mod label;
mod oci;
mod repositories;
mod sessions;
mod transfer;
mod upstream;

use std::sync::Arc;

use service::metrics::MetricsRegistry;

pub use self::aggregate::{AggregateMetrics, SourceCells};
pub use self::client::ClientMetrics;
pub use self::connections::{ConnectionMetrics, ConnectionRefusal};
pub use self::http::HttpMetrics;
pub use self::oci::OciMetrics;
pub use self::repositories::{
    GroupError, GroupRule, Handle, Repositories, RepositoryOperation, Rules, RulesError,
};
pub use self::sessions::{SessionEvent, SessionMetrics, SessionOutcome};
pub use self::transfer::TransferMetrics;
pub use self::upstream::{
    Awaited, UpstreamError, UpstreamFamilies, UpstreamMetrics, UpstreamOutcome,
};

/// Whatever an [`Exchange`](crate::exchange::Exchange) moves.
pub struct Metrics {
    /// What every HTTP server can say of itself.
    pub http: Arc<HttpMetrics>,
    /// What the requests mean to a registry.
    pub oci: OciMetrics,
    /// How bodies travel.
    pub transfers: TransferMetrics,
    /// Who asks.
    pub clients: ClientMetrics,
    /// What each repository is asked for.
    pub repositories: Repositories,
}

impl Metrics {
    /// Registers the families. `repositories` says which are shown by name.
    pub fn new(registry: &MetricsRegistry, repositories: Rules) -> Metrics {
        Metrics {
            http: Arc::new(HttpMetrics::new(registry)),
            oci: OciMetrics::new(registry),
            transfers: TransferMetrics::new(registry),
            clients: ClientMetrics::new(registry),
            repositories: Repositories::new(registry, repositories),
        }
    }
}
