//! What the requests mean to a registry: operations on blobs and manifests, and OCI errors.

use crate::metrics::label::{ErrorCodeLabel, OpResult, ReferenceKind};
use registry::oci::Kind;
use service::metrics::{Counters, Label as _, MetricsRegistry, families};

use super::label::{BlobOperation, ManifestOperation, MountResult};

families! {
    /// The families of blobs and manifests. An [`Exchange`](crate::exchange::Exchange) moves them.
    pub struct OciMetrics {
        /// Operations on blobs; counted when they end. A push ends with the PUT that ends its upload,
        /// with the POST that carries the whole blob, or with a POST that is refused. A mount that
        /// falls back to an upload is not_found.
        pub blobs: Counters<(BlobOperation, OpResult)> = "blob_operations_total",
        /// Operations on manifests; counted when they end. pull is a GET, resolve a HEAD. The kind of
        /// a deleted manifest, and of any operation that failed, is other.
        pub manifests: Counters<(ManifestOperation, ReferenceKind, Kind, OpResult)>
            = "manifest_operations_total",
        /// Cross-repository mounts that clients asked for; counted when the response is known:
        /// mounted, fallback to an upload, or error.
        pub mounts: Counters<MountResult> = "blob_mounts_total",
        /// OCI errors sent to clients, by their first code; counted when the response was sent whole.
        /// The code is other where it is unknown or the body is compressed.
        pub errors: Counters<ErrorCodeLabel> = "oci_errors_total",
    }
}

impl OciMetrics {
    /// Declares the families.
    pub fn new(registry: &MetricsRegistry) -> OciMetrics {
        let metrics = OciMetrics::declare(registry);
        for &result in MountResult::ALL {
            metrics.mounts.touch(result);
        }
        metrics
    }
}
