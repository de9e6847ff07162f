//! One declaration for each family: a field of a struct, whose doc comment is the HELP text and
//! whose type says the kind and the labels.

use prometheus::core::Collector;
use prometheus::{GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, Opts};

#[doc(inline)]
pub use crate::families;

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
pub struct PerValue<F: Family>(F::Vec);

impl<F: Family> PerValue<F> {
    pub(super) fn new(collector: F::Vec) -> Self {
        Self(collector)
    }

    /// The cells of a value. The caller sees to it that there are never more values than were
    /// declared.
    pub fn cells(&self, value: &str) -> F {
        F::cells(&self.0, &[value])
    }

    /// Removes the series of a value and a combination of the other labels.
    pub fn remove(&self, value: &str, set: F::Set) {
        let mut others = Vec::new();
        set.values(&mut others);
        let values: Vec<&str> = [value].into_iter().chain(others).collect();
        F::remove(&self.0, &values);
    }
}

impl PerValue<Gauge> {
    /// Sets the gauge of a value, without making cells for it.
    pub fn set(&self, value: &str, number: f64) {
        self.0.with_label_values(&[value]).set(number);
    }
}

/// Declares a struct of families.
///
/// The doc comment of a field is the family's HELP text, its type says what is counted by which
/// labels, and the name in quotes, after the registry's prefix, is the family's. Histograms name
/// their buckets after `in`.
///
/// ```
/// use service::metrics::{Counters, Histograms, Label, MetricsRegistry, families, labels};
///
/// labels! {
///     /// The side that cut a transfer.
///     pub enum Side: "side" { Client = "client", Upstream = "upstream" }
/// }
/// families! {
///     /// The families of transfers.
///     pub struct Transfers {
///         /// Transfers that were cut, by the side that cut them; counted when they end.
///         pub aborted: Counters<Side> = "transfers_aborted_total",
///         /// How long transfers took; observed when they end.
///         pub duration: Histograms<()> = "transfer_duration_seconds" in [0.1, 1.0, 10.0],
///     }
/// }
/// let registry = MetricsRegistry::new("octoserve_");
/// let transfers = Transfers::declare(&registry);
/// transfers.aborted.inc(Side::Client);
/// ```
///
/// With `by "LABEL"` after the struct's name every family has a first label of that name, whose
/// values are known at run time only; each field is a [`PerValue`], and `declare` is told how many
/// values there may be.
#[macro_export]
macro_rules! families {
    (
        $(#[$meta:meta])*
        $vis:vis struct $name:ident {
            $(
                $(#[doc = $help:literal])+
                $field_vis:vis $field:ident: $family:ty = $metric:literal $(in $buckets:expr)?
            ),+ $(,)?
        }
    ) => {
        $(#[$meta])*
        $vis struct $name {
            $(
                $(#[doc = $help])+
                $field_vis $field: $family
            ),+
        }

        impl $name {
            /// Declares the families.
            $vis fn declare(registry: &$crate::metrics::MetricsRegistry) -> Self {
                Self {
                    $(
                        $field: registry.declare(
                            $metric,
                            concat!($($help),+),
                            $crate::families!(@buckets $($buckets)?),
                        )
                    ),+
                }
            }
        }
    };
    (
        $(#[$meta:meta])*
        $vis:vis struct $name:ident by $label:literal {
            $(
                $(#[doc = $help:literal])+
                $field_vis:vis $field:ident: $family:ty = $metric:literal $(in $buckets:expr)?
            ),+ $(,)?
        }
    ) => {
        $(#[$meta])*
        $vis struct $name {
            $(
                $(#[doc = $help])+
                $field_vis $field: $crate::metrics::PerValue<$family>
            ),+
        }

        impl $name {
            /// Declares the families, for so many values of the first label.
            $vis fn declare(
                registry: &$crate::metrics::MetricsRegistry,
                values: usize,
            ) -> Self {
                Self {
                    $(
                        $field: registry.declare_per_value(
                            ($label, values),
                            $metric,
                            concat!($($help),+),
                            $crate::families!(@buckets $($buckets)?),
                        )
                    ),+
                }
            }
        }
    };
    (@buckets) => { &[] };
    (@buckets $buckets:expr) => { &$buckets[..] };
}
