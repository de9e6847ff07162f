//! Operations that are counted by the content that they moved.
//!
//! What kind a manifest is may be known only once its body was read, which happens after the
//! exchange: all that depends on it is counted then, and what was asked of the repository with it.

use std::time::{Instant, SystemTime};

use registry::oci::Kind;

use super::manifest_kind::UnparsedManifest;
use super::operation::{ExchangeOutcome, RequestOperation};
use crate::metrics::{Metrics, RepositoryHandle};

/// An operation that has ended, before it is known what kind of manifest it was about.
pub(super) struct EndedOperation {
    pub(super) operation: RequestOperation,
    pub(super) outcome: ExchangeOutcome,
    /// Whether the response began with the first byte of what was asked for.
    pub(super) from_start: bool,
    /// Held until the operation is counted, so that the repository keeps its label until then.
    pub(super) repository: Option<RepositoryHandle>,
    pub(super) at: Instant,
}

impl EndedOperation {
    /// Counts the operation. `kind` is the manifest's, and `other` where there is none.
    pub(super) fn count(&self, metrics: &Metrics, kind: Kind) {
        if let Some((operation, reference, result)) = self.operation.on_manifest(self.outcome) {
            let manifests = &metrics.oci.manifests;
            manifests.inc((operation, reference, kind, result));
        }
        let operation = self
            .operation
            .on_repository(self.outcome, kind, self.from_start);
        if let (Some(handle), Some(operation)) = (&self.repository, operation) {
            let repositories = &metrics.repositories;
            repositories.record(handle, operation, self.at);
            if self.operation.is_pull_of_manifest() {
                repositories.pulled(handle, SystemTime::now());
            }
        }
    }
}

/// An operation on a manifest that ended well, and is counted once its body was read. Reading takes
/// up to a few milliseconds, so it belongs on a thread that may block. Dropping it reads it, too:
/// nothing that was served goes uncounted.
pub struct DeferredCount {
    pub(super) ended: EndedOperation,
    pub(super) body: UnparsedManifest,
}

impl DeferredCount {
    /// Reads the body and counts the operation.
    pub fn count(self) {
        drop(self);
    }
}

impl Drop for DeferredCount {
    fn drop(&mut self) {
        let kind = self.body.kind();
        self.ended.count(self.body.metrics(), kind);
    }
}
