//! The jobs: their names, what they are told, and what they did.
//!
//! A new job is a variant of each enum here, and the compiler names the places.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use service::metrics::Label as _;

use super::schedule::Schedule;
use crate::metrics::maintenance::{Deleted, MaintenanceFamilies, Removed, RunResult};
use crate::retention::{self, RetentionError, RetentionReport, RetentionSettings};
use crate::store::fs::{
    FsStore, GcError, GcReport, GcSettings, ScrubError, ScrubReport, ScrubSettings,
};
use crate::store::maintenance::Run;

/// A kind of job. One of each kind runs at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum JobKind {
    /// Removes what no manifest needs.
    Gc,
    /// Compares content with its digests.
    Scrub,
    /// Deletes tags and manifests that no rule keeps.
    Retention,
}

impl JobKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Gc, Self::Scrub, Self::Retention];

    /// Its name, as the command line and the log have it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gc => "gc",
            Self::Scrub => "scrub",
            Self::Retention => "retention",
        }
    }

    /// What can be done where nothing may be changed.
    pub(crate) const fn without_changes(self) -> &'static str {
        match self {
            Self::Gc | Self::Retention => "only a dry run is possible (--dry-run)",
            Self::Scrub => "a scrub can only report (without --repair)",
        }
    }

    /// The kind of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// What the configuration says of the jobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobSettings {
    /// When a collection runs by itself; `None`: never.
    pub gc_schedule: Option<Schedule>,
    /// For how long a collection keeps what a client was told of.
    pub grace: Duration,
    /// For how long it keeps manifests that no tag leads to; `None`: forever.
    pub untagged: Option<Duration>,
    /// When a scrub runs by itself; `None`: never.
    pub scrub_schedule: Option<Schedule>,
    /// The most bytes that a scrub reads in a second.
    pub scrub_rate: u64,
    /// When the retention runs by itself; `None`: never.
    pub retention_schedule: Option<Schedule>,
    /// The rules of the retention.
    pub retention: Arc<RetentionSettings>,
    /// Whether nothing may be changed: then jobs only report.
    pub read_only: bool,
}

impl JobSettings {
    /// When a job runs by itself.
    pub(super) fn schedule(&self, kind: JobKind) -> Option<Schedule> {
        match kind {
            // It would only report, and nobody would read that.
            JobKind::Gc => self.gc_schedule.filter(|_| !self.read_only),
            JobKind::Scrub => self.scrub_schedule,
            JobKind::Retention => self.retention_schedule.filter(|_| !self.read_only),
        }
    }
}

/// What one run is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JobOptions {
    /// It only reports what it would do.
    pub dry_run: bool,
    /// A scrub moves what is corrupt to the quarantine.
    pub repair: bool,
}

/// A job that is ready to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Job {
    /// A collection.
    Gc(GcSettings),
    /// A scrub.
    Scrub(ScrubSettings),
    /// A retention.
    Retention {
        /// Whether it only reports, whatever the settings say.
        dry_run: bool,
        /// The rules.
        settings: Arc<RetentionSettings>,
    },
}

impl Job {
    /// A job beside a registry that serves.
    pub fn online(kind: JobKind, settings: &JobSettings, options: JobOptions) -> Self {
        match kind {
            JobKind::Gc => Self::Gc(GcSettings {
                grace: settings.grace,
                untagged: settings.untagged,
                dry_run: options.dry_run,
            }),
            JobKind::Scrub => Self::Scrub(ScrubSettings {
                rate: Some(settings.scrub_rate),
                quarantine: options.repair && !options.dry_run,
            }),
            JobKind::Retention => Self::Retention {
                dry_run: options.dry_run || settings.retention.dry_run,
                settings: Arc::clone(&settings.retention),
            },
        }
    }

    /// A job on a directory that nobody serves: as fast as it goes.
    pub fn offline(kind: JobKind, settings: &JobSettings, options: JobOptions) -> Self {
        match Self::online(kind, settings, options) {
            Self::Scrub(scrub) => Self::Scrub(ScrubSettings {
                rate: None,
                ..scrub
            }),
            job @ (Self::Gc(_) | Self::Retention { .. }) => job,
        }
    }

    /// Its kind.
    pub fn kind(&self) -> JobKind {
        match self {
            Self::Gc(_) => JobKind::Gc,
            Self::Scrub(_) => JobKind::Scrub,
            Self::Retention { .. } => JobKind::Retention,
        }
    }

    /// Whether it changes anything.
    pub fn changes(&self) -> bool {
        match self {
            Self::Gc(gc) => !gc.dry_run,
            Self::Scrub(scrub) => scrub.quarantine,
            Self::Retention { dry_run, .. } => !dry_run,
        }
    }

    /// Does it. Returns what it did, and why it ended early if it did. Blocks.
    pub fn run(&self, store: &FsStore, run: &Run) -> (JobReport, Result<(), JobError>) {
        match self {
            &Self::Gc(settings) => {
                let mut report = GcReport::default();
                let ended = store.collect(settings, run, &mut report);
                let report = JobReport::Gc {
                    dry_run: settings.dry_run,
                    report,
                };
                (report, ended.map_err(JobError::Gc))
            }
            &Self::Scrub(settings) => {
                let mut report = ScrubReport::default();
                let ended = store.scrub(settings, run, &mut report);
                (JobReport::Scrub(report), ended.map_err(JobError::Scrub))
            }
            Self::Retention { dry_run, settings } => {
                let mut report = RetentionReport::default();
                let ended = retention::run(store, settings, *dry_run, run, &mut report);
                let ended = ended.map_err(JobError::Retention);
                (JobReport::Retention(report), ended)
            }
        }
    }
}

/// Why a job ended early.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// A collection.
    #[error(transparent)]
    Gc(GcError),
    /// A scrub.
    #[error(transparent)]
    Scrub(ScrubError),
    /// A retention.
    #[error(transparent)]
    Retention(RetentionError),
}

impl JobError {
    /// Whether it was stopped.
    pub fn is_interruption(&self) -> bool {
        matches!(
            self,
            Self::Gc(GcError::Interrupted(_))
                | Self::Scrub(ScrubError::Interrupted(_))
                | Self::Retention(RetentionError::Interrupted(_))
        )
    }
}

/// What a job did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "job", rename_all = "lowercase")]
pub enum JobReport {
    /// A collection.
    Gc {
        /// Whether it only reported.
        dry_run: bool,
        /// What it did, or would do.
        #[serde(flatten)]
        report: GcReport,
    },
    /// A scrub.
    Scrub(ScrubReport),
    /// A retention.
    Retention(RetentionReport),
}

impl JobReport {
    /// Whether everything could be read.
    pub fn is_complete(&self) -> bool {
        match self {
            Self::Gc { report, .. } => report.skipped == 0,
            Self::Scrub(report) => report.unchecked == 0,
            Self::Retention(report) => report.failures == 0,
        }
    }

    /// Whether nothing is left for a person to do.
    pub fn is_sound(&self) -> bool {
        let is_corrupt =
            matches!(self, Self::Scrub(report) if report.corrupt > 0 || report.missing > 0);
        self.is_complete() && !is_corrupt
    }

    /// How a run ended that did this.
    pub(super) fn result(&self, ended: &Result<(), JobError>) -> RunResult {
        match ended {
            Ok(()) if self.is_complete() => RunResult::Ok,
            Err(error) if error.is_interruption() => RunResult::Interrupted,
            _ => RunResult::Error,
        }
    }

    /// The report of a job that cannot report any more.
    pub(super) fn lost(job: &Job) -> Self {
        match *job {
            Job::Gc(GcSettings { dry_run, .. }) => Self::Gc {
                dry_run,
                report: GcReport::default(),
            },
            Job::Scrub(_) => Self::Scrub(ScrubReport::default()),
            Job::Retention { dry_run, .. } => Self::Retention(RetentionReport {
                dry_run,
                ..RetentionReport::default()
            }),
        }
    }

    /// Counts a run that ended.
    pub(super) fn count(&self, families: &MaintenanceFamilies, result: RunResult, seconds: f64) {
        match self {
            // It has removed nothing, and nobody watches for it.
            Self::Gc { dry_run: true, .. } => {}
            Self::Gc { report, .. } => {
                families.gc_runs.inc(result);
                families.gc_duration.observe((), seconds);
                families.gc_deleted.add(Removed::Blob, report.blobs);
                families.gc_deleted.add(Removed::Manifest, report.manifests);
                families.gc_freed.add((), report.freed);
            }
            Self::Scrub(report) => {
                families.scrub_runs.inc(result);
                families.scrub_corrupt.add((), report.corrupt_now);
                if result == RunResult::Ok {
                    families.scrub_last_success.set((), seconds_since_epoch());
                }
            }
            Self::Retention(report) => {
                families.retention_runs.inc(result);
                if !report.dry_run {
                    let RetentionReport { total, .. } = report;
                    families
                        .retention_deleted
                        .add(Deleted::Tag, total.tags_deleted);
                    families
                        .retention_deleted
                        .add(Deleted::Manifest, total.manifests_deleted);
                }
            }
        }
    }

    /// Logs a run that ended.
    pub(super) fn log(&self, ended: &Result<(), JobError>, seconds: f64) {
        let result = self.result(ended).value();
        let error = ended
            .as_ref()
            .err()
            .map(|error| service::log::causes(error as &dyn Error));
        match self {
            Self::Gc { dry_run, report } => tracing::info!(
                result,
                error,
                seconds,
                dry_run,
                repositories = report.repositories,
                links = report.links,
                entries = report.entries,
                blobs = report.blobs,
                manifests = report.manifests,
                freed = report.freed,
                skipped = report.skipped,
                busy = report.busy,
                "gc ended"
            ),
            Self::Scrub(report) => tracing::info!(
                result,
                error,
                seconds,
                continued = report.continued,
                checked = report.checked,
                bytes = report.bytes,
                corrupt = report.corrupt,
                quarantined = report.quarantined,
                missing = report.missing,
                unchecked = report.unchecked,
                "scrub ended"
            ),
            Self::Retention(report) => tracing::info!(
                result,
                error,
                seconds,
                dry_run = report.dry_run,
                repositories = report.repositories,
                tags_deleted = report.total.tags_deleted,
                manifests_deleted = report.total.manifests_deleted,
                kept = %report.total,
                failures = report.failures,
                "retention ended"
            ),
        }
    }
}

fn seconds_since_epoch() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs_f64()
}
