//! What an operator does to a proxy that runs.

use std::fmt;
use std::sync::Arc;

use service::config::ChangedKeys;
use service::job::{JobRequest, JobWatch};
use service::operate::{Operate, ReloadRefusal, Reloaded, ServerStatus, UpstreamStatus};

use super::live::LiveProxy;
use crate::config::ProxyConfig;

/// Acts on a running proxy. Clones act on the same one.
#[derive(Clone)]
pub struct ProxyOperator(pub(super) Arc<LiveProxy>);

impl Operate for ProxyOperator {
    type Config = ProxyConfig;

    async fn reload(
        &self,
        config: ProxyConfig,
        since_start: &ChangedKeys,
    ) -> Result<Reloaded, ReloadRefusal> {
        let needs_restart = self.0.apply(config, since_start).await;
        Ok(Reloaded { needs_restart })
    }

    fn status(&self) -> ServerStatus {
        let requests = self
            .0
            .recording
            .as_ref()
            .map(|recording| recording.recorder.metrics.http.requests_in_flight());
        let upstreams = self.0.upstreams.current();
        let upstreams = upstreams.all().map(|upstream| UpstreamStatus {
            name: upstream.name().to_owned(),
            replicas: upstream.status(),
        });
        ServerStatus {
            connections: Some(self.0.connections.count() as u64),
            requests,
            upstreams: upstreams.collect(),
        }
    }

    fn set_draining(
        &self,
        upstream: &str,
        replica: Option<&str>,
        draining: bool,
    ) -> Result<String, String> {
        let upstreams = self.0.upstreams.current();
        let names = || {
            let names: Vec<_> = upstreams.all().map(|one| one.name().to_owned()).collect();
            names.join(", ")
        };
        let found = upstreams.all().find(|one| one.name() == upstream);
        let found = found
            .ok_or_else(|| format!("there is no upstream `{upstream}`: there is {}", names()))?;
        let count = found.set_draining(replica, draining)?;
        self.0.update_health();
        let state = if draining { "draining" } else { "ready" };
        tracing::info!(
            upstream,
            replica,
            draining,
            "replicas changed by the operator"
        );
        Ok(match count {
            1 => format!("1 replica of {upstream} is {state}"),
            count => format!("{count} replicas of {upstream} are {state}"),
        })
    }

    fn start_job(&self, request: &JobRequest) -> Result<JobWatch, String> {
        let registry = self.0.registry.as_ref();
        let registry = registry.ok_or("this octoserve has no registry of its own to maintain")?;
        registry.start_job(request)
    }
}

impl fmt::Debug for ProxyOperator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProxyOperator").finish_non_exhaustive()
    }
}
