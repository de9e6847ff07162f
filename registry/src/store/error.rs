//! What can go wrong in a store.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};

use crate::oci::Digest;

/// Why a store operation failed.
///
/// The variants that name something unknown, mismatched, busy or too many are answers to a caller;
/// `TooManyBytes`, `Reserved`, `ReservedFiles`, `NoSpace`, `Lost`, `Corrupt`, `Interrupted` and `Io` are
/// troubles of the store itself, whose text (it holds figures and paths) belongs in the log and never in a response.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No repository has this name: it holds no blob and no manifest.
    #[error("the repository is unknown")]
    RepositoryUnknown,
    /// The blob is not in the repository.
    #[error("the blob is unknown in the repository")]
    BlobUnknown,
    /// The manifest, or the tag that was to lead to it, is not in the repository.
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
        /// What is missing: blobs first, then manifests, each in the manifest's order.
        digests: Vec<Digest>,
    },
    /// The condition of a change does not hold.
    #[error("{}", condition_failed(current.as_ref()))]
    ConditionFailed {
        /// What the reference leads to.
        current: Option<Digest>,
    },
    /// The blob has no byte of the range that was asked for.
    #[error("the range lies outside the blob's {size} bytes")]
    RangeUnsatisfiable {
        /// The blob's size in bytes.
        size: u64,
    },
    /// There are as many upload sessions as there may be.
    #[error("too many uploads are open: finish or cancel some, or come back later")]
    TooManySessions {
        /// How many there may be.
        limit: u64,
    },
    /// The open upload sessions hold as many bytes as they may.
    #[error(
        "the open uploads hold all of the {limit} bytes that they may: let some end, or expire"
    )]
    TooManyBytes {
        /// How many bytes they may hold.
        limit: u64,
        /// How many would have to go.
        missing: u64,
    },
    /// Uploads would take what is left of the disk below its reserve.
    #[error("{available} bytes of the disk are free, and uploads leave a reserve of {reserve}")]
    Reserved {
        /// The bytes that are free.
        available: u64,
        /// The bytes that are to stay free.
        reserve: u64,
        /// How many more would have to be free.
        missing: u64,
    },
    /// Uploads would take the inodes that are left below the reserve.
    #[error("{available} inodes of the disk are free, and uploads leave a reserve of {reserve}")]
    ReservedFiles {
        /// The inodes that are free.
        available: u64,
        /// The inodes that are to stay free.
        reserve: u64,
        /// How many more would have to be free.
        missing: u64,
    },
    /// The data directory is gone, or another is in its place.
    #[error("{}", path.display())]
    Lost {
        /// Where it was.
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
    /// The stream of bytes to store failed; the store itself is well.
    #[error("the incoming body failed")]
    Body(#[source] Box<dyn Error + Send + Sync>),
    /// A file of the store does not hold what it must.
    #[error("{} is damaged: {reason}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The program is stopping and no longer runs the work.
    #[error("the store is shutting down")]
    Interrupted,
    /// The system refused.
    #[error("{}", path.display())]
    Io {
        /// The file or folder concerned.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

/// Why the data directory can't be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// Nothing is where it was.
    #[error("the data directory is gone")]
    Gone,
    /// Something else is there: another directory, or a file system that was mounted over it.
    #[error("the data directory is not the one that was opened")]
    Another,
    /// The system does not say what is there.
    #[error("the data directory cannot be read")]
    Unreadable,
}

/// The kind of a failure, whatever it is wrapped in; what `storage_errors_total` counts by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// A repository, blob, manifest, tag or session that is not there.
    NotFound,
    /// Bytes that do not match their digest.
    DigestMismatch,
    /// A request that does not fit the state of what it concerns.
    Invalid,
    /// A full disk or quota, or a bound that keeps the disk from filling up.
    NoSpace,
    /// The system denies access.
    Permission,
    /// Any other failure of the system, or damaged files.
    Io,
    /// Something took too long.
    Timeout,
    /// None of these: a body that broke, a shutdown.
    Other,
}

impl StoreError {
    /// Wraps a system error with the path it concerns; a full disk becomes [`Self::NoSpace`].
    pub fn io(path: impl AsRef<Path>, source: io::Error) -> Self {
        let path = path.as_ref().to_owned();
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
            Self::Corrupt { .. } | Self::Lost { .. } => ErrorKind::Io,
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

/// A broken connection is no failure of the storage: of all that can be inside a body's error, only
/// a timeout is told apart, and a failure of a store (a body read from another one).
fn kind_of_body(error: &(dyn Error + 'static)) -> ErrorKind {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(inner) = error.downcast_ref::<StoreError>() {
            return inner.kind();
        }
        let io = error.downcast_ref::<io::Error>();
        if io.is_some_and(|e| e.kind() == io::ErrorKind::TimedOut) {
            return ErrorKind::Timeout;
        }
        // `source` of an `io::Error` leaves out the very error that it carries.
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
    fn a_full_disk_is_told_from_other_failures() {
        for code in [rustix::io::Errno::NOSPC, rustix::io::Errno::DQUOT] {
            let error = StoreError::io("/x", code.into());
            assert!(matches!(error, StoreError::NoSpace { .. }), "{error:?}");
            assert_eq!(error.kind(), ErrorKind::NoSpace);
        }
    }

    #[test]
    fn every_failure_of_the_system_has_its_kind() {
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
    fn a_stalled_body_is_a_timeout_and_a_broken_one_is_not_the_storage_s_fault() {
        let stalled = StoreError::Body(Box::new(io::Error::from(io::ErrorKind::TimedOut)));
        assert_eq!(stalled.kind(), ErrorKind::Timeout);
        let broken = StoreError::Body(Box::new(io::Error::from(io::ErrorKind::ConnectionReset)));
        assert_eq!(broken.kind(), ErrorKind::Other);
    }
}
