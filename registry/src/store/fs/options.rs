//! How a store is opened: what its acknowledgements promise, and what its uploads may take.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What an acknowledgement promises.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// Bytes and names are on disk: they survive a crash of the machine.
    #[default]
    Full,
    /// Bytes and names are with the system, which writes them later: they survive a crash of the
    /// program.
    Relaxed,
}

/// What all uploads together may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UploadQuota {
    /// The most sessions open at a time.
    pub max_sessions: u64,
    /// The most bytes that open sessions hold.
    pub max_bytes: u64,
    /// The bytes of the disk that uploads leave free for everything else: manifests, tags, and
    /// other programs that write there. They leave the same share of its inodes.
    pub reserve: u64,
}

impl UploadQuota {
    /// No limit at all.
    pub const UNLIMITED: Self = Self {
        max_sessions: u64::MAX,
        max_bytes: u64::MAX,
        reserve: 0,
    };
}

/// How a data directory is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreOptions {
    /// What an acknowledgement promises.
    pub durability: Durability,
    /// What uploads may take.
    pub quota: UploadQuota,
    /// For how long a collection keeps what a client was told of.
    pub grace: Duration,
}

impl StoreOptions {
    /// The grace of a store whose configuration says nothing.
    pub const GRACE: Duration = Duration::from_hours(24);
}

impl From<Durability> for StoreOptions {
    /// Without a quota.
    fn from(durability: Durability) -> Self {
        Self {
            durability,
            quota: UploadQuota::UNLIMITED,
            grace: Self::GRACE,
        }
    }
}
