//! How the scrapes of the sources go.

use service::exposition::DroppedSamples;
use service::metrics::{Counters, Gauge, families, labels};

labels! {
    /// Why a sample of a source was dropped.
    pub enum DropReason: "reason" {
        TypeConflict = "type_conflict",
        Duplicate = "duplicate",
        Malformed = "malformed",
        Limit = "limit",
    }
}

families! {
    /// The `aggregate_*` families.
    pub struct AggregateFamilies by "source" {
        /// Whether the last scrape of the source succeeded; set at each scrape. 0, too, in a response that
        /// could not wait for the source.
        up: Gauge = "aggregate_up",
        /// Time to fetch and parse the source's exposition; set at each scrape.
        duration: Gauge = "aggregate_duration_seconds",
        /// Samples read from the source; set at each scrape, 0 after a failed one.
        samples: Gauge = "aggregate_samples",
        /// Time of the last successful scrape of the source, in seconds since 1970; 0 before the
        /// first.
        last_success: Gauge = "aggregate_last_success_timestamp_seconds",
        /// Samples of the source that were dropped, by reason; counted while the exposition is
        /// written, so that the next scrape shows them.
        dropped: Counters<DropReason> = "aggregate_dropped_samples_total",
    }
}

/// The cells of all sources.
pub struct AggregateMetrics {
    sources: Vec<SourceCells>,
}

/// The cells of one source.
pub struct SourceCells {
    /// 1 after a scrape that succeeded, else 0.
    pub up: Gauge,
    /// How long the last scrape took, in seconds.
    pub duration: Gauge,
    /// How many samples the last scrape read.
    pub samples: Gauge,
    /// When a scrape last succeeded, in seconds since 1970.
    pub last_success: Gauge,
    dropped: Counters<DropReason>,
}

impl AggregateMetrics {
    /// The cells of these sources. Those of a source that was there before go on counting.
    pub fn new<'a>(
        families: &AggregateFamilies,
        sources: impl ExactSizeIterator<Item = &'a str>,
    ) -> AggregateMetrics {
        families.resize(sources.len());
        let sources = sources.map(|source| families.cells(source)).collect();
        AggregateMetrics { sources }
    }

    /// The cells of the source at `index`, in the order of declaration.
    pub fn source(&self, index: usize) -> &SourceCells {
        &self.sources[index]
    }
}

impl AggregateFamilies {
    /// The cells of a source, all of which print from now on.
    fn cells(&self, source: &str) -> SourceCells {
        let cells = SourceCells {
            up: self.up.cells(source),
            duration: self.duration.cells(source),
            samples: self.samples.cells(source),
            last_success: self.last_success.cells(source),
            dropped: self.dropped.cells(source),
        };
        for gauge in [
            &cells.up,
            &cells.duration,
            &cells.samples,
            &cells.last_success,
        ] {
            // A source that was never scraped shows as down, and not as missing.
            gauge.touch(());
        }
        // Adds nothing, and makes each reason appear at 0, where a rate can begin.
        cells.count(&DroppedSamples::default());
        cells
    }
}

impl SourceCells {
    /// Counts samples that were dropped.
    pub fn count(&self, dropped: &DroppedSamples) {
        // Destructured, so that a new reason is not forgotten here.
        let &DroppedSamples {
            type_conflict,
            duplicate,
            malformed,
            limit,
        } = dropped;
        self.dropped.add(DropReason::TypeConflict, type_conflict);
        self.dropped.add(DropReason::Duplicate, duplicate);
        self.dropped.add(DropReason::Malformed, malformed);
        self.dropped.add(DropReason::Limit, limit);
    }
}
