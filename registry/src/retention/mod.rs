//! Retention: rules that say which tags and manifests are kept, and a run that removes the others.
//!
//! [`RetentionSettings`] are the rules, and [`Keep`] says what a tag is judged by. [`run()`] goes through the
//! repositories one after the other, and tells what it kept and why in a [`RetentionReport`]. It decides
//! before it removes, and the store removes nothing that was pushed in between.
//!
//! Deliberately not here: when a run begins, and the content that no repository holds any more, which is for
//! a garbage collection.

mod context;
mod pattern;
mod reason;
mod report;
mod run;
mod settings;
mod tag_run;
mod tags;
#[cfg(test)]
mod tests;

pub use pattern::{Pattern, PatternError};
pub use report::{
    KeptManifests, KeptTags, RepositoryReport, RetentionCounts, RetentionDeletion, RetentionReport,
};
pub use run::{RetentionError, run};
pub use settings::{Keep, RetentionRule, RetentionSettings};
