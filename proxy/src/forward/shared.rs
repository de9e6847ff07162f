//! What all requests share.

use std::sync::Arc;

use service::limits::Limits;
use service::shutdown::Shutdown;

use crate::admin::Admin;
use crate::cors::CorsRules;
use crate::exchange::Observer;
use crate::forwarded::ForwardedRules;
use crate::metrics::HttpMetrics;
use crate::upstream::Upstream;

/// What all requests share.
pub(crate) struct Shared {
    pub(crate) upstream: Arc<Upstream>,
    /// The endpoints that the proxy itself serves.
    pub(crate) admin: Arc<Admin>,
    /// `None` observes nothing, at no cost.
    pub(crate) observer: Option<Observer>,
    /// Where requests are counted that could not be parsed.
    pub(crate) rejected: Option<Arc<HttpMetrics>>,
    pub(crate) limits: Limits,
    pub(crate) access_log: bool,
    /// Who is believed about a client, and what the upstream is told of it.
    pub(crate) forwarded: ForwardedRules,
    /// Which origins may read responses; `None` says nothing of it.
    pub(crate) cors: Option<CorsRules>,
    /// The shutdown at which connections end after their requests.
    pub(crate) stopping: Shutdown,
}
