//! The families of a program, and the exposition they make.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;
use prometheus::{GaugeVec, Opts};

use super::family::{Family, PerValue, PerValueParts};
use super::label::LabelSet as _;
use crate::exposition::{Exposition, ExpositionBuilder, FamilyDescription, MetricType, push_label};

/// Where families are declared and gathered. Clones are the same registry; there is no global one.
///
/// Names, label names and buckets are constants of the program. A wrong one panics when it is
/// declared, so that no test gets past it; a name declared twice is noted in
/// [`MetricsRegistry::duplicates`].
#[derive(Clone)]
pub struct MetricsRegistry(Arc<SharedFamilies>);

struct SharedFamilies {
    prefix: String,
    /// What every sample carries beside its own labels, as the exposition spells it: `a="b",c="d"`.
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
        Self(Arc::new(SharedFamilies {
            prefix: prefix.to_owned(),
            constant,
            collector: prometheus::Registry::new(),
            declared: Mutex::default(),
            duplicates: Mutex::default(),
            hooks: Mutex::default(),
        }))
    }

    /// Declares a family. [`families!`](super::families) is the way to call this.
    ///
    /// Nothing prints until it is touched, but for counters and histograms without labels, which
    /// print from the start.
    pub fn declare<F: Family>(&self, name: &str, help: &str, buckets: &[f64]) -> F {
        let labels = names::<F>(&[]);
        let family = F::cells(&self.collector::<F>(name, help, &labels, buckets, 1), &[]);
        family.start();
        family
    }

    /// Declares a family whose first label, given by its name, has values that are not known
    /// beforehand, and how many of them there are at most.
    pub fn declare_per_value<F: Family>(
        &self,
        (label, values): (&'static str, usize),
        name: &str,
        help: &str,
        buckets: &[f64],
    ) -> PerValue<F> {
        let labels = names::<F>(&[label]);
        let collector = self.collector::<F>(name, help, &labels, buckets, values);
        let (registry, name) = (self.clone(), format!("{}{name}", self.0.prefix));
        PerValue::new(PerValueParts {
            collector,
            label,
            series: F::Set::COUNT * F::series(buckets),
            resize: Box::new(move |series| registry.resize(&name, series)),
        })
    }

    /// A family prints at most so many series from now on.
    fn resize(&self, name: &str, max_series: usize) {
        if let Some(family) = self.0.declared.lock().get_mut(name) {
            family.max_series = max_series;
        }
    }

    fn collector<F: Family>(
        &self,
        name: &str,
        help: &str,
        labels: &[&'static str],
        buckets: &[f64],
        values: usize,
    ) -> F::Vec {
        let name = format!("{}{name}", self.0.prefix);
        // A doc comment begins with a space.
        let help = help.trim();
        self.note(FamilyDescription {
            name: name.clone(),
            kind: F::TYPE,
            help: help.to_owned(),
            labels: labels.iter().map(ToString::to_string).collect(),
            max_series: values * F::Set::COUNT * F::series(buckets),
        });
        let collector = valid(F::collector(Opts::new(name, help), labels, buckets));
        self.register(Box::new(collector.clone()));
        collector
    }

    /// Declares `build_info`, always 1, whose labels say what is running.
    pub fn build_info(&self, version: &str, revision: &str, rustc: &str) {
        let help = "Always 1; the labels say what is running.";
        let labels = ["version", "revision", "rustc"];
        let name = format!("{}build_info", self.0.prefix);
        self.note(FamilyDescription {
            name: name.clone(),
            kind: MetricType::Gauge,
            help: help.to_owned(),
            labels: labels.map(str::to_owned).into(),
            max_series: 1,
        });
        // Not by `declare`: these values are not a closed set, so they have no cells.
        let gauge = valid(GaugeVec::new(Opts::new(name, help), &labels));
        gauge
            .with_label_values(&[version, revision, rustc])
            .set(1.0);
        self.register(Box::new(gauge));
    }

    /// Declares the `process_*` families (without the prefix), read from the kernel at each
    /// gathering.
    pub fn process(&self) {
        let collector = ProcessCollector::for_self();
        for desc in collector.desc() {
            // A description has no type, but the crate's names follow the convention.
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

    /// The exposition as it is now: every declared family with help and type, by name.
    pub fn gather(&self) -> Exposition {
        // A hook may declare or gather itself, so none runs under the lock.
        let hooks = self.0.hooks.lock().clone();
        for hook in hooks {
            hook();
        }
        let gathered = self.0.collector.gather();
        let mut gathered = gathered.iter().peekable();
        let mut exposition = ExpositionBuilder::new(&self.0.constant);
        // Both are sorted by name, so one walk pairs them.
        for described in self.0.declared.lock().values() {
            let name = described.name.as_str();
            while gathered.next_if(|next| next.name() < name).is_some() {}
            // Even where nothing was gathered: HELP and TYPE print from the start.
            exposition.add(described, gathered.next_if(|next| next.name() == name));
        }
        exposition.finish()
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
    fn note(&self, family: FamilyDescription) {
        let mut declared = self.0.declared.lock();
        if declared.contains_key(&family.name) {
            self.0.duplicates.lock().push(family.name);
        } else {
            declared.insert(family.name.clone(), family);
        }
    }

    /// Fails for a name declared twice only, which `note` has seen.
    fn register(&self, collector: Box<dyn Collector>) {
        let _ = self.0.collector.register(collector);
    }
}

impl fmt::Debug for MetricsRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MetricsRegistry")
            .field(&self.0.prefix)
            .finish()
    }
}

#[expect(
    clippy::expect_used,
    reason = "names, labels and buckets are constants: the first start finds a wrong one"
)]
fn valid<T>(declared: prometheus::Result<T>) -> T {
    declared.expect("a valid name, valid labels, ascending buckets")
}

/// The names of a family's labels, those in front first.
fn names<F: Family>(first: &[&'static str]) -> Vec<&'static str> {
    let mut names = first.to_vec();
    F::Set::names(&mut names);
    names
}

#[cfg(test)]
mod tests;
