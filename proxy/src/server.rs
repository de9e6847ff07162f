//! Binds, announces, serves and drains: the lifecycle of the process.

use std::sync::Arc;
use std::time::Duration;

use pingora::apps::HttpServerOptions;
use pingora::proxy::http_proxy;
use pingora::server::configuration::ServerConf;
use service::build_info;
use service::connection;
use service::connection::ConnectionCap;
use service::descriptors;
use service::listen::{BindError, ListenAddr, Listener};
use service::log;
use service::metrics::MetricsRegistry;
use service::metrics::{Counter, families};
use service::shutdown::{Drain, Shutdown};
use service::tls::Tls;
use tokio::sync::watch;

use crate::admin::{Admin, Readiness};
use crate::aggregate::Aggregate;
use crate::config::{self, Config, Limits, UpstreamConfig};
use crate::downstream::{self, App, Patience};
use crate::embedded::{Embedded, EmbeddedError};
use crate::exchange::{Observer, Recorder};
use crate::metrics::{ConnectionMetrics, UpstreamFamilies};
use crate::proxy::Proxy;
use crate::upstream::{Timeouts, Upstream};

mod readiness;

use self::readiness::Behind;

/// How long the embedded registry may take to end once no client is served any more.
const REGISTRY_DRAIN: Duration = Duration::from_secs(1);
/// Idle connections to the upstream that are kept.
const UPSTREAM_POOL: usize = 512;
/// What one HTTP/2 client may have under way: with the protocol's default of 64 KiB a push over a
/// distance of 40 ms would crawl at 1.6 MB/s.
const H2_STREAM_WINDOW: u32 = 8 << 20;
const H2_CONNECTION_WINDOW: u32 = 32 << 20;

families! {
    /// The families of the process.
    struct ProcessMetrics {
        /// Panics that were contained: each ended one request or task, never the process; counted
        /// when it happens.
        panics: Counter = "panics_total",
    }
}

/// Why the server could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address could not be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The registry in this process could not be started.
    #[error(transparent)]
    Embedded(#[from] EmbeddedError),
}

/// A server that has bound its addresses and serves nothing yet.
pub struct Bound {
    listeners: Vec<Listener>,
    addresses: Vec<ListenAddr>,
    admin_listener: Option<(Listener, ListenAddr)>,
    admin_tls: Option<Tls>,
    embedded: Option<Embedded>,
    upstream: Arc<Upstream>,
    recorder: Option<Arc<Recorder>>,
    connections: Option<Arc<ConnectionMetrics>>,
    panics: Option<Counter>,
    main_pages: Arc<Admin>,
    admin_pages: Arc<Admin>,
    readiness: Arc<Readiness>,
    limits: Limits,
    access_log: bool,
}

/// Binds every address and opens the embedded registry, so that whatever can fail at the start
/// fails here.
pub async fn bind(mut config: Config) -> Result<Bound, StartError> {
    config.limits.connections = descriptors::fit(config.limits.connections);
    let timeouts = Timeouts::beside(config.limits.body_stall);
    let (embedded, mut upstream) = match config.upstream {
        UpstreamConfig::Embedded(fields) => {
            let labels = config.metrics.as_ref().map(|page| page.labels.clone());
            let embedded = Embedded::bind(fields, labels).await?;
            let (name, connector) = (config::embedded_name(), embedded.connector());
            let upstream = Upstream::embedded(name, connector, timeouts);
            (Some(embedded), upstream)
        }
        UpstreamConfig::Remote { name, target } => (None, Upstream::new(name, target, timeouts)),
    };
    let mut listeners = Vec::with_capacity(config.listen.len());
    let mut addresses = Vec::with_capacity(config.listen.len());
    for address in &config.listen {
        let (listener, address) = listen(address).await?;
        listeners.push(listener);
        addresses.push(address);
    }
    let readiness = Arc::new(Readiness::default());
    let mut admin_listener = None;
    let (mut recording, mut on_main, mut on_admin) = (None, None, None);
    let (mut panics, mut connections) = (None, None);
    let mut path = config::PAGE.to_owned();
    let (mut auth, mut admin_tls) = (None, None);
    if let Some(metrics) = config.metrics {
        let registry = MetricsRegistry::labelled("octoserve_", &metrics.labels);
        registry.build_info(build_info::VERSION, build_info::REVISION, build_info::RUSTC);
        registry.process();
        panics = Some(ProcessMetrics::declare(&registry).panics);
        recording = Some(Arc::new(Recorder::new(&registry, metrics.repositories)));
        connections = Some(Arc::new(ConnectionMetrics::new(&registry)));
        let behind = UpstreamFamilies::declare(&registry, 1).of(upstream.name());
        upstream = upstream.measured(behind);
        let mut sources = metrics.sources;
        sources.extend(embedded.as_ref().and_then(Embedded::source));
        let page = Arc::new(Aggregate::new(registry, sources, metrics.bounds));
        if let Some(address) = &metrics.listen {
            admin_listener = Some(listen(address).await?);
        }
        on_main = metrics.on_main.then(|| Arc::clone(&page));
        if on_main.is_none() && admin_listener.is_none() {
            tracing::warn!(
                "the metrics are served nowhere: the main listener can be reached by others and \
                 the page names private repositories; set metrics.listen, metrics.basic_auth or \
                 metrics.public"
            );
        }
        on_admin = Some(page);
        path = metrics.path;
        (auth, admin_tls) = (metrics.auth, metrics.tls);
    }
    let pages = |metrics| {
        let (path, auth) = (path.clone(), auth.clone());
        Arc::new(Admin::new(metrics, path, auth, Arc::clone(&readiness)))
    };
    Ok(Bound {
        main_pages: pages(on_main),
        admin_pages: pages(on_admin),
        listeners,
        addresses,
        admin_listener,
        admin_tls,
        embedded,
        upstream: Arc::new(upstream),
        recorder: recording,
        connections,
        panics,
        readiness,
        limits: config.limits,
        access_log: config.logging.access,
    })
}

impl Bound {
    /// The addresses that are listened on, with the ports that were chosen for port 0.
    pub fn addresses(&self) -> &[ListenAddr] {
        &self.addresses
    }

    /// The address of the listener for metrics and probes alone.
    pub fn metrics_address(&self) -> Option<&ListenAddr> {
        self.admin_listener.as_ref().map(|(_, address)| address)
    }

    /// The most series that the metrics can ever have, whatever clients do, beside those of other
    /// pages; `None` where nothing is recorded.
    pub fn max_series(&self) -> Option<usize> {
        self.admin_pages.max_series()
    }

    /// Serves until the shutdown, then lets what is under way end, as long as `limits.drain`
    /// allows and the shutdown is not hurried. Returns whether everything did end.
    pub async fn serve(self, mut shutdown: Shutdown) -> bool {
        let (stop, stopping) = watch::channel(false);
        let (registry_stop, registry_shutdown) = Shutdown::new();
        let (admin_stop, admin_shutdown) = Shutdown::new();
        let connections = Drain::default();
        let cap = ConnectionCap::new(self.limits.connections);

        if let Some(panics) = self.panics {
            log::on_panic(move || panics.inc(()));
        }
        let behind = match self.embedded.as_ref().and_then(Embedded::presence) {
            Some(presence) => Behind::Embedded(presence),
            None => Behind::Remote(Arc::clone(&self.upstream)),
        };
        tokio::spawn(behind.watch(Arc::clone(&self.readiness), shutdown.clone()));
        let embedded = self.embedded.map(|embedded| {
            tokio::spawn(async move {
                if let Err(error) = embedded.serve(registry_shutdown).await {
                    tracing::error!(%error, "the registry ended");
                }
            })
        });
        tokio::spawn(Arc::clone(&self.upstream).tend(shutdown.clone()));
        let admin = self.admin_listener.map(|(listener, _)| {
            tokio::spawn(crate::admin::serve(
                listener,
                self.admin_tls,
                self.admin_pages,
                connection::ConnectionTimeouts {
                    header: self.limits.header_timeout,
                    idle: self.limits.idle_timeout,
                    stall: self.limits.body_stall,
                },
                admin_shutdown,
            ))
        });
        let app = Arc::new(App::new(
            build_proxy(Proxy {
                upstream: self.upstream,
                admin: self.main_pages,
                observer: Observer::new(self.recorder.as_ref(), self.access_log),
                limits: self.limits,
                access_log: self.access_log,
            }),
            self.recorder
                .map(|recorder| Arc::clone(&recorder.metrics.http)),
            self.connections,
            self.limits.body_stall,
        ));
        let accepting: Vec<_> = self
            .listeners
            .into_iter()
            .map(|listener| {
                tokio::spawn(downstream::accept(
                    listener,
                    Arc::clone(&app),
                    connections.clone(),
                    cap.clone(),
                    Patience {
                        header: self.limits.header_timeout,
                        idle: self.limits.idle_timeout,
                    },
                    stopping.clone(),
                ))
            })
            .collect();
        self.readiness.set(true);

        shutdown.recv().await;
        self.readiness.set(false);
        tracing::info!("draining");
        // Every connection holds a receiver: the send fails only if there is none at all.
        let _ = stop.send(true);
        let mut serving = Vec::with_capacity(accepting.len());
        for listener in accepting {
            // Nothing in there panics; if it did, its connections are cut all the same.
            serving.extend(listener.await);
        }
        let drained = connections
            .wait_unhurried(self.limits.drain, &mut shutdown)
            .await;
        if !drained {
            tracing::warn!(left = connections.count(), "transfers are cut off");
            // Each is recorded as it goes, streams first: without their connection it would look as
            // if their clients had left.
            app.cut_streams().await;
            for mut connections in serving {
                connections.shutdown().await;
            }
        }
        // The registry and the metrics outlive the traffic, so that the last scrape sees it all.
        registry_stop.trigger();
        admin_stop.trigger();
        if let Some(embedded) = embedded {
            let _ = tokio::time::timeout(REGISTRY_DRAIN, embedded).await;
        }
        if let Some(admin) = admin {
            // It bounds its own drain.
            let _ = admin.await;
        }
        drained
    }
}

async fn listen(address: &ListenAddr) -> Result<(Listener, ListenAddr), BindError> {
    let listener = Listener::bind(address).await?;
    match listener.local_addr() {
        Ok(address) => Ok((listener, address)),
        Err(source) => Err(BindError {
            address: address.clone(),
            source,
        }),
    }
}

fn build_proxy(proxy: Proxy) -> pingora::proxy::HttpProxy<Proxy> {
    use pingora::protocols::http::v2::server::default_h2_options;
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let conf = ServerConf {
        threads: workers,
        upstream_keepalive_pool_size: UPSTREAM_POOL,
        max_retries: 2,
        ..ServerConf::default()
    };
    let idle = proxy.limits.idle_timeout;
    let mut proxy = http_proxy(&Arc::new(conf), proxy);
    let mut options = HttpServerOptions::default();
    options.h2c = true;
    options.h2_idle_timeout = Some(idle);
    proxy.server_options = Some(options);
    let mut h2 = default_h2_options();
    h2.initial_window_size(H2_STREAM_WINDOW);
    h2.initial_connection_window_size(H2_CONNECTION_WINDOW);
    proxy.h2_options = Some(h2);
    proxy
}

#[cfg(test)]
mod tests {
    use service::config::{Sources, load_with_origins};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use super::*;
    use crate::config::Fields;

    /// What the page promises: so many series, and so many for each of what is configured.
    fn promised(repositories: usize, sources: usize) -> usize {
        3_200 + 12 * (repositories + 1) + 90 + 8 * sources
    }

    async fn bound(yaml: &str) -> Bound {
        let file = tempfile::NamedTempFile::new().unwrap();
        let yaml = format!("listen: 127.0.0.1:0\n{yaml}");
        std::fs::write(file.path(), yaml).unwrap();
        let sources = Sources {
            file: Some(file.path().to_owned()),
            ..Sources::default()
        };
        let loaded = load_with_origins::<Fields>(sources).unwrap();
        let config = Config::resolve(loaded.fields, &loaded.origins).unwrap();
        bind(config).await.unwrap()
    }

    /// Asks for a page, and returns it with its head.
    async fn page(address: &ListenAddr, path: &str) -> String {
        let ListenAddr::Tcp(address) = address else {
            panic!("no TCP address");
        };
        let mut client = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        client.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn a_panic_is_counted_on_the_page() {
        let bound = bound("upstreams: [{replicas: ['http://127.0.0.1:1']}]\n").await;
        let address = bound.addresses()[0].clone();
        let (_trigger, shutdown) = Shutdown::new();
        let serving = tokio::spawn(bound.serve(shutdown));
        assert!(page(&address, "/livez").await.starts_with("HTTP/1.1 200 "));
        tokio::spawn(async { panic!("on purpose") })
            .await
            .unwrap_err();
        let page = page(&address, "/metrics").await;
        let counted = page
            .lines()
            .find_map(|line| line.strip_prefix("octoserve_panics_total "));
        // Other tests panic as well.
        assert!(counted.unwrap().parse::<u64>().unwrap() >= 1, "{page}");
        serving.abort();
    }

    #[tokio::test]
    async fn all_families_together_keep_to_what_the_page_promises() {
        let pages = "[{source: a, url: 'http://127.0.0.1:1/'}, {source: b, url: 'unix:/b'}]";
        let upstream = "upstreams: [{replicas: ['http://127.0.0.1:1']";
        for (repositories, yaml, sources) in [
            (200, format!("{upstream}}}]\n"), 0),
            (200, format!("{upstream}, metrics: {pages}}}]\n"), 2),
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
