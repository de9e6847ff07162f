//! The registry.

pub mod metrics;
pub mod oci;
pub mod service;
pub mod store;
