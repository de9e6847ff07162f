//! Operations on a repository, and whether a response proves that it exists.

use crate::metrics::label::{OpResult, ReferenceKind};
use registry::oci::{Kind, Route};

use super::facts::{Facts, Request, ResponseStart};
use super::operation::{ExchangeOutcome, RequestOperation};
use super::recording::ExchangeRecording;

use crate::metrics::RepositoryOperation;
use crate::metrics::label::{BlobOperation, ManifestOperation};

impl ExchangeRecording {
    /// Gives the repository a label if the response proves that it exists.
    pub(super) fn admit_repository(
        &mut self,
        facts: &Facts,
        request: &Request<'_>,
        head: ResponseStart,
    ) {
        if !facts.operation.proves_repository(head.status) {
            return;
        }
        let Some(handle) = &mut self.repository else {
            return;
        };
        if handle.is_shown() {
            return;
        }
        // The session knows the name even where its Location has a path of the registry's own.
        let name = facts.session.repository();
        if let Some(name) = name.or_else(|| Route::parse(request.path).repository) {
            let repositories = &self.recorder.metrics.repositories;
            repositories.admit(handle, name, facts.started + head.after);
        }
    }
}

impl RequestOperation {
    /// Whether a response of this status proves that the repository exists. A client that tries
    /// made-up names must not create labels.
    fn proves_repository(self, status: u16) -> bool {
        let done = (200..300).contains(&status);
        match self {
            RequestOperation::Manifest(ManifestOperation::Pull | ManifestOperation::Push, _)
            | RequestOperation::Manifest(ManifestOperation::Resolve, ReferenceKind::Tag)
            | RequestOperation::Mount
            | RequestOperation::MonolithicUpload
            // A 202 proves nothing: it opens a session for any name that is well formed.
            | RequestOperation::CompleteUpload => done && status != 202,
            RequestOperation::Manifest(ManifestOperation::Resolve, ReferenceKind::Digest)
            | RequestOperation::Manifest(ManifestOperation::Delete, _)
            | RequestOperation::Blob(_)
            | RequestOperation::StartUpload
            | RequestOperation::UploadChunk
            | RequestOperation::UploadStatus
            | RequestOperation::CancelUpload
            | RequestOperation::Other => false,
        }
    }

    /// The operation on a repository that succeeded with this request, if one did. `kind` is the
    /// kind of the manifest; `from_start` says whether the response began with the first byte of
    /// the content, so that a download in ranges counts as one pull.
    pub(super) fn on_repository(
        self,
        outcome: ExchangeOutcome,
        kind: Kind,
        from_start: bool,
    ) -> Option<RepositoryOperation> {
        if self.result(outcome) != OpResult::Ok {
            return None;
        }
        // A redirect or a 304 moved no content.
        if !outcome.is_success() {
            return Some(RepositoryOperation::Other);
        }
        // A 202 opens a session instead: no blob was mounted or completed.
        let is_done = outcome.status != 202;
        Some(match self {
            RequestOperation::Manifest(ManifestOperation::Pull, _) if from_start => match kind {
                Kind::Image | Kind::Artifact | Kind::Other => RepositoryOperation::Pull,
                Kind::Index => RepositoryOperation::IndexPull,
                Kind::Signature | Kind::Attestation => RepositoryOperation::Other,
            },
            RequestOperation::Manifest(ManifestOperation::Push, _) => match kind {
                Kind::Image | Kind::Artifact | Kind::Other => RepositoryOperation::Push,
                Kind::Index => RepositoryOperation::IndexPush,
                Kind::Signature | Kind::Attestation => RepositoryOperation::Other,
            },
            RequestOperation::Manifest(ManifestOperation::Delete, _)
            | RequestOperation::Blob(BlobOperation::Delete) => RepositoryOperation::Delete,
            RequestOperation::Blob(BlobOperation::Pull) if from_start => {
                RepositoryOperation::BlobPull
            }
            RequestOperation::Mount if is_done => RepositoryOperation::Mount,
            RequestOperation::MonolithicUpload | RequestOperation::CompleteUpload if is_done => {
                RepositoryOperation::BlobPush
            }
            RequestOperation::Manifest(ManifestOperation::Pull | ManifestOperation::Resolve, _)
            | RequestOperation::Blob(
                BlobOperation::Pull
                | BlobOperation::Head
                | BlobOperation::Push
                | BlobOperation::Mount,
            )
            | RequestOperation::StartUpload
            | RequestOperation::MonolithicUpload
            | RequestOperation::Mount
            | RequestOperation::UploadChunk
            | RequestOperation::CompleteUpload
            | RequestOperation::UploadStatus
            | RequestOperation::CancelUpload
            | RequestOperation::Other => RepositoryOperation::Other,
        })
    }

    /// Whether it pulls a manifest or resolves a tag.
    pub(super) fn is_pull_of_manifest(self) -> bool {
        matches!(
            self,
            RequestOperation::Manifest(ManifestOperation::Pull, _)
                | RequestOperation::Manifest(ManifestOperation::Resolve, ReferenceKind::Tag)
        )
    }
}
