//! What an operator does to a proxy that runs.

use service::config::ChangedKeys;
use service::operate::{Operate, ReloadRefusal, Reloaded, ServerStatus};

use crate::config::ProxyConfig;

/// Acts on a running proxy.
#[derive(Clone, Debug)]
pub struct ProxyOperator;

impl Operate for ProxyOperator {
    type Config = ProxyConfig;

    async fn reload(
        &self,
        _: ProxyConfig,
        since_start: &ChangedKeys,
    ) -> Result<Reloaded, ReloadRefusal> {
        Ok(Reloaded {
            needs_restart: since_start.without(&[]),
        })
    }

    fn status(&self) -> ServerStatus {
        ServerStatus::default()
    }

    fn set_draining(&self, _: &str, _: Option<&str>, _: bool) -> Result<String, String> {
        Err("upstreams cannot be drained".to_owned())
    }
}
