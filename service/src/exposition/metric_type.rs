//! The types of metrics.

/// What a family's samples mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MetricType {
    /// Only grows, but for restarts.
    Counter,
    /// Goes up and down. OpenMetrics' `info` and `stateset` are read as gauges.
    Gauge,
    /// Counts in cumulative buckets, with a sum.
    Histogram,
    /// Quantiles, with a count and a sum.
    Summary,
    /// Nobody said; `unknown` in OpenMetrics.
    Untyped,
}

impl MetricType {
    /// The word after `# TYPE` in the text format.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::Summary => "summary",
            Self::Untyped => "untyped",
        }
    }

    /// What a family of this kind appends to its name, beside the samples that carry the name
    /// alone.
    pub(super) fn suffixes(self) -> &'static [&'static str] {
        match self {
            Self::Histogram => &["_bucket", "_sum", "_count"],
            Self::Summary => &["_sum", "_count"],
            Self::Counter | Self::Gauge | Self::Untyped => &[],
        }
    }

    /// What follows a family's name in the names of its samples.
    pub(super) fn endings(self) -> impl Iterator<Item = &'static str> {
        let bare = self.has_bare_samples().then_some("");
        bare.into_iter().chain(self.suffixes().iter().copied())
    }

    /// Whether a sample may carry the family's name alone.
    pub(super) fn has_bare_samples(self) -> bool {
        self != Self::Histogram
    }
}
