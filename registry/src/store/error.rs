//! The errors of a store.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};

use crate::oci::Digest;

/// Why a store operation failed.
///
/// `TooManyBytes`, `Reserved`, `ReservedFiles`, `NoSpace`, `Lost`, `Corrupt`, `Interrupted` and `Io` are
/// failures of the store itself. Their text holds figures and paths: it belongs in the log and never in
/// a response. The other variants are about the request.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No repository has this name: it holds no blob and no manifest.
    #[error("the repository is unknown")]
    RepositoryUnknown,
    /// The blob is not in the repository.
    #[error("the blob is unknown in the repository")]
    BlobUnknown,
    /// The manifest, or the tag that refers to it, is not in the repository.
    #[error("the manifest is unknown in the repository")]
    ManifestUnknown,
    /// The repository has no such upload session: it never had, or the session has ended.
    #[error("the upload session is unknown")]
    UploadUnknown,
    /// Another request is appending to or committing the session at this moment.
    #[error("the upload session is in use by another request")]
    UploadBusy,
    /// A chunk does not begin where the session's bytes end.
    #[error("the upload session continues at byte {expected}")]
    UploadOffset {
        /// Where the next chunk has to begin.
        expected: u64,
    },
    /// The bytes are not those that the digest names.
    #[error("the content has the digest {actual}, not {expected}")]
    DigestMismatch {
        /// The digest that was claimed.
        expected: Digest,
        /// The digest of the bytes received.
        actual: Digest,
    },
    /// A manifest names blobs or manifests that its repository does not hold.
    #[error("the manifest refers to {} unknown blobs or manifests", digests.len())]
    ReferenceUnknown {
        /// The missing ones: blobs first, then manifests, each in the manifest's order.
        digests: Vec<Digest>,
    },
    /// The condition of a change does not hold.
    #[error("{}", condition_failed(current.as_ref()))]
    ConditionFailed {
        /// The manifest that the reference leads to.
        current: Option<Digest>,
    },
    /// The blob has no byte of the requested range.
    #[error("the range lies outside the blob's {size} bytes")]
    RangeUnsatisfiable {
        /// The blob's size in bytes.
        size: u64,
    },
    /// All slots for upload sessions are taken, and none of the sessions can be evicted.
    #[error("too many upload sessions are open: finish or cancel some, or retry later")]
    TooManySessions {
        /// The number of slots.
        limit: u64,
    },
    /// The open upload sessions hold as many bytes as their quota allows.
    #[error(
        "the open upload sessions hold the {limit} bytes of their quota: finish or cancel some, or let them expire"
    )]
    TooManyBytes {
        /// The bytes that they may hold.
        limit: u64,
        /// The bytes that would have to be freed.
        missing: u64,
    },
    /// Uploads would take the free space of the disk below the reserve.
    #[error(
        "{available} bytes of the disk are free, and uploads leave a reserve of {reserve} bytes"
    )]
    Reserved {
        /// The bytes that are free.
        available: u64,
        /// The bytes that are to stay free.
        reserve: u64,
        /// The number that would have to be freed.
        missing: u64,
    },
    /// Uploads would take the free inodes of the disk below the reserve.
    #[error(
        "{available} inodes of the disk are free, and uploads leave a reserve of {reserve} inodes"
    )]
    ReservedFiles {
        /// The inodes that are free.
        available: u64,
        /// The inodes that are to stay free.
        reserve: u64,
        /// The number that would have to be freed.
        missing: u64,
    },
    /// The data directory is gone or was replaced.
    #[error("{}", path.display())]
    Lost {
        /// Its path.
        path: PathBuf,
        /// What is wrong with it.
        source: Lost,
    },
    /// The disk is full, or a quota is.
    #[error("no space left for {}", path.display())]
    NoSpace {
        /// What was being written.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The stream of bytes to store failed, and not the store.
    #[error("the incoming body failed")]
    Body(#[source] Box<dyn Error + Send + Sync>),
    /// A file of the store is damaged.
    #[error("{} is damaged: {reason}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The program is stopping, and the operation was not run.
    #[error("the store is shutting down")]
    Interrupted,
    /// Another error of the system.
    #[error("{}", path.display())]
    Io {
        /// The file or directory concerned.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

/// Why the data directory cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// There is nothing at its path.
    #[error("the data directory is gone")]
    Gone,
    /// Something else is at its path: another directory, or a file system that was mounted over it.
    #[error("the data directory is not the one that was opened")]
    Another,
    /// The system does not report what is at its path.
    #[error("the data directory cannot be read")]
    Unreadable,
}

/// The kind of a failure, whatever it is wrapped in: the `error_type` of `storage_errors_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// A repository, blob, manifest, tag or session does not exist.
    NotFound,
    /// Bytes do not match their digest.
    DigestMismatch,
    /// The request conflicts with the state of the store.
    Invalid,
    /// The disk or a quota is full.
    NoSpace,
    /// The system denies access.
    Permission,
    /// Any other failure of the system, or damaged files.
    Io,
    /// Something took too long.
    Timeout,
    /// None of these: a failed body, a shutdown.
    Other,
}

impl StoreError {
    /// Wraps a system error with the path it concerns; a full disk becomes [`Self::NoSpace`].
    pub fn io(path: impl AsRef<Path>, source: io::Error) -> Self {
        let path = path.as_ref().to_owned();
        // Kept apart: a write that finds the disk full evicts an upload session and runs again.
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::NoSpace { path, source }
            }
            _ => Self::Io { path, source },
        }
    }

    /// The kind of this failure, found through whatever it is wrapped in.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::RepositoryUnknown
            | Self::BlobUnknown
            | Self::ManifestUnknown
            | Self::UploadUnknown => ErrorKind::NotFound,
            Self::UploadBusy
            | Self::UploadOffset { .. }
            | Self::ReferenceUnknown { .. }
            | Self::ConditionFailed { .. }
            | Self::RangeUnsatisfiable { .. }
            | Self::TooManySessions { .. } => ErrorKind::Invalid,
            Self::DigestMismatch { .. } => ErrorKind::DigestMismatch,
            Self::NoSpace { .. }
            | Self::TooManyBytes { .. }
            | Self::Reserved { .. }
            | Self::ReservedFiles { .. } => ErrorKind::NoSpace,
            // For an operator both mean what a failing disk means: look at the machine.
            Self::Corrupt { .. } | Self::Lost { .. } => ErrorKind::Io,
            // The operation was not run: the storage has not failed.
            Self::Interrupted => ErrorKind::Other,
            Self::Io { source, .. } => kind_of_io(source),
            Self::Body(source) => kind_of_body(source.as_ref()),
        }
    }
}

fn condition_failed(current: Option<&Digest>) -> String {
    match current {
        Some(digest) => format!("the condition does not hold: the reference leads to {digest}"),
        None => "the condition does not hold: the reference leads to nothing".to_owned(),
    }
}

fn kind_of_io(error: &io::Error) -> ErrorKind {
    // An `io::Error` may carry another error of any type, even one of ours.
    if let Some(inner) = error.get_ref().and_then(|e| e.downcast_ref::<StoreError>()) {
        return inner.kind();
    }
    match error.kind() {
        io::ErrorKind::NotFound => ErrorKind::NotFound,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::NoSpace,
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            ErrorKind::Permission
        }
        io::ErrorKind::TimedOut => ErrorKind::Timeout,
        _ => ErrorKind::Io,
    }
}

/// A broken connection is no failure of the storage. Of all errors that a body may wrap, only a timeout
/// and a failure of a store (a body that is read from another one) have a kind of their own.
fn kind_of_body(error: &(dyn Error + 'static)) -> ErrorKind {
    // Layers of HTTP wrap an error several times: what it is may lie at any depth.
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(inner) = error.downcast_ref::<StoreError>() {
            return inner.kind();
        }
        let io = error.downcast_ref::<io::Error>();
        if io.is_some_and(|e| e.kind() == io::ErrorKind::TimedOut) {
            return ErrorKind::Timeout;
        }
        // `source` of an `io::Error` skips the error that it carries.
        next = match io.and_then(io::Error::get_ref) {
            Some(carried) => Some(carried as &(dyn Error + 'static)),
            None => error.source(),
        };
    }
    ErrorKind::Other
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_distinguished_from_other_failures() {
        for code in [rustix::io::Errno::NOSPC, rustix::io::Errno::DQUOT] {
            let error = StoreError::io("/x", code.into());
            assert!(matches!(error, StoreError::NoSpace { .. }), "{error:?}");
            assert_eq!(error.kind(), ErrorKind::NoSpace);
        }
    }

    #[test]
    fn every_error_of_the_system_has_its_kind() {
        for (system, kind) in [
            (io::ErrorKind::NotFound, ErrorKind::NotFound),
            (io::ErrorKind::StorageFull, ErrorKind::NoSpace),
            (io::ErrorKind::QuotaExceeded, ErrorKind::NoSpace),
            (io::ErrorKind::PermissionDenied, ErrorKind::Permission),
            (io::ErrorKind::ReadOnlyFilesystem, ErrorKind::Permission),
            (io::ErrorKind::TimedOut, ErrorKind::Timeout),
            (io::ErrorKind::NotADirectory, ErrorKind::Io),
            (io::ErrorKind::Other, ErrorKind::Io),
        ] {
            assert_eq!(StoreError::io("/x", system.into()).kind(), kind, "{system}");
        }
        let damaged = StoreError::Corrupt {
            path: "/x".into(),
            reason: "empty",
        };
        assert_eq!(damaged.kind(), ErrorKind::Io);
        assert_eq!(StoreError::Interrupted.kind(), ErrorKind::Other);
        assert_eq!(StoreError::UploadBusy.kind(), ErrorKind::Invalid);
        let bound = StoreError::TooManyBytes {
            limit: 1,
            missing: 1,
        };
        assert_eq!(bound.kind(), ErrorKind::NoSpace);
    }

    #[test]
    fn a_kind_is_found_through_any_wrapping() {
        let inner = StoreError::io("/x", io::ErrorKind::PermissionDenied.into());
        let wrapped = StoreError::io("/y", io::Error::other(inner));
        assert_eq!(wrapped.kind(), ErrorKind::Permission);
        let body = StoreError::Body(Box::new(io::Error::other(wrapped)));
        assert_eq!(body.kind(), ErrorKind::Permission);
        let body = StoreError::Body(Box::new(StoreError::BlobUnknown));
        assert_eq!(body.kind(), ErrorKind::NotFound);
    }

    #[test]
    fn a_stalled_body_is_a_timeout_and_a_broken_one_is_no_storage_error() {
        let stalled = StoreError::Body(Box::new(io::Error::from(io::ErrorKind::TimedOut)));
        assert_eq!(stalled.kind(), ErrorKind::Timeout);
        let broken = StoreError::Body(Box::new(io::Error::from(io::ErrorKind::ConnectionReset)));
        assert_eq!(broken.kind(), ErrorKind::Other);
    }
}
