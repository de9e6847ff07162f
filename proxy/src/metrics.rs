//! The proxy's families, one struct each, registered on an injected [`Registry`].
//!
//! [`Registry`]: registry::service::exposition::Registry
//!
//! Which moves when is said by the `HELP` of each; the README has them all.

mod aggregate;
mod http;

pub use self::aggregate::{AggregateMetrics, SourceCells};
pub use self::http::HttpMetrics;
