//! What a request asks a registry to do, and what its answer says of it.

use crate::metrics::label::{OpResult, ReferenceKind};
use registry::metrics::label::{Method, Pair};
use registry::oci::{Endpoint, Route};

use crate::metrics::label::{BlobOperation, ManifestOperation, MountResult, Purpose};

/// What a request asks for, as far as its method, path and query tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    /// A blob is read, looked at or deleted.
    Blob(BlobOperation),
    /// A manifest is read, looked at, written or deleted.
    Manifest(ManifestOperation, ReferenceKind),
    /// An upload is to begin (end-4a).
    Start,
    /// A blob comes whole with the request that would begin its upload (end-4b).
    Monolithic,
    /// A blob of another repository is to be mounted (end-11).
    Mount,
    /// Bytes for an upload under way (end-5).
    Append,
    /// The end of an upload (end-6).
    Commit,
    /// A look at an upload (end-13).
    Look,
    /// An upload is given up (end-14).
    Cancel,
    /// Anything else.
    Other,
}

/// What an exchange came to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outcome {
    /// As it is counted: of the answer, or what stands for there being none.
    pub(super) status: u16,
    /// Whether the whole answer went to the client.
    pub(super) whole: bool,
}

impl Outcome {
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

impl Operation {
    pub(super) fn of(pair: Pair, route: &Route<'_>, query: Option<&str>) -> Operation {
        let reference = || ReferenceKind::of(route.tail);
        match (pair.endpoint(), pair.method()) {
            (Endpoint::Blob, Method::Get) => Operation::Blob(BlobOperation::Pull),
            (Endpoint::Blob, Method::Head) => Operation::Blob(BlobOperation::Head),
            (Endpoint::Blob, Method::Delete) => Operation::Blob(BlobOperation::Delete),
            (Endpoint::Manifest, Method::Get) => {
                Operation::Manifest(ManifestOperation::Pull, reference())
            }
            (Endpoint::Manifest, Method::Head) => {
                Operation::Manifest(ManifestOperation::Resolve, reference())
            }
            (Endpoint::Manifest, Method::Put) => {
                Operation::Manifest(ManifestOperation::Push, reference())
            }
            (Endpoint::Manifest, Method::Delete) => {
                Operation::Manifest(ManifestOperation::Delete, reference())
            }
            (Endpoint::UploadStart, _) if has(query, "mount") => Operation::Mount,
            (Endpoint::UploadStart, _) if has(query, "digest") => Operation::Monolithic,
            (Endpoint::UploadStart, _) => Operation::Start,
            (Endpoint::UploadSession, Method::Patch) => Operation::Append,
            (Endpoint::UploadSession, Method::Put) => Operation::Commit,
            (Endpoint::UploadSession, Method::Delete) => Operation::Cancel,
            (Endpoint::UploadSession, _) => Operation::Look,
            _ => Operation::Other,
        }
    }

    /// What a client that asks for this is about. A HEAD may come before either.
    pub(super) fn purpose(self) -> Purpose {
        match self {
            Operation::Blob(BlobOperation::Pull)
            | Operation::Manifest(ManifestOperation::Pull, _) => Purpose::Pull,
            Operation::Manifest(ManifestOperation::Push, _)
            | Operation::Start
            | Operation::Monolithic
            | Operation::Mount
            | Operation::Append
            | Operation::Commit => Purpose::Push,
            Operation::Blob(_)
            | Operation::Manifest(..)
            | Operation::Look
            | Operation::Cancel
            | Operation::Other => Purpose::Other,
        }
    }

    /// What is done with a manifest, if it is one.
    pub(super) fn on_manifests(self) -> Option<ManifestOperation> {
        match self {
            Operation::Manifest(operation, _) => Some(operation),
            _ => None,
        }
    }

    /// Whether the request's body is a blob, or a part of one.
    pub(super) fn carries_blob(self) -> bool {
        matches!(
            self,
            Operation::Monolithic | Operation::Append | Operation::Commit
        )
    }

    /// The operation on a blob that ends here, if one does.
    ///
    /// A push has many requests. It ends with the one that was to complete it, or where it was
    /// refused at the start; a part that is refused or cut off may be sent again.
    pub(super) fn on_blob(self, outcome: Outcome) -> Option<(BlobOperation, OpResult)> {
        let refused = outcome.done() != OpResult::Ok;
        match self {
            Operation::Blob(BlobOperation::Pull) => Some((BlobOperation::Pull, outcome.read())),
            Operation::Blob(operation) => Some((operation, outcome.done())),
            // The registry may open a session instead: the push goes on.
            Operation::Monolithic | Operation::Commit if outcome.status != 202 => {
                Some((BlobOperation::Push, outcome.done()))
            }
            Operation::Start if refused => Some((BlobOperation::Push, outcome.done())),
            Operation::Mount => Some((
                BlobOperation::Mount,
                match self.mount(outcome) {
                    Some(MountResult::Fallback) => OpResult::NotFound,
                    _ => outcome.done(),
                },
            )),
            _ => None,
        }
    }

    /// The operation on a manifest that ends here, if one does.
    pub(super) fn on_manifest(
        self,
        outcome: Outcome,
    ) -> Option<(ManifestOperation, ReferenceKind, OpResult)> {
        match self {
            Operation::Manifest(ManifestOperation::Pull, reference) => {
                Some((ManifestOperation::Pull, reference, outcome.read()))
            }
            Operation::Manifest(operation, reference) => {
                Some((operation, reference, outcome.done()))
            }
            _ => None,
        }
    }

    /// What became of the mount that was asked for, if one was.
    pub(super) fn mount(self, outcome: Outcome) -> Option<MountResult> {
        let asked = self == Operation::Mount;
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
