//! What all exchanges share.

use std::sync::Arc;

use service::metrics::MetricsRegistry;

use super::manifest_kind::KnownKinds;
use crate::metrics::{ProxyMetrics, Rules};
use crate::sessions::SessionTable;

/// What all exchanges share: the metrics, and what is remembered from one exchange to the next.
pub struct Recorder {
    /// The families that the exchanges move.
    pub metrics: ProxyMetrics,
    pub(super) kinds: Arc<KnownKinds>,
    pub(super) sessions: Arc<SessionTable>,
}

impl Recorder {
    /// Registers every family that exchanges move. `repositories` decides which repositories get a
    /// label of their own.
    pub fn new(registry: &MetricsRegistry, repositories: Rules) -> Recorder {
        Recorder {
            metrics: ProxyMetrics::new(registry, repositories),
            kinds: Arc::default(),
            sessions: SessionTable::new(registry),
        }
    }
}
