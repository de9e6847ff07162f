//! The exposition: one model for what is gathered, parsed, merged and written.
//!
//! An exposition keeps the text it was made from and points into it, so that a foreign sample's
//! number keeps the text that it came with, and an exposition of a hundred thousand samples costs its
//! text and 32 bytes a sample. [`MetricsRegistry`](crate::metrics::MetricsRegistry) gathers our own exposition,
//! [`Exposition::parse`] reads somebody else's, and
//! [`Exposition::merge`] joins them into one valid exposition whatever they hold.
//!
//! Whatever an exposition holds, Prometheus, promtool and the strict OpenMetrics parser of Python's
//! `prometheus_client` read what is written of it: [`Exposition::parse`] drops what one of them
//! refuses in both formats, [`Exposition::write_openmetrics`] does without what only OpenMetrics
//! forbids.
//!
//! Formats: [text 0.0.4] and [OpenMetrics 1.0]. Deliberately not here: protobuf, native
//! histograms, exemplars (read over), and names quoted as in Prometheus 3, which nobody sends to a
//! scraper that did not ask for them.
//!
//! [text 0.0.4]: https://prometheus.io/docs/instrumenting/exposition_formats/
//! [OpenMetrics 1.0]: https://prometheus.io/docs/specs/om/open_metrics_spec/

mod amend;
mod claims;
mod cursor;
mod escape;
mod gather;
mod labels;
mod limits;
mod merge;
mod metric_type;
mod model;
mod negotiate;
mod number;
mod openmetrics;
mod parse;
mod resolve;
mod sample_line;
mod series;
mod text;

pub use gather::{ExpositionBuilder, FamilyDescription, push_label};
pub use limits::{DroppedSamples, OmittedSamples, ParseLimits};
pub use metric_type::MetricType;
pub use model::{Exposition, ExpositionFamily, Sample};
pub use negotiate::{Format, OPENMETRICS_CONTENT_TYPE, TEXT_CONTENT_TYPE, accepts_gzip, negotiate};

#[cfg(test)]
mod properties;
