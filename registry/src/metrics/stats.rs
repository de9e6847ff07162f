//! What the registry holds: the families that the statistics collector keeps.

use std::collections::HashSet;
use std::fmt;

use parking_lot::Mutex;
use service::metrics::{Counter, Gauge, Gauges, MetricsRegistry, PerValue, families};

use crate::oci::Kind;

families! {
    /// The families of the collector. A figure that is not known yet is not printed.
    pub struct StatsFamilies {
        /// Repositories that hold a blob or a manifest; set with every push and delete, and with each
        /// reconcile.
        pub repositories: Gauge = "repositories",
        /// Tags of all repositories; set as they are created and deleted, and with each reconcile.
        pub tags: Gauge = "tags",
        /// Blobs on disk, each counted once however many repositories hold it. One that no
        /// repository holds counts until a collection removes it. Set with every push and collection,
        /// and with each reconcile.
        pub blobs: Gauge = "blobs",
        /// Manifests, counted in each repository that holds them; set as they are pushed and deleted,
        /// and with each reconcile.
        pub manifests: Gauges<Kind> = "manifests",
        /// Size of the file system that holds the store; read every few seconds.
        pub filesystem_size: Gauge = "storage_filesystem_size_bytes",
        /// Bytes that an unprivileged user may still write to the file system of the store; read
        /// every few seconds.
        pub filesystem_available: Gauge = "storage_filesystem_avail_bytes",
        /// Free inodes in the file system of the store; read every few seconds.
        pub filesystem_files_free: Gauge = "storage_filesystem_files_free",
        /// Bytes that the store allocates on disk, each file counted once; set with every push and
        /// delete, and with each reconcile.
        pub disk_usage: Gauge = "storage_disk_usage_bytes",
        /// Open upload sessions; read from the store at each scrape.
        pub upload_sessions: Gauge = "registry_upload_sessions",
        /// Bytes that the open upload sessions have received; read from the store at each scrape.
        pub upload_bytes: Gauge = "registry_upload_bytes",
        /// Age of the oldest open upload session, 0 without any; read from the store at each scrape.
        pub upload_oldest_age: Gauge = "registry_upload_oldest_age_seconds",
        /// Time of the last reconcile of the statistics that ended without a failure, in seconds
        /// since 1970; absent until the first has.
        pub last_success: Gauge = "stats_last_success_timestamp_seconds",
        /// Time that the last reconcile of the statistics took, pauses included; set when it ends.
        pub duration: Gauge = "stats_duration_seconds",
        /// Repositories, directories or file system figures that could not be read for the
        /// statistics; counted when it happens. The old figures stay.
        pub errors: Counter = "stats_errors_total",
    }
}

families! {
    /// The families by repository.
    struct StoredFamilies by "repository" {
        /// Bytes of the blobs and manifests that a repository holds, each counted whole in every
        /// repository that holds it: the 200 largest repositories, and `_other` for the rest. Set
        /// with every push, mount and delete, and with each reconcile.
        stored: Gauge = "repository_stored_bytes",
    }
}

/// What the collector records.
pub struct Stats {
    /// The families without a repository.
    pub families: StatsFamilies,
    stored: PerValue<Gauge>,
    /// The repositories that `stored` shows.
    shown: Mutex<HashSet<String>>,
}

/// How many repositories are shown by name.
pub const LARGEST: usize = 200;

/// Stands for all repositories that are not among the largest. No repository can have this name.
const OTHER: &str = "_other";

impl Stats {
    /// Declares the families.
    pub fn new(registry: &MetricsRegistry) -> Self {
        Self {
            families: StatsFamilies::declare(registry),
            stored: StoredFamilies::declare(registry, LARGEST + 1).stored,
            shown: Mutex::default(),
        }
    }

    /// Shows the largest repositories and the sum of the others.
    pub fn show_stored<'a>(&self, largest: impl Iterator<Item = (&'a str, f64)>, other: f64) {
        let mut shown = self.shown.lock();
        // Only the repositories that dropped out are removed: a scrape at the same moment misses
        // none of the others.
        let mut gone = std::mem::take(&mut *shown);
        for (repository, bytes) in largest.chain([(OTHER, other)]) {
            self.stored.set(repository, bytes);
            shown.insert(
                gone.take(repository)
                    .unwrap_or_else(|| repository.to_owned()),
            );
        }
        for repository in gone {
            self.stored.remove(&repository, ());
        }
    }
}

impl fmt::Debug for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stats").finish_non_exhaustive()
    }
}
