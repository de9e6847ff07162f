//! Upload sessions: where they stand, what they receive, and how they become blobs.
//!
//! - [`reserved`]: the bytes that all sessions hold.
//! - [`session`]: one session and its files.
//! - [`sessions`]: the table of all open ones, and which are evicted first.
//! - [`concurrency`]: how much of the machine appends take.
//! - [`quota`]: what all sessions together may take.
//! - [`create`], [`append`], [`commit`]: the operations.

pub(super) mod append;
pub(super) mod commit;
pub(super) mod concurrency;
pub(super) mod create;
pub(super) mod quota;
pub(super) mod reserved;
pub(super) mod session;
pub(super) mod sessions;
