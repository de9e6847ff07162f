//! The registry.

pub mod oci;
