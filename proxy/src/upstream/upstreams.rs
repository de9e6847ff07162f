//! The upstreams, and which of them a request is for.

use std::sync::Arc;

use super::Upstream;

/// The upstreams of a proxy; at least one. Clones are the same ones.
#[derive(Clone)]
pub struct Upstreams {
    first: Arc<Upstream>,
    others: Vec<Arc<Upstream>>,
}

impl Upstreams {
    /// These upstreams.
    pub fn new(first: Arc<Upstream>, others: Vec<Arc<Upstream>>) -> Upstreams {
        Upstreams { first, others }
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Upstream>> + Clone {
        std::iter::once(&self.first).chain(&self.others)
    }

    /// Whether at least one of them can serve requests; `None` before that is known. Others must be
    /// served while some cannot be.
    pub fn is_any_healthy(&self) -> Option<bool> {
        let mut all = self.all().map(|upstream| upstream.is_healthy());
        if all.clone().any(|healthy| healthy == Some(true)) {
            Some(true)
        } else if all.any(|healthy| healthy.is_none()) {
            None
        } else {
            Some(false)
        }
    }

    /// The upstream that a request is for.
    pub(crate) fn choose(&self) -> &Upstream {
        &self.first
    }
}
