//! What an operator does to a server that runs: other settings, its state, an upstream that is drained.

use std::future::Future;

use serde::{Deserialize, Serialize};

use super::config::ChangedKeys;
use super::job::{JobRequest, JobWatch};

/// Acts on a running server. Clones act on the same one.
pub trait Operate: Clone + Send + Sync + 'static {
    /// The configuration of the program.
    type Config;

    /// Applies a configuration, whole or not at all. One call at a time.
    ///
    /// `since_start` are the keys whose values differ from those that the process started with. Files that
    /// the configuration names may have changed, too, under unchanged keys. The log itself is changed
    /// by the caller: that applies all of `logging`, but for what a server does with `access`.
    fn reload(
        &self,
        config: Self::Config,
        since_start: &ChangedKeys,
    ) -> impl Future<Output = Result<Reloaded, ReloadRefusal>> + Send;

    /// What the server is doing.
    fn status(&self) -> ServerStatus;

    /// Sends an upstream, or one of its replicas, no new requests, or sends it some again. Returns what
    /// was done, in words, or why it cannot be.
    fn set_draining(
        &self,
        upstream: &str,
        replica: Option<&str>,
        draining: bool,
    ) -> Result<String, String>;

    /// Starts a job. Returns what follows it, or why it does not start, in words.
    fn start_job(&self, request: &JobRequest) -> Result<JobWatch, String>;
}

/// A configuration that was applied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// The keys that differ from those of the start, and take effect after a restart only.
    pub needs_restart: Vec<String>,
}

/// Why a configuration was not applied. Nothing has changed then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ReloadRefusal(pub String);

/// What a server is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServerStatus {
    /// Open connections of clients; `None` where nobody counts them.
    pub connections: Option<u64>,
    /// Requests in flight; `None` where nobody counts them.
    pub requests: Option<u64>,
    /// The upstreams; a registry has none.
    pub upstreams: Vec<UpstreamStatus>,
}

/// The state of an upstream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpstreamStatus {
    /// Its name.
    pub name: String,
    /// Its replicas; the embedded registry has none.
    pub replicas: Vec<ReplicaStatus>,
}

/// The state of a replica.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaStatus {
    /// Its name.
    pub name: String,
    /// Whether it answers.
    pub healthy: bool,
    /// Whether it gets no new requests.
    pub draining: bool,
    /// Requests to it that have not ended.
    pub in_flight: u64,
}
