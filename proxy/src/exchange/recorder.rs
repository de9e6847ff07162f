//! What all exchanges share.

use std::sync::Arc;
use std::time::Duration;

use service::metrics::MetricsRegistry;
use service::shutdown::Drain;

use super::manifest_kind::KnownKinds;
use crate::metrics::{ProxyMetrics, Rules};
use crate::sessions::SessionTable;

/// What all exchanges share: the metrics, and what is remembered from one exchange to the next.
pub struct Recorder {
    /// The families that the exchanges move.
    pub metrics: ProxyMetrics,
    pub(super) kinds: Arc<KnownKinds>,
    pub(super) sessions: Arc<SessionTable>,
    /// The operations that have ended and are not counted yet.
    pub(super) deferred: Drain,
}

impl Recorder {
    /// Registers every family that exchanges move. `repositories` decides which repositories get a
    /// label of their own.
    pub fn new(registry: &MetricsRegistry, repositories: Rules) -> Recorder {
        Recorder {
            metrics: ProxyMetrics::new(registry, repositories),
            kinds: Arc::default(),
            sessions: SessionTable::new(registry),
            deferred: Drain::default(),
        }
    }

    /// Waits until every operation that has ended is counted, at most so long; whether it came to that.
    pub async fn counted(&self, deadline: Duration) -> bool {
        self.deferred.wait(deadline).await
    }
}
