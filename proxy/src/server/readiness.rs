//! Whether the upstream is healthy: what `/readyz` says.
//!
//! No request waits for it, and none is refused for it: an upstream that was unhealthy a moment ago
//! may be healthy when the request reaches it.

use std::sync::Arc;

use futures_util::future::join_all;
use registry::server::follow;
use service::admin::Readiness;
use service::shutdown::Shutdown;

use crate::embedded::Presence;
use crate::upstream::Upstreams;

/// How the health of the upstream is known.
pub(super) enum UpstreamHealth {
    /// Replicas somewhere, which are probed.
    Remote(Upstreams),
    /// The embedded registry, which watches its data directory.
    Embedded(Presence),
}

impl UpstreamHealth {
    /// Keeps the readiness up to date until the shutdown.
    pub(super) async fn watch(self, readiness: Arc<Readiness>, shutdown: Shutdown) {
        let watch = async {
            match self {
                Self::Remote(upstreams) => probe(&upstreams, &readiness).await,
                Self::Embedded(presence) => follow(Some(presence), &readiness).await,
            }
        };
        tokio::select! {
            () = watch => {}
            () = shutdown.recv() => {}
        }
    }
}

/// Probes the replicas of the upstreams again and again.
async fn probe(upstreams: &Upstreams, readiness: &Readiness) {
    let reason = match upstreams.all().count() {
        1 => "the upstream is unhealthy",
        _ => "all upstreams are unhealthy",
    };
    let update = || {
        if let Some(is_healthy) = upstreams.is_any_healthy() {
            // Without the cause, which the log has: a probe needs no credentials, and the cause names
            // addresses.
            let health = is_healthy.then_some(());
            readiness.set_health(health.ok_or_else(|| reason.to_owned()));
        }
    };
    join_all(
        upstreams
            .all()
            .map(|upstream| upstream.watch_health(update)),
    )
    .await;
}
