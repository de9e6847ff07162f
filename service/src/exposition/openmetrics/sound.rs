//! Whether samples are a histogram or a summary in OpenMetrics' sense: the samples of one metric
//! (one label set, but for `le` or `quantile`) stand together and have one timestamp; buckets come
//! in the order of their bounds, end with `+Inf` and never count fewer; there are a sum and a
//! count, or neither; counts are whole numbers, and nothing is negative.

use std::collections::HashSet;

use crate::exposition::labels::LabelPairs;
use crate::exposition::metric_type::MetricType;
use crate::exposition::model::Sample;
use crate::exposition::number::is_count;
use crate::exposition::series::SeriesHasher;

/// Looks at the parts of one family, one after the other.
pub(super) struct Soundness<'a> {
    family: &'a str,
    is_histogram: bool,
    hasher: SeriesHasher,
    /// The metrics so far.
    seen: HashSet<u64>,
    /// The last sample name, and its hash.
    name: (&'a str, u64),
}

/// What was said of one metric so far.
#[derive(Clone, Copy, Default)]
struct PartialMetric {
    timestamp: Option<i64>,
    bucket: Option<Bucket>,
    negative_bounds: bool,
    count: Option<f64>,
    has_sum: bool,
}

#[derive(Clone, Copy, PartialEq)]
struct Bucket {
    bound: f64,
    count: f64,
}

impl<'a> Soundness<'a> {
    pub(super) fn new(family: &'a str, kind: MetricType) -> Self {
        Self {
            family,
            is_histogram: kind == MetricType::Histogram,
            hasher: SeriesHasher::get(),
            seen: HashSet::new(),
            name: ("", 0),
        }
    }

    /// Whether these samples are sound, and of no metric that was there before.
    pub(super) fn holds(&mut self, samples: impl Iterator<Item = Sample<'a>>) -> bool {
        self.check(samples).is_some()
    }

    fn check(&mut self, samples: impl Iterator<Item = Sample<'a>>) -> Option<()> {
        let mut last: Option<(u64, PartialMetric)> = None;
        for sample in samples {
            let suffix = sample.name().strip_prefix(self.family)?;
            let divider = match suffix {
                "_bucket" => Some("le"),
                "" => Some("quantile"),
                _ => None,
            };
            let label = divider.and_then(|divider| {
                LabelPairs::new(sample.raw_labels()).find(|(name, _)| *name == divider)
            });
            let id = self.metric(&sample, label);
            let mut metric = match last {
                Some((known, metric)) if known == id => metric,
                _ => {
                    self.end(last)?;
                    // A metric that comes back was interrupted by another one, which OpenMetrics
                    // forbids.
                    self.seen.insert(id).then(|| PartialMetric {
                        timestamp: sample.timestamp_ms(),
                        ..PartialMetric::default()
                    })?
                }
            };
            let bound = label.map(|(_, bound)| bound);
            metric.add(suffix, bound, &sample)?;
            last = Some((id, metric));
        }
        self.end(last)
    }

    /// The hash of a sample's labels without the one that divides its metric.
    fn metric(&mut self, sample: &Sample<'a>, label: Option<(&str, &str)>) -> u64 {
        if sample.name() != self.name.0 {
            self.name = (sample.name(), self.hasher.name(sample.name()));
        }
        let label = label.map_or(0, |(name, value)| self.hasher.label(name, value));
        // The hash is a sum, so subtraction takes out the name and the label.
        sample
            .data
            .hash
            .wrapping_sub(self.name.1)
            .wrapping_sub(label)
    }

    fn end(&self, last: Option<(u64, PartialMetric)>) -> Option<()> {
        match last {
            Some((_, metric)) if self.is_histogram => metric.is_histogram().then_some(()),
            _ => Some(()),
        }
    }
}

impl PartialMetric {
    /// Adds a sample, if it goes with those before.
    fn add(&mut self, suffix: &str, bound: Option<&str>, sample: &Sample<'_>) -> Option<()> {
        let value = sample.value();
        let fits = match suffix {
            "_bucket" => self.add_bucket(bound?, value),
            "_count" => {
                self.count = Some(value);
                is_count(value)
            }
            "_sum" => {
                self.has_sum = true;
                value >= 0.0
            }
            // A quantile, whose value may be NaN.
            _ => {
                let quantile: f64 = bound?.parse().ok()?;
                (0.0..=1.0).contains(&quantile) && (value >= 0.0 || value.is_nan())
            }
        };
        (fits && sample.timestamp_ms() == self.timestamp).then_some(())
    }

    fn add_bucket(&mut self, bound: &str, count: f64) -> bool {
        let spelling = bound;
        let Ok(bound) = bound.parse::<f64>() else {
            return false;
        };
        self.negative_bounds |= bound < 0.0;
        let follows = self
            .bucket
            .is_none_or(|last| bound > last.bound && count >= last.count);
        self.bucket = Some(Bucket { bound, count });
        // Rust also reads `inf` and `Infinity`, but OpenMetrics demands the spelling `+Inf`.
        follows && is_count(count) && (bound != f64::INFINITY || spelling == "+Inf")
    }

    /// Whether the metric, which is whole now, is a histogram.
    fn is_histogram(self) -> bool {
        let Some(Bucket { bound, count }) = self.bucket else {
            return false;
        };
        bound == f64::INFINITY
            // Both are whole numbers.
            && self.count.is_none_or(|all| (all - count).abs() < 0.5)
            && self.has_sum == self.count.is_some()
            // Negative observations could make the sum fall, so it is forbidden beside such bounds.
            && !(self.negative_bounds && self.has_sum)
    }
}
