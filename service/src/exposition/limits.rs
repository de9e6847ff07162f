//! How much of an exposition is read, and counts of the samples that are dropped.

use std::collections::BTreeMap;
use std::ops::AddAssign;
use std::sync::Arc;

/// How much of a foreign exposition is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseLimits {
    /// Bytes; what follows the last whole line within them is dropped. At most 4 GiB count.
    pub max_bytes: usize,
    /// Samples; what follows them is dropped.
    pub max_samples: usize,
}

impl Default for ParseLimits {
    fn default() -> Self {
        Self {
            max_bytes: 64 << 20,
            max_samples: 500_000,
        }
    }
}

/// Samples that were dropped from an exposition, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DroppedSamples {
    /// Samples whose family had been declared with another type, or whose name belongs to another
    /// family.
    pub type_conflict: u64,
    /// Samples of a series that the exposition held already.
    pub duplicate: u64,
    /// Lines that are not of the format, as everybody reads it (see [`Exposition::parse`](super::Exposition::parse)).
    pub malformed: u64,
    /// Samples over one of the [`ParseLimits`].
    pub limit: u64,
}

impl DroppedSamples {
    /// The sum of all reasons.
    pub fn total(&self) -> u64 {
        self.type_conflict + self.duplicate + self.malformed + self.limit
    }
}

impl AddAssign for DroppedSamples {
    fn add_assign(&mut self, other: Self) {
        self.type_conflict += other.type_conflict;
        self.duplicate += other.duplicate;
        self.malformed += other.malformed;
        self.limit += other.limit;
    }
}

/// Samples that an exposition holds and that were left out of it while it was written, because the
/// format forbids them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OmittedSamples {
    /// Those of our own by the empty name.
    pub(super) by_source: BTreeMap<Arc<str>, u64>,
}

impl OmittedSamples {
    /// How many were of this source.
    pub fn of(&self, source: &str) -> u64 {
        self.by_source.get(source).copied().unwrap_or_default()
    }

    /// How many there were of all sources.
    pub fn total(&self) -> u64 {
        self.by_source.values().sum()
    }
}
