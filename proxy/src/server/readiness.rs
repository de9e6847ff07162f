//! Whether the embedded registry can serve: what `/readyz` says of it.

use std::sync::Arc;

use registry::server::follow;
use service::admin::Readiness;
use service::shutdown::Shutdown;

use crate::embedded::Presence;

/// Keeps the readiness up to date until the shutdown.
pub(super) async fn follow_embedded(
    presence: Presence,
    readiness: Arc<Readiness>,
    shutdown: Shutdown,
) {
    tokio::select! {
        () = follow(Some(presence), &readiness) => {}
        () = shutdown.recv() => {}
    }
}
