//! The registry.

pub mod oci;
pub mod service;
