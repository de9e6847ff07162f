//! Families of counters, gauges and histograms, and the registry that gathers them.
//!
//! - [`label`]: labels whose values are closed sets, and their combinations.
//! - [`cells`]: where a family counts, one cell for each combination of label values.
//! - [`family`]: how a family is declared, once.
//! - [`registry`]: where families are declared and gathered.

pub mod cells;
pub mod family;
pub mod label;
pub mod registry;

pub use cells::{Counter, Counters, Gauge, Gauges, Histogram, Histograms};
pub use family::{Family, PerValue, families};
pub use label::{Label, LabelSet, labels};
pub use registry::MetricsRegistry;
