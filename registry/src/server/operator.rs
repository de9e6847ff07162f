//! What an operator does to a registry that runs.

use service::config::ChangedKeys;
use service::operate::{Operate, ReloadRefusal, Reloaded, ServerStatus};

use crate::config::RegistryConfig;

/// The keys that take effect without a restart.
const APPLIED: &[&str] = &["logging.level", "logging.format", "logging.sample"];

/// Acts on a running registry.
#[derive(Clone, Debug)]
pub struct RegistryOperator;

impl Operate for RegistryOperator {
    type Config = RegistryConfig;

    async fn reload(
        &self,
        _: RegistryConfig,
        since_start: &ChangedKeys,
    ) -> Result<Reloaded, ReloadRefusal> {
        Ok(Reloaded {
            needs_restart: since_start.without(APPLIED),
        })
    }

    fn status(&self) -> ServerStatus {
        ServerStatus::default()
    }

    fn set_draining(&self, _: &str, _: Option<&str>, _: bool) -> Result<String, String> {
        Err("a registry has no upstreams".to_owned())
    }
}
