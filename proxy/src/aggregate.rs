//! One exposition out of many: the proxy's own metrics, and those of its sources.
//!
//! A source can be slow, large, malformed or gone, and is never more than a gap in the exposition:
//! the `aggregate_*` families tell what happens to it, and the exposition is always there.
//!
//! One [`round`] of fetches serves all scrapes that arrive while it is in flight, so that many
//! scrapers cost as little memory as one.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use service::admin::Scrape;
use service::metrics::MetricsRegistry;
use service::scrape::{EncodedExposition, ScrapeFormat};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::metrics::AggregateFamilies;

mod aggregation;
mod fetch;
mod fetches;
mod inspection;
mod round;
mod source;

use aggregation::Aggregation;
use round::PendingScrape;

pub use aggregation::AggregateLimits;
pub(crate) use fetch::FetchError;
pub(crate) use inspection::{SourceSize, inspect};
pub use source::{Origin, Source};

/// Scrapes that wait to be accepted by a round; more wait for a slot in this queue.
const QUEUE: usize = 64;

/// Merges the expositions.
pub struct Aggregate {
    registry: MetricsRegistry,
    families: AggregateFamilies,
    current: Arc<ArcSwap<Aggregation>>,
    scrapes: mpsc::Sender<PendingScrape>,
}

impl Aggregate {
    /// Merges the families of `registry` with the sources. Must be called within a tokio runtime.
    pub fn new(
        registry: MetricsRegistry,
        sources: Vec<Source>,
        limits: AggregateLimits,
    ) -> Aggregate {
        let families = AggregateFamilies::declare(&registry, sources.len());
        let expositions = Arc::default();
        let aggregation = Aggregation::new(&registry, &families, sources, limits, expositions);
        let current = Arc::new(ArcSwap::from_pointee(aggregation));
        let (scrapes, queue) = mpsc::channel(QUEUE);
        // It ends with this `Aggregate`, which has the only sender of the queue.
        tokio::spawn(round::serve(Arc::clone(&current), queue));
        Aggregate {
            registry,
            families,
            current,
            scrapes,
        }
    }

    /// Merges other sources, from the next scrape on. What was counted of a source that is gone prints no
    /// more.
    pub fn replace(&self, sources: Vec<Source>, limits: AggregateLimits) {
        let before = self.current.load();
        for source in &before.sources {
            if !sources.iter().any(|still| still.name == source.name()) {
                self.families.forget(source.name());
            }
        }
        let expositions = Arc::clone(&before.expositions);
        let next = Aggregation::new(&self.registry, &self.families, sources, limits, expositions);
        self.current.store(Arc::new(next));
    }

    /// The families in this process, without those of the sources.
    pub fn registry(&self) -> &MetricsRegistry {
        &self.registry
    }

    /// The proxy's own families.
    pub fn own_families(&self) -> &MetricsRegistry {
        &self.registry
    }

    /// The most series that the proxy itself can ever have.
    pub fn max_series(&self) -> usize {
        self.registry.max_series()
    }
}

/// A scraper whose timeout is shorter than the sources take gets the exposition with what was fetched
/// by then. There is none only while the process ends.
impl Scrape for Aggregate {
    async fn scrape(
        &self,
        format: ScrapeFormat,
        timeout: Option<Duration>,
    ) -> Option<Arc<EncodedExposition>> {
        let (reply, exposition) = oneshot::channel();
        // From here on: the time in the queue is part of the scraper's timeout.
        let due = PendingScrape::due(Instant::now(), timeout);
        let scrape = PendingScrape { format, due, reply };
        self.scrapes.send(scrape).await.ok()?;
        exposition.await.ok()
    }
}
