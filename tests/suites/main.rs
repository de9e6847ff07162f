//! The suites: one module each, all in one binary, because linking costs more than running.
//!
//! They start the real programs and look at them from outside, through the [`harness`]. What a crate
//! can prove alone is proved in the crate.

/// architecture.md's arrows, read off the sources.
mod arrows;
