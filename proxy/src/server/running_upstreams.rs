//! The upstreams of a proxy that runs, and the tasks that keep them known.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::Mutex;
use service::shutdown::{Shutdown, Trigger};
use tokio::time::timeout;

use crate::config::RemoteConfig;
use crate::metrics::UpstreamFamilies;
use crate::upstream::{SessionKey, Timeouts, Upstream, Upstreams};

/// How long requests are kept from new upstreams for their names to be resolved.
const RESOLVE: Duration = Duration::from_secs(2);

/// The most names of upstreams that are gone whose counts are still shown.
const MOST_GONE: usize = 64;

/// The upstreams of a proxy that runs.
pub(super) struct RunningUpstreams {
    /// What binds upload sessions to replicas where the configuration has no key for that.
    session_key: SessionKey,
    state: Mutex<RunningState>,
}

struct RunningState {
    current: Upstreams,
    /// Those that are gone, whose counts are still shown.
    gone: Vec<String>,
    /// The tasks of the current ones, once they have begun. Dropped, it ends them.
    tasks: Option<Trigger>,
}

impl RunningUpstreams {
    pub(super) fn new(current: Upstreams, session_key: SessionKey) -> RunningUpstreams {
        RunningUpstreams {
            session_key,
            state: Mutex::new(RunningState {
                current,
                gone: Vec::new(),
                tasks: None,
            }),
        }
    }

    /// The upstreams now.
    pub(super) fn current(&self) -> Upstreams {
        self.state.lock().current.clone()
    }

    /// The upstreams of another configuration. They take on what has not changed.
    pub(super) fn next(
        &self,
        configs: Vec<RemoteConfig>,
        timeouts: Timeouts,
        families: Option<&UpstreamFamilies>,
    ) -> Option<Upstreams> {
        let current = self.current();
        let previous = |name: &str| current.all().find(|upstream| upstream.name() == name);
        let all = configs.into_iter().map(|config| {
            let previous = previous(&config.name);
            let upstream = remote(config, timeouts, &self.session_key);
            match previous {
                Some(previous) => upstream.succeeding(previous),
                None => upstream,
            }
        });
        let all: Vec<_> = all.collect();
        if let Some(families) = families {
            let gone = self.state.lock().gone.len();
            families.resize(all.len() + current.all().count() + gone);
        }
        together(all, families)
    }

    /// Replaces the upstreams, and has the tasks of the new ones begin if those of the old ones had.
    /// Requests in flight go on with the old ones. `health_changed` is called when the health of one has
    /// changed.
    pub(super) fn replace(
        &self,
        next: Upstreams,
        families: Option<&UpstreamFamilies>,
        health_changed: impl Fn() + Clone + Send + Sync + 'static,
    ) {
        let mut state = self.state.lock();
        let is_there = |name: &str| next.all().any(|upstream| upstream.name() == name);
        let names = state.current.all().map(|one| one.name().to_owned());
        let names: Vec<_> = names.filter(|name| !is_there(name)).collect();
        state.gone.retain(|name| !is_there(name));
        for name in names {
            if let Some(families) = families {
                families.forget_gauges(&name);
            }
            state.gone.push(name);
        }
        while state.gone.len() > MOST_GONE {
            let oldest = state.gone.remove(0);
            if let Some(families) = families {
                families.forget(&oldest);
            }
        }
        if let Some(families) = families {
            families.resize(next.all().count() + state.gone.len());
        }
        state.current = next;
        if state.tasks.is_some() {
            state.tasks = Some(begin(&state.current, health_changed));
        }
    }

    /// Resolves and probes the upstreams from now on. `health_changed` is called when the health of one
    /// has changed.
    pub(super) fn begin(&self, health_changed: impl Fn() + Clone + Send + Sync + 'static) {
        let mut state = self.state.lock();
        state.tasks = Some(begin(&state.current, health_changed));
    }

    /// Ends the tasks.
    pub(super) fn end(&self) {
        self.state.lock().tasks = None;
    }
}

fn begin(
    upstreams: &Upstreams,
    health_changed: impl Fn() + Clone + Send + Sync + 'static,
) -> Trigger {
    let (trigger, shutdown) = Shutdown::new();
    for upstream in upstreams.all() {
        tokio::spawn(Arc::clone(upstream).maintain(shutdown.clone()));
        let (upstream, shutdown) = (Arc::clone(upstream), shutdown.clone());
        let health_changed = health_changed.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = upstream.watch_health(health_changed) => {}
                () = shutdown.recv() => {}
            }
        });
    }
    trigger
}

/// Resolves the names of upstreams that get no requests yet. One that cannot be resolved is no reason to
/// wait for ever, and the log has it once they get requests.
pub(super) async fn resolve(upstreams: &Upstreams) {
    let each = upstreams.all().map(|upstream| upstream.resolve());
    let _ = timeout(RESOLVE, join_all(each)).await;
}

/// An upstream somewhere.
pub(super) fn remote(
    mut config: RemoteConfig,
    timeouts: Timeouts,
    session_key: &SessionKey,
) -> Upstream {
    let key = &mut config.rules.session_key;
    if config.replicas.len() > 1 && key.is_none() {
        tracing::warn!(
            upstream = config.name,
            "upload sessions cannot move to another proxy, and end with this process: set \
             session_key_file"
        );
    }
    key.get_or_insert_with(|| session_key.clone());
    let upstream = Upstream::new(config.name, config.replicas, config.rules, timeouts);
    let upstream = upstream.for_requests(config.matching);
    let upstream = upstream.with_credentials(config.credentials);
    upstream.read_only(config.read_only)
}

/// All upstreams of a proxy, which are recorded; `None` if there are none.
pub(super) fn together(
    all: Vec<Upstream>,
    families: Option<&UpstreamFamilies>,
) -> Option<Upstreams> {
    let mut all = all.into_iter().map(|upstream| {
        Arc::new(match families {
            Some(families) => {
                let cells = families.of(upstream.name());
                upstream.with_metrics(cells)
            }
            None => upstream,
        })
    });
    let first = all.next()?;
    Some(Upstreams::new(first, all.collect()))
}
