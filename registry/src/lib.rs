//! The registry.

pub mod metrics;
pub mod oci;
pub mod service;
pub mod stats;
pub mod store;
