//! The exposition page: one model for what is gathered, parsed, merged and written.
//!
//! A page keeps the text it was made from and points into it, so that a foreign sample's number
//! is written as it was spelt, and a page of a hundred thousand samples costs its text and 32 bytes
//! a sample. [`Registry`] gathers our own page, [`Page::parse`] reads somebody else's, and
//! [`Page::merge`] joins them into one valid page whatever they hold.
//!
//! Whatever a page holds, Prometheus, promtool and the strict OpenMetrics parser of Python's
//! `prometheus_client` read what is written of it: [`Page::parse`] drops what one of them refuses in
//! both formats, [`Page::write_openmetrics`] does without what only OpenMetrics forbids.
//!
//! Formats: [text 0.0.4] and [OpenMetrics 1.0]. Deliberately not here: protobuf, native
//! histograms, exemplars (read over), and names quoted as in Prometheus 3, which nobody sends to a
//! scraper that did not ask for them.
//!
//! [text 0.0.4]: https://prometheus.io/docs/instrumenting/exposition_formats/
//! [OpenMetrics 1.0]: https://prometheus.io/docs/specs/om/open_metrics_spec/

mod claims;
mod escape;
mod gather;
mod index;
mod lex;
mod merge;
mod model;
mod negotiate;
mod number;
mod openmetrics;
mod parse;
mod registry;
mod resolve;
mod text;

use std::collections::BTreeMap;
use std::ops::AddAssign;
use std::sync::Arc;

pub use model::{Family, Page, Sample};
pub use negotiate::{Format, OPENMETRICS_CONTENT_TYPE, TEXT_CONTENT_TYPE, accepts_gzip, negotiate};
pub use registry::{Described, Registry};

/// What a family's samples mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
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

impl Kind {
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
    fn suffixes(self) -> &'static [&'static str] {
        match self {
            Self::Histogram => &["_bucket", "_sum", "_count"],
            Self::Summary => &["_sum", "_count"],
            Self::Counter | Self::Gauge | Self::Untyped => &[],
        }
    }

    /// What follows a family's name in the names of its samples.
    fn endings(self) -> impl Iterator<Item = &'static str> {
        let bare = self.has_bare_samples().then_some("");
        bare.into_iter().chain(self.suffixes().iter().copied())
    }

    /// Whether a sample may carry the family's name alone.
    fn has_bare_samples(self) -> bool {
        self != Self::Histogram
    }
}

/// How much of a foreign page is taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes; what follows the last whole line within them is dropped. At most 4 GiB count.
    pub max_bytes: usize,
    /// Samples; what follows them is dropped.
    pub max_samples: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_bytes: 64 << 20,
            max_samples: 500_000,
        }
    }
}

/// What was left out of a page, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Samples whose family had been declared with another type, or whose name belongs to another
    /// family.
    pub type_conflict: u64,
    /// Samples of a series that the page held already.
    pub duplicate: u64,
    /// Lines that are not of the format, as everybody reads it (see [`Page::parse`]).
    pub malformed: u64,
    /// Samples over one of the [`Limits`].
    pub limit: u64,
}

impl Dropped {
    /// The sum of all reasons.
    pub fn total(&self) -> u64 {
        self.type_conflict + self.duplicate + self.malformed + self.limit
    }
}

impl AddAssign for Dropped {
    fn add_assign(&mut self, other: Self) {
        self.type_conflict += other.type_conflict;
        self.duplicate += other.duplicate;
        self.malformed += other.malformed;
        self.limit += other.limit;
    }
}

/// Samples that a page holds and that were left out of it while it was written, because the format
/// forbids them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Those of our own by the empty name.
    by_source: BTreeMap<Arc<str>, u64>,
}

impl LeftOut {
    /// How many were of this source.
    pub fn of(&self, source: &str) -> u64 {
        self.by_source.get(source).copied().unwrap_or_default()
    }

    /// How many there were of all sources.
    pub fn total(&self) -> u64 {
        self.by_source.values().sum()
    }
}

#[cfg(test)]
mod properties;
