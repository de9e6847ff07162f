//! A run through all repositories.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use service::log::causes;

use super::reason;
use super::report::{Deletion, KeptManifests, RepositoryReport, RetentionCounts, RetentionReport};
use super::settings::RetentionSettings;
use super::tag_run;
use crate::oci::Name;
use crate::store::fs::{AgedItems, FsStore, GcError, PullTimes, StayingManifests};
use crate::store::maintenance::{Interrupted, Run};
use crate::store::{Result, StoreError};

/// Why a run ended early. What its report says is done all the same.
#[derive(Debug, thiserror::Error)]
pub enum RetentionError {
    /// It was stopped. The next one begins anew.
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
    /// The store failed.
    #[error("the retention failed")]
    Store(#[source] StoreError),
}

/// What a run works with.
pub(super) struct RetentionRun<'a> {
    pub(super) items: AgedItems,
    pub(super) pulls: Arc<PullTimes>,
    pub(super) settings: &'a RetentionSettings,
    pub(super) dry_run: bool,
    pub(super) run: &'a Run,
    /// When it began: what is pushed during the run is of the future, and is kept.
    pub(super) now: SystemTime,
}

/// Deletes what the rules do not keep; with `dry_run` it only tells of it. Each deletion is logged. What
/// cannot be read or removed in a repository is logged, counted and left, and the run goes on. What it did is
/// in `report` even if it ends early. Blocks.
///
/// # Errors
/// If the run is to stop, or the data directory is lost.
pub fn run(
    store: &FsStore,
    settings: &RetentionSettings,
    dry_run: bool,
    run: &Run,
    report: &mut RetentionReport,
) -> std::result::Result<(), RetentionError> {
    let retention = RetentionRun {
        items: store.aged_items(),
        pulls: store.pulls(),
        settings,
        dry_run,
        run,
        now: SystemTime::now(),
    };
    report.dry_run = dry_run;
    run.begin("repositories", None);
    let ended = retention.all(store, report);
    ended.map_err(|error| match error {
        StoreError::Interrupted => RetentionError::Interrupted(Interrupted),
        error => RetentionError::Store(error),
    })
}

impl RetentionRun<'_> {
    fn all(&self, store: &FsStore, report: &mut RetentionReport) -> Result<()> {
        for name in store.walk_repositories() {
            self.pause()?;
            let (name, done) = match name {
                Ok(name) => {
                    let done = self.repository(&name, report);
                    (Some(name), done)
                }
                Err(error) => (None, Err(error)),
            };
            if let Err(error) = done {
                failed(name.as_ref(), error, report)?;
            }
            self.run.advance(1);
        }
        Ok(())
    }

    fn repository(&self, name: &Name, report: &mut RetentionReport) -> Result<()> {
        let (number, rule) = self.settings.rule(name).unzip();
        let mut counts = RetentionCounts::default();
        let mut done = tag_run::tags(self, name, rule, &mut counts, report);
        // What cannot be decided of a tag keeps every manifest.
        if let (Ok(()), Some(untagged)) = (&done, rule.and_then(|rule| rule.untagged)) {
            done = self.manifests(name, untagged, &mut counts, report);
        }
        if counts.tags_deleted + counts.manifests_deleted > 0 {
            let repository = name.as_str();
            tracing::info!(
                repository,
                rule = number,
                dry_run = self.dry_run,
                tags_deleted = counts.tags_deleted,
                manifests_deleted = counts.manifests_deleted,
                kept = %counts,
                "retention of a repository"
            );
        }
        // Without any, it is a directory between repositories.
        if counts != RetentionCounts::default() {
            report.add(RepositoryReport {
                repository: name.as_str().to_owned(),
                rule: number,
                counts,
            });
        }
        done
    }

    fn manifests(
        &self,
        name: &Name,
        untagged: Duration,
        counts: &mut RetentionCounts,
        report: &mut RetentionReport,
    ) -> Result<()> {
        let dry = self.dry_run;
        // A time before 1970 is before everything.
        let cutoff = self
            .now
            .checked_sub(untagged)
            .unwrap_or(SystemTime::UNIX_EPOCH);
        let kept = self
            .items
            .remove_untagged(name, cutoff, dry, self.run, &mut |digest, used| {
                // What is gone is gone, even if something fails later.
                counts.manifests_deleted += 1;
                let deletion = Deletion {
                    repository: name.as_str().to_owned(),
                    tag: None,
                    digest: digest.as_str().to_owned(),
                    reason: reason::of_manifest(used, self.now),
                };
                log_deletion(&deletion, dry);
                report.deleted(deletion);
            });
        match kept {
            Ok(Some(StayingManifests {
                tagged,
                recent,
                needed,
            })) => {
                counts.manifests_kept = KeptManifests {
                    tagged,
                    recent,
                    needed,
                };
                Ok(())
            }
            Ok(None) => {
                report.failures += 1;
                let repository = name.as_str();
                tracing::warn!(
                    repository,
                    "retention leaves off: it is written to all the time"
                );
                Ok(())
            }
            Err(GcError::Store(error)) => Err(error),
            Err(GcError::Interrupted(_) | GcError::Running) => Err(StoreError::Interrupted),
        }
    }

    /// Lets requests come first.
    pub(super) fn pause(&self) -> Result<()> {
        self.run.pause().map_err(|_| StoreError::Interrupted)
    }
}

/// Logs and counts what could not be done in one repository. Returns the failure if it concerns all of them.
pub(super) fn failed(
    repository: Option<&Name>,
    error: StoreError,
    report: &mut RetentionReport,
) -> Result<()> {
    if matches!(error, StoreError::Interrupted | StoreError::Lost { .. }) {
        return Err(error);
    }
    report.failures += 1;
    let repository = repository.map(Name::as_str);
    tracing::warn!(
        repository,
        error = causes(&error),
        "retention leaves something as it is"
    );
    Ok(())
}

/// Logs a deletion, a line each.
pub(super) fn log_deletion(deletion: &Deletion, dry: bool) {
    let Deletion {
        repository,
        tag,
        digest,
        reason,
    } = deletion;
    match (tag, dry) {
        (Some(tag), true) => {
            tracing::info!(repository, tag, digest, reason, "would delete a tag");
        }
        (Some(tag), false) => tracing::info!(repository, tag, digest, reason, "deleted a tag"),
        (None, true) => tracing::info!(repository, digest, reason, "would delete a manifest"),
        (None, false) => tracing::info!(repository, digest, reason, "deleted a manifest"),
    }
}
