//! Whether what the proxy forwards to can serve: what `/readyz` says.
//!
//! No request waits for it, and none is refused for it: a request that reaches an upstream which was
//! unhealthy a moment ago may find it healthy again.

use std::sync::Arc;
use std::time::Duration;

use service::log::causes;
use service::shutdown::Shutdown;

use crate::admin::Readiness;
use crate::embedded::Presence;
use crate::upstream::Upstream;

/// How often an upstream is probed.
const EVERY: Duration = Duration::from_secs(5);
/// How often it is probed while it is unhealthy.
const AGAIN: Duration = Duration::from_secs(1);

/// What is behind the proxy.
pub(super) enum Behind {
    /// A registry somewhere, which must answer.
    Remote(Arc<Upstream>),
    /// The registry in this process, which must have its data directory.
    Embedded(Presence),
}

impl Behind {
    /// Keeps the readiness up to date until the shutdown.
    pub(super) async fn watch(self, readiness: Arc<Readiness>, mut shutdown: Shutdown) {
        let watch = async {
            match self {
                Behind::Remote(upstream) => probe(&upstream, &readiness).await,
                Behind::Embedded(presence) => follow(presence, &readiness).await,
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
    let mut was_healthy = true;
    loop {
        let seen = upstream.look().await;
        let is_healthy = seen.is_ok();
        match seen {
            Ok(()) if was_healthy => {}
            Ok(()) => tracing::info!("what is behind the proxy is well again"),
            Err(error) if was_healthy => {
                let error = causes(&error);
                tracing::warn!(error, "what is behind the proxy is not well");
            }
            Err(_) => {}
        }
        let unhealthy = "the upstream is unhealthy";
        readiness.set_behind(if is_healthy {
            Ok(())
        } else {
            Err(unhealthy.into())
        });
        was_healthy = is_healthy;
        tokio::time::sleep(if is_healthy { EVERY } else { AGAIN }).await;
    }
}

/// Passes on what the registry in this process finds out; it has its own lines in the log.
async fn follow(mut presence: Presence, readiness: &Readiness) {
    loop {
        let lost = presence.lost();
        readiness.set_behind(lost.map_or(Ok(()), |lost| Err(lost.to_string())));
        if !presence.changed().await {
            return;
        }
    }
}
