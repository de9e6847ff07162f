//! The operation that a request asks for, and its result.

use crate::metrics::label::{OpResult, ReferenceKind};
use registry::metrics::label::{Method, Pair};
use registry::oci::{Endpoint, Route};

use crate::metrics::label::{BlobOperation, ManifestOperation, MountResult, Purpose};

/// The operation that a request asks for, by its method, path and query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestOperation {
    /// Reads, checks or deletes a blob (end-2, end-10).
    Blob(BlobOperation),
    /// Reads, checks, writes or deletes a manifest (end-3, end-7, end-9).
    Manifest(ManifestOperation, ReferenceKind),
    /// Opens an upload session (end-4a).
    StartUpload,
    /// Uploads a blob in a single POST (end-4b).
    MonolithicUpload,
    /// Mounts a blob of another repository (end-11).
    Mount,
    /// Appends a chunk to an upload (end-5).
    UploadChunk,
    /// Completes an upload (end-6).
    CompleteUpload,
    /// Asks how far an upload is (end-13).
    UploadStatus,
    /// Cancels an upload (end-14).
    CancelUpload,
    /// Anything else.
    Other,
}

/// How an exchange ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct ExchangeOutcome {
    /// The status that is counted: the response's, or one that says why there is none.
    pub(super) status: u16,
    /// Whether the whole response was sent to the client.
    pub(super) whole: bool,
}

impl ExchangeOutcome {
    /// The result of an operation that is done when its response begins, even if the client does
    /// not receive the whole response.
    pub(super) fn done(self) -> OpResult {
        OpResult::of(self.status)
    }

    /// The result of an operation that is done once the client has the whole response.
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
            // Before `digest`: with both parameters our own registry tries the mount first.
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

    /// Whether the request is part of a pull or a push. A HEAD may be part of either.
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

    /// The operation on a manifest, if it is one.
    pub(super) fn manifest_operation(self) -> Option<ManifestOperation> {
        if let RequestOperation::Manifest(operation, _) = self {
            Some(operation)
        } else {
            None
        }
    }

    /// Whether the request's body is a blob or a part of one.
    pub(super) fn carries_blob(self) -> bool {
        // OCI end-6: the PUT that closes a session may carry the last chunk, or the whole blob.
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

    /// The result. A pull succeeds once the client has the whole content; any other operation does
    /// when its response begins.
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

    /// The operation on a blob that ends with this request, if one does.
    ///
    /// A push takes several requests. It ends with the request that completes it, or with a refusal
    /// to open its session; a chunk that is refused or aborted may be sent again.
    pub(super) fn on_blob(self, outcome: ExchangeOutcome) -> Option<(BlobOperation, OpResult)> {
        let result = self.result(outcome);
        match self {
            RequestOperation::Blob(operation) => Some((operation, result)),
            // A 202 opens a session instead: the push continues.
            RequestOperation::MonolithicUpload | RequestOperation::CompleteUpload => {
                (outcome.status != 202).then_some((BlobOperation::Push, result))
            }
            RequestOperation::StartUpload => {
                (result != OpResult::Ok).then_some((BlobOperation::Push, result))
            }
            RequestOperation::Mount => {
                // The source does not hold the blob: the push goes on as an upload.
                let is_fallback = self.mount_result(outcome) == Some(MountResult::Fallback);
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

    /// The operation on a manifest, with its result, if it is one.
    pub(super) fn manifest_result(
        self,
        outcome: ExchangeOutcome,
    ) -> Option<(ManifestOperation, ReferenceKind, OpResult)> {
        if let RequestOperation::Manifest(operation, reference) = self {
            Some((operation, reference, self.result(outcome)))
        } else {
            None
        }
    }

    /// The result of a mount, if one was requested.
    pub(super) fn mount_result(self, outcome: ExchangeOutcome) -> Option<MountResult> {
        let asked = self == RequestOperation::Mount;
        asked.then_some(match outcome.status {
            // OCI end-11: a registry that cannot mount opens an upload session, with a 202.
            202 => MountResult::Fallback,
            _ if outcome.is_success() => MountResult::Mounted,
            _ => MountResult::Error,
        })
    }
}

/// Whether a query has a parameter of this name.
fn has(query: Option<&str>, name: &str) -> bool {
    let fields = query.unwrap_or_default().split('&');
    // Not decoded: no client has a reason to escape the letters of these names.
    fields
        .filter_map(|field| field.split('=').next())
        .any(|field| field == name)
}
