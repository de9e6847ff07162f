//! Binds, serves and drains: the lifecycle of the process.

use std::sync::Arc;
use std::time::Duration;

use registry::server::RegistryStartError;
use service::admin::{AdminListener, Readiness};
use service::auth::BasicAuth;
use service::limits::Limits;
use service::listen::{BindError, ListenAddr, Listener};
use service::metrics::{Counter, MetricsRegistry, families};
use service::program::Server;
use service::reload::ReloadFamilies;
use service::runtime::Workers;
use service::shutdown::Shutdown;
use service::tls::{CertificateExpiry, Tls};
use service::{build_info, log};

use crate::admin::{Admin, refuse};
use crate::aggregate::{Aggregate, Source};
use crate::config::{
    self, METRICS_PATH, ProxyConfig, ProxyMetricsConfig, RemoteConfig, UpstreamsConfig,
};
use crate::cors::CorsRules;
use crate::downstream::{self, OpenConnections};
use crate::embedded::Embedded;
use crate::exchange::{Observer, Recorder};
use crate::forward::{ForwardSettings, Forwarder, Shared};
use crate::forwarded::ForwardedRules;
use crate::metrics::{CertificateFamilies, ConnectionMetrics, UpstreamFamilies};
use crate::upstream::{Timeouts, Upstream, Upstreams};

mod operator;
mod readiness;
mod self_signed;

pub use self::operator::ProxyOperator;
use self::readiness::UpstreamHealth;
use self::self_signed::{SelfSigned, SelfSignedError};

/// The prefix of every family's name.
const PREFIX: &str = "octoserve_";
/// How long the embedded registry may take to end once no client is served any more.
const REGISTRY_DRAIN: Duration = Duration::from_secs(1);
families! {
    /// The `panics_total` family.
    struct PanicMetrics {
        /// Panics that were contained: each ended one request or task, never the process; counted
        /// when it happens.
        panics: Counter = "panics_total",
    }
}

/// Why the server could not start.
#[derive(Debug, thiserror::Error)]
pub enum ProxyStartError {
    /// An address could not be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The threads that serve connections could not start.
    #[error("cannot start the threads that serve connections: {0}")]
    Workers(#[source] std::io::Error),
    /// No certificate could be made.
    #[error(transparent)]
    SelfSigned(#[from] SelfSignedError),
    /// There is no upstream.
    #[error("no upstream is configured")]
    NoUpstream,
    /// The embedded registry could not start.
    #[error(transparent)]
    Embedded(#[from] RegistryStartError),
}

/// A proxy that has bound its addresses and serves nothing yet.
pub struct BoundProxy {
    listeners: Vec<(Listener, Option<Tls>)>,
    /// What else the operator should know.
    hints: Option<String>,
    addresses: Vec<ListenAddr>,
    workers: Workers,
    embedded: Option<Embedded>,
    upstreams: Upstreams,
    /// `None` records nothing.
    recording: Option<ProxyRecording>,
    /// The endpoints on the main listeners.
    admin: Arc<Admin>,
    readiness: Arc<Readiness>,
    limits: Limits,
    access_log: bool,
    forwarded: ForwardedRules,
    cors: Option<CorsRules>,
}

/// Everything that records metrics, and where they are served.
struct ProxyRecording {
    recorder: Arc<Recorder>,
    connections: Arc<ConnectionMetrics>,
    panics: Counter,
    reloads: ReloadFamilies,
    certificates: CertificateFamilies,
    /// All listeners that have certificates.
    tls: Vec<Tls>,
    aggregate: Arc<Aggregate>,
    /// A listener for metrics and probes alone.
    listener: Option<AdminListener<Aggregate>>,
}

/// Binds every address and opens the embedded registry, so that whatever can fail at the start fails
/// here.
pub async fn bind(config: ProxyConfig) -> Result<BoundProxy, ProxyStartError> {
    let timeouts = Timeouts::with_stall(config.limits.body_stall);
    let labels = config
        .metrics
        .as_ref()
        .map(|metrics| metrics.endpoint.labels.clone());
    let (mut upstreams, embedded): (Vec<_>, _) = match config.upstreams {
        UpstreamsConfig::Embedded(storage) => {
            let embedded = Embedded::bind(storage, labels).await?;
            let name = config::EMBEDDED.to_owned();
            let upstream = Upstream::embedded(name, embedded.in_process(), timeouts);
            (vec![upstream], Some(embedded))
        }
        UpstreamsConfig::Remote(upstreams) => {
            let upstreams = upstreams.into_iter();
            (upstreams.map(|one| remote(one, timeouts)).collect(), None)
        }
    };
    let mut tls: Vec<Option<Tls>> = Vec::with_capacity(config.listen.len());
    let mut addresses = Vec::with_capacity(config.listen.len());
    for listen in config.listen {
        addresses.push(listen.address);
        tls.push(listen.tls);
    }
    let listeners = Listener::bind_all(&addresses).await?;
    let addresses: Vec<_> = listeners.iter().map(Listener::address).cloned().collect();
    let mut hints = None;
    if config.tls_self_signed {
        let made = SelfSigned::prepare()?;
        hints = Some(made.hints(&addresses));
        for tls in &mut tls {
            tls.get_or_insert_with(|| made.tls.clone());
        }
    }
    for tls in tls.iter().flatten() {
        tls.warn_of_expiry();
    }
    let readiness = Arc::new(Readiness::default());
    let endpoints =
        |metrics, path, auth| Admin::new(metrics, path, auth, Arc::clone(&readiness), refuse);
    let (recording, admin) = match config.metrics {
        None => (None, endpoints(None, METRICS_PATH.to_owned(), None)),
        Some(metrics) => {
            let (path, auth) = (metrics.endpoint.path.clone(), metrics.endpoint.auth.clone());
            let on_main = metrics.on_main;
            let source = embedded.as_ref().and_then(Embedded::source);
            let tls = tls.iter().flatten().cloned().collect();
            let (recording, families) =
                ProxyRecording::bind(metrics, upstreams.len(), source, tls, endpoints).await?;
            let record = |upstream: Upstream| {
                let cells = families.of(upstream.name());
                upstream.with_metrics(cells)
            };
            upstreams = upstreams.into_iter().map(record).collect();
            let aggregate = on_main.then(|| Arc::clone(&recording.aggregate));
            (Some(recording), endpoints(aggregate, path, auth))
        }
    };
    let mut upstreams = upstreams.into_iter().map(Arc::new);
    let Some(first) = upstreams.next() else {
        return Err(ProxyStartError::NoUpstream);
    };
    let upstreams = Upstreams::new(first, upstreams.collect());
    Ok(BoundProxy {
        addresses,
        hints,
        workers: Workers::start().map_err(ProxyStartError::Workers)?,
        listeners: listeners.into_iter().zip(tls).collect(),
        embedded,
        upstreams,
        recording,
        admin: Arc::new(admin),
        readiness,
        limits: config.limits,
        access_log: config.logging.access,
        forwarded: config.forwarded,
        cors: config.cors,
    })
}

/// An upstream somewhere.
fn remote(config: RemoteConfig, timeouts: Timeouts) -> Upstream {
    if config.replicas.len() > 1 && config.rules.session_key.is_none() {
        tracing::warn!(
            upstream = config.name,
            "upload sessions cannot move to another proxy, and end with this process: set \
             session_key_file"
        );
    }
    let upstream = Upstream::new(config.name, config.replicas, config.rules, timeouts);
    let upstream = upstream.with_credentials(config.credentials);
    upstream.read_only(config.read_only)
}

impl ProxyRecording {
    /// Declares all families, and binds the listener for metrics alone, if there is one. Returns the
    /// families of the upstreams, too.
    async fn bind(
        config: ProxyMetricsConfig,
        upstreams: usize,
        embedded: Option<Source>,
        mut tls: Vec<Tls>,
        endpoints: impl Fn(Option<Arc<Aggregate>>, String, Option<BasicAuth>) -> Admin,
    ) -> Result<(ProxyRecording, UpstreamFamilies), ProxyStartError> {
        let registry = MetricsRegistry::labelled(PREFIX, &config.endpoint.labels);
        registry.build_info(build_info::VERSION, build_info::REVISION, build_info::RUSTC);
        registry.process();
        let panics = PanicMetrics::declare(&registry).panics;
        let reloads = ReloadFamilies::start(&registry);
        let recorder = Arc::new(Recorder::new(&registry, config.repositories));
        let connections = Arc::new(ConnectionMetrics::new(&registry));
        let families = UpstreamFamilies::declare(&registry, upstreams);
        tls.extend(config.endpoint.tls.clone());
        let certificates = tls.iter().map(|tls| tls.expiries().len()).sum();
        let certificates = CertificateFamilies::declare(&registry, certificates);
        let sources = config.sources.into_iter().chain(embedded).collect();
        let aggregate = Arc::new(Aggregate::new(registry, sources, config.limits));
        let endpoint = config.endpoint;
        let listener = match endpoint.listen {
            None => None,
            Some(address) => {
                let served = Some(Arc::clone(&aggregate));
                let endpoints = endpoints(served, endpoint.path, endpoint.auth);
                Some(AdminListener::bind(&address, endpoint.tls, endpoints).await?)
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
            recorder,
            connections,
            panics,
            reloads,
            certificates,
            tls,
            aggregate,
            listener,
        };
        Ok((recording, families))
    }
}

impl BoundProxy {
    /// The most series that the proxy's own metrics can ever have, whatever clients do; `None` where
    /// nothing is recorded.
    pub fn max_series(&self) -> Option<usize> {
        let recording = self.recording.as_ref();
        recording.map(|recording| recording.aggregate.max_series())
    }
}

impl Server for BoundProxy {
    type Operator = ProxyOperator;

    fn operator(&self) -> ProxyOperator {
        ProxyOperator
    }

    fn reload_families(&self) -> Option<ReloadFamilies> {
        let recording = self.recording.as_ref()?;
        Some(recording.reloads.clone())
    }

    fn addresses(&self) -> &[ListenAddr] {
        &self.addresses
    }

    fn metrics_address(&self) -> Option<&ListenAddr> {
        let listener = self.recording.as_ref()?.listener.as_ref();
        listener.map(AdminListener::address)
    }

    fn hints(&self) -> Option<&str> {
        self.hints.as_deref()
    }

    /// Requests in flight may take as long as `limits.drain` to end, unless the shutdown is hurried.
    async fn serve(self, shutdown: Shutdown) -> bool {
        let (stop, stopping) = Shutdown::new();
        let (registry_stop, registry_shutdown) = Shutdown::new();
        let (admin_stop, admin_shutdown) = Shutdown::new();

        let health = match self.embedded.as_ref().and_then(Embedded::presence) {
            Some(presence) => UpstreamHealth::Embedded(presence),
            None => UpstreamHealth::Remote(self.upstreams.clone()),
        };
        tokio::spawn(health.watch(Arc::clone(&self.readiness), shutdown.clone()));
        for upstream in self.upstreams.all() {
            tokio::spawn(Arc::clone(upstream).maintain(shutdown.clone()));
        }
        for tls in self.listeners.iter().filter_map(|(_, tls)| tls.clone()) {
            tokio::spawn(tls.watch(shutdown.clone()));
        }
        let embedded = self.embedded;
        let embedded = embedded.map(|embedded| tokio::spawn(embedded.serve(registry_shutdown)));
        let (mut recorder, mut connection_metrics, mut admin) = (None, None, None);
        if let Some(recording) = self.recording {
            let panics = recording.panics;
            log::on_panic(move || panics.inc(()));
            let certificates = Arc::new(recording.certificates);
            for tls in recording.tls {
                let certificates = Arc::clone(&certificates);
                let loaded = move |expiries: &[CertificateExpiry]| {
                    for CertificateExpiry { file, at } in expiries {
                        let name = file.display().to_string();
                        certificates.expiry.set(&name, *at as f64);
                    }
                };
                tokio::spawn(tls.follow(shutdown.clone(), loaded));
            }
            if let Some(listener) = recording.listener {
                let serve = listener.serve(self.limits.timeouts(), admin_shutdown);
                admin = Some(tokio::spawn(serve));
            }
            recorder = Some(recording.recorder);
            connection_metrics = Some(recording.connections);
        }
        let observer = Observer::new(recorder.as_ref(), self.access_log);
        let shared = Shared {
            rejected: recorder.map(|recorder| Arc::clone(&recorder.metrics.http)),
            splices: self.limits.connections / 4,
            streams: self.limits.streams,
            stopping,
        };
        let settings = ForwardSettings {
            upstreams: self.upstreams,
            admin: self.admin,
            observer,
            limits: self.limits,
            access_log: self.access_log,
            forwarded: self.forwarded,
            cors: self.cors,
        };
        let forwarder = Arc::new(Forwarder::new(shared, settings));
        let connections = OpenConnections::new(connection_metrics, self.limits.connections);
        let accepting: Vec<_> = self
            .listeners
            .into_iter()
            .map(|(listener, tls)| {
                let (forwarder, connections) = (Arc::clone(&forwarder), connections.clone());
                let workers = self.workers.all();
                tokio::spawn(downstream::accept(
                    listener,
                    tls,
                    forwarder,
                    connections,
                    workers,
                ))
            })
            .collect();
        // Last: a load balancer sends requests as soon as it sees this.
        self.readiness.set_serving(true);

        shutdown.recv().await;
        // First: no probe may find a ready server whose listeners are closed.
        self.readiness.set_serving(false);
        tracing::info!("draining");
        stop.trigger();
        let mut serving = Vec::with_capacity(accepting.len());
        for listener in accepting {
            // Accepting never panics; if it did, its connections would be cut all the same.
            serving.extend(listener.await);
        }
        let open = connections.drain();
        let drained = open.wait_unhurried(self.limits.drain, &shutdown).await;
        if !drained {
            tracing::warn!(connections = open.count(), "requests in flight are cut off");
            for mut connections in serving {
                connections.shutdown().await;
            }
        }
        // The registry and the metrics end after the requests, so that the last scrape shows all of
        // them.
        registry_stop.trigger();
        admin_stop.trigger();
        if let Some(embedded) = embedded {
            let _ = tokio::time::timeout(REGISTRY_DRAIN, embedded).await;
        }
        if let Some(admin) = admin {
            // It ends by itself: its drain has a deadline.
            let _ = admin.await;
        }
        drained
    }
}

#[cfg(test)]
mod tests {
    use service::config::Sources;
    use service::program_config::Configuration as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use super::*;

    /// What docs/metrics.md promises: so many series, and so many for each repository and source.
    fn promised(repositories: usize, sources: usize) -> usize {
        3_200 + 12 * (repositories + 1) + 90 + 8 * sources
    }

    async fn bound(yaml: &str) -> BoundProxy {
        let file = tempfile::NamedTempFile::new().unwrap();
        let yaml = format!("listen: 127.0.0.1:0\n{yaml}");
        std::fs::write(file.path(), yaml).unwrap();
        let sources = Sources {
            file: Some(file.path().to_owned()),
            ..Sources::default()
        };
        let (config, _) = ProxyConfig::load(sources).unwrap();
        bind(config).await.unwrap()
    }

    /// Sends a GET, and returns the whole response.
    async fn get(address: &ListenAddr, path: &str) -> String {
        let ListenAddr::Tcp(address) = address else {
            panic!("no TCP address");
        };
        let mut client = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        client.write_all(request.as_bytes()).await.unwrap();
        let mut response = String::new();
        client.read_to_string(&mut response).await.unwrap();
        response
    }

    #[tokio::test]
    async fn a_panic_is_counted() {
        let bound = bound("upstreams: [{replicas: ['http://127.0.0.1:1']}]\n").await;
        let address = bound.addresses()[0].clone();
        let (_trigger, shutdown) = Shutdown::new();
        let serving = tokio::spawn(bound.serve(shutdown));
        assert!(get(&address, "/livez").await.starts_with("HTTP/1.1 200 "));
        tokio::spawn(async { panic!("on purpose") })
            .await
            .unwrap_err();
        let exposition = get(&address, "/metrics").await;
        let counted = exposition
            .lines()
            .find_map(|line| line.strip_prefix("octoserve_panics_total "));
        // Other tests panic as well.
        assert!(
            counted.unwrap().parse::<u64>().unwrap() >= 1,
            "{exposition}"
        );
        serving.abort();
    }

    #[tokio::test]
    async fn all_families_together_stay_within_the_documented_series() {
        let metrics = "[{source: a, url: 'http://127.0.0.1:1/'}, {source: b, url: 'unix:/b'}]";
        let upstream = "upstreams: [{replicas: ['http://127.0.0.1:1']";
        for (repositories, yaml, sources) in [
            (200, format!("{upstream}}}]\n"), 0),
            (200, format!("{upstream}, metrics: {metrics}}}]\n"), 2),
            (
                7,
                format!("{upstream}}}]\nmetrics: {{repositories: {{limit: 7}}}}\n"),
                0,
            ),
        ] {
            let series = bound(&yaml).await.max_series().unwrap();
            let promised = promised(repositories, sources);
            assert!(series <= promised, "{series} of {promised} with {yaml}");
        }
    }
}
