//! The registry as a server: bind, then serve until told to stop, then drain.
//!
//! [`bind`] does everything that can fail at start: it opens the store and binds the sockets, so
//! that whoever calls it can announce the addresses before the first request is served.

mod expiry;
pub mod in_process;
mod page;

use std::future::pending;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::task::{JoinError, spawn_blocking};

use self::expiry::Expiry;
use self::in_process::Dialer;
use self::page::Pages;
use crate::api::{Api, Policy, Recorders};
use crate::config::{Config, Limits, MetricsConfig};
use crate::metrics::Metrics;
use crate::metrics::stats::Stats;
use crate::metrics::storage::Backend;
use crate::stats::{Collector, Ledger};
pub use crate::store::fs::Presence;
use crate::store::fs::{self, Changes, FsStore};
use crate::store::{Instrumented, Store};
use service::connection::{ConnectionTimeouts, Connections};
use service::listen::{BindError, ListenAddr, Listener};
use service::metrics::MetricsRegistry;
use service::shutdown::Shutdown;

/// How long a scrape under way may still take when all else has ended.
const PAGE_DRAIN: Duration = Duration::from_secs(1);

/// Why the registry could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data folder can't be used.
    #[error("cannot open the data folder")]
    Store(#[from] fs::StartError),
    /// The store's opening was interrupted.
    #[error("opening the data folder was interrupted")]
    Interrupted(#[from] JoinError),
    /// An address can't be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A bound socket doesn't tell its address.
    #[error("a bound socket does not tell its address")]
    Address(#[from] io::Error),
}

/// Why serving did not end as it should.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Requests were still under way when the time to drain was over, or nobody would wait.
    #[error("requests under way were cut off")]
    Cut,
}

/// A registry that has its sockets, and serves nobody yet.
pub struct Bound<S = FsStore> {
    listeners: Vec<Listener>,
    addresses: Vec<ListenAddr>,
    api: AnyApi<S>,
    page: Option<Page>,
    /// Who ends abandoned uploads; only a store of files can be told to.
    expiry: Option<Expiry>,
    /// The store whose data directory is watched; only a store of files has one.
    watched: Option<FsStore>,
    limits: Limits,
}

/// The API, recorded or not: what is not recorded costs nothing.
enum AnyApi<S> {
    Plain(Arc<Api<S>>),
    Recorded(Arc<Api<Instrumented<S>>>),
}

/// The metrics listener, and who keeps its page up to date.
struct Page {
    listener: Listener,
    address: ListenAddr,
    config: MetricsConfig,
    registry: MetricsRegistry,
    /// Who counts what the store holds; only a store of files is counted.
    collector: Option<Collector>,
}

/// Opens the store and binds the addresses. Must be called within a tokio runtime.
pub async fn bind(config: Config) -> Result<Bound, StartError> {
    let ledger = Arc::new(Ledger::default());
    let changes: Arc<dyn Changes> = match &config.metrics {
        Some(_) => Arc::clone(&ledger) as _,
        None => Arc::new(()),
    };
    let data = config.storage.data.clone();
    let options = config.storage.options();
    let store = spawn_blocking(move || FsStore::open(&data, options, changes)).await??;
    // What is read-only stays as it is.
    let expiry = (!config.storage.read_only)
        .then(|| Expiry::new(store.clone(), config.storage.uploads.expire.get()));
    let (counted, watched) = (store.clone(), Some(store.clone()));
    let collector = |stats| Collector::new(counted, ledger, stats, Collector::EVERY);
    let bound = bind_with(config, store, Backend::Filesystem, |stats| {
        Some(collector(stats))
    });
    Ok(Bound {
        expiry,
        watched,
        ..bound.await?
    })
}

/// Binds the addresses of a registry over a store of the caller's, which the metrics call
/// `backend`: what the configuration says of a folder does not concern it. Must be called within a
/// tokio runtime.
pub async fn bind_store<S: Store>(
    config: Config,
    store: S,
    backend: Backend,
) -> Result<Bound<S>, StartError> {
    bind_with(config, store, backend, |_| None).await
}

async fn bind_with<S: Store>(
    config: Config,
    store: S,
    backend: Backend,
    collector: impl FnOnce(Stats) -> Option<Collector>,
) -> Result<Bound<S>, StartError> {
    let storage = &config.storage;
    let policy = Policy {
        read_only: storage.read_only,
        delete: storage.delete,
        manifest_limit: storage.manifest_limit.get(),
        sparse_manifests: storage.sparse_manifests,
        body_stall: config.limits.body_stall,
    };
    let mut listeners = Vec::with_capacity(config.listen.len());
    let mut addresses = Vec::with_capacity(config.listen.len());
    for address in &config.listen {
        let listener = Listener::bind(address).await?;
        addresses.push(listener.local_addr()?);
        listeners.push(listener);
    }
    let (api, page) = match config.metrics {
        None => {
            let recorders = Recorders {
                metrics: None,
                access_log: config.access_log,
            };
            (
                AnyApi::Plain(Arc::new(Api::new(store, policy, recorders))),
                None,
            )
        }
        Some(page) => {
            let listener = Listener::bind(&page.listen).await?;
            let address = listener.local_addr()?;
            let metrics = Metrics::register(backend, config.process_metrics, &page.labels);
            let collector = collector(metrics.stats);
            if let Some(collector) = &collector {
                metrics.registry.before_gather(collector.page());
            }
            let page = Page {
                listener,
                address,
                config: page,
                registry: metrics.registry,
                collector,
            };
            let recorders = Recorders {
                metrics: Some(metrics.http),
                access_log: config.access_log,
            };
            let store = Instrumented::new(store, metrics.storage);
            (
                AnyApi::Recorded(Arc::new(Api::new(store, policy, recorders))),
                Some(page),
            )
        }
    };
    Ok(Bound {
        listeners,
        addresses,
        api,
        page,
        expiry: None,
        watched: None,
        limits: config.limits,
    })
}

impl<S: Store> Bound<S> {
    /// Where clients are served, in the order of the configuration.
    pub fn addresses(&self) -> &[ListenAddr] {
        &self.addresses
    }

    /// Where the metrics page is.
    pub fn metrics_address(&self) -> Option<&ListenAddr> {
        self.page.as_ref().map(|page| &page.address)
    }

    /// Whether the data directory is there; `None` for a store that has none.
    pub fn presence(&self) -> Option<Presence> {
        self.watched.as_ref().map(FsStore::presence)
    }

    /// Connects to the API from within this process, as long as anyone holds it.
    pub fn dialer(&self) -> Dialer {
        match &self.api {
            AnyApi::Plain(api) => Dialer::new(Arc::clone(api)),
            AnyApi::Recorded(api) => Dialer::new(Arc::clone(api)),
        }
    }

    /// Serves until `shutdown`, then lets the requests under way end, and cuts those that don't in
    /// time. The metrics page is served to the very end.
    pub async fn serve(self, shutdown: Shutdown) -> Result<(), ServeError> {
        let timeouts = ConnectionTimeouts {
            header: self.limits.header_timeout,
            idle: self.limits.idle_timeout,
            stall: self.limits.body_stall,
        };
        let (end, page_shutdown) = Shutdown::new();
        let pages = Connections::to_metrics(timeouts, page_shutdown);
        let presence = self.presence();
        let serve_page = async {
            if let Some(page) = self.page {
                page.serve(&pages, presence, shutdown.clone()).await;
            }
        };
        let connections = Connections::new(self.limits.connections, timeouts, shutdown.clone());
        let serve_api = async {
            match self.api {
                AnyApi::Plain(api) => accept(api, self.listeners, &connections).await,
                AnyApi::Recorded(api) => accept(api, self.listeners, &connections).await,
            }
            // What has no listener is served to whoever dials.
            shutdown.clone().recv().await;
            let drained = connections.drain(self.limits.drain).await;
            end.trigger();
            drained
        };
        let expire = async {
            match self.expiry {
                Some(expiry) => expiry.run().await,
                None => pending().await,
            }
        };
        let watch = async {
            match self.watched {
                Some(store) => store.watch().await,
                None => pending().await,
            }
        };
        let serve = async { tokio::join!(serve_api, serve_page) };
        let (drained, ()) = tokio::select! {
            served = serve => served,
            never = expire => match never {},
            never = watch => match never {},
        };
        pages.drain(PAGE_DRAIN).await;
        if drained {
            Ok(())
        } else {
            Err(ServeError::Cut)
        }
    }
}

/// Serves the API on all its listeners until shutdown.
async fn accept<S: Store>(api: Arc<Api<S>>, listeners: Vec<Listener>, connections: &Connections) {
    let handler = move |request| {
        let api = Arc::clone(&api);
        async move { api.handle(request).await }
    };
    let accepting = listeners
        .into_iter()
        .map(|listener| connections.accept(listener, None, handler.clone()));
    join_all(accepting).await;
}

impl Page {
    async fn serve(
        self,
        connections: &Connections,
        presence: Option<Presence>,
        stopping: Shutdown,
    ) {
        let MetricsConfig {
            path, auth, tls, ..
        } = self.config;
        let watched = tls.clone();
        let watch = async {
            if let Some(tls) = watched {
                tls.watch(stopping.clone()).await;
            }
            pending::<()>().await;
        };
        let pages = Arc::new(Pages::new(
            self.registry,
            path,
            auth,
            presence,
            stopping.clone(),
        ));
        let handler = move |request| {
            let pages = Arc::clone(&pages);
            async move { pages.handle(&request).await }
        };
        let count = async {
            match self.collector {
                Some(collector) => collector.run().await,
                None => pending().await,
            }
        };
        tokio::select! {
            () = connections.accept(self.listener, tls, handler) => {}
            () = count => {}
            () = watch => {}
        }
    }
}

#[cfg(test)]
mod tests;
