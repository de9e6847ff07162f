//! The upstreams, and which of them a request is for.

use std::sync::Arc;

use super::Upstream;

/// The upstreams of a proxy; at least one.
pub struct Upstreams {
    first: Arc<Upstream>,
    others: Vec<Arc<Upstream>>,
}

impl Upstreams {
    /// A single upstream, which all requests are for.
    pub fn single(upstream: Arc<Upstream>) -> Upstreams {
        Upstreams {
            first: upstream,
            others: Vec::new(),
        }
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Upstream>> {
        std::iter::once(&self.first).chain(&self.others)
    }

    /// The upstream that a request is for.
    pub(crate) fn choose(&self) -> &Upstream {
        &self.first
    }
}
