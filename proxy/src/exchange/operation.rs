//! What a request asks a registry to do, and what its answer says of it.

use crate::metrics::label::{OpResult, ReferenceKind};
use registry::metrics::label::{Method, Pair};
use registry::oci::{Endpoint, Route};

use crate::metrics::label::{BlobOperation, ManifestOperation, MountResult, Purpose};

/// What a request asks for, as far as its method, path and query tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestOperation {
    /// A blob is read, looked at or deleted.
    Blob(BlobOperation),
    /// A manifest is read, looked at, written or deleted.
    Manifest(ManifestOperation, ReferenceKind),
    /// An upload is to begin (end-4a).
    StartUpload,
    /// A blob comes whole with the request that would begin its upload (end-4b).
    MonolithicUpload,
    /// A blob of another repository is to be mounted (end-11).
    Mount,
    /// Bytes for an upload under way (end-5).
    UploadChunk,
    /// The end of an upload (end-6).
    CompleteUpload,
    /// A look at an upload (end-13).
    UploadStatus,
    /// An upload is given up (end-14).
    CancelUpload,
    /// Anything else.
    Other,
}

/// What an exchange came to.
#[derive(Clone, Copy, Debug)]
pub(super) struct ExchangeOutcome {
    /// As it is counted: of the answer, or what stands for there being none.
    pub(super) status: u16,
    /// Whether the whole answer went to the client.
    pub(super) whole: bool,
}

impl ExchangeOutcome {
    /// The result of what is done once the answer begins, whether or not the client hears it all.
    pub(super) fn done(self) -> OpResult {
        OpResult::of(self.status)
    }

    /// The result of what is done once the client has it all.
    pub(super) fn read(self) -> OpResult {
        match self.done() {
            OpResult::Ok if !self.whole => OpResult::Aborted,
            result => result,
        }
    }

    pub(super) fn is_success(self) -> bool {
        (200..300).contains(&self.status)
    }
}

impl RequestOperation {
    pub(super) fn of(pair: Pair, route: &Route<'_>, query: Option<&str>) -> RequestOperation {
        match pair.endpoint() {
            Endpoint::Blob => match pair.method() {
                Method::Get => RequestOperation::Blob(BlobOperation::Pull),
                Method::Head => RequestOperation::Blob(BlobOperation::Head),
                Method::Delete => RequestOperation::Blob(BlobOperation::Delete),
                Method::Post | Method::Put | Method::Patch | Method::Options | Method::Other => {
                    RequestOperation::Other
                }
            },
            Endpoint::Manifest => {
                let operation = match pair.method() {
                    Method::Get => ManifestOperation::Pull,
                    Method::Head => ManifestOperation::Resolve,
                    Method::Put => ManifestOperation::Push,
                    Method::Delete => ManifestOperation::Delete,
                    Method::Post | Method::Patch | Method::Options | Method::Other => {
                        return RequestOperation::Other;
                    }
                };
                RequestOperation::Manifest(operation, ReferenceKind::of(route.tail))
            }
            Endpoint::UploadStart if has(query, "mount") => RequestOperation::Mount,
            Endpoint::UploadStart if has(query, "digest") => RequestOperation::MonolithicUpload,
            Endpoint::UploadStart => RequestOperation::StartUpload,
            Endpoint::UploadSession => match pair.method() {
                Method::Patch => RequestOperation::UploadChunk,
                Method::Put => RequestOperation::CompleteUpload,
                Method::Delete => RequestOperation::CancelUpload,
                Method::Get | Method::Head | Method::Post | Method::Options | Method::Other => {
                    RequestOperation::UploadStatus
                }
            },
            Endpoint::Base
            | Endpoint::Catalog
            | Endpoint::Tags
            | Endpoint::Referrers
            | Endpoint::Token
            | Endpoint::Extension
            | Endpoint::Other => RequestOperation::Other,
        }
    }

    /// What a client that asks for this is about. A HEAD may come before either.
    pub(super) fn purpose(self) -> Purpose {
        match self {
            RequestOperation::Blob(BlobOperation::Pull)
            | RequestOperation::Manifest(ManifestOperation::Pull, _) => Purpose::Pull,
            RequestOperation::Manifest(ManifestOperation::Push, _)
            | RequestOperation::StartUpload
            | RequestOperation::MonolithicUpload
            | RequestOperation::Mount
            | RequestOperation::UploadChunk
            | RequestOperation::CompleteUpload => Purpose::Push,
            RequestOperation::Blob(_)
            | RequestOperation::Manifest(..)
            | RequestOperation::UploadStatus
            | RequestOperation::CancelUpload
            | RequestOperation::Other => Purpose::Other,
        }
    }

    /// What is done with a manifest, if it is one.
    pub(super) fn on_manifests(self) -> Option<ManifestOperation> {
        if let RequestOperation::Manifest(operation, _) = self {
            Some(operation)
        } else {
            None
        }
    }

    /// Whether the request's body is a blob, or a part of one.
    pub(super) fn carries_blob(self) -> bool {
        match self {
            RequestOperation::MonolithicUpload
            | RequestOperation::UploadChunk
            | RequestOperation::CompleteUpload => true,
            RequestOperation::Blob(_)
            | RequestOperation::Manifest(..)
            | RequestOperation::StartUpload
            | RequestOperation::Mount
            | RequestOperation::UploadStatus
            | RequestOperation::CancelUpload
            | RequestOperation::Other => false,
        }
    }

    /// The result: of a pull once the client has all of it, of anything else once it is answered.
    pub(super) fn result(self, outcome: ExchangeOutcome) -> OpResult {
        match self {
            RequestOperation::Blob(BlobOperation::Pull)
            | RequestOperation::Manifest(ManifestOperation::Pull, _) => outcome.read(),
            RequestOperation::Blob(_)
            | RequestOperation::Manifest(..)
            | RequestOperation::StartUpload
            | RequestOperation::MonolithicUpload
            | RequestOperation::Mount
            | RequestOperation::UploadChunk
            | RequestOperation::CompleteUpload
            | RequestOperation::UploadStatus
            | RequestOperation::CancelUpload
            | RequestOperation::Other => outcome.done(),
        }
    }

    /// The operation on a blob that ends here, if one does.
    ///
    /// A push has many requests. It ends with the one that was to complete it, or where it was
    /// refused at the start; a part that is refused or cut off may be sent again.
    pub(super) fn on_blob(self, outcome: ExchangeOutcome) -> Option<(BlobOperation, OpResult)> {
        let result = self.result(outcome);
        match self {
            RequestOperation::Blob(operation) => Some((operation, result)),
            // The registry may open a session instead: the push goes on.
            RequestOperation::MonolithicUpload | RequestOperation::CompleteUpload => {
                (outcome.status != 202).then_some((BlobOperation::Push, result))
            }
            RequestOperation::StartUpload => {
                (result != OpResult::Ok).then_some((BlobOperation::Push, result))
            }
            RequestOperation::Mount => {
                let is_fallback = self.mount(outcome) == Some(MountResult::Fallback);
                let result = if is_fallback {
                    OpResult::NotFound
                } else {
                    result
                };
                Some((BlobOperation::Mount, result))
            }
            RequestOperation::Manifest(..)
            | RequestOperation::UploadChunk
            | RequestOperation::UploadStatus
            | RequestOperation::CancelUpload
            | RequestOperation::Other => None,
        }
    }

    /// The operation on a manifest that ends here, if one does.
    pub(super) fn on_manifest(
        self,
        outcome: ExchangeOutcome,
    ) -> Option<(ManifestOperation, ReferenceKind, OpResult)> {
        if let RequestOperation::Manifest(operation, reference) = self {
            Some((operation, reference, self.result(outcome)))
        } else {
            None
        }
    }

    /// What became of the mount that was asked for, if one was.
    pub(super) fn mount(self, outcome: ExchangeOutcome) -> Option<MountResult> {
        let asked = self == RequestOperation::Mount;
        asked.then_some(match outcome.status {
            202 => MountResult::Fallback,
            _ if outcome.is_success() => MountResult::Mounted,
            _ => MountResult::Error,
        })
    }
}

/// Whether a query has a field of this name.
fn has(query: Option<&str>, name: &str) -> bool {
    let fields = query.unwrap_or_default().split('&');
    fields
        .filter_map(|field| field.split('=').next())
        .any(|field| field == name)
}
