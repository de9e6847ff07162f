//! What an operator does to a registry that runs.

use std::fmt;
use std::sync::Arc;
use std::sync::OnceLock;

use arc_swap::ArcSwap;
use service::admin::{AdminListener, OwnFamilies, SharedEndpoints};
use service::config::ChangedKeys;
use service::job::{JobRequest, JobWatch};
use service::operate::{Operate, ReloadRefusal, Reloaded, ServerStatus};
use service::program_config::Configuration as _;
use service::shutdown::Drain;
use service::tls::Tls;

use crate::api::Policy;
use crate::config::{METRICS_CERTIFICATES, RegistryConfig};
use crate::maintenance::Maintenance;

/// Acts on a running registry. Clones act on the same one.
#[derive(Clone)]
pub struct RegistryOperator(Arc<LiveRegistry>);

/// What of a running registry can be replaced, or looked at.
struct LiveRegistry {
    policy: Arc<ArcSwap<Policy>>,
    /// The metrics listener's; `None` without one.
    endpoints: Option<SharedEndpoints<OwnFamilies>>,
    tls: Option<Tls>,
    /// The connections of clients, once it serves.
    open: OnceLock<Drain>,
    /// Only a store of files has jobs.
    maintenance: OnceLock<Maintenance>,
}

impl RegistryOperator {
    pub(super) fn new(
        policy: Arc<ArcSwap<Policy>>,
        listener: Option<&AdminListener<OwnFamilies>>,
    ) -> RegistryOperator {
        RegistryOperator(Arc::new(LiveRegistry {
            policy,
            endpoints: listener.map(AdminListener::endpoints),
            tls: listener.and_then(AdminListener::tls).cloned(),
            open: OnceLock::new(),
            maintenance: OnceLock::new(),
        }))
    }

    /// Starts these jobs from now on.
    pub(super) fn maintain(&self, maintenance: Maintenance) {
        // Set once: a registry has one store.
        let _ = self.0.maintenance.set(maintenance);
    }

    /// Counts these connections from now on.
    pub(super) fn follow(&self, open: Drain) {
        // Set once: a registry serves once.
        let _ = self.0.open.set(open);
    }
}

impl Operate for RegistryOperator {
    type Config = RegistryConfig;

    /// Cannot fail: the configuration is valid, and its files are loaded.
    async fn reload(
        &self,
        config: RegistryConfig,
        since_start: &ChangedKeys,
    ) -> Result<Reloaded, ReloadRefusal> {
        let live = &self.0;
        live.policy.store(Arc::new(Policy {
            delete: config.storage.delete,
            sparse_manifests: config.storage.sparse_manifests,
            ..**live.policy.load()
        }));
        if let Some(metrics) = config.metrics {
            if let Some(endpoints) = &live.endpoints {
                let next = endpoints.load().with(metrics.path, metrics.auth);
                endpoints.store(Arc::new(next.with_page(metrics.page)));
            }
            if let (Some(old), Some(new)) = (&live.tls, &metrics.tls) {
                old.replace(new);
            }
        }
        let mut applied = RegistryConfig::RELOADED.to_vec();
        // Of the listener, what stays as it is has been told already.
        applied.retain(|key| *key != METRICS_CERTIFICATES);
        Ok(Reloaded {
            needs_restart: since_start.without(&applied),
        })
    }

    fn status(&self) -> ServerStatus {
        let open = self.0.open.get();
        ServerStatus {
            connections: open.map(|open| open.count() as u64),
            ..ServerStatus::default()
        }
    }

    fn set_draining(&self, _: &str, _: Option<&str>, _: bool) -> Result<String, String> {
        Err("a registry has no upstreams".to_owned())
    }

    fn start_job(&self, request: &JobRequest) -> Result<JobWatch, String> {
        let maintenance = self.0.maintenance.get();
        let maintenance = maintenance.ok_or("this store needs no maintenance")?;
        maintenance
            .request(request)
            .map_err(|error| error.to_string())
    }
}

impl fmt::Debug for RegistryOperator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistryOperator").finish_non_exhaustive()
    }
}
