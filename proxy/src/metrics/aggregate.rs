//! How the aggregation of other pages goes.

use prometheus::{Gauge, IntCounter};
use service::exposition::DroppedSamples;
use service::metrics::MetricsRegistry;

/// The `aggregate_*` families.
pub struct AggregateMetrics {
    sources: Vec<SourceCells>,
}

/// The cells of one source.
pub struct SourceCells {
    /// 1 after a scrape that succeeded, else 0.
    pub up: Gauge,
    /// How long the last scrape took, in seconds.
    pub duration: Gauge,
    /// How many samples the last scrape brought.
    pub samples: Gauge,
    /// When a scrape last succeeded, in seconds since 1970.
    pub last_success: Gauge,
    type_conflict: IntCounter,
    duplicate: IntCounter,
    malformed: IntCounter,
    limit: IntCounter,
}

impl AggregateMetrics {
    /// Registers the families, with a cell for each source.
    pub fn new<'a>(
        registry: &MetricsRegistry,
        sources: impl ExactSizeIterator<Item = &'a str>,
    ) -> AggregateMetrics {
        let label = &["source"];
        let most = sources.len();
        let up = registry.gauge_vec(
            "aggregate_up",
            "Whether the source's page was fetched and read; set at each scrape.",
            label,
            most,
        );
        let duration = registry.gauge_vec(
            "aggregate_duration_seconds",
            "How long fetching and reading the source's page took; set at each scrape.",
            label,
            most,
        );
        let samples = registry.gauge_vec(
            "aggregate_samples",
            "Samples read from the source's page; set at each scrape, 0 after a failed one.",
            label,
            most,
        );
        let last_success = registry.gauge_vec(
            "aggregate_last_success_timestamp_seconds",
            "When the source's page was last fetched and read, in seconds since 1970; 0 before \
             the first time.",
            label,
            most,
        );
        let dropped = registry.counter_vec(
            "aggregate_dropped_samples_total",
            "Samples of the source left out of the page, by reason; counted when the page is \
             made, so that the next one tells.",
            &["source", "reason"],
            4 * most,
        );
        let sources = sources
            .map(|source| SourceCells {
                up: up.with_label_values(&[source]),
                duration: duration.with_label_values(&[source]),
                samples: samples.with_label_values(&[source]),
                last_success: last_success.with_label_values(&[source]),
                type_conflict: dropped.with_label_values(&[source, "type_conflict"]),
                duplicate: dropped.with_label_values(&[source, "duplicate"]),
                malformed: dropped.with_label_values(&[source, "malformed"]),
                limit: dropped.with_label_values(&[source, "limit"]),
            })
            .collect();
        AggregateMetrics { sources }
    }

    /// The cells of the source at `index`, in the order of registration.
    pub fn source(&self, index: usize) -> &SourceCells {
        &self.sources[index]
    }
}

impl SourceCells {
    /// Counts what was left out.
    pub fn count(&self, dropped: &DroppedSamples) {
        self.type_conflict.inc_by(dropped.type_conflict);
        self.duplicate.inc_by(dropped.duplicate);
        self.malformed.inc_by(dropped.malformed);
        self.limit.inc_by(dropped.limit);
    }
}
