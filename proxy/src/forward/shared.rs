//! What all requests share, for as long as the process lives.

use std::sync::Arc;

use service::shutdown::Shutdown;

use crate::metrics::HttpMetrics;

/// What all requests share, for as long as the process lives.
pub(crate) struct Shared {
    /// Where requests are counted that could not be parsed.
    pub(crate) rejected: Option<Arc<HttpMetrics>>,
    /// The most large bodies that are spliced at a time.
    pub(crate) splices: usize,
    /// The shutdown at which connections end after their requests.
    pub(crate) stopping: Shutdown,
}
