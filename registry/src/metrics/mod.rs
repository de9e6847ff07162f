//! The metrics and their labels.

pub mod label;
pub mod storage;
