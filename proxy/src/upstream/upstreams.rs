//! The upstreams, and which of them a request is for.

use std::sync::Arc;

use super::Upstream;
use super::choice::{ChoiceIndex, NoUpstream};
use super::replica_set::ReplicaSet;
use super::requested::Requested;

/// The upstreams of a proxy; at least one. Clones are the same ones.
#[derive(Clone)]
pub struct Upstreams {
    first: Arc<Upstream>,
    others: Vec<Arc<Upstream>>,
    /// `None` of a single upstream that is for every request.
    index: Option<Arc<ChoiceIndex>>,
}

impl Upstreams {
    /// These upstreams. A request is for the first of them that it fits.
    pub fn new(first: Arc<Upstream>, others: Vec<Arc<Upstream>>) -> Upstreams {
        let is_for_all = others.is_empty() && first.matching().is_for_all();
        let mut upstreams = Upstreams {
            first,
            others,
            index: None,
        };
        if !is_for_all {
            let matches = upstreams.all().map(|upstream| upstream.matching());
            upstreams.index = Some(Arc::new(ChoiceIndex::new(matches)));
        }
        upstreams
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

    /// The upstream that a request is for. It takes no lock and allocates nothing.
    pub fn choose(&self, requested: &Requested<'_>) -> Result<&Arc<Upstream>, NoUpstream> {
        let Some(index) = &self.index else {
            return Ok(&self.first);
        };
        match index.choose(requested)?.checked_sub(1) {
            None => Ok(&self.first),
            Some(at) => self.others.get(at).ok_or(NoUpstream::Unmatched),
        }
    }

    /// Whether a request need not be for the upstream of a session, whatever its path is: it names no
    /// repository, by which upstreams are chosen.
    pub(crate) fn is_open(&self, requested: &Requested<'_>) -> bool {
        self.index
            .as_ref()
            .is_some_and(|index| index.is_open(requested))
    }

    /// Whether there is only one, with only one replica: every session is there.
    pub(crate) fn is_single(&self) -> bool {
        let is_single = |upstream: &Upstream| upstream.replicas().is_none_or(ReplicaSet::is_single);
        self.others.is_empty() && is_single(&self.first)
    }
}

#[cfg(test)]
mod tests;
