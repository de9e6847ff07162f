//! What the requests mean to a registry: blobs and manifests that come and go, and its errors.

use registry::metrics::label::{ErrorCode, OpResult, ReferenceKind};
use registry::oci::Kind;
use service::metrics::MetricsRegistry;
use service::metrics::{Counters, Label as _};

use super::label::{BlobOperation, ManifestOperation, MountResult};

/// The families of blobs and manifests. An [`Exchange`](crate::exchange::Exchange) moves them.
pub struct OciMetrics {
    /// Blobs pulled, looked at, pushed, mounted and deleted, or not.
    pub blobs: Counters<(BlobOperation, OpResult)>,
    /// Manifests pulled, resolved, pushed and deleted, or not.
    pub manifests: Counters<(ManifestOperation, ReferenceKind, Kind, OpResult)>,
    /// Mounts that were asked for.
    pub mounts: Counters<MountResult>,
    /// Errors that clients were told.
    pub errors: Counters<ErrorCode>,
}

impl OciMetrics {
    /// Registers the families.
    pub fn new(registry: &MetricsRegistry) -> OciMetrics {
        let metrics = OciMetrics {
            blobs: registry.counters(
                "blob_operations_total",
                "Operations on blobs, counted when they end: a push with the PUT that ends its \
                 upload or the POST that carries it whole, or with a POST that is refused; a \
                 mount that falls back to an upload is not_found.",
                &["operation", "result"],
            ),
            manifests: registry.counters(
                "manifest_operations_total",
                "Operations on manifests, counted when they end: pull is a GET, resolve a HEAD. \
                 The kind of a deleted one, and of any that failed, is other.",
                &["operation", "reference", "kind", "result"],
            ),
            mounts: registry.counters(
                "blob_mounts_total",
                "Cross-repository mounts that were asked for, counted when the answer is known: \
                 mounted, fallback to an upload, or error.",
                &["result"],
            ),
            errors: registry.counters(
                "oci_errors_total",
                "OCI errors that left for a client, counted by their first code when the \
                 response was sent whole; other where the code is unknown or the body compressed.",
                &["code"],
            ),
        };
        for &result in MountResult::ALL {
            metrics.mounts.touch(result);
        }
        metrics
    }
}
