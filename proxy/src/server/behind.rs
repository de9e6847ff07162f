//! Whether what is behind the proxy is well, looked at now and then: what `/readyz` says.
//!
//! No request waits for it, and none is refused for it: a request that reaches an upstream which was
//! not well a moment ago may find it well again.

use std::sync::Arc;
use std::time::Duration;

use registry::service::log::causes;
use registry::service::shutdown::Shutdown;

use crate::admin::Readiness;
use crate::embedded::Folder;
use crate::upstream::Upstream;

/// How often it is looked at.
const EVERY: Duration = Duration::from_secs(5);
/// How often it is looked at while it is not well.
const AGAIN: Duration = Duration::from_secs(1);

/// What is behind the proxy.
pub(super) enum Behind {
    /// A registry somewhere, which must answer.
    Remote(Arc<Upstream>),
    /// The registry in this process, which must have its folder.
    Embedded(Folder),
}

impl Behind {
    /// Looks at it until the shutdown, and says what it saw.
    pub(super) async fn watch(self, readiness: Arc<Readiness>, mut shutdown: Shutdown) {
        let behind = Arc::new(self);
        let mut was_well = true;
        loop {
            let seen = tokio::select! {
                seen = behind.look() => seen,
                () = shutdown.recv() => return,
            };
            let is_well = seen.is_ok();
            readiness.set_behind(is_well);
            if is_well != was_well {
                match seen {
                    Ok(()) => tracing::info!("what is behind the proxy is well again"),
                    Err(error) => tracing::warn!(error, "what is behind the proxy is not well"),
                }
            }
            was_well = is_well;
            tokio::select! {
                () = tokio::time::sleep(if is_well { EVERY } else { AGAIN }) => {}
                () = shutdown.recv() => return,
            }
        }
    }

    async fn look(self: &Arc<Self>) -> Result<(), String> {
        if let Behind::Remote(upstream) = &**self {
            return upstream.look().await.map_err(|error| causes(&error));
        }
        let behind = Arc::clone(self);
        // A disk that hangs must not hang a worker.
        let looked = tokio::task::spawn_blocking(move || match &*behind {
            Behind::Embedded(folder) => folder.look().map_err(|error| causes(&error)),
            Behind::Remote(_) => Ok(()),
        });
        looked.await.unwrap_or_else(|error| Err(causes(&error)))
    }
}
