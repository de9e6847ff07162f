//! The metrics and their labels.

pub mod label;
pub mod stats;
pub mod storage;
