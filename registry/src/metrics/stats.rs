//! What the registry holds: the families that the statistics collector keeps.

use std::collections::HashSet;
use std::fmt;

use parking_lot::Mutex;
use prometheus::GaugeVec;

use crate::oci::Kind;
use service::metrics::MetricsRegistry;
use service::metrics::{Counter, Gauge, Gauges};

/// The families of the collector. Those of which nothing is known yet are not printed.
pub struct Stats {
    /// Repositories that hold a blob or a manifest.
    pub repositories: Gauge,
    /// Tags.
    pub tags: Gauge,
    /// Blobs, each counted once.
    pub blobs: Gauge,
    /// Manifests, counted in each repository that holds them.
    pub manifests: Gauges<Kind>,
    /// Size of the store's file system.
    pub filesystem_size: Gauge,
    /// What an ordinary user may still write to it.
    pub filesystem_available: Gauge,
    /// How many files may still be made in it.
    pub filesystem_files_free: Gauge,
    /// Bytes the store takes.
    pub disk_usage: Gauge,
    /// Open upload sessions.
    pub upload_sessions: Gauge,
    /// Bytes they have received.
    pub upload_bytes: Gauge,
    /// Age of the oldest of them.
    pub upload_oldest_age: Gauge,
    /// When the last full count ended well.
    pub last_success: Gauge,
    /// How long it took.
    pub duration: Gauge,
    /// What failed while counting.
    pub errors: Counter,
    stored: GaugeVec,
    /// The repositories that `stored` shows.
    shown: Mutex<HashSet<String>>,
}

/// How many repositories are shown by name.
pub const LARGEST: usize = 200;

/// Stands for all repositories that are not among the largest. No name can be this.
const OTHER: &str = "_other";

impl Stats {
    /// Declares the families.
    pub fn register(registry: &MetricsRegistry) -> Self {
        Self {
            repositories: registry.gauge(
                "repositories",
                "Repositories that hold a blob or a manifest; moves as they come and go, and with \
                 each full count.",
            ),
            tags: registry.gauge(
                "tags",
                "Tags of all repositories; moves as they are created and deleted, and with each \
                 full count.",
            ),
            blobs: registry.gauge(
                "blobs",
                "Blobs on disk, each once however many repositories hold it, and also when none \
                 does: deleting frees no content yet; moves as blobs are pushed, and with each \
                 full count.",
            ),
            manifests: registry.gauges(
                "manifests",
                "Manifests, in each repository that holds them; moves as they are pushed and \
                 deleted, and with each full count.",
                &["kind"],
            ),
            filesystem_size: registry.gauge(
                "storage_filesystem_size_bytes",
                "Size of the file system that holds the store; read every few seconds.",
            ),
            filesystem_available: registry.gauge(
                "storage_filesystem_avail_bytes",
                "Bytes an ordinary user may still write to the file system of the store; read \
                 every few seconds.",
            ),
            filesystem_files_free: registry.gauge(
                "storage_filesystem_files_free",
                "Files that may still be made in the file system of the store; read every few \
                 seconds.",
            ),
            disk_usage: registry.gauge(
                "storage_disk_usage_bytes",
                "Bytes allocated on disk by the store, each file once; moves with every push and \
                 delete, and with each full count.",
            ),
            upload_sessions: registry.gauge(
                "registry_upload_sessions",
                "Open upload sessions; read from the store at each scrape.",
            ),
            upload_bytes: registry.gauge(
                "registry_upload_bytes",
                "Bytes that the open upload sessions have received; read from the store at each \
                 scrape.",
            ),
            upload_oldest_age: registry.gauge(
                "registry_upload_oldest_age_seconds",
                "Age of the oldest open upload session, 0 without any; read from the store at \
                 each scrape.",
            ),
            last_success: registry.gauge(
                "stats_last_success_timestamp_seconds",
                "When the last full count of the store ended without a failure; absent until the \
                 first has.",
            ),
            duration: registry.gauge(
                "stats_duration_seconds",
                "Time the last full count of the store took, its pauses included; moves when one \
                 ends.",
            ),
            errors: registry.counter(
                "stats_errors_total",
                "Repositories, folders or figures of the file system that could not be read for \
                 the statistics, counted when it happens; the old figures stay.",
            ),
            stored: registry.gauge_vec(
                "repository_stored_bytes",
                "Bytes of the blobs and manifests that a repository holds, each counted whole in \
                 every repository: the 200 largest, and `_other` for the rest; moves with every \
                 push, mount and delete, and with each full count.",
                &["repository"],
                LARGEST + 1,
            ),
            shown: Mutex::default(),
        }
    }

    /// Shows the largest repositories and the sum of the others.
    pub fn show_stored<'a>(&self, largest: impl Iterator<Item = (&'a str, f64)>, other: f64) {
        let mut shown = self.shown.lock();
        // Only what is gone is taken away: a scrape at the same moment misses nobody.
        let mut gone = std::mem::take(&mut *shown);
        for (repository, bytes) in largest.chain([(OTHER, other)]) {
            self.stored.with_label_values(&[repository]).set(bytes);
            shown.insert(
                gone.take(repository)
                    .unwrap_or_else(|| repository.to_owned()),
            );
        }
        for repository in gone {
            // Another scrape may have taken it away.
            let _ = self.stored.remove_label_values(&[&repository]);
        }
    }
}

impl fmt::Debug for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stats").finish_non_exhaustive()
    }
}
