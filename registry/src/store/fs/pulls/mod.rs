//! When tags and manifests were last pulled: remembered in memory, and written to disk now and then.
//!
//! Retention keeps what was pulled within a time. So every pull is remembered ([`times`]), as a number of 64
//! bits that stands for the tag or the manifest ([`fingerprint`]) and the minute. [`mod@file`] writes all of it
//! every minute in which something was pulled, and when the registry ends.
//!
//! Whatever is not remembered counts as pulled at the last moment at which that could have been forgotten: an
//! item may stay longer than a rule says, and never goes earlier. The one exception is a crash, which loses
//! the pulls of the last minute.

pub(super) mod file;
pub(super) mod fingerprint;
pub(super) mod times;
