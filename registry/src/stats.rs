//! The statistics collector: what the store holds, kept up to date in the background.
//!
//! The store tells the [`Ledger`] every change as it happens. A [`Collector`] counts everything at
//! the start, and again rarely, for what came about behind the store's back. A scrape only reads:
//! sums, the largest repositories from an index, and the table of upload sessions.
//!
//! Deliberately not here: removing anything, and any walk in a request's or a scrape's path.

mod ledger;
mod reconcile;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};

pub use ledger::{Ledger, Totals};

use crate::metrics::stats::{LARGEST, Stats};
use crate::oci::Kind;
use crate::store::StoreError;
use crate::store::fs::{FsStore, OpenUploads, Space};
use service::log::{OutcomeChange, OutcomeChanges, causes};

/// How often the figures of the file system are read.
const REFRESH: Duration = Duration::from_secs(10);

/// Keeps the statistics of one store.
#[derive(Debug)]
pub struct Collector {
    store: FsStore,
    ledger: Arc<Ledger>,
    stats: Arc<Stats>,
    uploads_allocated: Arc<AtomicI64>,
    every: Duration,
    logged: LoggedOutcomes,
}

/// What was last logged of each kind of work.
#[derive(Debug, Default)]
struct LoggedOutcomes {
    count: OutcomeChanges,
    file_system: OutcomeChanges,
    uploads: OutcomeChanges,
}

impl Collector {
    /// How often everything is counted again, unless the caller knows better.
    pub const EVERY: Duration = Duration::from_hours(6);

    /// A collector for a store that was opened with `ledger` as its listener.
    pub fn new(store: FsStore, ledger: Arc<Ledger>, stats: Stats, every: Duration) -> Self {
        let (stats, uploads_allocated) = (Arc::new(stats), Arc::default());
        Self {
            store,
            ledger,
            stats,
            uploads_allocated,
            every,
            logged: LoggedOutcomes::default(),
        }
    }

    /// Brings the gauges up to date; to be called before each scrape.
    pub fn page(&self) -> impl Fn() + Send + Sync + 'static {
        // The page may live longer than the store: it must not keep the folder locked.
        let page = GaugeUpdater {
            ledger: Arc::clone(&self.ledger),
            uploads: self.store.uploads(),
            stats: Arc::clone(&self.stats),
            uploads_allocated: Arc::clone(&self.uploads_allocated),
        };
        move || page.refresh()
    }

    /// Counts and keeps counting until the future is dropped.
    pub async fn run(self) {
        let refresh = async {
            let mut ticks = interval(REFRESH);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                self.refresh().await;
            }
        };
        let count = async {
            let mut presence = self.store.presence();
            let mut ticks = interval(self.every);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                while !self.count().await {
                    presence.wait().await;
                }
            }
        };
        tokio::join!(refresh, count);
    }

    /// Counts everything once. False if the data directory is gone: then nothing can be said, and it
    /// is to be counted when it is back.
    pub async fn count(&self) -> bool {
        let began = Instant::now();
        let failures = reconcile::reconcile(self.store.clone(), Arc::clone(&self.ledger)).await;
        self.stats
            .families
            .duration
            .set((), began.elapsed().as_secs_f64());
        if failures.is_empty() {
            self.stats
                .families
                .last_success
                .set((), seconds_since_epoch());
        }
        self.note("full count", &self.logged.count, &failures);
        !failures.iter().any(is_lost)
    }

    /// Reads the figures of the file system once.
    pub async fn refresh(&self) {
        let store = self.store.clone();
        let read = spawn_blocking(move || (store.space(), store.uploads_allocated()));
        // It fails only when the program ends.
        let Ok((space, allocated)) = read.await else {
            return;
        };
        let mut file_system = None;
        match space {
            Ok(Space {
                size,
                available,
                files_free,
                ..
            }) => {
                self.stats.families.filesystem_size.set((), size as f64);
                self.stats
                    .families
                    .filesystem_available
                    .set((), available as f64);
                self.stats
                    .families
                    .filesystem_files_free
                    .set((), files_free as f64);
            }
            Err(failure) => file_system = Some(failure),
        }
        let mut uploads = None;
        match allocated {
            Ok(allocated) => self.uploads_allocated.store(allocated, Ordering::Relaxed),
            Err(failure) => uploads = Some(failure),
        }
        let logged = &self.logged;
        self.note("file system", &logged.file_system, file_system.as_slice());
        self.note("upload sessions", &logged.uploads, uploads.as_slice());
    }

    /// Counts failures, and logs the first of them when it is news.
    fn note(&self, of: &'static str, logged: &OutcomeChanges, failures: &[StoreError]) {
        for _ in failures {
            self.stats.families.errors.inc(());
        }
        let error = failures.first().map(|failure| causes(failure));
        match logged.note(error.as_deref()) {
            OutcomeChange::Failed => tracing::warn!(
                of,
                error,
                failures = failures.len(),
                "statistics incomplete"
            ),
            OutcomeChange::Recovered => tracing::info!(of, "statistics complete again"),
            OutcomeChange::None => {}
        }
    }
}

fn is_lost(failure: &StoreError) -> bool {
    matches!(failure, StoreError::Lost { .. })
}

/// Brings the gauges up to date for a scrape.
struct GaugeUpdater {
    ledger: Arc<Ledger>,
    uploads: OpenUploads,
    stats: Arc<Stats>,
    uploads_allocated: Arc<AtomicI64>,
}

impl GaugeUpdater {
    fn refresh(&self) {
        let stats = &self.stats;
        let uploads = self.uploads.totals();
        let age = uploads
            .oldest
            .and_then(|oldest| oldest.elapsed().ok())
            .unwrap_or_default();
        stats
            .families
            .upload_sessions
            .set((), uploads.sessions as f64);
        stats.families.upload_bytes.set((), uploads.bytes as f64);
        stats.families.upload_oldest_age.set((), age.as_secs_f64());
        let Some(totals) = self.ledger.totals() else {
            return;
        };
        stats
            .families
            .repositories
            .set((), totals.repositories as f64);
        stats.families.tags.set((), totals.tags as f64);
        stats.families.blobs.set((), totals.blobs as f64);
        for (kind, count) in Kind::ALL.into_iter().zip(totals.manifests) {
            stats.families.manifests.set(kind, count as f64);
        }
        let uploads = self.uploads_allocated.load(Ordering::Relaxed);
        stats
            .families
            .disk_usage
            .set((), (totals.allocated + uploads) as f64);
        self.ledger.largest(LARGEST, |largest, other| {
            let largest = largest.iter().map(|&(name, bytes)| (name, bytes as f64));
            stats.show_stored(largest, other as f64);
        });
    }
}

fn seconds_since_epoch() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64()
}
