//! What a run works with, and how it tells of what it does.

use std::sync::Arc;
use std::time::SystemTime;

use super::report::{RetentionDeletion, RetentionReport};
use super::settings::RetentionSettings;
use crate::oci::Name;
use crate::store::fs::{AgedItems, PullTimes};
use crate::store::maintenance::{LeftItem, Run};
use crate::store::{Result, StoreError};

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

impl RetentionRun<'_> {
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
    let left = LeftItem::failed(repository, &error);
    let (repository, error) = (left.repository.as_deref(), left.reason.as_str());
    tracing::warn!(repository, error, "retention leaves something as it is");
    report.leave(left);
    Ok(())
}

/// Logs a deletion, a line each.
pub(super) fn log_deletion(deletion: &RetentionDeletion, dry: bool) {
    let RetentionDeletion {
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
