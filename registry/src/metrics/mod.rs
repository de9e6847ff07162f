//! The registry's metrics, and the labels that both programs share.

pub mod http;
pub mod label;
pub mod maintenance;
pub mod stats;
pub mod storage;

use std::collections::BTreeMap;
use std::sync::Arc;

use self::http::Http;
use self::maintenance::MaintenanceFamilies;
use self::stats::Stats;
use self::storage::{Backend, Storage};
use service::build_info;
use service::metrics::MetricsRegistry;
use service::reload::ReloadFamilies;

/// The prefix of every family's name.
pub const PREFIX: &str = "octoserve_";

/// The registry's families.
pub struct RegistryMetrics {
    /// Where they are declared, to be gathered.
    pub registry: MetricsRegistry,
    /// The requests.
    pub http: Arc<Http>,
    /// The store's operations.
    pub storage: Storage,
    /// What the store holds.
    pub stats: Stats,
    /// What the maintenance jobs do.
    pub maintenance: MaintenanceFamilies,
    /// The reloads of the process; `None` in the all-in-one, which has its own.
    pub reloads: Option<ReloadFamilies>,
}

impl RegistryMetrics {
    /// Declares all families, whose samples carry `labels`, too. Those of the process
    /// (`build_info`, `process_*`, reloads) are the program's: `with_process` is false in the all-in-one.
    pub fn register(
        backend: Backend,
        with_process: bool,
        labels: &BTreeMap<String, String>,
    ) -> Self {
        let registry = MetricsRegistry::labelled(PREFIX, labels);
        let http = Arc::new(Http::start(&registry));
        let storage = Storage::register(&registry, backend);
        let stats = Stats::new(&registry);
        let maintenance = MaintenanceFamilies::start(&registry);
        let reloads = with_process.then(|| ReloadFamilies::start(&registry));
        if with_process {
            registry.build_info(build_info::VERSION, build_info::REVISION, build_info::RUSTC);
            registry.process();
        }
        Self {
            registry,
            http,
            storage,
            stats,
            maintenance,
            reloads,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_family_is_declared_once_and_says_what_it_is() {
        let metrics = RegistryMetrics::register(Backend::Filesystem, true, &BTreeMap::new());
        assert_eq!(metrics.registry.duplicates(), Vec::<String>::new());
        for family in metrics.registry.families() {
            assert!(!family.help.is_empty(), "{}", family.name);
            for name in &family.labels {
                assert!(label::NAMES.contains(&name.as_str()), "{name}");
            }
        }
    }

    #[test]
    fn an_embedded_registry_has_no_families_of_the_process() {
        let metrics = RegistryMetrics::register(Backend::Filesystem, false, &BTreeMap::new());
        let families = metrics.registry.families();
        let is_process = |name: &str| {
            name.starts_with("process_")
                || name.contains("_config_")
                || name.ends_with("build_info")
        };
        assert!(!families.iter().any(|family| is_process(&family.name)));
    }
}
