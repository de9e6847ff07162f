//! What a repository is asked for.

use registry::metrics::label::{OpResult, ReferenceKind};
use registry::oci::Route;

use super::operation::{Operation, Outcome};
use super::recording::Recording;
use super::{Facts, Head, Request};
use crate::metrics::RepositoryOperation;
use crate::metrics::label::{BlobOperation, ManifestOperation, MountResult};

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
            _ => false,
        }
    }

    /// The successful operation on a repository that ends here, if one does.
    pub(super) fn on_repository(self, outcome: Outcome) -> Option<RepositoryOperation> {
        let operation =
            match self {
                Operation::Mount if self.mount(outcome) == Some(MountResult::Mounted) => {
                    RepositoryOperation::Mount
                }
                Operation::Mount => RepositoryOperation::Other,
                _ => match (self.on_blob(outcome), self.on_manifest(outcome)) {
                    (Some((BlobOperation::Pull, _)), _)
                    | (_, Some((ManifestOperation::Pull, ..))) => RepositoryOperation::Pull,
                    (Some((BlobOperation::Push, _)), _)
                    | (_, Some((ManifestOperation::Push, ..))) => RepositoryOperation::Push,
                    (Some((BlobOperation::Delete, _)), _)
                    | (_, Some((ManifestOperation::Delete, ..))) => RepositoryOperation::Delete,
                    _ => RepositoryOperation::Other,
                },
            };
        let result = if operation == RepositoryOperation::Pull {
            outcome.read()
        } else {
            outcome.done()
        };
        (result == OpResult::Ok).then_some(operation)
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
