//! The proxy's families, one struct each, registered on an injected [`MetricsRegistry`].
//!
//! The HELP text of each family says when it moves; README.md lists them all.

mod aggregate;
mod certificates;
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

pub use self::aggregate::{AggregateFamilies, AggregateMetrics, SourceCells};
pub use self::certificates::CertificateFamilies;
pub use self::client::ClientMetrics;
pub use self::connections::{ConnectionMetrics, ConnectionRefusal};
pub use self::http::HttpMetrics;
pub use self::oci::OciMetrics;
pub use self::repositories::{
    GroupError, GroupRule, Repositories, RepositoryHandle, RepositoryOperation, Rules, RulesError,
};
pub use self::sessions::{SessionEvent, SessionMetrics, SessionOutcome};
pub use self::transfer::TransferMetrics;
pub use self::upstream::{
    Awaited, ReplicaMetrics, UpstreamError, UpstreamFamilies, UpstreamMetrics, UpstreamOutcome,
};

/// The families that an [`Exchange`](crate::exchange::Exchange) moves.
pub struct ProxyMetrics {
    /// What every HTTP server can say of itself.
    pub http: Arc<HttpMetrics>,
    /// What the requests mean to a registry.
    pub oci: OciMetrics,
    /// Transfers of bodies.
    pub transfers: TransferMetrics,
    /// The clients.
    pub clients: ClientMetrics,
    /// Operations by repository.
    pub repositories: Repositories,
}

impl ProxyMetrics {
    /// Declares the families. `repositories` says which repositories are shown by name.
    pub fn new(registry: &MetricsRegistry, repositories: Rules) -> ProxyMetrics {
        ProxyMetrics {
            http: Arc::new(HttpMetrics::declare(registry)),
            oci: OciMetrics::new(registry),
            transfers: TransferMetrics::declare(registry),
            clients: ClientMetrics::declare(registry),
            repositories: Repositories::new(registry, repositories),
        }
    }
}
