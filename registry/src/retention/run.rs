//! A run through all repositories.

use std::time::{Duration, SystemTime};

use super::context::{RetentionRun, failed, log_deletion};
use super::reason;
use super::report::{
    KeptManifests, RepositoryReport, RetentionCounts, RetentionDeletion, RetentionReport,
};
use super::settings::RetentionSettings;
use super::tag_run;
use crate::oci::Name;
use crate::store::fs::{FsStore, GcError, StayingManifests};
use crate::store::maintenance::{Interrupted, LeftItem, Run};
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
                let deletion = RetentionDeletion {
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
                let reason = "it is written to all the time";
                let repository = name.as_str();
                tracing::warn!(repository, reason, "retention leaves off");
                report.leave(LeftItem::because(Some(name), reason));
                Ok(())
            }
            Err(GcError::Store(error)) => Err(error),
            Err(GcError::Interrupted(_) | GcError::Running) => Err(StoreError::Interrupted),
        }
    }
}
