//! The registry as a server: bind, serve until the shutdown, drain.
//!
//! [`bind`] does everything that can fail at the start: it opens the store and binds the sockets, so
//! that the caller can announce the addresses before the first request is served.

mod expiry;
mod files;
mod greeting;
pub mod in_process;
mod operator;
mod pulls;

use std::convert::Infallible;
use std::future::pending;
use std::sync::Arc;

use futures_util::future::join_all;
use service::admin::{self, AdminEndpoints, AdminListener, OwnFamilies, Readiness};
use service::connection::{ConnectionTimeouts, Connections};
use service::greeting::Greeting;
use service::limits::Limits;
use service::listen::{BindError, Inheritance, ListenAddr, Listener};
use service::log;
use service::metrics::MetricsRegistry;
use service::program::Server;
use service::reload::ReloadFamilies;
use service::scrape::FinalFile;
use service::shutdown::Shutdown;
use tokio::task::{JoinError, spawn_blocking};

use self::expiry::Expiry;
use self::files::Files;
pub use self::files::follow;
use self::greeting::greeting;
use self::in_process::InProcess;
pub use self::operator::RegistryOperator;
use crate::api::{Api, Policy, Recorders};
use crate::config::RegistryConfig;
use crate::config::endpoint::MetricsEndpoint;
use crate::maintenance::Maintenance;
use crate::metrics::RegistryMetrics;
use crate::metrics::maintenance::MaintenanceFamilies;
use crate::metrics::stats::Stats;
use crate::metrics::storage::Backend;
use crate::stats::{Collector, Ledger};
pub use crate::store::fs::Presence;
use crate::store::fs::{self, Changes, FsStore, PullTimes};
use crate::store::{Instrumented, Store};

/// Why the registry could not start.
#[derive(Debug, thiserror::Error)]
pub enum RegistryStartError {
    /// The data directory cannot be used.
    #[error("cannot open the data directory")]
    Store(#[from] fs::OpenError),
    /// Opening the store was interrupted.
    #[error("opening the data directory was interrupted")]
    Interrupted(#[from] JoinError),
    /// An address cannot be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
}

/// A registry that has bound its addresses and serves nothing yet.
pub struct BoundRegistry<S = FsStore> {
    listeners: Vec<Listener>,
    addresses: Vec<ListenAddr>,
    api: AnyApi<S>,
    /// `None` records nothing.
    metrics: Option<BoundMetrics>,
    /// What only a store of files has.
    files: Option<Files>,
    /// `None` where another program counts them, or nobody.
    reloads: Option<ReloadFamilies>,
    operator: RegistryOperator,
    readiness: Arc<Readiness>,
    limits: Limits,
    greeting: Greeting,
}

/// The API, recorded or not: what is not recorded costs nothing.
enum AnyApi<S> {
    Plain(Arc<Api<S>>),
    Recorded(Arc<Api<Instrumented<S>>>),
}

/// The families, and who keeps them up to date.
struct BoundMetrics {
    registry: MetricsRegistry,
    /// Where the last exposition is written.
    final_file: Option<FinalFile>,
    /// `None` for the embedded registry.
    listener: Option<AdminListener<OwnFamilies>>,
    /// Counts what the store holds; only a store of files is counted.
    collector: Option<Collector>,
    maintenance: MaintenanceFamilies,
}

/// Opens the store and binds the addresses. Must be called within a tokio runtime.
pub async fn bind(config: RegistryConfig) -> Result<BoundRegistry, RegistryStartError> {
    bind_inherited(config, &Inheritance::default()).await
}

/// The same with the sockets that another process has bound.
pub async fn bind_inherited(
    config: RegistryConfig,
    inheritance: &Inheritance,
) -> Result<BoundRegistry, RegistryStartError> {
    let ledger = Arc::new(Ledger::default());
    // Without metrics no scrape reads the figures, so that the store need not report its changes.
    let changes: Arc<dyn Changes> = match &config.metrics {
        Some(_) => Arc::clone(&ledger) as _,
        None => Arc::new(()),
    };
    let data = config.storage.data.clone();
    let options = config.storage.options();
    // Opening reads the upload sessions of a former run from disk, which would block the runtime.
    let store = spawn_blocking(move || FsStore::open(&data, options, changes)).await??;
    let idle = config.storage.uploads.expire.get();
    let (expires, jobs) = (!config.storage.read_only, config.storage.jobs());
    let (counted, kept) = (store.clone(), store.clone());
    let collector = |stats| Collector::new(counted, ledger, stats, Collector::EVERY);
    let backend = Backend::Filesystem;
    let pulls = Some(store.pulls());
    let bound = bind_with(config, store, backend, pulls, inheritance, |stats| {
        Some(collector(stats))
    });
    let bound = bound.await?;
    let families = bound
        .metrics
        .as_ref()
        .map(|metrics| metrics.maintenance.clone());
    let expiry = expires.then(|| Expiry::new(kept.clone(), idle, families.clone()));
    let maintenance = Maintenance::new(kept.clone(), jobs, families);
    bound.operator.maintain(maintenance.clone());
    Ok(BoundRegistry {
        files: Some(Files::new(kept, expiry, maintenance)),
        ..bound
    })
}

/// Binds the addresses of a registry over a store of the caller's, which the metrics call `backend`.
/// What the configuration says of the data directory does not matter then. Must be called within a
/// tokio runtime.
pub async fn bind_store<S: Store>(
    config: RegistryConfig,
    store: S,
    backend: Backend,
) -> Result<BoundRegistry<S>, RegistryStartError> {
    let inheritance = Inheritance::default();
    bind_with(config, store, backend, None, &inheritance, |_| None).await
}

async fn bind_with<S: Store>(
    config: RegistryConfig,
    store: S,
    backend: Backend,
    pulls: Option<Arc<PullTimes>>,
    inheritance: &Inheritance,
    collector: impl FnOnce(Stats) -> Option<Collector>,
) -> Result<BoundRegistry<S>, RegistryStartError> {
    let policy = Policy {
        read_only: config.storage.read_only,
        delete: config.storage.delete,
        manifest_limit: config.storage.manifest_limit.get(),
        sparse_manifests: config.storage.sparse_manifests,
        body_stall: config.limits.body_stall,
    };
    let readiness = Arc::new(Readiness::default());
    let scraped = config.metrics.clone();
    let listeners = inheritance.listen_all(&config.listen, "listen").await?;
    let mut recorders = Recorders {
        metrics: None,
        access_log: log::access_log().filter(|_| config.logs_requests),
        pulls,
    };
    let mut reloads = None;
    let (api, metrics) = match config.metrics {
        None => {
            let api = Api::new(store, policy, recorders);
            (AnyApi::Plain(Arc::new(api)), None)
        }
        Some(endpoint) => {
            let metrics =
                RegistryMetrics::register(backend, config.process_metrics, &endpoint.labels);
            recorders.metrics = Some(metrics.http);
            let store = Instrumented::new(store, metrics.storage);
            let api = Api::new(store, policy, recorders);
            let collector = collector(metrics.stats);
            reloads = metrics.reloads;
            let (registry, jobs) = (metrics.registry, metrics.maintenance);
            let counted = (collector, jobs);
            let bound =
                BoundMetrics::bind(registry, counted, endpoint, inheritance, &readiness).await?;
            (AnyApi::Recorded(Arc::new(api)), Some(bound))
        }
    };
    let policy = match &api {
        AnyApi::Plain(api) => Arc::clone(api.policy()),
        AnyApi::Recorded(api) => Arc::clone(api.policy()),
    };
    let listener = metrics
        .as_ref()
        .and_then(|metrics| metrics.listener.as_ref());
    let addresses: Vec<_> = listeners.iter().map(Listener::address).cloned().collect();
    let scraped = scraped.as_ref().zip(listener.map(AdminListener::address));
    Ok(BoundRegistry {
        greeting: greeting(&addresses, scraped),
        operator: RegistryOperator::new(policy, listener),
        addresses,
        listeners,
        api,
        metrics,
        files: None,
        reloads,
        readiness,
        limits: config.limits,
    })
}

impl BoundMetrics {
    async fn bind(
        registry: MetricsRegistry,
        (collector, maintenance): (Option<Collector>, MaintenanceFamilies),
        endpoint: MetricsEndpoint,
        inheritance: &Inheritance,
        readiness: &Arc<Readiness>,
    ) -> Result<Self, RegistryStartError> {
        // Without a listener, too: the families of an embedded registry are gathered in process.
        if let Some(collector) = &collector {
            registry.before_gather(collector.gauge_updater());
        }
        let listener = match &endpoint.listen {
            None => None,
            Some(address) => {
                let families = Arc::new(OwnFamilies::new(registry.clone()));
                let endpoints = AdminEndpoints::new(
                    Some(families),
                    endpoint.path,
                    endpoint.auth,
                    Arc::clone(readiness),
                    admin::refuse_in_text,
                );
                let endpoints = endpoints.with_page(endpoint.page);
                Some(AdminListener::bind(inheritance, address, endpoint.tls, endpoints).await?)
            }
        };
        Ok(Self {
            registry,
            final_file: endpoint.final_file,
            listener,
            collector,
            maintenance,
        })
    }

    /// Serves the metrics until the shutdown, and counts the store meanwhile.
    async fn serve(self, timeouts: ConnectionTimeouts, shutdown: Shutdown) {
        let count = async {
            match self.collector {
                Some(collector) => collector.run().await,
                // The select below ends with its first branch, so that this one must never end.
                None => pending().await,
            }
        };
        let serve = async {
            match self.listener {
                Some(listener) => listener.serve(timeouts, shutdown).await,
                // Without a listener the collector still runs for as long as the registry serves.
                None => shutdown.clone().recv().await,
            }
        };
        tokio::select! {
            () = serve => {}
            () = count => {}
        }
    }
}

impl<S: Store> BoundRegistry<S> {
    /// The families, to be gathered in process; `None` where nothing is recorded.
    pub fn families(&self) -> Option<MetricsRegistry> {
        let metrics = self.metrics.as_ref();
        metrics.map(|metrics| metrics.registry.clone())
    }

    /// Whether the data directory is there; `None` for a store that has none.
    pub fn presence(&self) -> Option<Presence> {
        self.files.as_ref().map(Files::presence)
    }

    /// Calls the API from within this process.
    pub fn in_process(&self) -> InProcess {
        match &self.api {
            AnyApi::Plain(api) => InProcess::new(Arc::clone(api)),
            AnyApi::Recorded(api) => InProcess::new(Arc::clone(api)),
        }
    }
}

impl<S: Store> Server for BoundRegistry<S> {
    type Operator = RegistryOperator;

    fn operator(&self) -> RegistryOperator {
        self.operator.clone()
    }

    fn reload_families(&self) -> Option<ReloadFamilies> {
        self.reloads.clone()
    }

    fn addresses(&self) -> &[ListenAddr] {
        &self.addresses
    }

    fn metrics_address(&self) -> Option<&ListenAddr> {
        let listener = self.metrics.as_ref()?.listener.as_ref();
        listener.map(AdminListener::address)
    }

    fn greeting(&self) -> Greeting {
        self.greeting.clone()
    }

    /// Requests in flight that do not end in time are cut. The metrics are served to the very end.
    async fn serve(self, shutdown: Shutdown) -> bool {
        let timeouts = self.limits.timeouts();
        let last_exposition = self.metrics.as_ref().and_then(|metrics| {
            let file = metrics.final_file.clone()?;
            Some((file, metrics.registry.clone()))
        });
        // The metrics have a shutdown of their own, so that a scrape can still follow the drain.
        let (end, metrics_shutdown) = Shutdown::new();
        let serve_metrics = async {
            if let Some(metrics) = self.metrics {
                metrics.serve(timeouts, metrics_shutdown).await;
            }
        };
        let (connections, streams) = (self.limits.connections, self.limits.streams);
        let connections = Connections::new(connections, streams, timeouts, shutdown.clone());
        self.operator.follow(connections.open());
        let serve_api = async {
            match self.api {
                AnyApi::Plain(api) => accept(api, self.listeners, &connections).await,
                AnyApi::Recorded(api) => accept(api, self.listeners, &connections).await,
            }
            // An embedded registry has no listener, and serves its callers.
            shutdown.recv().await;
            // Before the drain: load balancers turn away while the last requests run.
            self.readiness.set_serving(false);
            let drained = connections.drain(self.limits.drain).await;
            if !drained {
                tracing::warn!("requests in flight are cut off");
            }
            end.trigger();
            drained
        };
        let presence = self.files.as_ref().map(Files::presence);
        let maintenance = self.files.as_ref().map(Files::maintenance);
        let pulls = self.files.as_ref().map(Files::pulls);
        let patience = self.limits.drain;
        let run_jobs = async {
            if let Some(maintenance) = maintenance {
                maintenance.serve(shutdown.clone(), patience).await;
            }
        };
        let maintain = async {
            match self.files {
                Some(files) => files.maintain().await,
                None => pending().await,
            }
        };
        let follow = async {
            // `follow` returns at once where there is no directory, and must not end the select.
            follow(presence, &self.readiness).await;
            pending::<Infallible>().await
        };
        let serve = async { tokio::join!(serve_api, serve_metrics, run_jobs) };
        // Early enough: the bound sockets queue the clients that connect before the select.
        self.readiness.set_serving(true);
        let drained = tokio::select! {
            (drained, (), ()) = serve => drained,
            never = maintain => match never {},
            never = follow => match never {},
        };
        // The last requests have been served.
        if let Some(pulls) = pulls {
            pulls.save().await;
        }
        if let Some((file, families)) = last_exposition {
            file.write(&families).await;
        }
        drained
    }
}

/// Serves the API on all its listeners until the shutdown.
async fn accept<S: Store>(api: Arc<Api<S>>, listeners: Vec<Listener>, connections: &Connections) {
    let handler = move |request, peer| {
        let api = Arc::clone(&api);
        async move { api.handle(request, Some(peer)).await }
    };
    let accepting = listeners
        .into_iter()
        .map(|listener| connections.accept(listener, None, handler.clone()));
    join_all(accepting).await;
}

#[cfg(test)]
mod tests;
