//! Upload sessions: where they stand, what they receive, and how they become blobs.
//!
//! - [`session`]: one session and its files.
//! - [`sessions`]: the table of all open ones, and which give way.
//! - [`append`]: bytes on their way into a session's file.
//! - [`commit`]: a session's bytes become a blob.
//! - [`quota`]: what all sessions together may take.

pub(super) mod append;
pub(super) mod commit;
pub(super) mod quota;
pub(super) mod session;
pub(super) mod sessions;
