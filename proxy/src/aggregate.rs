//! One exposition out of many: the proxy's own metrics, and those of its sources.
//!
//! A source can be slow, large, malformed or gone, and is never more than a gap in the exposition:
//! the `aggregate_*` families tell what happens to it, and the exposition is always there.
//!
//! One [round](round) of fetches serves all scrapes that arrive while it is in flight, so that many
//! scrapers cost as little memory as one.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use service::admin::Scrape;
use service::exposition::{DroppedSamples, Exposition};
use service::metrics::MetricsRegistry;
use service::net::HttpUrl;
use service::scrape::ScrapeFormat;
use service::scrape::{EncodedExposition, EncodedExpositions};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::metrics::AggregateMetrics;

mod fetch;
mod round;
mod source;

use source::WatchedSource;

/// The part of a scraper's timeout that is left for merging and sending the exposition.
const RESERVE: Duration = Duration::from_millis(500);

/// Scrapes that wait to be accepted by a round; more wait for a slot in this queue.
const QUEUE: usize = 64;

/// A source of metrics beside the proxy's own.
#[derive(Clone, Debug)]
pub struct Source {
    /// The value of the `source` label.
    pub name: String,
    /// Where its exposition comes from.
    pub origin: Origin,
}

/// Where an exposition comes from.
#[derive(Clone, Debug)]
pub enum Origin {
    /// A metrics endpoint.
    Endpoint(HttpUrl),
    /// Families in this process, which are gathered: no text, no socket.
    InProcess(MetricsRegistry),
}

/// The limits of one aggregated scrape.
#[derive(Clone, Copy, Debug)]
pub struct AggregateLimits {
    /// How long a source may take.
    pub timeout: Duration,
    /// How many bytes its exposition may have.
    pub max_bytes: usize,
    /// How many of its samples are read.
    pub max_samples: usize,
}

/// Merges the expositions.
pub struct Aggregate {
    registry: MetricsRegistry,
    scrapes: mpsc::Sender<PendingScrape>,
}

/// A scrape that waits for its exposition.
struct PendingScrape {
    format: ScrapeFormat,
    deadlines: Deadlines,
    reply: oneshot::Sender<Arc<EncodedExposition>>,
}

/// When a scrape times out; `None` where the scraper did not tell its timeout.
#[derive(Clone, Copy, Debug)]
struct Deadlines {
    /// The sources have this long.
    fetch: Option<Instant>,
    /// Then the scraper gets what is there.
    respond: Option<Instant>,
}

/// What a round needs.
struct Aggregation {
    registry: MetricsRegistry,
    metrics: AggregateMetrics,
    sources: Vec<WatchedSource>,
    limits: AggregateLimits,
    expositions: EncodedExpositions,
}

/// The exposition of a source, by its number, and the samples that were dropped from it, unless they
/// have been counted.
struct Fetched {
    source: usize,
    exposition: Exposition,
    dropped: Option<DroppedSamples>,
}

impl Aggregate {
    /// Merges the families of `registry` with the sources. Must be called within a tokio runtime.
    pub fn new(
        registry: MetricsRegistry,
        sources: Vec<Source>,
        limits: AggregateLimits,
    ) -> Aggregate {
        let metrics = AggregateMetrics::new(&registry, sources.iter().map(|s| s.name.as_str()));
        let aggregation = Aggregation {
            registry: registry.clone(),
            metrics,
            sources: sources.into_iter().map(WatchedSource::new).collect(),
            limits,
            expositions: EncodedExpositions::default(),
        };
        let (scrapes, queue) = mpsc::channel(QUEUE);
        tokio::spawn(round::serve(Arc::new(aggregation), queue));
        Aggregate { registry, scrapes }
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
        let deadlines = Deadlines::of(Instant::now(), timeout);
        let scrape = PendingScrape {
            format,
            deadlines,
            reply,
        };
        self.scrapes.send(scrape).await.ok()?;
        exposition.await.ok()
    }
}

impl Deadlines {
    fn of(now: Instant, timeout: Option<Duration>) -> Deadlines {
        let Some(timeout) = timeout else {
            return Deadlines {
                fetch: None,
                respond: None,
            };
        };
        // A timeout too short for the reserve is halved: else the sources would have no time.
        let fetch = timeout.saturating_sub(RESERVE).max(timeout / 2);
        // What was fetched in time is still parsed, before the rest is left out.
        let respond = fetch + timeout.saturating_sub(fetch) / 2;
        Deadlines {
            fetch: now.checked_add(fetch),
            respond: now.checked_add(respond),
        }
    }
}

impl Aggregation {
    /// Merges the expositions into the proxy's own, and encodes it in each of these formats.
    async fn write(
        self: &Arc<Self>,
        formats: &Arc<[ScrapeFormat]>,
        fetched: Vec<Fetched>,
    ) -> Vec<(ScrapeFormat, Arc<EncodedExposition>)> {
        let encode = |fetched| {
            let (this, formats) = (Arc::clone(self), Arc::clone(formats));
            tokio::task::spawn_blocking(move || this.encode(&formats, fetched))
        };
        let written = match encode(fetched).await {
            Ok(written) => written,
            // It panicked over an exposition that no test has: the proxy's own can still be served.
            Err(_) => encode(Vec::new()).await.unwrap_or_default(),
        };
        let written = written.into_iter();
        written
            .map(|(format, bytes)| (format, self.expositions.add(bytes)))
            .collect()
    }

    fn encode(
        &self,
        formats: &[ScrapeFormat],
        fetched: Vec<Fetched>,
    ) -> Vec<(ScrapeFormat, Bytes)> {
        let mut merged = self.registry.gather();
        let mut counted = Vec::with_capacity(fetched.len());
        for fetched in fetched {
            let Fetched {
                source,
                exposition,
                dropped,
            } = fetched;
            let lost = merged.merge(exposition, self.sources[source].name());
            if let Some(mut dropped) = dropped {
                dropped += lost;
                self.metrics.source(source).count(&dropped);
                counted.push(source);
            }
        }
        let (encoded, omitted) = ScrapeFormat::encode(&merged, formats);
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
