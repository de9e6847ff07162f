//! A proxy that serves, as a reload changes it.

use std::sync::Arc;

use registry::server::RegistryOperator;
use service::admin::{Readiness, StatusPage};
use service::config::ChangedKeys;
use service::log;
use service::program_config::Configuration as _;
use service::tls::Tls;

use super::recording::ProxyRecording;
use super::running_upstreams::{self, RunningUpstreams};
use crate::admin::{Admin, refuse};
use crate::aggregate::{Aggregate, Source};
use crate::config::{
    CERTIFICATES, METRICS_CERTIFICATES, METRICS_PATH, ProxyConfig, ProxyMetricsConfig, UPSTREAMS,
    UpstreamsConfig,
};
use crate::downstream::OpenConnections;
use crate::exchange::Observer;
use crate::forward::{ForwardSettings, Forwarder};
use crate::upstream::{Timeouts, Upstreams};

/// A proxy that serves.
pub(super) struct LiveProxy {
    pub(super) forwarder: Arc<Forwarder>,
    pub(super) connections: OpenConnections,
    pub(super) readiness: Arc<Readiness>,
    pub(super) upstreams: RunningUpstreams,
    /// `None` records nothing.
    pub(super) recording: Option<ProxyRecording>,
    pub(super) observer: Observer,
    /// The families of the embedded registry.
    pub(super) embedded: Option<Source>,
    /// What acts on the embedded registry; `None` without one.
    pub(super) registry: Option<RegistryOperator>,
    /// The certificates of each listener for clients.
    pub(super) listeners: Vec<Option<Tls>>,
    /// The certificates of the listener for metrics alone.
    pub(super) metrics_tls: Option<Tls>,
}

impl LiveProxy {
    /// Applies a configuration. Returns the keys that take effect after a restart only.
    pub(super) async fn apply(
        self: &Arc<LiveProxy>,
        config: ProxyConfig,
        since_start: &ChangedKeys,
    ) -> Vec<String> {
        let mut applied = ProxyConfig::RELOADED.to_vec();
        let mut leave = |left: &str| applied.retain(|key| *key != left);
        // Of the listeners, what stays as it is has been told already.
        leave(CERTIFICATES);
        leave(METRICS_CERTIFICATES);
        let timeouts = Timeouts::with_stall(config.limits.body_stall);
        let families = self
            .recording
            .as_ref()
            .map(|recording| &recording.upstreams);
        let next = match config.upstreams {
            UpstreamsConfig::Remote(configs) if self.registry.is_none() => {
                self.upstreams.next(configs, timeouts, families)
            }
            // The embedded registry is started, and ended, with the process.
            UpstreamsConfig::Remote(_) | UpstreamsConfig::Embedded(_) => {
                leave(UPSTREAMS);
                None
            }
        };
        if let Some(next) = &next {
            // Before anything changes: no request is to fail because of a name that is new.
            running_upstreams::resolve(next).await;
        }
        // Its listeners are those that run, in their order.
        for (tls, next) in self.listeners.iter().zip(&config.listen) {
            replace_tls(tls.as_ref(), next.tls.as_ref());
        }
        if let Some(metrics) = &config.metrics {
            self.replace_metrics(metrics);
        }
        let current = self.forwarder.settings();
        let admin = match (&self.recording, &config.metrics) {
            (Some(recording), Some(metrics)) => {
                Arc::new(self.main_endpoints(metrics, &recording.aggregate))
            }
            _ => Arc::clone(&current.admin),
        };
        let settings = ForwardSettings {
            upstreams: next.clone().unwrap_or_else(|| current.upstreams.clone()),
            admin,
            observer: self.observer.if_needed(config.logging.access),
            limits: config.limits,
            access_log: log::access_log(),
            forwarded: config.forwarded,
            cors: config.cors,
        };
        self.connections.set_limit(config.limits.connections);
        // At once for all that a request sees.
        self.forwarder.replace_settings(settings);
        if let Some(next) = next {
            let this = Arc::clone(self);
            self.upstreams
                .replace(next, families, move || this.update_health());
            self.update_health();
        }
        since_start.without(&applied)
    }

    /// Tells the readiness whether the upstreams are healthy, if that is known.
    pub(super) fn update_health(&self) {
        let settings = self.forwarder.settings();
        self.readiness_of(&settings.upstreams);
    }

    fn readiness_of(&self, upstreams: &Upstreams) {
        let reason = match upstreams.all().count() {
            1 => "the upstream is unhealthy",
            _ => "all upstreams are unhealthy",
        };
        if let Some(is_healthy) = upstreams.is_any_healthy() {
            // Without the cause, which the log has: a probe needs no credentials, and the cause names
            // addresses.
            let health = is_healthy.then_some(());
            let health = health.ok_or_else(|| reason.to_owned());
            self.readiness.set_health(health);
        }
    }

    /// Changes what the metrics hold and who may scrape them, and the certificates of their listener.
    fn replace_metrics(&self, metrics: &ProxyMetricsConfig) {
        let Some(recording) = &self.recording else {
            return;
        };
        let metrics_of = &recording.recorder.metrics;
        metrics_of
            .repositories
            .replace_rules(metrics.repositories.clone());
        let sources = metrics.sources.iter().chain(&self.embedded).cloned();
        recording
            .aggregate
            .replace(sources.collect(), metrics.limits);
        if let Some(endpoints) = &recording.endpoints {
            let page = metrics.endpoint.page.clone();
            let next = self.endpoints(metrics, Some(&recording.aggregate), page);
            endpoints.store(Arc::new(next));
        }
        replace_tls(self.metrics_tls.as_ref(), metrics.endpoint.tls.as_ref());
        recording.certificates.show();
    }

    fn main_endpoints(&self, metrics: &ProxyMetricsConfig, aggregate: &Arc<Aggregate>) -> Admin {
        let page = main_page(metrics, self.registry.is_some());
        self.endpoints(metrics, metrics.on_main.then_some(aggregate), page)
    }

    fn endpoints(
        &self,
        metrics: &ProxyMetricsConfig,
        served: Option<&Arc<Aggregate>>,
        page: Option<Arc<StatusPage>>,
    ) -> Admin {
        endpoints(&self.readiness, Some(metrics), served).with_page(page)
    }
}

/// Has a listener use other certificates, if it has any.
fn replace_tls(tls: Option<&Tls>, next: Option<&Tls>) {
    if let (Some(tls), Some(next)) = (tls, next) {
        tls.replace(next);
    }
}

/// The status page of the main listeners, if they serve it.
pub(super) fn main_page(
    metrics: &ProxyMetricsConfig,
    is_embedded: bool,
) -> Option<Arc<StatusPage>> {
    let page = metrics.endpoint.page.as_ref();
    page.filter(|_| metrics.has_page_on_main(is_embedded))
        .cloned()
}

/// The endpoints of a listener, with the metrics or without, and without a status page.
pub(super) fn endpoints(
    readiness: &Arc<Readiness>,
    metrics: Option<&ProxyMetricsConfig>,
    served: Option<&Arc<Aggregate>>,
) -> Admin {
    let endpoint = metrics.map(|metrics| &metrics.endpoint);
    let path = endpoint.map_or(METRICS_PATH, |endpoint| &endpoint.path);
    let auth = endpoint.and_then(|endpoint| endpoint.auth.clone());
    let readiness = Arc::clone(readiness);
    Admin::new(served.cloned(), path.to_owned(), auth, readiness, refuse)
}
