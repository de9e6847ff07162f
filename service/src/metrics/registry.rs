//! The families of a program, and the page they make.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;
use prometheus::{GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, Opts};

use super::cells::{Counter, Counters, Gauge, Gauges, Histogram, Histograms};
use super::label::LabelSet;
use crate::exposition::{Exposition, FamilyDescription, Gathered, MetricType, push_label};

/// Where families are declared and gathered. Clones are the same registry; there is no global one.
///
/// Names, label names and buckets are constants of the program. A wrong one panics when it is
/// declared, so that no test gets past it; a name declared twice is noted in
/// [`MetricsRegistry::duplicates`].
#[derive(Clone)]
pub struct MetricsRegistry(Arc<Families>);

struct Families {
    prefix: String,
    /// What every sample carries beside its own labels, as the page spells it: `a="b",c="d"`.
    constant: String,
    collector: prometheus::Registry,
    declared: Mutex<BTreeMap<String, FamilyDescription>>,
    duplicates: Mutex<Vec<String>>,
    hooks: Mutex<Vec<Arc<dyn Fn() + Send + Sync>>>,
}

impl MetricsRegistry {
    /// An empty registry that puts `prefix` before every name.
    pub fn new(prefix: &str) -> Self {
        Self::labelled(prefix, &BTreeMap::new())
    }

    /// The same, whose every sample carries these labels, too. No family may have one of their
    /// names.
    pub fn labelled(prefix: &str, labels: &BTreeMap<String, String>) -> Self {
        let mut constant = String::new();
        for (name, value) in labels {
            if !constant.is_empty() {
                constant.push(',');
            }
            push_label(name, value, &mut constant);
        }
        Self(Arc::new(Families {
            prefix: prefix.to_owned(),
            constant,
            collector: prometheus::Registry::new(),
            declared: Mutex::default(),
            duplicates: Mutex::default(),
            hooks: Mutex::default(),
        }))
    }

    /// Declares counters; nothing prints until it is touched.
    pub fn counters<S: LabelSet>(&self, name: &str, help: &str, labels: &[&str]) -> Counters<S> {
        let opts = self.describe::<S>(name, MetricType::Counter, help, labels, 1);
        let vec = valid(IntCounterVec::new(opts, labels));
        self.collect(&vec);
        Counters::new(&vec)
    }

    /// Declares gauges; nothing prints until it is touched.
    pub fn gauges<S: LabelSet>(&self, name: &str, help: &str, labels: &[&str]) -> Gauges<S> {
        let opts = self.describe::<S>(name, MetricType::Gauge, help, labels, 1);
        let vec = valid(GaugeVec::new(opts, labels));
        self.collect(&vec);
        Gauges::new(&vec)
    }

    /// Declares histograms with the given upper bounds, in ascending order and without `+Inf`;
    /// nothing prints until it is touched.
    pub fn histograms<S: LabelSet>(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        buckets: &[f64],
    ) -> Histograms<S> {
        let series = series_of_one(buckets);
        let opts = HistogramOpts {
            common_opts: self.describe::<S>(name, MetricType::Histogram, help, labels, series),
            buckets: buckets.to_vec(),
        };
        let vec = valid(HistogramVec::new(opts, labels));
        self.collect(&vec);
        Histograms::new(&vec)
    }

    /// Declares a counter without labels, which prints from the start.
    pub fn counter(&self, name: &str, help: &str) -> Counter {
        let counter = self.counters(name, help, &[]);
        counter.touch(());
        counter
    }

    /// Declares a gauge without labels, which prints once it is set: before that it knows nothing.
    pub fn gauge(&self, name: &str, help: &str) -> Gauge {
        self.gauges(name, help, &[])
    }

    /// Declares a histogram without labels, which prints from the start.
    pub fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Histogram {
        let histogram = self.histograms(name, help, &[], buckets);
        histogram.touch(());
        histogram
    }

    /// Declares counters whose label values are not known beforehand. The caller sees to it that
    /// there are never more than `most` combinations of them.
    pub fn counter_vec(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        most: usize,
    ) -> IntCounterVec {
        let opts = self.note_family(name, MetricType::Counter, help, labels, most);
        let vec = valid(IntCounterVec::new(opts, labels));
        self.collect(&vec);
        vec
    }

    /// Declares gauges whose label values are not known beforehand. The caller sees to it that
    /// there are never more than `most` combinations of them.
    pub fn gauge_vec(&self, name: &str, help: &str, labels: &[&str], most: usize) -> GaugeVec {
        let opts = self.note_family(name, MetricType::Gauge, help, labels, most);
        let vec = valid(GaugeVec::new(opts, labels));
        self.collect(&vec);
        vec
    }

    /// Declares histograms, as [`MetricsRegistry::histograms`] does, whose label values are not known
    /// beforehand. The caller sees to it that there are never more than `most` combinations of
    /// them.
    pub fn histogram_vec(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        buckets: &[f64],
        most: usize,
    ) -> HistogramVec {
        let series = most * series_of_one(buckets);
        let opts = HistogramOpts {
            common_opts: self.note_family(name, MetricType::Histogram, help, labels, series),
            buckets: buckets.to_vec(),
        };
        let vec = valid(HistogramVec::new(opts, labels));
        self.collect(&vec);
        vec
    }

    /// Declares `build_info`, always 1, whose labels say what is running.
    pub fn build_info(&self, version: &str, revision: &str, rustc: &str) {
        let help = "Always 1; the labels say what is running.";
        let vec = self.gauge_vec("build_info", help, &["version", "revision", "rustc"], 1);
        vec.with_label_values(&[version, revision, rustc]).set(1.0);
    }

    /// Declares the `process_*` families (without the prefix), read from the kernel at each
    /// gathering.
    pub fn process(&self) {
        let collector = ProcessCollector::for_self();
        for desc in collector.desc() {
            let kind = if desc.fq_name.ends_with("_total") {
                MetricType::Counter
            } else {
                MetricType::Gauge
            };
            self.note(FamilyDescription {
                name: desc.fq_name.clone(),
                kind,
                help: desc.help.clone(),
                labels: Vec::new(),
                max_series: 1,
            });
        }
        self.register(Box::new(collector));
    }

    /// Has `refresh` called at the start of every gathering, to bring gauges up to date.
    pub fn before_gather(&self, refresh: impl Fn() + Send + Sync + 'static) {
        self.0.hooks.lock().push(Arc::new(refresh));
    }

    /// The page as it is now: every declared family with help and type, by name.
    pub fn gather(&self) -> Exposition {
        // A hook may declare or gather itself, so none runs under the lock.
        let hooks = self.0.hooks.lock().clone();
        for hook in hooks {
            hook();
        }
        let gathered = self.0.collector.gather();
        let mut gathered = gathered.iter().peekable();
        let mut page = Gathered::new(&self.0.constant);
        for described in self.0.declared.lock().values() {
            let name = described.name.as_str();
            while gathered.next_if(|next| next.name() < name).is_some() {}
            page.add(described, gathered.next_if(|next| next.name() == name));
        }
        page.page()
    }

    /// The declared families, by name.
    pub fn families(&self) -> Vec<FamilyDescription> {
        self.0.declared.lock().values().cloned().collect()
    }

    /// The most series that all families together can ever print, whatever happens.
    pub fn max_series(&self) -> usize {
        let declared = self.0.declared.lock();
        declared.values().map(|family| family.max_series).sum()
    }

    /// Names that were declared more than once: a mistake, of which only the first declaration
    /// prints. A test of every program keeps this empty.
    pub fn duplicates(&self) -> Vec<String> {
        self.0.duplicates.lock().clone()
    }
}

impl MetricsRegistry {
    fn describe<S: LabelSet>(
        &self,
        name: &str,
        kind: MetricType,
        help: &str,
        labels: &[&str],
        series: usize,
    ) -> Opts {
        assert_eq!(
            labels.len(),
            S::WIDTH,
            "{name}: as many label names as the set has labels"
        );
        self.note_family(name, kind, help, labels, S::COUNT * series)
    }

    fn note_family(
        &self,
        name: &str,
        kind: MetricType,
        help: &str,
        labels: &[&str],
        max_series: usize,
    ) -> Opts {
        let name = format!("{}{name}", self.0.prefix);
        let opts = Opts::new(name.clone(), help.to_owned());
        let labels = labels.iter().map(ToString::to_string).collect();
        self.note(FamilyDescription {
            name,
            kind,
            help: help.to_owned(),
            labels,
            max_series,
        });
        opts
    }

    fn note(&self, family: FamilyDescription) {
        let mut declared = self.0.declared.lock();
        if declared.contains_key(&family.name) {
            self.0.duplicates.lock().push(family.name);
        } else {
            declared.insert(family.name.clone(), family);
        }
    }

    fn collect<C: Collector + Clone + 'static>(&self, collector: &C) {
        self.register(Box::new(collector.clone()));
    }

    /// Fails for a name declared twice only, which `note` has seen.
    fn register(&self, collector: Box<dyn Collector>) {
        let _ = self.0.collector.register(collector);
    }
}

#[expect(
    clippy::expect_used,
    reason = "names, labels and buckets are constants: the first start finds a wrong one"
)]
fn valid<T>(declared: prometheus::Result<T>) -> T {
    declared.expect("a valid name, valid labels, ascending buckets")
}

/// How many series one histogram is: its buckets, that for `+Inf`, sum and count.
fn series_of_one(buckets: &[f64]) -> usize {
    buckets.len() + 3
}

#[cfg(test)]
mod tests;
