//! One page out of many: the proxy's own metrics, and those of the registries behind it.
//!
//! A source can be slow, large, wrong or gone, and is never more than a gap on the page: whatever
//! happens to it is told by the `aggregate_*` families, and the page is always there.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use registry::service::exposition::{Dropped, Limits, Page, Registry};
use registry::service::page::Wanted;
use tokio::sync::Semaphore;

use crate::metrics::AggregateMetrics;

pub mod fetch;

use fetch::{FetchError, Location};

/// The part of a scraper's patience that is left for merging and sending the page.
const RESERVE: Duration = Duration::from_millis(500);

/// Pages made at a time; more wait. Each may hold what its sources sent.
const AT_ONCE: usize = 8;

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
    registry: Registry,
    metrics: AggregateMetrics,
    sources: Vec<Source>,
    bounds: Bounds,
    turns: Semaphore,
}

/// What a fetched source is worth.
enum Fetched {
    Page(Page, Dropped),
    Failed(FetchError),
}

impl Aggregate {
    /// A page of `registry`'s families and the sources'.
    pub fn new(registry: Registry, sources: Vec<Source>, bounds: Bounds) -> Aggregate {
        let metrics = AggregateMetrics::new(&registry, sources.iter().map(|s| s.name.as_str()));
        Aggregate {
            registry,
            metrics,
            sources,
            bounds,
            turns: Semaphore::new(AT_ONCE),
        }
    }

    /// The most series of our own that the page can ever have.
    pub fn max_series(&self) -> usize {
        self.registry.max_series()
    }

    /// The page as it is wanted. The sources get less time than `scraper_waits`, so that a slow one
    /// costs its own samples and not the whole scrape.
    pub async fn page(self: &Arc<Self>, wanted: Wanted, scraper_waits: Option<Duration>) -> Bytes {
        let _turn = self.turns.acquire().await;
        let deadline = self.deadline(scraper_waits);
        let fetches: Vec<_> = (0..self.sources.len())
            .map(|index| tokio::spawn(Arc::clone(self).fetch(index, deadline)))
            .collect();
        let mut pages = Vec::with_capacity(fetches.len());
        for (index, fetch) in fetches.into_iter().enumerate() {
            // A source whose parsing panicked is a source that failed.
            let outcome = fetch
                .await
                .unwrap_or(Fetched::Failed(FetchError::Unreadable));
            if let Fetched::Page(page, dropped) = outcome {
                pages.push((index, page, dropped));
            }
        }
        let this = Arc::clone(self);
        let written = tokio::task::spawn_blocking(move || this.write(wanted, pages)).await;
        written.unwrap_or_else(|_| Bytes::from_static(b"# the page could not be written\n"))
    }

    fn deadline(&self, scraper_waits: Option<Duration>) -> Duration {
        let patience = scraper_waits.unwrap_or(Duration::MAX);
        // Short patience is shared by halves: nothing would be left after the reserve.
        let patience = patience.saturating_sub(RESERVE).max(patience / 2);
        self.bounds.timeout.min(patience)
    }

    async fn fetch(self: Arc<Self>, index: usize, deadline: Duration) -> Fetched {
        let source = &self.sources[index];
        let started = Instant::now();
        let limit = self.bounds.max_bytes;
        let body = fetch::get(&source.location, limit);
        let fetched = match tokio::time::timeout(deadline, body).await {
            Err(_) => Fetched::Failed(FetchError::Timeout),
            Ok(Err(error)) => Fetched::Failed(error),
            Ok(Ok(body)) => {
                let limits = Limits {
                    max_bytes: limit,
                    max_samples: self.bounds.max_samples,
                };
                match tokio::task::spawn_blocking(move || Page::parse(body, &limits)).await {
                    // Not one line of it was of the format: HTML, or bytes.
                    Ok((page, dropped)) if page.sample_count() == 0 && dropped.malformed > 0 => {
                        Fetched::Failed(FetchError::Unreadable)
                    }
                    Ok((page, dropped)) => Fetched::Page(page, dropped),
                    Err(_) => Fetched::Failed(FetchError::Unreadable),
                }
            }
        };
        let cells = self.metrics.source(index);
        cells.duration.set(started.elapsed().as_secs_f64());
        match &fetched {
            Fetched::Page(page, _) => {
                let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
                cells
                    .last_success
                    .set(now.map_or(0.0, |now| now.as_secs_f64()));
                cells.samples.set(page.sample_count() as f64);
                if cells.up.get() < 1.0 {
                    tracing::info!(source = source.name, "the source's metrics are there");
                }
                cells.up.set(1.0);
            }
            Fetched::Failed(error) => {
                if cells.up.get() > 0.0 || cells.last_success.get() == 0.0 {
                    tracing::warn!(source = source.name, %error, "the source's metrics are missing");
                }
                cells.samples.set(0.0);
                cells.up.set(0.0);
            }
        }
        fetched
    }

    fn write(&self, wanted: Wanted, pages: Vec<(usize, Page, Dropped)>) -> Bytes {
        let mut page = self.registry.gather();
        for (index, other, mut dropped) in pages {
            dropped += page.merge(other, &self.sources[index].name);
            self.metrics.source(index).count(&dropped);
        }
        let (encoded, left_out) = wanted.encode_counting(&page);
        for (index, source) in self.sources.iter().enumerate() {
            let malformed = left_out.of(&source.name);
            self.metrics.source(index).count(&Dropped {
                malformed,
                ..Dropped::default()
            });
        }
        encoded
    }
}
