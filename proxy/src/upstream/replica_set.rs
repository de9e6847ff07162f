//! The replicas of one upstream.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::join_all;
use service::log::causes;
use service::operate::ReplicaStatus;
use tokio::sync::watch;

use super::balance::{Balancer, TriedReplicas};
use super::health::HealthChange;
use super::replica::Replica;
use super::session_tag::{SessionKey, SessionTags};
use super::settings::{QueueRules, ReplicaRules, ReplicaSettings};
use crate::metrics::ReplicaMetrics;

/// The replicas of one upstream.
pub struct ReplicaSet {
    upstream: String,
    replicas: Vec<Arc<Replica>>,
    balancer: Balancer,
    rules: ReplicaRules,
    /// How many requests wait for a replica.
    waiting: AtomicUsize,
    tags: SessionTags,
    health_changes: watch::Sender<()>,
    metrics: Option<ReplicaMetrics>,
}

/// A place in the queue, until it is dropped.
pub(super) struct QueuePlace<'s>(&'s ReplicaSet);

impl ReplicaSet {
    pub(super) fn new(
        upstream: &str,
        replicas: Vec<ReplicaSettings>,
        rules: ReplicaRules,
    ) -> ReplicaSet {
        let key = rules.session_key.clone();
        let names = replicas.iter().map(|replica| replica.name.as_str());
        let tags = SessionTags::new(&key.unwrap_or_else(SessionKey::random), upstream, names);
        let replicas = replicas.into_iter();
        let replica = |settings| Arc::new(Replica::new(upstream.to_owned(), settings, &rules));
        let replicas = replicas.map(replica);
        ReplicaSet {
            upstream: upstream.to_owned(),
            replicas: replicas.collect(),
            balancer: Balancer::new(rules.balance),
            rules,
            waiting: AtomicUsize::new(0),
            tags,
            health_changes: watch::Sender::new(()),
            metrics: None,
        }
    }

    /// Takes on the replicas of a set that this one replaces, where they are the same: with their
    /// connections, their requests in flight and their health. Whether all of them are the same.
    pub(super) fn adopt(&mut self, previous: &ReplicaSet) -> bool {
        let mut is_whole = true;
        for replica in &mut self.replicas {
            match previous.replicas.iter().find(|one| one.is_same(replica)) {
                Some(same) => {
                    same.configure_draining(replica);
                    *replica = Arc::clone(same);
                }
                None => is_whole = false,
            }
        }
        is_whole
    }

    pub(super) fn record(&mut self, metrics: &ReplicaMetrics) {
        metrics.configured(self.replicas.len(), self.healthy());
        self.metrics = Some(metrics.clone());
    }

    pub(super) fn all(&self) -> &[Arc<Replica>] {
        &self.replicas
    }

    /// The configured URL of a replica, for the log alone.
    pub(crate) fn name_of(&self, replica: usize) -> Option<&str> {
        Some(self.replicas.get(replica)?.name())
    }

    /// The tags of upload sessions.
    pub(crate) fn tags(&self) -> &SessionTags {
        &self.tags
    }

    /// Whether there is only one, which all requests reach anyway.
    pub(crate) fn is_single(&self) -> bool {
        self.replicas.len() == 1
    }

    pub(super) fn choose(&self, tried: TriedReplicas) -> Option<usize> {
        self.balancer.choose(&self.replicas, tried)
    }

    /// One of them, which is healthy if any is.
    pub(crate) fn any(&self) -> Option<&Replica> {
        let mut replicas = self.replicas.iter();
        let healthy = replicas.find(|replica| replica.is_healthy());
        healthy.or(self.replicas.first()).map(AsRef::as_ref)
    }

    fn healthy(&self) -> usize {
        let replicas = self.replicas.iter();
        replicas.filter(|replica| replica.is_healthy()).count()
    }

    pub(super) fn queue_rules(&self) -> QueueRules {
        self.rules.queue
    }

    /// A place in the queue; `None` if there is none left.
    pub(super) fn queue(&self) -> Option<QueuePlace<'_>> {
        let length = self.rules.queue.length;
        let order = Ordering::Relaxed;
        let counted = self.waiting.fetch_update(order, order, |waiting| {
            (waiting < length).then_some(waiting + 1)
        });
        counted.ok()?;
        if let Some(metrics) = &self.metrics {
            metrics.began_to_wait();
        }
        Some(QueuePlace(self))
    }

    /// What follows the prefix in a path of this replica, if it has a prefix.
    pub(super) fn below<'a>(&self, replica: usize, path: &'a str) -> Option<&'a str> {
        self.replicas.get(replica)?.below(path)
    }

    /// What follows the address and the prefix in an absolute URL, if it is that of this replica, or of
    /// another one.
    pub(super) fn within<'a>(
        &self,
        replica: usize,
        url: &'a str,
        client: Option<&str>,
    ) -> Option<&'a str> {
        let asked = self.replicas.get(replica).into_iter();
        let mut all = asked.chain(&self.replicas);
        all.find_map(|replica| replica.within(url, client))
    }

    /// Keeps the replicas resolved and their idle connections fresh, without an end.
    pub(super) async fn maintain(&self) {
        join_all(self.replicas.iter().map(|replica| replica.maintain())).await;
    }

    /// Resolves the names that are not resolved yet.
    pub(super) async fn resolve(&self) {
        join_all(self.replicas.iter().map(|replica| replica.resolve())).await;
    }

    /// Probes the replicas, without an end.
    pub(super) async fn keep_probed(&self) {
        let each = self.replicas.iter().map(async |replica| {
            loop {
                let result = replica.probe(&self.rules.health).await;
                let change = replica.health.probed(result.is_ok());
                let error = result.err().map(|error| causes(&error));
                self.note(replica, change, error.as_deref());
                tokio::time::sleep(replica.health.pause()).await;
            }
        });
        join_all(each).await;
    }

    /// A request could not be sent to this replica.
    pub(super) fn connect_failed(&self, replica: &Replica, error: &str) {
        let change = replica.health.connect_failed();
        self.note(replica, change, Some(error));
    }

    /// The state of each.
    pub(super) fn status(&self) -> Vec<ReplicaStatus> {
        let all = self.replicas.iter().map(|replica| ReplicaStatus {
            name: replica.name().to_owned(),
            healthy: replica.is_healthy(),
            draining: replica.is_draining(),
            in_flight: replica.load() as u64,
        });
        all.collect()
    }

    /// Has the replica of this name, or all of them, drain or take new requests again. Returns how many
    /// there are.
    pub(super) fn set_draining(
        &self,
        name: Option<&str>,
        is_draining: bool,
    ) -> Result<usize, String> {
        let chosen = self.replicas.iter().filter(|replica| {
            // Its URL, or that without its scheme.
            let without_scheme = replica.name().split_once("://").map(|(_, rest)| rest);
            name.is_none_or(|name| name == replica.name() || Some(name) == without_scheme)
        });
        let chosen: Vec<_> = chosen.collect();
        if chosen.is_empty() {
            let names: Vec<_> = self.replicas.iter().map(|replica| replica.name()).collect();
            let (asked, names) = (name.unwrap_or_default(), names.join(", "));
            return Err(format!(
                "the upstream {} has no replica `{asked}`: it has {names}",
                self.upstream
            ));
        }
        for replica in &chosen {
            replica.set_draining(is_draining);
        }
        Ok(chosen.len())
    }

    /// A receiver that is told of each change of the health.
    pub(super) fn health_changes(&self) -> watch::Receiver<()> {
        self.health_changes.subscribe()
    }

    /// Whether a replica that takes new requests is healthy; `None` before that is known.
    pub(super) fn is_healthy(&self) -> Option<bool> {
        let mut serving = self
            .replicas
            .iter()
            .filter(|replica| !replica.is_draining());
        if serving.clone().any(|replica| replica.is_healthy()) {
            Some(true)
        } else if serving.any(|replica| replica.health.is_unknown()) {
            None
        } else {
            Some(false)
        }
    }

    fn note(&self, replica: &Replica, change: Option<HealthChange>, error: Option<&str>) {
        let Some(change) = change else {
            return;
        };
        let (upstream, name) = (self.upstream.as_str(), replica.name());
        match change {
            HealthChange::FirstHealthy => {}
            HealthChange::Recovered(after) => {
                let duration_s = after.as_secs_f64();
                tracing::info!(upstream, replica = name, duration_s, "upstream healthy");
            }
            HealthChange::Unhealthy => {
                tracing::warn!(upstream, replica = name, error, "upstream unhealthy");
            }
        }
        if let Some(metrics) = &self.metrics {
            metrics.healthy(self.healthy());
        }
        self.health_changes.send_replace(());
    }
}

impl Drop for QueuePlace<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
        if let Some(metrics) = &self.0.metrics {
            metrics.ended_to_wait();
        }
    }
}
