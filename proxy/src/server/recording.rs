//! Everything that records metrics, and where they are served.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use service::admin::{AdminListener, SharedEndpoints};
use service::build_info;
use service::listen::BindError;
use service::listen::Inheritance;
use service::metrics::{Counter, MetricsRegistry, families};
use service::reload::ReloadFamilies;
use service::scrape::FinalFile;
use service::tls::Tls;

use crate::admin::Admin;
use crate::aggregate::{Aggregate, Source};
use crate::config::ProxyMetricsConfig;
use crate::exchange::Recorder;
use crate::metrics::{CertificateFamilies, ConnectionMetrics, UpstreamFamilies};

/// How long the last manifests may take to be parsed; each takes some milliseconds.
const COUNTED: Duration = Duration::from_secs(5);

/// The prefix of every family's name.
const PREFIX: &str = "octoserve_";

families! {
    /// The `panics_total` family.
    struct PanicMetrics {
        /// Panics that were contained: each ended one request or task, never the process; counted
        /// when it happens.
        panics: Counter = "panics_total",
    }
}

/// Everything that records metrics.
pub(super) struct ProxyRecording {
    pub(super) recorder: Arc<Recorder>,
    pub(super) connections: Arc<ConnectionMetrics>,
    pub(super) panics: Counter,
    pub(super) reloads: ReloadFamilies,
    pub(super) upstreams: UpstreamFamilies,
    pub(super) certificates: Certificates,
    pub(super) aggregate: Arc<Aggregate>,
    /// Where the last exposition is written.
    final_file: Option<FinalFile>,
    /// The endpoints of the listener for metrics and probes alone, if there is one.
    pub(super) endpoints: Option<SharedEndpoints<Aggregate>>,
}

/// The certificates of all listeners, as the metrics show them.
pub(super) struct Certificates {
    families: CertificateFamilies,
    /// All listeners that have certificates.
    tls: Vec<Tls>,
    /// The files that are shown.
    shown: Mutex<Vec<String>>,
}

impl ProxyRecording {
    /// Declares all families, and binds the listener for metrics alone, if there is one. `clients` are
    /// the listeners for clients that have certificates; `endpoints` makes the endpoints of a listener.
    pub(super) async fn bind(
        config: ProxyMetricsConfig,
        upstreams: usize,
        embedded: Option<Source>,
        clients: Vec<Tls>,
        endpoints: impl Fn(&ProxyMetricsConfig, Arc<Aggregate>) -> Admin,
        inheritance: &Inheritance,
    ) -> Result<(ProxyRecording, Option<AdminListener<Aggregate>>), BindError> {
        let registry = MetricsRegistry::labelled(PREFIX, &config.endpoint.labels);
        registry.build_info(build_info::VERSION, build_info::REVISION, build_info::RUSTC);
        registry.process();
        let panics = PanicMetrics::declare(&registry).panics;
        let reloads = ReloadFamilies::start(&registry);
        let recorder = Recorder::new(&registry, config.repositories.clone());
        let connections = Arc::new(ConnectionMetrics::new(&registry));
        let upstreams = UpstreamFamilies::declare(&registry, upstreams);
        let mut tls = clients;
        tls.extend(config.endpoint.tls.clone());
        let certificates = Certificates::new(&registry, tls);
        let sources = config.sources.iter().cloned().chain(embedded).collect();
        let aggregate = Arc::new(Aggregate::new(registry, sources, config.limits));
        let listener = match &config.endpoint.listen {
            None => None,
            Some(address) => {
                let endpoints = endpoints(&config, Arc::clone(&aggregate));
                let tls = config.endpoint.tls.clone();
                Some(AdminListener::bind(inheritance, address, tls, endpoints).await?)
            }
        };
        if !config.on_main && listener.is_none() {
            tracing::warn!(
                "the metrics are served nowhere: others can reach the main listener, and the \
                 metrics name private repositories; set metrics.listen, metrics.basic_auth or \
                 metrics.public"
            );
        }
        let recording = ProxyRecording {
            recorder: Arc::new(recorder),
            connections,
            panics,
            reloads,
            upstreams,
            certificates,
            aggregate,
            final_file: config.endpoint.final_file,
            endpoints: listener.as_ref().map(AdminListener::endpoints),
        };
        Ok((recording, listener))
    }

    /// Waits until every request that has ended is counted as a whole. The kinds of the last manifests are
    /// read after their requests.
    pub(super) async fn counted(&self) {
        if !self.recorder.counted(COUNTED).await {
            tracing::warn!("the last manifests are not counted");
        }
    }

    /// Writes the last exposition, where that is wanted.
    pub(super) async fn write_final_file(&self) {
        if let Some(file) = &self.final_file {
            file.write(self.aggregate.own_families()).await;
        }
    }
}

impl Certificates {
    fn new(registry: &MetricsRegistry, tls: Vec<Tls>) -> Certificates {
        let count = tls.iter().map(|tls| tls.expiries().len()).sum();
        Certificates {
            families: CertificateFamilies::declare(registry, count),
            tls,
            shown: Mutex::default(),
        }
    }

    /// All listeners that have certificates.
    pub(super) fn listeners(&self) -> &[Tls] {
        &self.tls
    }

    /// Shows the certificates that are loaded now, and those alone.
    pub(super) fn show(&self) {
        let mut shown = self.shown.lock();
        let all: Vec<_> = self.tls.iter().map(Tls::expiries).collect();
        self.families.resize(all.iter().map(|one| one.len()).sum());
        let mut now = Vec::new();
        for expiry in all.iter().flat_map(|one| one.iter()) {
            let name = expiry.file.display().to_string();
            self.families.expiry.set(&name, expiry.at as f64);
            now.push(name);
        }
        for gone in shown.iter().filter(|name| !now.contains(name)) {
            self.families.forget(gone);
        }
        *shown = now;
    }
}
