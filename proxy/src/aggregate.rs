//! One page out of many: the proxy's own metrics, and those of the registries behind it.
//!
//! A source can be slow, large, wrong or gone, and is never more than a gap on the page: whatever
//! happens to it is told by the `aggregate_*` families, and the page is always there.
//!
//! One [fetch](flight) of the sources serves all who scrape while it is in flight, so that many
//! scrapers cost as little memory as one.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use service::exposition::{DroppedSamples, Exposition};
use service::metrics::MetricsRegistry;
use service::scrape::ScrapeFormat;
use service::scrape::{EncodedExposition, EncodedExpositions};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::metrics::AggregateMetrics;

pub mod fetch;
mod flight;
mod source;

use fetch::Location;
use source::Watched;

/// The part of a scraper's patience that is left for merging and sending the page.
const RESERVE: Duration = Duration::from_millis(500);

/// Scrapes that wait to be looked at; more wait to get there.
const QUEUE: usize = 64;

/// A metrics page to aggregate.
#[derive(Clone, Debug)]
pub struct Source {
    /// The value of the `source` label.
    pub name: String,
    /// Where the page is.
    pub location: Location,
}

/// What bounds one aggregated scrape.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// How long a source may take.
    pub timeout: Duration,
    /// How many bytes its page may have.
    pub max_bytes: usize,
    /// How many samples are taken from it.
    pub max_samples: usize,
}

/// Makes the page.
pub struct Aggregate {
    registry: MetricsRegistry,
    scrapes: mpsc::Sender<Scrape>,
}

/// One who waits for the page.
struct Scrape {
    wanted: ScrapeFormat,
    times: Times,
    reply: oneshot::Sender<Arc<EncodedExposition>>,
}

/// When a scraper's patience ends; `None` where it has not said.
#[derive(Clone, Copy, Debug)]
struct Times {
    /// The sources have this long.
    fetched: Option<Instant>,
    /// Then it gets what there is.
    answered: Option<Instant>,
}

/// What it takes to make the page.
struct Parts {
    registry: MetricsRegistry,
    metrics: AggregateMetrics,
    sources: Vec<Watched>,
    bounds: Bounds,
    expositions: EncodedExpositions,
}

/// A page that was fetched: of which source, and what was left out of it, unless that has been counted.
struct Fetched {
    source: usize,
    page: Exposition,
    dropped: Option<DroppedSamples>,
}

impl Aggregate {
    /// A page of `registry`'s families and the sources'. Must be called within a tokio runtime.
    pub fn new(registry: MetricsRegistry, sources: Vec<Source>, bounds: Bounds) -> Aggregate {
        let metrics = AggregateMetrics::new(&registry, sources.iter().map(|s| s.name.as_str()));
        let parts = Parts {
            registry: registry.clone(),
            metrics,
            sources: sources.into_iter().map(Watched::new).collect(),
            bounds,
            expositions: EncodedExpositions::default(),
        };
        let (scrapes, queue) = mpsc::channel(QUEUE);
        tokio::spawn(flight::serve(Arc::new(parts), queue));
        Aggregate { registry, scrapes }
    }

    /// The most series of our own that the page can ever have.
    pub fn max_series(&self) -> usize {
        self.registry.max_series()
    }

    /// The page as it is wanted. A scraper that waits less long than the sources take gets the page
    /// with what has been fetched by then. `None` only while the process ends.
    pub async fn scrape(
        &self,
        wanted: ScrapeFormat,
        scraper_waits: Option<Duration>,
    ) -> Option<Arc<EncodedExposition>> {
        let (reply, exposition) = oneshot::channel();
        let times = Times::of(Instant::now(), scraper_waits);
        let scrape = Scrape {
            wanted,
            times,
            reply,
        };
        self.scrapes.send(scrape).await.ok()?;
        exposition.await.ok()
    }
}

impl Times {
    fn of(now: Instant, scraper_waits: Option<Duration>) -> Times {
        let Some(patience) = scraper_waits else {
            return Times {
                fetched: None,
                answered: None,
            };
        };
        // Short patience is shared by halves: nothing would be left after the reserve.
        let fetch = patience.saturating_sub(RESERVE).max(patience / 2);
        // What came in time is still read, before what did not come is left out.
        let answer = fetch + patience.saturating_sub(fetch) / 2;
        Times {
            fetched: now.checked_add(fetch),
            answered: now.checked_add(answer),
        }
    }
}

impl Parts {
    /// Merges the pages into our own and writes it in each of these forms.
    async fn write(
        self: &Arc<Self>,
        forms: &Arc<[ScrapeFormat]>,
        fetched: Vec<Fetched>,
    ) -> Vec<(ScrapeFormat, Arc<EncodedExposition>)> {
        let encode = |fetched| {
            let (this, forms) = (Arc::clone(self), Arc::clone(forms));
            tokio::task::spawn_blocking(move || this.encode(&forms, fetched))
        };
        let written = match encode(fetched).await {
            Ok(written) => written,
            // It panicked, over a page that no test has: ours is still there.
            Err(_) => encode(Vec::new()).await.unwrap_or_default(),
        };
        let written = written.into_iter();
        written
            .map(|(form, bytes)| (form, self.expositions.add(bytes)))
            .collect()
    }

    fn encode(&self, forms: &[ScrapeFormat], fetched: Vec<Fetched>) -> Vec<(ScrapeFormat, Bytes)> {
        let mut page = self.registry.gather();
        let mut counted = Vec::with_capacity(fetched.len());
        for fetched in fetched {
            let Fetched {
                source,
                page: other,
                dropped,
            } = fetched;
            let lost = page.merge(other, self.sources[source].name());
            if let Some(mut dropped) = dropped {
                dropped += lost;
                self.metrics.source(source).count(&dropped);
                counted.push(source);
            }
        }
        let (encoded, omitted) = ScrapeFormat::encode(&page, forms);
        for source in counted {
            let malformed = omitted.of(self.sources[source].name());
            self.metrics.source(source).count(&DroppedSamples {
                malformed,
                ..DroppedSamples::default()
            });
        }
        encoded
    }
}
