//! Whether the upstream is healthy: what `/readyz` says.
//!
//! No request waits for it, and none is refused for it: an upstream that was unhealthy a moment ago
//! may be healthy when the request reaches it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use registry::server::follow;
use service::admin::Readiness;
use service::log::causes;
use service::shutdown::Shutdown;

use crate::embedded::Presence;
use crate::upstream::Upstream;

/// How often an upstream is probed.
const INTERVAL: Duration = Duration::from_secs(5);
/// How often it is probed while it is unhealthy.
const UNHEALTHY_INTERVAL: Duration = Duration::from_secs(1);

/// How the health of the upstream is known.
pub(super) enum UpstreamHealth {
    /// A registry somewhere, which is probed.
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

/// Probes an upstream again and again, and logs when its state changes.
async fn probe(upstream: &Upstream, readiness: &Readiness) {
    // `None` while it is healthy, and before the first probe.
    let mut unhealthy_since: Option<Instant> = None;
    loop {
        let result = upstream.probe().await;
        let name = upstream.name();
        match (&result, unhealthy_since) {
            (Ok(()), None) | (Err(_), Some(_)) => {}
            (Ok(()), Some(since)) => {
                let duration_s = since.elapsed().as_secs_f64();
                tracing::info!(upstream = name, duration_s, "upstream healthy");
                unhealthy_since = None;
            }
            (Err(error), None) => {
                tracing::warn!(upstream = name, error = causes(error), "upstream unhealthy");
                unhealthy_since = Some(Instant::now());
            }
        }
        let is_healthy = result.is_ok();
        // Without the cause, which the log has: a probe needs no credentials, and the cause names
        // addresses.
        readiness.set_health(result.map_err(|_| "the upstream is unhealthy".to_owned()));
        let pause = if is_healthy {
            INTERVAL
        } else {
            UNHEALTHY_INTERVAL
        };
        tokio::time::sleep(pause).await;
    }
}
