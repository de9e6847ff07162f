//! What the store does: `storage_*` and `tag_operations_total`.

use std::fmt;

use super::label::STORAGE_LATENCY;
use service::metrics::MetricsRegistry;
use service::metrics::{Counters, Histograms, Label, labels};

labels! {
    /// The implementation of the store.
    pub enum Backend {
        Filesystem = "filesystem",
        Memory = "memory",
    }

    /// An operation of the store.
    pub enum Operation {
        BlobStat = "blob_stat",
        BlobRead = "blob_read",
        BlobDelete = "blob_delete",
        BlobMount = "blob_mount",
        UploadCreate = "upload_create",
        UploadAppend = "upload_append",
        UploadCommit = "upload_commit",
        UploadCancel = "upload_cancel",
        UploadStat = "upload_stat",
        ManifestRead = "manifest_read",
        ManifestWrite = "manifest_write",
        ManifestDelete = "manifest_delete",
        TagRead = "tag_read",
        TagWrite = "tag_write",
        TagDelete = "tag_delete",
        TagList = "tag_list",
        RepositoryList = "repository_list",
        ReferrersList = "referrers_list",
    }

    /// How an operation of the store ended.
    pub enum Outcome {
        Success = "success",
        Error = "error",
    }

    /// The kind of an error of the store.
    pub enum ErrorType {
        NotFound = "not_found",
        DigestMismatch = "digest_mismatch",
        Invalid = "invalid",
        NoSpace = "no_space",
        Permission = "permission",
        Io = "io",
        Timeout = "timeout",
        Other = "other",
    }

    /// Which way bytes move.
    pub enum Direction {
        Read = "read",
        Write = "write",
    }

    /// What happened to a tag.
    pub enum TagOperation {
        Created = "created",
        Moved = "moved",
        Deleted = "deleted",
    }
}

/// The families of one store. Clones share their cells.
#[derive(Clone)]
pub struct Storage {
    backend: Backend,
    duration: Histograms<(Backend, Operation, Outcome)>,
    errors: Counters<(Backend, Operation, ErrorType)>,
    bytes: Counters<(Backend, Direction)>,
    tags: Counters<TagOperation>,
}

impl Storage {
    /// Declares the families.
    pub fn register(registry: &MetricsRegistry, backend: Backend) -> Self {
        let storage = Self {
            backend,
            duration: registry.histograms(
                "storage_operation_duration_seconds",
                "Time of an operation of the store, recorded when it ends; of reads and appends \
                 when their stream of bytes ends or is given up.",
                &["backend", "operation", "status"],
                STORAGE_LATENCY,
            ),
            errors: registry.counters(
                "storage_errors_total",
                "Operations of the store that failed, by the kind of the failure, counted when \
                 they end; and damaged files that others passed over, as failures to read them.",
                &["backend", "operation", "error_type"],
            ),
            bytes: registry.counters(
                "storage_bytes_total",
                "Bytes read from the store and written to it, counted as they move.",
                &["backend", "direction"],
            ),
            tags: registry.counters(
                "tag_operations_total",
                "Tags created, moved to another manifest and deleted, counted when it is done.",
                &["operation"],
            ),
        };
        for &direction in Direction::ALL {
            storage.bytes.touch((backend, direction));
        }
        for &operation in TagOperation::ALL {
            storage.tags.touch(operation);
        }
        // An alert watches for a full disk: its series is there before the first failure.
        storage
            .errors
            .touch((backend, Operation::UploadAppend, ErrorType::NoSpace));
        storage
    }

    /// An operation has ended after so many seconds.
    pub fn ended(&self, operation: Operation, seconds: f64, error: Option<ErrorType>) {
        let outcome = if error.is_some() {
            Outcome::Error
        } else {
            Outcome::Success
        };
        self.duration
            .observe((self.backend, operation, outcome), seconds);
        if let Some(error) = error {
            self.errors.inc((self.backend, operation, error));
        }
    }

    /// An operation that ended well met so many damaged files, which it passed over: each counts as
    /// a failure to read it.
    pub fn damaged(&self, reading: Operation, count: u64) {
        if count > 0 {
            self.errors
                .add((self.backend, reading, ErrorType::Io), count);
        }
    }

    /// Bytes have moved.
    pub fn moved(&self, direction: Direction, bytes: u64) {
        self.bytes.add((self.backend, direction), bytes);
    }

    /// Something happened to so many tags.
    pub fn tags(&self, operation: TagOperation, count: u64) {
        self.tags.add(operation, count);
    }
}

impl fmt::Debug for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Storage")
            .field("backend", &self.backend)
            .finish_non_exhaustive()
    }
}
