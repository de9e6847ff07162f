//! Binds, serves and drains: the lifecycle of the process.

use std::sync::Arc;
use std::time::Duration;

use registry::server::RegistryStartError;
use service::admin::{AdminListener, Readiness};
use service::greeting::Greeting;
use service::listen::{BindError, Inheritance, ListenAddr, Listener};
use service::log;
use service::program::Server;
use service::reload::ReloadFamilies;
use service::runtime::Workers;
use service::shutdown::{Shutdown, Trigger};
use service::tls::{CertificateExpiry, Tls};

use crate::aggregate::Aggregate;
use crate::config::{self, ProxyConfig, ProxyMetricsConfig, UpstreamsConfig};
use crate::downstream::{self, OpenConnections};
use crate::embedded::Embedded;
use crate::exchange::Observer;
use crate::forward::{ForwardSettings, Forwarder, Shared};
use crate::upstream::{SessionKey, Timeouts, Upstream};

mod greeting;
mod live;
mod operator;
mod readiness;
mod recording;
mod running_upstreams;
mod self_signed;

use self::greeting::greeting;
use self::live::LiveProxy;
pub use self::operator::ProxyOperator;
use self::recording::ProxyRecording;
use self::running_upstreams::RunningUpstreams;
use self::self_signed::{SelfSigned, SelfSignedError};

/// The name of the key that binds upload sessions to replicas, at a takeover.
const SESSION_KEY: &str = "session_key";
/// How long the embedded registry may take to end once no client is served any more.
const REGISTRY_DRAIN: Duration = Duration::from_secs(1);

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
    /// What a person at a terminal is told.
    greeting: Greeting,
    /// What else the operator should know.
    hints: Option<String>,
    addresses: Vec<ListenAddr>,
    metrics_address: Option<ListenAddr>,
    /// The listener for metrics and probes alone.
    metrics: Option<AdminListener<Aggregate>>,
    workers: Workers,
    embedded: Option<Embedded>,
    live: Arc<LiveProxy>,
    /// At which connections end after their requests.
    stop: Trigger,
}

/// Binds every address and opens the embedded registry, so that whatever can fail at the start fails
/// here.
pub async fn bind(
    config: ProxyConfig,
    inheritance: &Inheritance,
) -> Result<BoundProxy, ProxyStartError> {
    let timeouts = Timeouts::with_stall(config.limits.body_stall);
    let labels = config
        .metrics
        .as_ref()
        .map(|metrics| metrics.endpoint.labels.clone());
    let session_key = session_key(inheritance);
    let (upstreams, embedded): (Vec<_>, _) = match config.upstreams {
        UpstreamsConfig::Embedded(storage) => {
            let embedded = Embedded::bind(storage, labels).await?;
            let name = config::EMBEDDED.to_owned();
            let upstream = Upstream::embedded(name, embedded.in_process(), timeouts);
            (vec![upstream], Some(embedded))
        }
        UpstreamsConfig::Remote(configs) => {
            let configs = configs.into_iter();
            let remote = |one| running_upstreams::remote(one, timeouts, &session_key);
            (configs.map(remote).collect(), None)
        }
    };
    let configured = config.listen.into_iter();
    let configured: Vec<_> = configured.map(|one| (one.address, one.tls)).collect();
    let wanted: Vec<_> = configured
        .iter()
        .map(|(address, _)| address.clone())
        .collect();
    let listeners = inheritance.listen_all(&wanted, "listen").await?;
    let addresses: Vec<_> = listeners.iter().map(Listener::address).cloned().collect();
    let mut tls: Vec<_> = configured.iter().map(|(_, tls)| tls.clone()).collect();
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
    let listening: Vec<_> = addresses
        .iter()
        .zip(tls.iter().map(Option::is_some))
        .collect();
    let readiness = Arc::new(Readiness::default());
    if inheritance.received(SESSION_KEY).is_some() {
        // A takeover is no reason to be taken out of service until the first probes have ended.
        readiness.set_health(Ok(()));
    }
    let source = embedded.as_ref().and_then(Embedded::source);
    let (recording, metrics, admin) = match &config.metrics {
        None => (None, None, live::endpoints(&readiness, None, None)),
        Some(metrics) => {
            let tls = tls.iter().flatten().cloned().collect();
            let endpoints = |metrics: &ProxyMetricsConfig, aggregate| {
                let page = metrics.endpoint.page.clone();
                live::endpoints(&readiness, Some(metrics), Some(&aggregate)).with_page(page)
            };
            let count = upstreams.len();
            let bound = ProxyRecording::bind(
                metrics.clone(),
                count,
                source.clone(),
                tls,
                endpoints,
                inheritance,
            );
            let (recording, listener) = bound.await?;
            let served = metrics.on_main.then_some(&recording.aggregate);
            let page = live::main_page(metrics, embedded.is_some());
            let admin = live::endpoints(&readiness, Some(metrics), served).with_page(page);
            (Some(recording), listener, admin)
        }
    };
    let families = recording.as_ref().map(|recording| &recording.upstreams);
    let upstreams = running_upstreams::together(upstreams, families);
    let upstreams = upstreams.ok_or(ProxyStartError::NoUpstream)?;
    running_upstreams::resolve(&upstreams).await;
    let recorder = recording.as_ref().map(|recording| &recording.recorder);
    let observer = Observer::new(recorder);
    let (stop, stopping) = Shutdown::new();
    let shared = Shared {
        rejected: recorder.map(|recorder| Arc::clone(&recorder.metrics.http)),
        splices: config.limits.connections / 4,
        stopping,
    };
    let settings = ForwardSettings {
        upstreams: upstreams.clone(),
        admin: Arc::new(admin),
        observer: observer.if_needed(config.logging.access),
        limits: config.limits,
        access_log: log::access_log(),
        forwarded: config.forwarded,
        cors: config.cors,
    };
    let counted = recording.as_ref().map(|one| Arc::clone(&one.connections));
    let live = LiveProxy {
        forwarder: Arc::new(Forwarder::new(shared, settings)),
        connections: OpenConnections::new(counted, config.limits.connections),
        readiness,
        upstreams: RunningUpstreams::new(upstreams, session_key),
        observer,
        embedded: source,
        registry: embedded.as_ref().map(Embedded::operator),
        listeners: configured.into_iter().map(|(_, tls)| tls).collect(),
        metrics_tls: metrics.as_ref().and_then(|metrics| metrics.tls().cloned()),
        recording,
    };
    let greeting = greeting(
        &listening,
        config.metrics.as_ref(),
        metrics.as_ref(),
        embedded.is_some(),
    );
    Ok(BoundProxy {
        addresses,
        greeting,
        metrics_address: metrics.as_ref().map(|metrics| metrics.address().clone()),
        hints,
        workers: Workers::start().map_err(ProxyStartError::Workers)?,
        listeners: listeners.into_iter().zip(tls).collect(),
        metrics,
        embedded,
        live: Arc::new(live),
        stop,
    })
}

/// The key of upload sessions where the configuration has none: that of the process before this one, whose
/// clients go on with their sessions here.
fn session_key(inheritance: &Inheritance) -> SessionKey {
    let received = inheritance.received(SESSION_KEY);
    let received = received.and_then(|text| SessionKey::from_hex(&text));
    let key = received.unwrap_or_else(SessionKey::random);
    inheritance.pass_on(SESSION_KEY, key.to_hex());
    key
}

impl BoundProxy {
    /// The most series that the proxy's own metrics can ever have, whatever clients do; `None` where
    /// nothing is recorded.
    pub fn max_series(&self) -> Option<usize> {
        let recording = self.live.recording.as_ref();
        recording.map(|recording| recording.aggregate.max_series())
    }
}

impl Server for BoundProxy {
    type Operator = ProxyOperator;

    fn operator(&self) -> ProxyOperator {
        ProxyOperator(Arc::clone(&self.live))
    }

    fn reload_families(&self) -> Option<ReloadFamilies> {
        let recording = self.live.recording.as_ref()?;
        Some(recording.reloads.clone())
    }

    fn addresses(&self) -> &[ListenAddr] {
        &self.addresses
    }

    fn metrics_address(&self) -> Option<&ListenAddr> {
        self.metrics_address.as_ref()
    }

    fn greeting(&self) -> Greeting {
        self.greeting.clone()
    }

    fn hints(&self) -> Option<&str> {
        self.hints.as_deref()
    }

    /// Requests in flight may take as long as `limits.drain` to end, unless the shutdown is hurried.
    async fn serve(self, shutdown: Shutdown) -> bool {
        let live = self.live;
        let (registry_stop, registry_shutdown) = Shutdown::new();
        let (admin_stop, admin_shutdown) = Shutdown::new();

        if let Some(presence) = self.embedded.as_ref().and_then(Embedded::presence) {
            let readiness = Arc::clone(&live.readiness);
            let shutdown = shutdown.clone();
            tokio::spawn(readiness::follow_embedded(presence, readiness, shutdown));
        } else {
            let this = Arc::clone(&live);
            live.upstreams.begin(move || this.update_health());
            live.update_health();
        }
        for tls in self.listeners.iter().filter_map(|(_, tls)| tls.clone()) {
            tokio::spawn(tls.watch(shutdown.clone()));
        }
        let embedded = self.embedded;
        let embedded = embedded.map(|embedded| tokio::spawn(embedded.serve(registry_shutdown)));
        if let Some(recording) = &live.recording {
            let panics = recording.panics.clone();
            log::on_panic(move || panics.inc(()));
            for tls in recording.certificates.listeners() {
                let live = Arc::clone(&live);
                let loaded = move |_: &[CertificateExpiry]| {
                    if let Some(recording) = &live.recording {
                        recording.certificates.show();
                    }
                };
                tokio::spawn(tls.clone().follow(shutdown.clone(), loaded));
            }
        }
        let timeouts = live.forwarder.limits().timeouts();
        let mut admin = self.metrics.map(|listener| {
            let serve = listener.serve(timeouts, admin_shutdown);
            tokio::spawn(serve)
        });
        let accepting: Vec<_> = self
            .listeners
            .into_iter()
            .map(|(listener, tls)| {
                tokio::spawn(downstream::accept(
                    listener,
                    tls,
                    Arc::clone(&live.forwarder),
                    live.connections.clone(),
                    self.workers.all(),
                ))
            })
            .collect();
        // Last: a load balancer sends requests as soon as it sees this.
        live.readiness.set_serving(true);

        shutdown.recv().await;
        // First: no probe may find a ready server whose listeners are closed.
        live.readiness.set_serving(false);
        let stop = self.stop;
        if shutdown.is_insisted() {
            stop.trigger();
        } else {
            stop.hand_over();
            // Another process accepts on the same sockets: a scrape that comes now is for that one.
            admin_stop.hand_over();
        }
        tracing::info!("draining");
        let insisting = shutdown.clone();
        tokio::spawn(async move {
            insisting.insisted().await;
            stop.trigger();
        });
        let mut serving = Vec::with_capacity(accepting.len());
        for listener in accepting {
            // Accepting never panics; if it did, its connections would be cut all the same.
            serving.extend(listener.await);
        }
        let open = live.connections.drain();
        let limit = live.forwarder.limits().drain;
        let drained = open.wait_unhurried(limit, &shutdown).await;
        if !drained {
            tracing::warn!(connections = open.count(), "requests in flight are cut off");
            for mut connections in serving {
                connections.shutdown().await;
            }
        }
        live.upstreams.end();
        if let Some(recording) = &live.recording {
            recording.counted().await;
        }
        // Scrapers of a process that was taken over may be sending a request just now, as other clients may:
        // their connections end by themselves.
        if let Some(serving) = &mut admin
            && !shutdown.is_insisted()
        {
            tokio::select! {
                _ = serving => admin = None,
                () = shutdown.insisted() => {}
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
        if let Some(recording) = &live.recording {
            recording.write_final_file().await;
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
            files: vec![file.path().to_owned()],
            ..Sources::default()
        };
        let (config, _) = ProxyConfig::load(sources).unwrap();
        bind(config, &Inheritance::default()).await.unwrap()
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
