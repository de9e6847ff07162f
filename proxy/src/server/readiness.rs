//! Whether the upstream is healthy: what `/readyz` says.
//!
//! No request waits for it, and none is refused for it: an upstream that was unhealthy a moment ago
//! may be healthy when the request reaches it.

use std::sync::Arc;

use registry::server::follow;
use service::admin::Readiness;
use service::shutdown::Shutdown;

use crate::embedded::Presence;
use crate::upstream::Upstream;

/// How the health of the upstream is known.
pub(super) enum UpstreamHealth {
    /// Replicas somewhere, which are probed.
    Remote(Arc<Upstream>),
    /// The embedded registry, which watches its data directory.
    Embedded(Presence),
}

impl UpstreamHealth {
    /// Keeps the readiness up to date until the shutdown.
    pub(super) async fn watch(self, readiness: Arc<Readiness>, shutdown: Shutdown) {
        let watch = async {
            match self {
                Self::Remote(upstream) => probe(&upstream, &readiness).await,
                Self::Embedded(presence) => follow(Some(presence), &readiness).await,
            }
        };
        tokio::select! {
            () = watch => {}
            () = shutdown.recv() => {}
        }
    }
}

/// Probes the replicas of an upstream again and again.
async fn probe(upstream: &Upstream, readiness: &Readiness) {
    let update = || {
        if let Some(is_healthy) = upstream.is_healthy() {
            // Without the cause, which the log has: a probe needs no credentials, and the cause names
            // addresses.
            let health = is_healthy.then_some(());
            readiness.set_health(health.ok_or_else(|| "the upstream is unhealthy".to_owned()));
        }
    };
    upstream.watch_health(update).await;
}
