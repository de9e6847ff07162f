//! One look at a source, for an operator who wants to know whether it can be aggregated.

use service::exposition::DroppedSamples;
use service::net::GetRequest;
use tokio::time::timeout;

use super::aggregation::AggregateLimits;
use super::fetch::{self, FetchError};

/// What a source has sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SourceSize {
    /// The bytes of its exposition.
    pub(crate) bytes: usize,
    /// The samples that were read.
    pub(crate) samples: usize,
    /// The samples that were not.
    pub(crate) dropped: DroppedSamples,
}

/// Fetches and reads an exposition as a scrape does, with the same limits.
pub(crate) async fn inspect(
    request: &GetRequest,
    limits: &AggregateLimits,
) -> Result<SourceSize, FetchError> {
    let body = timeout(limits.timeout, fetch::get(request, limits.max_bytes)).await;
    let body = body.map_err(|_| FetchError::Timeout)??;
    let bytes = body.len();
    let (exposition, dropped) = fetch::parse(body, limits.max_bytes, limits.max_samples).await?;
    Ok(SourceSize {
        bytes,
        samples: exposition.sample_count(),
        dropped,
    })
}
