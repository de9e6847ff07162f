//! Builds an exposition from gathered families.
//!
//! It writes the text and notes the positions in it at once, so our own text is never parsed.

use std::fmt::Write as _;

use prometheus::proto::{self, Metric, MetricFamily};

use super::escape::{escape_help, escape_label};
use super::labels::LabelPairs;
use super::metric_type::MetricType;
use super::model::{
    Exposition, FamilyData, FamilyPart, HAS_SOURCE, LE, NEGATIVE, PLAIN, SampleData, SourceText,
    TextSpan,
};
use super::number::{push_bound, push_value};
use super::series::SeriesHasher;

/// A declared family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FamilyDescription {
    /// The name with the registry's prefix.
    pub name: String,
    /// What its samples mean.
    pub kind: MetricType,
    /// Its help text.
    pub help: String,
    /// The names of its labels.
    pub labels: Vec<String>,
    /// The most series it can ever print.
    pub max_series: usize,
}

/// Builds an exposition, family by family.
pub struct ExpositionBuilder<'c> {
    /// The labels that every sample carries, as text, and what they add to its hash.
    constant: (&'c str, u64),
    hasher: SeriesHasher,
    text: String,
    samples: Vec<SampleData>,
    families: Vec<FamilyData>,
}

/// The labels of one metric, as the exposition spells them.
#[derive(Default)]
struct MetricLabels {
    text: String,
    hash: u64,
    flags: u8,
}

impl<'c> ExpositionBuilder<'c> {
    /// An empty exposition, whose samples will all carry the labels `constant`.
    pub fn new(constant: &'c str) -> Self {
        let hasher = SeriesHasher::get();
        let labels = LabelPairs::new(constant);
        // Summed once: hashes of labels add up in any order, so each metric can start from this.
        let hash = labels.fold(0, |hash: u64, (name, value)| {
            hash.wrapping_add(hasher.label(name, value))
        });
        Self {
            constant: (constant, hash),
            hasher,
            text: String::with_capacity(64 << 10),
            samples: Vec::with_capacity(1 << 10),
            families: Vec::new(),
        }
    }

    /// Adds a family with what was gathered of it.
    pub fn add(&mut self, described: &FamilyDescription, gathered: Option<&MetricFamily>) {
        self.text.push_str("# HELP ");
        let name_span = self.span(|text| text.push_str(&described.name));
        self.text.push(' ');
        let help = self.span(|text| escape_help(&described.help, false, text));
        let (name, kind) = (&described.name, described.kind.as_str());
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "\n# TYPE {name} {kind}");
        let start = self.samples.len();
        if let Some(family) = gathered {
            self.samples(name, family);
        }
        let part = FamilyPart {
            text: 0,
            samples: start..self.samples.len(),
            source: None,
        };
        self.families.push(FamilyData {
            name: (0, name_span),
            help: Some((0, help)),
            kind: described.kind,
            parts: if part.samples.is_empty() {
                Vec::new()
            } else {
                vec![part]
            },
        });
    }

    /// Returns the exposition.
    pub fn finish(self) -> Exposition {
        Exposition {
            texts: vec![SourceText {
                content: self.text.into(),
                openmetrics: false,
                samples: self.samples,
            }],
            families: self.families,
        }
    }

    fn samples(&mut self, name: &str, family: &MetricFamily) {
        let hash = self.hasher.name(name);
        let [bucket, sum, count] = ["_bucket", "_sum", "_count"].map(|suffix| {
            let name = format!("{name}{suffix}");
            let hash = self.hasher.name(&name);
            (name, hash)
        });
        // Outside the loop: all metrics of the family share the buffer and the spelled bounds.
        let mut labels = MetricLabels::default();
        let mut bounds = BucketBounds::default();
        for metric in family.get_metric() {
            labels.of(metric, self.constant, self.hasher);
            match family.get_field_type() {
                proto::MetricType::COUNTER => {
                    let value = metric.get_counter().get_value();
                    self.sample((name, hash), &labels, None, value);
                }
                proto::MetricType::GAUGE => {
                    let value = metric.get_gauge().get_value();
                    self.sample((name, hash), &labels, None, value);
                }
                proto::MetricType::HISTOGRAM => {
                    let histogram = metric.get_histogram();
                    let all = histogram.get_sample_count() as f64;
                    for (at, each) in histogram.get_bucket().iter().enumerate() {
                        let bound = bounds.get(at, each.upper_bound(), self.hasher);
                        let cumulative = each.cumulative_count() as f64;
                        self.sample((&bucket.0, bucket.1), &labels, Some(bound), cumulative);
                    }
                    // The crate gathers no bucket for `+Inf`: it is the count of all observations.
                    let last = histogram.get_bucket().len();
                    let bound = bounds.get(last, f64::INFINITY, self.hasher);
                    self.sample((&bucket.0, bucket.1), &labels, Some(bound), all);
                    let total = histogram.get_sample_sum();
                    self.sample((&sum.0, sum.1), &labels, None, total);
                    self.sample((&count.0, count.1), &labels, None, all);
                }
                // This crate declares neither.
                proto::MetricType::SUMMARY | proto::MetricType::UNTYPED => {}
            }
        }
    }

    fn sample(
        &mut self,
        (name, name_hash): (&str, u64),
        labels: &MetricLabels,
        bound: Option<(&str, u64)>,
        value: f64,
    ) {
        let (bound, bound_hash) = bound.unwrap_or_default();
        let text = &mut self.text;
        let start = text.len();
        text.push_str(name);
        let has_labels = !labels.text.is_empty() || !bound.is_empty();
        let mut labels_len = 0;
        if has_labels {
            text.push('{');
            let before = text.len();
            text.push_str(&labels.text);
            if !labels.text.is_empty() && !bound.is_empty() {
                text.push(',');
            }
            text.push_str(bound);
            labels_len = text.len() - before;
            text.push('}');
        }
        text.push(' ');
        let before = text.len();
        push_value(value, text);
        let value_len = text.len() - before;
        text.push('\n');
        let hash = name_hash.wrapping_add(labels.hash).wrapping_add(bound_hash);
        self.samples.push(SampleData {
            hash,
            family: 0,
            start: wide(start),
            labels_len: wide(labels_len),
            name_len: narrow(name.len()),
            // The opening brace; the closing one, and a space.
            labels_gap: u16::from(has_labels),
            value_gap: 1 + u16::from(has_labels),
            value_len: narrow(value_len),
            flags: labels.flags | with(LE, !bound.is_empty()) | with(NEGATIVE, value < 0.0),
        });
    }

    fn span(&mut self, write: impl FnOnce(&mut String)) -> TextSpan {
        let start = self.text.len();
        write(&mut self.text);
        TextSpan {
            start: wide(start),
            len: wide(self.text.len() - start),
        }
    }
}

impl MetricLabels {
    fn of(
        &mut self,
        metric: &Metric,
        (constant, constant_hash): (&str, u64),
        hasher: SeriesHasher,
    ) {
        self.text.clear();
        self.hash = constant_hash;
        self.flags = PLAIN;
        for label in metric.get_label() {
            if !self.text.is_empty() {
                self.text.push(',');
            }
            let name = label.name();
            // Hashes are made of values as they are written, as the parser does it, so that both
            // compare.
            let start = self.text.len() + name.len() + "=\"".len();
            push_label(name, label.value(), &mut self.text);
            let escaped = &self.text[start..self.text.len() - 1];
            self.hash = self.hash.wrapping_add(hasher.label(name, escaped));
            // Merging adds a `source` of its own, and must rename this one.
            if name == "source" {
                self.flags |= HAS_SOURCE;
            }
        }
        if !constant.is_empty() {
            if !self.text.is_empty() {
                self.text.push(',');
            }
            self.text.push_str(constant);
        }
    }
}

/// The `le` labels of a family, each written once: nearly always all its metrics have the same.
#[derive(Default)]
struct BucketBounds(Vec<(f64, String, u64)>);

impl BucketBounds {
    fn get(&mut self, at: usize, bound: f64, hasher: SeriesHasher) -> (&str, u64) {
        if self
            .0
            .get(at)
            .is_none_or(|(known, ..)| known.total_cmp(&bound).is_ne())
        {
            // What follows is of metrics with other bounds.
            self.0.truncate(at);
            let mut text = String::from("le=\"");
            push_bound(bound, &mut text);
            let hash = hasher.label("le", &text[4..]);
            text.push('"');
            self.0.push((bound, text, hash));
        }
        // Always there: a missing one has just been added.
        self.0
            .get(at)
            .map_or(("", 0), |(_, text, hash)| (text, *hash))
    }
}

/// Appends a label as the exposition spells it.
pub fn push_label(name: &str, value: &str, out: &mut String) {
    out.push_str(name);
    out.push_str("=\"");
    escape_label(value, out);
    out.push('"');
}

/// Our own exposition is far smaller than the 4 GiB that a text may have.
fn wide(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

fn with(flag: u8, is_set: bool) -> u8 {
    if is_set { flag } else { 0 }
}

/// Names are constants of the program, and values are short.
fn narrow(length: usize) -> u16 {
    u16::try_from(length).unwrap_or(u16::MAX)
}
