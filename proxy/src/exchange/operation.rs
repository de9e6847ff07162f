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
        match pair.endpoint() {
            Endpoint::Blob => match pair.method() {
                Method::Get => Operation::Blob(BlobOperation::Pull),
                Method::Head => Operation::Blob(BlobOperation::Head),
                Method::Delete => Operation::Blob(BlobOperation::Delete),
                Method::Post | Method::Put | Method::Patch | Method::Options | Method::Other => {
                    Operation::Other
                }
            },
            Endpoint::Manifest => {
                let operation = match pair.method() {
                    Method::Get => ManifestOperation::Pull,
                    Method::Head => ManifestOperation::Resolve,
                    Method::Put => ManifestOperation::Push,
                    Method::Delete => ManifestOperation::Delete,
                    Method::Post | Method::Patch | Method::Options | Method::Other => {
                        return Operation::Other;
                    }
                };
                Operation::Manifest(operation, ReferenceKind::of(route.tail))
            }
            Endpoint::UploadStart if has(query, "mount") => Operation::Mount,
            Endpoint::UploadStart if has(query, "digest") => Operation::Monolithic,
            Endpoint::UploadStart => Operation::Start,
            Endpoint::UploadSession => match pair.method() {
                Method::Patch => Operation::Append,
                Method::Put => Operation::Commit,
                Method::Delete => Operation::Cancel,
                Method::Get | Method::Head | Method::Post | Method::Options | Method::Other => {
                    Operation::Look
                }
            },
            Endpoint::Base
            | Endpoint::Catalog
            | Endpoint::Tags
            | Endpoint::Referrers
            | Endpoint::Token
            | Endpoint::Extension
            | Endpoint::Other => Operation::Other,
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
        if let Operation::Manifest(operation, _) = self {
            Some(operation)
        } else {
            None
        }
    }

    /// Whether the request's body is a blob, or a part of one.
    pub(super) fn carries_blob(self) -> bool {
        match self {
            Operation::Monolithic | Operation::Append | Operation::Commit => true,
            Operation::Blob(_)
            | Operation::Manifest(..)
            | Operation::Start
            | Operation::Mount
            | Operation::Look
            | Operation::Cancel
            | Operation::Other => false,
        }
    }

    /// The result: of a pull once the client has all of it, of anything else once it is answered.
    pub(super) fn result(self, outcome: Outcome) -> OpResult {
        match self {
            Operation::Blob(BlobOperation::Pull)
            | Operation::Manifest(ManifestOperation::Pull, _) => outcome.read(),
            Operation::Blob(_)
            | Operation::Manifest(..)
            | Operation::Start
            | Operation::Monolithic
            | Operation::Mount
            | Operation::Append
            | Operation::Commit
            | Operation::Look
            | Operation::Cancel
            | Operation::Other => outcome.done(),
        }
    }

    /// The operation on a blob that ends here, if one does.
    ///
    /// A push has many requests. It ends with the one that was to complete it, or where it was
    /// refused at the start; a part that is refused or cut off may be sent again.
    pub(super) fn on_blob(self, outcome: Outcome) -> Option<(BlobOperation, OpResult)> {
        let result = self.result(outcome);
        match self {
            Operation::Blob(operation) => Some((operation, result)),
            // The registry may open a session instead: the push goes on.
            Operation::Monolithic | Operation::Commit => {
                (outcome.status != 202).then_some((BlobOperation::Push, result))
            }
            Operation::Start => (result != OpResult::Ok).then_some((BlobOperation::Push, result)),
            Operation::Mount => {
                let is_fallback = self.mount(outcome) == Some(MountResult::Fallback);
                let result = if is_fallback {
                    OpResult::NotFound
                } else {
                    result
                };
                Some((BlobOperation::Mount, result))
            }
            Operation::Manifest(..)
            | Operation::Append
            | Operation::Look
            | Operation::Cancel
            | Operation::Other => None,
        }
    }

    /// The operation on a manifest that ends here, if one does.
    pub(super) fn on_manifest(
        self,
        outcome: Outcome,
    ) -> Option<(ManifestOperation, ReferenceKind, OpResult)> {
        if let Operation::Manifest(operation, reference) = self {
            Some((operation, reference, self.result(outcome)))
        } else {
            None
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
