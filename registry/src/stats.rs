//! Statistics: what the store holds, kept up to date in the background.
//!
//! The store reports every change to the [`Ledger`] as it happens. A [`Collector`] counts the whole store
//! at the start, and again at long intervals (a *reconcile*), to find what changed without the store, such
//! as files that were deleted by hand. A scrape only reads: sums, the largest repositories from an index,
//! and the table of upload sessions.
//!
//! Deliberately not here: deletion, and any walk of the store during a request or a scrape.

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

/// How often the figures of the file system and of the upload sessions are read.
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

/// The outcome last logged of each kind of work, so that a lasting failure is logged once.
#[derive(Debug, Default)]
struct LoggedOutcomes {
    reconcile: OutcomeChanges,
    file_system: OutcomeChanges,
    uploads: OutcomeChanges,
}

impl Collector {
    /// The usual interval between two reconciles.
    pub const EVERY: Duration = Duration::from_hours(6);

    /// A collector for a store that was opened with `ledger` as its listener. It reconciles at the interval
    /// `every`.
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

    /// Returns a function that updates the gauges. Call it before each scrape.
    pub fn gauge_updater(&self) -> impl Fn() + Send + Sync + 'static {
        // Without the store itself: the metrics may outlive it, and must not keep its directory locked.
        let updater = GaugeUpdater {
            ledger: Arc::clone(&self.ledger),
            uploads: self.store.uploads(),
            stats: Arc::clone(&self.stats),
            uploads_allocated: Arc::clone(&self.uploads_allocated),
        };
        move || updater.update()
    }

    /// Reconciles and refreshes until the future is dropped.
    pub async fn run(self) {
        let refresh = async {
            // Delayed rather than caught up with: on a slow disk, ticks must not pile up.
            let mut ticks = interval(REFRESH);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                self.refresh().await;
            }
        };
        let reconcile = async {
            let mut presence = self.store.presence();
            let mut ticks = interval(self.every);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                // A lost data directory is counted as soon as it is back, and not only at the next tick.
                while !self.reconcile().await {
                    presence.wait().await;
                }
            }
        };
        tokio::join!(refresh, reconcile);
    }

    /// Counts the whole store once. Returns false if the data directory is lost: the figures stay, and the
    /// caller reconciles again when it is back.
    pub async fn reconcile(&self) -> bool {
        let began = Instant::now();
        let failures = reconcile::reconcile(self.store.clone(), Arc::clone(&self.ledger)).await;
        self.stats
            .families
            .duration
            .set((), began.elapsed().as_secs_f64());
        if failures.is_empty() {
            // Only a full success moves the time: an alert on its age finds lasting failures.
            self.stats
                .families
                .last_success
                .set((), seconds_since_epoch());
        }
        self.note("reconcile", &self.logged.reconcile, &failures);
        !failures.iter().any(reconcile::is_lost)
    }

    /// Reads the figures of the file system and of the upload sessions once.
    pub async fn refresh(&self) {
        let store = self.store.clone();
        let read = spawn_blocking(move || (store.space(), store.uploads_allocated()));
        // Fails only while the runtime shuts down.
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
            // Relaxed: no other memory depends on this figure.
            Ok(allocated) => self.uploads_allocated.store(allocated, Ordering::Relaxed),
            Err(failure) => uploads = Some(failure),
        }
        let logged = &self.logged;
        self.note("file system", &logged.file_system, file_system.as_slice());
        self.note("upload sessions", &logged.uploads, uploads.as_slice());
    }

    /// Counts failures, and logs the first of them if it differs from the last time.
    fn note(&self, work: &'static str, logged: &OutcomeChanges, failures: &[StoreError]) {
        for _ in failures {
            self.stats.families.errors.inc(());
        }
        let error = failures.first().map(|failure| causes(failure));
        match logged.note(error.as_deref()) {
            OutcomeChange::Failed => tracing::warn!(
                work,
                error,
                failures = failures.len(),
                "statistics incomplete"
            ),
            OutcomeChange::Recovered => tracing::info!(work, "statistics complete again"),
            OutcomeChange::None => {}
        }
    }
}

/// Updates the gauges before a scrape.
struct GaugeUpdater {
    ledger: Arc<Ledger>,
    uploads: OpenUploads,
    stats: Arc<Stats>,
    uploads_allocated: Arc<AtomicI64>,
}

impl GaugeUpdater {
    fn update(&self) {
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
        // Until the first reconcile is complete there are no figures, rather than wrong ones.
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
