//! Fetching the sources, and merging what they say into the exposition.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use service::exposition::{DroppedSamples, Exposition};
use service::metrics::MetricsRegistry;
use service::scrape::{EncodedExposition, EncodedExpositions, ScrapeFormat};
use tokio::time::timeout;

use super::fetch::{self, FetchError};
use super::source::{Origin, Source, WatchedSource};
use crate::metrics::{AggregateFamilies, AggregateMetrics};

/// The family that says whether an exposition has a source's samples.
const UP: &str = "octoserve_aggregate_up";

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

/// What a round needs.
pub(super) struct Aggregation {
    pub(super) registry: MetricsRegistry,
    pub(super) metrics: AggregateMetrics,
    pub(super) sources: Vec<WatchedSource>,
    pub(super) limits: AggregateLimits,
    pub(super) expositions: Arc<EncodedExpositions>,
}

/// The exposition of a source, by its number, and the samples that were dropped from it, unless they
/// have been counted.
pub(super) struct Fetched {
    pub(super) source: usize,
    pub(super) exposition: Exposition,
    pub(super) dropped: Option<DroppedSamples>,
}

impl Aggregation {
    pub(super) fn new(
        registry: &MetricsRegistry,
        families: &AggregateFamilies,
        sources: Vec<Source>,
        limits: AggregateLimits,
        expositions: Arc<EncodedExpositions>,
    ) -> Aggregation {
        let names = sources.iter().map(|source| source.name.as_str());
        Aggregation {
            registry: registry.clone(),
            metrics: AggregateMetrics::new(families, names),
            sources: sources.into_iter().map(WatchedSource::new).collect(),
            limits,
            expositions,
        }
    }

    /// Merges the expositions into the proxy's own, and encodes it in each of these formats. `late` are the
    /// sources that were not waited for.
    pub(super) async fn write(
        self: &Arc<Self>,
        formats: &Arc<[ScrapeFormat]>,
        fetched: Vec<Fetched>,
        late: &[usize],
    ) -> Vec<(ScrapeFormat, Arc<EncodedExposition>)> {
        let encode = |fetched| {
            let (this, formats) = (Arc::clone(self), Arc::clone(formats));
            let late = late.to_vec();
            // To merge and encode megabytes would hold up all connections of the worker.
            tokio::task::spawn_blocking(move || this.encode(&formats, fetched, &late))
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
        late: &[usize],
    ) -> Vec<(ScrapeFormat, Bytes)> {
        let mut merged = self.registry.gather();
        for &source in late {
            // This one lacks its samples, whatever the others have.
            let source = ("source", self.sources[source].name());
            merged.set_to_zero(UP, source);
        }
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

impl Aggregation {
    /// Fetches and parses a source's exposition, and records how that ended.
    pub(super) async fn fetch(self: Arc<Self>, source: usize) -> Option<Fetched> {
        let watched = &self.sources[source];
        let started = Instant::now();
        let read = self.read(&watched.source).await;
        watched.note(read.as_ref().err());
        let cells = self.metrics.source(source);
        cells.duration.set((), started.elapsed().as_secs_f64());
        let Ok((exposition, dropped)) = read else {
            cells.samples.set((), 0.0);
            cells.up.set((), 0.0);
            return None;
        };
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        cells
            .last_success
            .set((), now.map_or(0.0, |now| now.as_secs_f64()));
        cells.samples.set((), exposition.sample_count() as f64);
        cells.up.set((), 1.0);
        Some(Fetched {
            source,
            exposition,
            dropped: Some(dropped),
        })
    }

    async fn read(&self, source: &Source) -> Result<(Exposition, DroppedSamples), FetchError> {
        let request = match &source.origin {
            Origin::Endpoint(request) => request,
            Origin::InProcess(registry) => {
                let registry = registry.clone();
                let gathered = tokio::task::spawn_blocking(move || registry.gather()).await;
                // A panic while gathering is a scrape that failed, as any other.
                let exposition = gathered.map_err(|_| FetchError::Unreadable)?;
                return Ok((exposition, DroppedSamples::default()));
            }
        };
        let max_bytes = self.limits.max_bytes;
        // Only the fetch waits for another process. The limits bound the parsing.
        let body = timeout(self.limits.timeout, fetch::get(request, max_bytes)).await;
        let body = body.map_err(|_| FetchError::Timeout)??;
        fetch::parse(body, max_bytes, self.limits.max_samples).await
    }
}
