//! Reading the configuration again while the server runs. One task does it, for every way to ask.
//!
//! Deliberately not here: what a server does with it ([`Operate`]).

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_blocking;

use super::cli::Startup;
use super::config::ChangedKeys;
use super::descriptors;
use super::log::LogControl;
use super::metrics::{Counters, Gauge, MetricsRegistry, families, labels};
use super::notify::Notifier;
use super::operate::{Operate, ReloadRefusal, Reloaded};
use super::program_config::{Configuration, LISTENERS, LoadedAgain};
use super::shutdown::Shutdown;

/// How many may wait for a reload. One more waits until there is room.
const WAITING: usize = 8;

labels! {
    /// What came of a reload.
    pub enum ReloadResult: "result" { Applied = "ok", Refused = "refused" }
}

families! {
    /// The families of reloads.
    #[derive(Clone)]
    pub struct ReloadFamilies {
        /// Whether the last reload of the configuration was applied (1) or refused (0); 1 from the start,
        /// set when a reload ends.
        last_successful: Gauge = "config_last_reload_successful",
        /// When a configuration was last applied, in seconds since 1970; the start counts, set when a
        /// reload is applied.
        last_success: Gauge = "config_last_reload_success_timestamp_seconds",
        /// Reloads of the configuration by result: ok, or refused, which leaves the old one as it is;
        /// counted when a reload ends.
        reloads: Counters<ReloadResult> = "config_reloads_total",
    }
}

/// Asks for reloads. Clones ask the same task.
#[derive(Clone)]
pub struct Reloads {
    asked: mpsc::Sender<AskedReload>,
    last: Arc<Mutex<Option<LastReload>>>,
}

/// What came of a reload.
pub type ReloadOutcome = Result<Reloaded, ReloadRefusal>;

/// The last reload that ended.
#[derive(Clone, Debug)]
pub struct LastReload {
    /// When.
    pub at: SystemTime,
    /// What came of it.
    pub outcome: ReloadOutcome,
}

struct AskedReload {
    /// Who asked, for the log.
    by: &'static str,
    answer: oneshot::Sender<ReloadOutcome>,
}

/// The task that reloads.
struct Reloader<C: Configuration, O> {
    startup: Startup<C>,
    /// The fields that were applied last, with the listeners as they are.
    running: C::Fields,
    operator: O,
    log: LogControl,
    families: Option<ReloadFamilies>,
    last: Arc<Mutex<Option<LastReload>>>,
    /// Tells the service manager, which waits for the end of a reload.
    notifier: Notifier,
    shutdown: Shutdown,
}

impl ReloadFamilies {
    /// Declares the families, for a process that starts now.
    pub fn start(registry: &MetricsRegistry) -> ReloadFamilies {
        let families = ReloadFamilies::declare(registry);
        // Both from the start: in PromQL a sum with a missing series has no result.
        families.reloads.touch(ReloadResult::Applied);
        families.reloads.touch(ReloadResult::Refused);
        families.applied();
        families
    }

    fn applied(&self) {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        self.last_success
            .set((), since.unwrap_or_default().as_secs_f64());
        self.last_successful.set((), 1.0);
    }

    fn count(&self, outcome: &ReloadOutcome) {
        if outcome.is_ok() {
            self.reloads.inc(ReloadResult::Applied);
            self.applied();
        } else {
            self.reloads.inc(ReloadResult::Refused);
            self.last_successful.set((), 0.0);
        }
    }
}

impl Reloads {
    /// Starts the task, which ends when nobody can ask any more. `startup` is what the server runs with.
    /// Must be called within a tokio runtime.
    pub fn start<C, O>(
        startup: Startup<C>,
        operator: O,
        families: Option<ReloadFamilies>,
        (log, notifier): (LogControl, Notifier),
        shutdown: Shutdown,
    ) -> Reloads
    where
        C: Configuration,
        O: Operate<Config = C>,
    {
        let (asked, asking) = mpsc::channel(WAITING);
        let last = Arc::default();
        let reloader = Reloader {
            running: startup.fields.clone(),
            startup,
            operator,
            log,
            families,
            last: Arc::clone(&last),
            notifier,
            shutdown,
        };
        tokio::spawn(reloader.run(asking));
        Reloads { asked, last }
    }

    /// Reads the configuration again and applies it, after the reloads that were asked for before.
    /// `by` is who asks, for the log. Once begun it is done, whether this future is dropped or not.
    pub async fn reload(&self, by: &'static str) -> ReloadOutcome {
        let ended = || ReloadRefusal("the reload ended unexpectedly: see the log".to_owned());
        let (answer, answered) = oneshot::channel();
        let sent = self.asked.send(AskedReload { by, answer }).await;
        sent.map_err(|_| ended())?;
        answered.await.unwrap_or_else(|_| Err(ended()))
    }

    /// The last reload that ended, if there was one.
    pub fn last(&self) -> Option<LastReload> {
        self.last.lock().clone()
    }
}

impl<C, O> Reloader<C, O>
where
    C: Configuration,
    O: Operate<Config = C>,
{
    async fn run(mut self, mut asking: mpsc::Receiver<AskedReload>) {
        while let Some(AskedReload { by, answer }) = asking.recv().await {
            self.notifier.reloading().await;
            let outcome = self.reload().await;
            // A process that ends is not ready again.
            if !self.shutdown.is_triggered() {
                self.notifier.ready().await;
            }
            // Before the log and the answer: a reader of these finds the rest done.
            if let Some(families) = &self.families {
                families.count(&outcome);
            }
            *self.last.lock() = Some(LastReload {
                at: SystemTime::now(),
                outcome: outcome.clone(),
            });
            log(by, &outcome);
            // Who asked may be gone.
            let _ = answer.send(outcome);
        }
    }

    async fn reload(&mut self) -> ReloadOutcome {
        if self.shutdown.is_triggered() {
            return Err(ReloadRefusal("the process is shutting down".to_owned()));
        }
        let sources = self.startup.sources.clone();
        // On a blocking thread: files are read, and the disk may be slow.
        let running = self.running.clone();
        let loaded = spawn_blocking(move || C::load_again(sources, &running)).await;
        // The log has the panic.
        let loaded = loaded.map_err(|_| ReloadRefusal("reading it failed".to_owned()))?;
        let LoadedAgain {
            mut config,
            fields,
            running,
            kept,
        } = loaded?;
        let limits = config.limits();
        (limits.connections, limits.streams) = descriptors::fit(limits.connections, limits.streams);
        let since_start = ChangedKeys::between(&self.startup.fields, &fields);
        // What a listener runs with may be what an earlier reload has applied.
        let since_start = since_start.replaced(LISTENERS, &kept);
        let logging = config.logging().clone();
        let reloaded = self.operator.reload(config, &since_start).await?;
        self.log.apply(&logging);
        self.running = running;
        Ok(reloaded)
    }
}

fn log(by: &'static str, outcome: &ReloadOutcome) {
    match outcome {
        Ok(Reloaded { needs_restart }) if needs_restart.is_empty() => {
            tracing::info!(by, "configuration reloaded");
        }
        Ok(Reloaded { needs_restart }) => {
            let needs_restart = needs_restart.join(", ");
            tracing::warn!(by, needs_restart, "configuration reloaded");
        }
        Err(error) => tracing::error!(by, %error, "configuration reload refused"),
    }
}
