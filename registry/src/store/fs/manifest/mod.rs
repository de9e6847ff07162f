//! Manifests: content that is stored once, and an entry in each repository that holds it.
//!
//! The entry makes a manifest exist. The content, and the descriptor among its subject's referrers,
//! are there before the entry. A reader that finds one of them without the entry ignores it.
//!
//! - [`entry`]: the file of a manifest in a repository.
//! - [`read`](mod@read), [`write`](mod@write), [`delete`](mod@delete): the operations.

mod delete;
mod entry;
mod read;
mod write;

pub(super) use delete::{delete, remove_entry, remove_referrer};
pub(super) use entry::{ManifestEntry, each};
pub(super) use read::read;
pub(super) use write::{WriteProgress, write};
