//! The operations of the store: `storage_*` and `tag_operations_total`.

use std::fmt;

use super::label::STORAGE_LATENCY;
use service::metrics::{Counters, Histograms, Label, MetricsRegistry, families, labels};

labels! {
    /// The implementation of the store.
    pub enum Backend: "backend" {
        Filesystem = "filesystem",
        Memory = "memory",
    }

    /// An operation of the store.
    pub enum Operation: "operation" {
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
    pub enum Outcome: "status" {
        Success = "success",
        Error = "error",
    }

    /// The type of an error of the store.
    pub enum ErrorType: "error_type" {
        NotFound = "not_found",
        DigestMismatch = "digest_mismatch",
        Invalid = "invalid",
        NoSpace = "no_space",
        Permission = "permission",
        Io = "io",
        Timeout = "timeout",
        Other = "other",
    }

    /// The direction in which bytes move.
    pub enum Direction: "direction" {
        Read = "read",
        Write = "write",
    }

    /// An operation on a tag.
    pub enum TagOperation: "operation" {
        Created = "created",
        Moved = "moved",
        Deleted = "deleted",
    }
}

families! {
    /// The `storage_*` families, and that of tags.
    #[derive(Clone)]
    struct StorageFamilies {
        /// Time of an operation of the store; observed when it ends. A read or an append ends when
        /// its stream of bytes ends or is aborted.
        duration: Histograms<(Backend, Operation, Outcome)>
            = "storage_operation_duration_seconds" in STORAGE_LATENCY,
        /// Operations of the store that failed, by the type of error; counted when they end. Damaged
        /// files that an operation skipped count as failures to read them.
        errors: Counters<(Backend, Operation, ErrorType)> = "storage_errors_total",
        /// Bytes read from the store and written to it; counted as they move.
        bytes: Counters<(Backend, Direction)> = "storage_bytes_total",
        /// Tags that clients created, moved to another manifest and deleted; counted when it is done.
        tags: Counters<TagOperation> = "tag_operations_total",
    }
}

/// What one store records. Clones share their cells.
#[derive(Clone)]
pub struct Storage {
    backend: Backend,
    families: StorageFamilies,
}

impl Storage {
    /// Declares the families.
    pub fn register(registry: &MetricsRegistry, backend: Backend) -> Self {
        let families = StorageFamilies::declare(registry);
        // A counter that appears with its first increase hides that increase from `rate`.
        for &direction in Direction::ALL {
            families.bytes.touch((backend, direction));
        }
        for &operation in TagOperation::ALL {
            families.tags.touch(operation);
        }
        // An alert watches for a full disk: its series is there before the first failure.
        families
            .errors
            .touch((backend, Operation::UploadAppend, ErrorType::NoSpace));
        Self { backend, families }
    }

    /// Records an operation that ended after so many seconds.
    pub fn ended(&self, operation: Operation, seconds: f64, error: Option<ErrorType>) {
        let outcome = if error.is_some() {
            Outcome::Error
        } else {
            Outcome::Success
        };
        self.families
            .duration
            .observe((self.backend, operation, outcome), seconds);
        if let Some(error) = error {
            self.families.errors.inc((self.backend, operation, error));
        }
    }

    /// Counts damaged files that an operation skipped: each is a failure to read it.
    pub fn damaged(&self, reading: Operation, count: u64) {
        // Adding 0 would create the series before any file is damaged.
        if count > 0 {
            self.families
                .errors
                .add((self.backend, reading, ErrorType::Io), count);
        }
    }

    /// Counts bytes that moved.
    pub fn moved(&self, direction: Direction, bytes: u64) {
        self.families.bytes.add((self.backend, direction), bytes);
    }

    /// Counts operations on tags.
    pub fn tags(&self, operation: TagOperation, count: u64) {
        self.families.tags.add(operation, count);
    }
}

impl fmt::Debug for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Storage")
            .field("backend", &self.backend)
            .finish_non_exhaustive()
    }
}
