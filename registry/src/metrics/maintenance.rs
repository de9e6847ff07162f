//! The maintenance jobs: `gc_*`, `scrub_*` and `retention_*`.

use std::fmt;

use service::metrics::{
    Counter, Counters, Gauge, Histograms, Label as _, MetricsRegistry, families, labels,
};

use super::label::LATENCY;

labels! {
    /// How a run of a job ended.
    pub enum RunResult: "result" {
        Ok = "ok",
        Error = "error",
        Interrupted = "interrupted",
    }

    /// What was removed.
    pub enum Removed: "kind" {
        Blob = "blob",
        Manifest = "manifest",
        Upload = "upload",
    }

    /// What the retention deleted.
    pub enum Deleted: "kind" {
        Tag = "tag",
        Manifest = "manifest",
    }
}

families! {
    /// The families of the jobs.
    #[derive(Clone)]
    pub struct MaintenanceFamilies {
        /// Collections, without those that only reported; counted when they end. `error`: something could
        /// not be read or removed.
        pub gc_runs: Counters<RunResult> = "gc_runs_total",
        /// Time that a collection took, pauses included; observed when it ends.
        pub gc_duration: Histograms<()> = "gc_duration_seconds" in LATENCY,
        /// Blobs and manifests that collections removed from the disk, and upload sessions that expired;
        /// counted when a collection or an expiry ends.
        pub gc_deleted: Counters<Removed> = "gc_deleted_total",
        /// Bytes that collections freed on disk; counted when they end.
        pub gc_freed: Counter = "gc_freed_bytes_total",
        /// Scrubs; counted when they end. `error`: not all content could be read.
        pub scrub_runs: Counters<RunResult> = "scrub_runs_total",
        /// Blobs and manifests that are missing, or are not what their digests say; counted when the scrub
        /// that found them ends.
        pub scrub_corrupt: Counter = "scrub_corrupt_blobs_total",
        /// Time of the last scrub that checked all content, in seconds since 1970; absent until the first
        /// has since the start.
        pub scrub_last_success: Gauge = "scrub_last_success_timestamp_seconds",
        /// Runs of the retention, with those that only reported; counted when they end. `error`: something
        /// could not be read or deleted.
        pub retention_runs: Counters<RunResult> = "retention_runs_total",
        /// Tags and manifests that the retention deleted from a repository; counted when a run ends.
        pub retention_deleted: Counters<Deleted> = "retention_deleted_total",
    }
}

impl MaintenanceFamilies {
    /// Declares the families. Counters that alerts watch begin at 0: a first increase must be seen.
    pub fn start(registry: &MetricsRegistry) -> Self {
        let families = Self::declare(registry);
        for &result in RunResult::ALL {
            families.gc_runs.touch(result);
            families.scrub_runs.touch(result);
            families.retention_runs.touch(result);
        }
        for &kind in Removed::ALL {
            families.gc_deleted.touch(kind);
        }
        for &kind in Deleted::ALL {
            families.retention_deleted.touch(kind);
        }
        families.gc_freed.touch(());
        families.scrub_corrupt.touch(());
        families
    }
}

impl fmt::Debug for MaintenanceFamilies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MaintenanceFamilies")
            .finish_non_exhaustive()
    }
}
