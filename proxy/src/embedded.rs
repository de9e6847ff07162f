//! The registry in this process, which has no address: every request reaches it through the proxy.

use std::collections::BTreeMap;

use registry::config::{RegistryConfig, StorageFields};
pub use registry::server::Presence;
use registry::server::in_process::InProcess;
use registry::server::{self, BoundRegistry, RegistryOperator, RegistryStartError};
use service::program::Server as _;
use service::shutdown::Shutdown;

use crate::aggregate::{Origin, Source};
use crate::config;

/// An embedded registry that has opened its data.
pub struct Embedded(BoundRegistry);

impl Embedded {
    /// Opens the registry's data; nothing is served yet. Without `labels` for its samples the
    /// registry records nothing.
    pub async fn bind(
        storage: StorageFields,
        labels: Option<BTreeMap<String, String>>,
    ) -> Result<Embedded, RegistryStartError> {
        let config = RegistryConfig::embedded(storage, labels);
        Ok(Embedded(server::bind(config).await?))
    }

    /// How the proxy reaches the registry.
    pub fn in_process(&self) -> InProcess {
        self.0.in_process()
    }

    /// Its families as a source, if it records anything.
    pub fn source(&self) -> Option<Source> {
        let families = self.0.families()?;
        Some(Source {
            name: config::EMBEDDED.to_owned(),
            origin: Origin::InProcess(families),
        })
    }

    /// What acts on it while it serves.
    pub fn operator(&self) -> RegistryOperator {
        self.0.operator()
    }

    /// Whether the data directory is there.
    pub fn presence(&self) -> Option<Presence> {
        self.0.presence()
    }

    /// Serves until the shutdown, which the proxy triggers once its own requests have drained.
    pub async fn serve(self, shutdown: Shutdown) {
        // It has no connections of its own that could be cut.
        let _ = self.0.serve(shutdown).await;
    }
}
