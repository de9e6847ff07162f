//! What a repository is asked for.

use crate::metrics::label::{OpResult, ReferenceKind};
use registry::oci::{Kind, Route};

use super::operation::{Operation, Outcome};
use super::recording::Recording;
use super::{Facts, Head, Request};
use crate::metrics::RepositoryOperation;
use crate::metrics::label::{BlobOperation, ManifestOperation};

impl Recording {
    /// Gives the repository a label of its own if the answer proves that there is such a one.
    pub(super) fn admit_repository(&mut self, facts: &Facts, request: &Request<'_>, head: Head) {
        if !facts.operation.proves_repository(head.status) {
            return;
        }
        let Some(handle) = &mut self.repository else {
            return;
        };
        if handle.is_shown() {
            return;
        }
        let name = facts.visit.repository();
        if let Some(name) = name.or_else(|| Route::parse(request.path).repository) {
            let repositories = &self.recorder.metrics.repositories;
            repositories.admit(handle, name, facts.started + head.after);
        }
    }
}

impl Operation {
    /// Whether an answer of this status proves the repository to exist: a scan of names that were
    /// made up gets none.
    fn proves_repository(self, status: u16) -> bool {
        let done = (200..300).contains(&status);
        match self {
            Operation::Manifest(ManifestOperation::Pull | ManifestOperation::Push, _)
            | Operation::Manifest(ManifestOperation::Resolve, ReferenceKind::Tag)
            | Operation::Mount
            | Operation::Monolithic
            | Operation::Commit => done && status != 202,
            Operation::Manifest(ManifestOperation::Resolve, ReferenceKind::Digest)
            | Operation::Manifest(ManifestOperation::Delete, _)
            | Operation::Blob(_)
            | Operation::Start
            | Operation::Append
            | Operation::Look
            | Operation::Cancel
            | Operation::Other => false,
        }
    }

    /// The successful operation on a repository that ends here, if one does: the content that moved,
    /// where that can be told. `kind` is the manifest's; `from_start` says whether the response
    /// began with the first byte of what was asked for.
    pub(super) fn on_repository(
        self,
        outcome: Outcome,
        kind: Kind,
        from_start: bool,
    ) -> Option<RepositoryOperation> {
        if self.result(outcome) != OpResult::Ok {
            return None;
        }
        // A redirect, or that nothing has changed.
        if !outcome.is_success() {
            return Some(RepositoryOperation::Other);
        }
        // The registry may open a session instead of what was asked for.
        let is_done = outcome.status != 202;
        Some(match self {
            Operation::Manifest(ManifestOperation::Pull, _) if from_start => match kind {
                Kind::Image | Kind::Artifact | Kind::Other => RepositoryOperation::Pull,
                Kind::Index => RepositoryOperation::IndexPull,
                Kind::Signature | Kind::Attestation => RepositoryOperation::Other,
            },
            Operation::Manifest(ManifestOperation::Push, _) => match kind {
                Kind::Image | Kind::Artifact | Kind::Other => RepositoryOperation::Push,
                Kind::Index => RepositoryOperation::IndexPush,
                Kind::Signature | Kind::Attestation => RepositoryOperation::Other,
            },
            Operation::Manifest(ManifestOperation::Delete, _)
            | Operation::Blob(BlobOperation::Delete) => RepositoryOperation::Delete,
            Operation::Blob(BlobOperation::Pull) if from_start => RepositoryOperation::BlobPull,
            Operation::Mount if is_done => RepositoryOperation::Mount,
            Operation::Monolithic | Operation::Commit if is_done => RepositoryOperation::BlobPush,
            Operation::Manifest(ManifestOperation::Pull | ManifestOperation::Resolve, _)
            | Operation::Blob(
                BlobOperation::Pull
                | BlobOperation::Head
                | BlobOperation::Push
                | BlobOperation::Mount,
            )
            | Operation::Start
            | Operation::Monolithic
            | Operation::Mount
            | Operation::Append
            | Operation::Commit
            | Operation::Look
            | Operation::Cancel
            | Operation::Other => RepositoryOperation::Other,
        })
    }

    /// Whether it asks what a tag is at the moment, or for any manifest.
    pub(super) fn is_pull_of_manifest(self) -> bool {
        matches!(
            self,
            Operation::Manifest(ManifestOperation::Pull, _)
                | Operation::Manifest(ManifestOperation::Resolve, ReferenceKind::Tag)
        )
    }
}
