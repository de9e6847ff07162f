//! One declaration for each family: a field of a struct, whose doc comment is the HELP text and
//! whose type says the kind and the labels.

use std::collections::HashMap;

use prometheus::core::Collector;
use prometheus::{GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, Opts};

use super::cells::{Counters, Gauge, Gauges, Histograms};
use super::label::LabelSet;
use crate::exposition::MetricType;

/// A type of families: counters, gauges or histograms.
pub trait Family: Sized {
    /// The combinations of its labels.
    type Set: LabelSet;
    /// What holds the metrics of all combinations.
    type Vec: Collector + Clone + 'static;

    /// The type as the exposition names it.
    const TYPE: MetricType;

    /// How many series one combination of label values prints.
    fn series(buckets: &[f64]) -> usize;

    /// Makes the collector.
    ///
    /// # Errors
    /// If a name is not valid, or the buckets do not ascend.
    fn collector(opts: Opts, labels: &[&str], buckets: &[f64]) -> prometheus::Result<Self::Vec>;

    /// The cells whose first labels have the values `first`, and whose other labels are those of
    /// the set.
    fn cells(collector: &Self::Vec, first: &[&str]) -> Self;

    /// Removes the metric of a combination of label values, if there is one.
    fn remove(collector: &Self::Vec, values: &[&str]);

    /// Removes the metrics whose label of this name has this value.
    fn forget(collector: &Self::Vec, label: &str, value: &str);

    /// Makes a family without labels print before anything is recorded, where that is right.
    fn start(&self);
}

macro_rules! family {
    ($cells:ident, $vec:ty, $type:ident, $series:expr, $collector:expr, $start:expr) => {
        impl<S: LabelSet> Family for $cells<S> {
            type Set = S;
            type Vec = $vec;

            const TYPE: MetricType = MetricType::$type;

            fn series(buckets: &[f64]) -> usize {
                $series(buckets)
            }

            fn collector(
                opts: Opts,
                labels: &[&str],
                buckets: &[f64],
            ) -> prometheus::Result<Self::Vec> {
                $collector(opts, labels, buckets)
            }

            fn cells(collector: &Self::Vec, first: &[&str]) -> Self {
                Self::new(collector, first)
            }

            fn remove(collector: &Self::Vec, values: &[&str]) {
                // It fails only if there is no such metric.
                let _ = collector.remove_label_values(values);
            }

            fn forget(collector: &Self::Vec, label: &str, value: &str) {
                for family in collector.collect() {
                    for metric in family.get_metric() {
                        let labels = metric.get_label().iter();
                        let labels: HashMap<_, _> =
                            labels.map(|pair| (pair.name(), pair.value())).collect();
                        if labels.get(label) == Some(&value) {
                            // It fails only if it is gone already.
                            let _ = collector.remove(&labels);
                        }
                    }
                }
            }

            fn start(&self) {
                if let Some(unlabelled) = S::UNLABELLED {
                    $start(self, unlabelled);
                }
            }
        }
    };
}

family!(
    Counters,
    IntCounterVec,
    Counter,
    |_| 1,
    |opts, labels, _| IntCounterVec::new(opts, labels),
    Self::touch
);
// A gauge that was never set knows nothing: it prints once it is set.
family!(
    Gauges,
    GaugeVec,
    Gauge,
    |_| 1,
    |opts, labels, _| GaugeVec::new(opts, labels),
    |_, _| ()
);
family!(
    Histograms,
    HistogramVec,
    Histogram,
    // The buckets, that for `+Inf`, sum and count.
    |buckets: &[f64]| buckets.len() + 3,
    |common_opts, labels, buckets: &[f64]| {
        let buckets = buckets.to_vec();
        let opts = HistogramOpts {
            common_opts,
            buckets,
        };
        HistogramVec::new(opts, labels)
    },
    Self::touch
);

/// A family whose first label has values that are known at run time only, such as the name of an
/// upstream. Each value has cells of its own.
pub struct PerValue<F: Family>(PerValueParts<F>);

/// What a [`PerValue`] is made of.
pub(super) struct PerValueParts<F: Family> {
    pub(super) collector: F::Vec,
    /// The name of the first label.
    pub(super) label: &'static str,
    /// How many series one value has at most.
    pub(super) series: usize,
    /// Notes how many series the family has at most.
    pub(super) resize: Box<dyn Fn(usize) + Send + Sync>,
}

impl<F: Family> PerValue<F> {
    pub(super) fn new(parts: PerValueParts<F>) -> Self {
        Self(parts)
    }

    /// From now on there are at most so many values.
    pub fn resize(&self, values: usize) {
        (self.0.resize)(values * self.0.series);
    }

    /// The cells of a value. The caller sees to it that there are never more values than were
    /// declared.
    pub fn cells(&self, value: &str) -> F {
        F::cells(&self.0.collector, &[value])
    }

    /// Removes the series of a value and a combination of the other labels.
    pub fn remove(&self, value: &str, set: F::Set) {
        let mut others = Vec::new();
        set.values(&mut others);
        let values: Vec<&str> = [value].into_iter().chain(others).collect();
        F::remove(&self.0.collector, &values);
    }

    /// Removes all series of a value.
    pub fn forget(&self, value: &str) {
        F::forget(&self.0.collector, self.0.label, value);
    }
}

impl PerValue<Gauge> {
    /// Sets the gauge of a value, without making cells for it.
    pub fn set(&self, value: &str, number: f64) {
        self.0.collector.with_label_values(&[value]).set(number);
    }
}
