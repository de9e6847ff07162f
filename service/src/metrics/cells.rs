//! Where a family counts: an array with one cell for each combination of label values.
//!
//! A cell is resolved to its metric on first use, once. From then on recording is an index and an
//! atomic instruction: no hash, no lock, no allocation. A cell that was never touched prints
//! nothing, so an idle exposition stays small.
//!
//! The `prometheus` crate looks a metric up by its label values under a lock, with an allocation;
//! closed labels make that unnecessary.

use std::marker::PhantomData;
use std::sync::{Arc, OnceLock};

use prometheus::core::{Metric, MetricVec, MetricVecBuilder};
use prometheus::{Gauge as GaugeHandle, GaugeVec, Histogram as HistogramHandle, HistogramVec};
use prometheus::{IntCounter, IntCounterVec};

use super::label::LabelSet;

/// A counter without labels.
pub type Counter = Counters<()>;
/// A gauge without labels.
pub type Gauge = Gauges<()>;
/// A histogram without labels.
pub type Histogram = Histograms<()>;

/// A family of counters. Clones share their cells.
#[derive(Clone)]
pub struct Counters<S>(FamilyCells<S, IntCounter>);

impl<S: LabelSet> Counters<S> {
    pub(super) fn new(vec: &IntCounterVec, first: &[&str]) -> Self {
        Self(FamilyCells::new(vec, first))
    }

    /// Counts one.
    #[inline]
    pub fn inc(&self, set: S) {
        self.0.get(set).inc();
    }

    /// Counts `n`.
    #[inline]
    pub fn add(&self, set: S, n: u64) {
        self.0.get(set).inc_by(n);
    }

    /// Makes the cell print, 0 if nothing was counted.
    pub fn touch(&self, set: S) {
        self.0.get(set);
    }

    /// What was counted; 0 for a cell that was never touched.
    pub fn value(&self, set: S) -> u64 {
        self.0.peek(set).map_or(0, IntCounter::get)
    }
}

/// A family of gauges. Clones share their cells.
#[derive(Clone)]
pub struct Gauges<S>(FamilyCells<S, GaugeHandle>);

impl<S: LabelSet> Gauges<S> {
    pub(super) fn new(vec: &GaugeVec, first: &[&str]) -> Self {
        Self(FamilyCells::new(vec, first))
    }

    /// Sets the value.
    #[inline]
    pub fn set(&self, set: S, value: f64) {
        self.0.get(set).set(value);
    }

    /// Adds to the value.
    #[inline]
    pub fn add(&self, set: S, delta: f64) {
        self.0.get(set).add(delta);
    }

    /// Subtracts from the value.
    #[inline]
    pub fn sub(&self, set: S, delta: f64) {
        self.0.get(set).sub(delta);
    }

    /// Makes the cell print, 0 if nothing was set.
    pub fn touch(&self, set: S) {
        self.0.get(set);
    }

    /// The value; 0 for a cell that was never touched.
    pub fn value(&self, set: S) -> f64 {
        self.0.peek(set).map_or(0.0, GaugeHandle::get)
    }
}

/// A family of histograms. Clones share their cells.
#[derive(Clone)]
pub struct Histograms<S>(FamilyCells<S, HistogramHandle>);

impl<S: LabelSet> Histograms<S> {
    pub(super) fn new(vec: &HistogramVec, first: &[&str]) -> Self {
        Self(FamilyCells::new(vec, first))
    }

    /// Records one observation. NaN would make the sum NaN for ever, so it is left out.
    #[inline]
    pub fn observe(&self, set: S, value: f64) {
        if !value.is_nan() {
            self.0.get(set).observe(value);
        }
    }

    /// Makes the cell print, with no observation if there was none.
    pub fn touch(&self, set: S) {
        self.0.get(set);
    }

    /// How many observations there were.
    pub fn count(&self, set: S) -> u64 {
        self.0
            .peek(set)
            .map_or(0, HistogramHandle::get_sample_count)
    }
}

/// One cell for each combination of `S`.
struct FamilyCells<S, M> {
    shared: Arc<CellArray<M>>,
    // `fn(S)`, because a family takes an `S` and holds none.
    set: PhantomData<fn(S)>,
}

/// Makes the handle for a combination's values.
type Resolve<M> = dyn Fn(&[&'static str]) -> M + Send + Sync;

struct CellArray<M> {
    resolve: Box<Resolve<M>>,
    cells: Box<[OnceLock<M>]>,
}

impl<S: LabelSet, M: Metric + 'static> FamilyCells<S, M> {
    fn new<B>(vec: &MetricVec<B>, first: &[&str]) -> Self
    where
        B: MetricVecBuilder<M = M>,
        MetricVec<B>: 'static,
    {
        let vec = vec.clone();
        let first: Vec<String> = first.iter().map(ToString::to_string).collect();
        let shared = CellArray {
            resolve: Box::new(move |values| {
                // The labels are declared in this order: those in front, then those of the set.
                let mut all: Vec<&str> = first.iter().map(String::as_str).collect();
                all.extend(values);
                vec.with_label_values(&all)
            }),
            cells: (0..S::COUNT).map(|_| OnceLock::new()).collect(),
        };
        Self {
            shared: Arc::new(shared),
            set: PhantomData,
        }
    }

    #[inline]
    fn get(&self, set: S) -> &M {
        // In two steps: only the common one is inlined wherever something is counted.
        let cell = &self.shared.cells[set.index()];
        match cell.get() {
            Some(metric) => metric,
            None => cell.get_or_init(|| self.resolve(set)),
        }
    }

    #[cold]
    fn resolve(&self, set: S) -> M {
        let mut values = Vec::new();
        set.values(&mut values);
        (self.shared.resolve)(&values)
    }

    fn peek(&self, set: S) -> Option<&M> {
        // Not `get`: to read a cell must not make it print.
        self.shared.cells[set.index()].get()
    }
}

impl<S, M> Clone for FamilyCells<S, M> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            set: PhantomData,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Label as _;

    crate::labels! {
        /// Test label.
        enum Colour: "colour" { Red = "red", Green = "green", Blue = "blue" }
        /// Test label.
        enum Size: "size" { Small = "small", Large = "large" }
    }

    #[test]
    fn a_tuple_numbers_its_combinations_without_gap_or_clash() {
        let mut seen = Vec::new();
        for &colour in Colour::ALL {
            for &size in Size::ALL {
                for &again in Colour::ALL {
                    seen.push((colour, size, again).index());
                }
            }
        }
        assert_eq!(
            seen,
            (0..<(Colour, Size, Colour)>::COUNT).collect::<Vec<_>>()
        );
    }

    #[test]
    fn values_come_in_the_order_of_the_tuple() {
        let mut values = Vec::new();
        ((Colour::Blue, Size::Small), Colour::Red).values(&mut values);
        assert_eq!(values, ["blue", "small", "red"]);
        let mut names = Vec::new();
        <((Colour, Size), Colour)>::names(&mut names);
        assert_eq!(names, ["colour", "size", "colour"]);
    }

    #[test]
    fn the_empty_set_has_one_cell() {
        assert_eq!((<()>::COUNT, ().index()), (1, 0));
    }

    #[test]
    fn clones_share_their_cells() {
        let vec = IntCounterVec::new(prometheus::Opts::new("c", "h"), &["colour"]).unwrap();
        let first = Counters::<Colour>::new(&vec, &[]);
        let second = first.clone();
        first.inc(Colour::Red);
        second.add(Colour::Red, 2);
        assert_eq!(first.value(Colour::Red), 3);
        assert_eq!(first.value(Colour::Green), 0);
    }

    #[test]
    fn cells_of_a_value_print_it_before_their_own() {
        let opts = prometheus::Opts::new("c", "h");
        let vec = IntCounterVec::new(opts, &["upstream", "colour"]).unwrap();
        let main = Counters::<Colour>::new(&vec, &["main"]);
        let other = Counters::<Colour>::new(&vec, &["other"]);
        main.add(Colour::Red, 2);
        other.inc(Colour::Red);
        assert_eq!(vec.with_label_values(&["main", "red"]).get(), 2);
        assert_eq!(main.value(Colour::Red), 2);
        assert_eq!(other.value(Colour::Blue), 0);
    }

    #[test]
    fn an_observation_that_is_not_a_number_is_ignored() {
        let vec = HistogramVec::new(prometheus::HistogramOpts::new("h", "h"), &["colour"]).unwrap();
        let cells = Histograms::<Colour>::new(&vec, &[]);
        cells.observe(Colour::Red, f64::NAN);
        cells.observe(Colour::Red, 1.0);
        assert_eq!(cells.count(Colour::Red), 1);
    }
}
