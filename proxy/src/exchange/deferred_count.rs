//! Operations that are counted by the kind of the manifest that they moved.
//!
//! The kind may be known only once the manifest's body is parsed, which happens after the exchange.
//! The manifest's operation and the repository's operation are counted then.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use registry::oci::Kind;
use service::shutdown::DrainGuard;

use super::manifest_kind::UnparsedManifest;
use super::operation::{ExchangeOutcome, RequestOperation};
use super::recorder::Recorder;
use crate::metrics::{ProxyMetrics, RepositoryHandle};

/// An operation that has ended. The kind of its manifest need not be known yet.
pub(super) struct EndedOperation {
    pub(super) operation: RequestOperation,
    pub(super) outcome: ExchangeOutcome,
    /// Whether the response began with the first byte of the content.
    pub(super) from_start: bool,
    /// Held until the operation is counted, so that the repository keeps its label until then.
    pub(super) repository: Option<RepositoryHandle>,
    pub(super) at: Instant,
}

impl EndedOperation {
    /// Counts the operation. `kind` is the kind of the manifest, or `other` if there is none.
    pub(super) fn count(&self, metrics: &ProxyMetrics, kind: Kind) {
        if let Some((operation, reference, result)) = self.operation.manifest_result(self.outcome) {
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

/// A successful operation on a manifest, which is counted once the manifest's body is parsed.
///
/// Parsing takes up to a few milliseconds, so it belongs on a thread that may block. Dropping this
/// parses and counts, too: no operation goes uncounted.
pub struct DeferredCount {
    pub(super) ended: EndedOperation,
    pub(super) body: UnparsedManifest,
    pub(super) recorder: Arc<Recorder>,
    /// Dropped last: the last exposition of the process waits for it.
    pub(super) _pending: DrainGuard,
}

impl DeferredCount {
    /// Parses the body and counts the operation.
    pub fn count(self) {
        drop(self);
    }
}

impl Drop for DeferredCount {
    fn drop(&mut self) {
        let kind = self.body.kind();
        self.ended.count(&self.recorder.metrics, kind);
    }
}
