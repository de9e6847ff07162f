//! Families of counters, gauges and histograms, and the registry that gathers them.
//!
//! - [`label`]: labels whose values are closed sets, and their combinations.
//! - [`cells`]: where a family counts, one cell for each combination of label values.
//! - [`declaration`]: the macro by which a family is declared, once.
//! - [`family`]: what the types of families have in common.
//! - [`registry`]: where families are declared and gathered.

pub mod cells;
pub mod declaration;
pub mod family;
pub mod label;
pub mod registry;

pub use cells::{Counter, Counters, Gauge, Gauges, Histogram, Histograms};
pub use declaration::families;
pub use family::{Family, PerValue};
pub use label::{Label, LabelSet, labels};
pub use registry::MetricsRegistry;
