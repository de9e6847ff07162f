//! The scrub: reads all content, and compares it with its digests.
//!
//! Content that is not what its digest says is *corrupt*. It is reported, and, if that is asked for, moved
//! to `quarantine/`, where nobody serves it: requests get the same response as for content that was never
//! pushed, and a push of the same content stores it again. Bytes that the disk cannot return are corrupt,
//! too; what this user may not read is not.
//!
//! Then it looks for content that repositories hold and that is missing.
//!
//! The directories of content are visited by the first byte of the digest, so that each part of the way
//! is about as long. Where a run is kept in a [`cursor`], from which the next run continues.
//!
//! Deliberately not here: repair. The registry has no second copy; a client has.

mod cursor;
mod hashing;
mod pacing;
mod parts;
mod pass;
mod quarantine;
mod report;
mod repositories;
mod shard_names;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use self::pacing::Pacing;
use self::pass::Pass;
pub use self::report::{CorruptContent, Holders, MissingContent, ScrubError, ScrubReport};
use super::data_directory::DataDirectory;
use crate::store::maintenance::Run;

/// How to scrub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScrubSettings {
    /// The most bytes that are read in a second; `None`: as fast as it goes. With a rate it also rests
    /// for as long as it reads.
    pub rate: Option<u64>,
    /// Whether corrupt content is moved to the quarantine, or only reported.
    pub quarantine: bool,
}

/// Scrubs the store, or what an interrupted run has left of it. Blocks.
pub(super) fn scrub(
    data: &Arc<DataDirectory>,
    settings: ScrubSettings,
    run: &Run,
    report: &mut ScrubReport,
) -> Result<(), ScrubError> {
    let pacing = Pacing::new(run, settings.rate);
    let mut pass = Pass::new(data, settings.quarantine, pacing);
    let ended = pass.run(run);
    match &ended {
        Ok(()) => cursor::remove(&data.layout),
        // Not in a directory that is lost: another one may be at its path.
        Err(_) if data.root.check().is_err() => {}
        Err(_) => pass.keep_cursor(),
    }
    *report = pass.report();
    ended
}
