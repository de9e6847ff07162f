//! What the configuration says of requests.

use std::sync::Arc;

use service::limits::Limits;
use service::log::AccessLog;

use crate::admin::Admin;
use crate::cors::CorsRules;
use crate::exchange::Observer;
use crate::forwarded::ForwardedRules;
use crate::upstream::Upstreams;

/// What the configuration says of requests. A reload replaces it as a whole: a request sees one of
/// them, from its first byte to its last.
pub(crate) struct ForwardSettings {
    pub(crate) upstreams: Upstreams,
    /// The endpoints that the proxy itself serves.
    pub(crate) admin: Arc<Admin>,
    /// `None` observes nothing, at no cost.
    pub(crate) observer: Option<Observer>,
    pub(crate) limits: Limits,
    /// `None` in a process without a log.
    pub(crate) access_log: Option<AccessLog>,
    /// Who is believed about a client, and what the upstream is told of it.
    pub(crate) forwarded: ForwardedRules,
    /// Which origins may read responses; `None` says nothing of it.
    pub(crate) cors: Option<CorsRules>,
}
