//! The fetches in flight: of each source one at most.
//!
//! Each is a task of its own, which belongs to no scraper, so that none can end it by leaving: it has
//! `metrics.aggregate.timeout`, however short the timeouts of scrapers are, and records how it ended. A
//! scraper that does not wait for a slow source must not make it look as if it were down.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::task::{Id, JoinSet};

use super::aggregation::{Aggregation, Fetched};

/// A fetch that has brought nothing. Its task has recorded why.
pub(super) struct FetchFailed;

/// The fetches in flight.
pub(super) struct Fetches {
    aggregation: Arc<Aggregation>,
    tasks: JoinSet<Option<Fetched>>,
    /// The source of each.
    sources: HashMap<Id, usize>,
}

impl Fetches {
    pub(super) fn new(aggregation: Arc<Aggregation>) -> Self {
        Self {
            aggregation,
            tasks: JoinSet::new(),
            sources: HashMap::new(),
        }
    }

    pub(super) fn aggregation(&self) -> &Arc<Aggregation> {
        &self.aggregation
    }

    /// Begins a fetch of each source that has none in flight. Those of sources that were replaced end.
    pub(super) fn begin(&mut self, aggregation: &Arc<Aggregation>) {
        if !Arc::ptr_eq(&self.aggregation, aggregation) {
            *self = Self::new(Arc::clone(aggregation));
        }
        for source in 0..aggregation.sources.len() {
            if self.is_in_flight(source) {
                continue;
            }
            let task = self.tasks.spawn(Arc::clone(aggregation).fetch(source));
            self.sources.insert(task.id(), source);
        }
    }

    /// The next one that ends, with what it has fetched; `None` if none is in flight.
    pub(super) async fn next(&mut self) -> Option<Result<Fetched, FetchFailed>> {
        let (id, fetched) = match self.tasks.join_next_with_id().await? {
            Ok((id, fetched)) => (id, fetched),
            Err(error) => (error.id(), None),
        };
        self.sources.remove(&id);
        Some(fetched.ok_or(FetchFailed))
    }

    /// The sources for which one would have to wait.
    pub(super) fn in_flight(&self) -> Vec<usize> {
        self.sources.values().copied().collect()
    }

    fn is_in_flight(&self, source: usize) -> bool {
        self.sources.values().any(|one| *one == source)
    }
}
