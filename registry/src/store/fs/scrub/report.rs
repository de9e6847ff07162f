//! What a scrub found.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::oci::{Digest, Name};
use crate::store::StoreError;
use crate::store::maintenance::Interrupted;

/// The most repositories that are named for one item.
const REPOSITORIES: usize = 10;

/// What a scrub found. Where it continued an interrupted run, the figures are those of both.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScrubReport {
    /// Whether it continued an interrupted run.
    pub continued: bool,
    /// Blobs and manifests that are what their digests say.
    pub checked: u64,
    /// The bytes that were read.
    pub bytes: u64,
    /// Blobs and manifests that are not.
    pub corrupt: u64,
    /// Those of them that were moved to the quarantine.
    pub quarantined: u64,
    /// Blobs and manifests that a repository holds and whose content is not there. It may have been moved to
    /// the quarantine, by this run or an earlier one.
    #[serde(default)]
    pub missing: u64,
    /// Files and directories that could not be read, for a reason that says nothing about them.
    pub unchecked: u64,
    /// Files that the store has not made.
    pub foreign: u64,
    /// The first hundred of those that are corrupt.
    pub found: Vec<CorruptContent>,
    /// The first hundred of those that are missing, without those that are in `found`.
    #[serde(default)]
    pub absent: Vec<MissingContent>,
    /// Those that this run alone found to be corrupt, or missing and not in the quarantine.
    #[serde(skip)]
    pub corrupt_now: u64,
}

/// A blob or a manifest that is not what its digest says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CorruptContent {
    /// `blobs` or `manifests`.
    pub pool: String,
    /// Its digest.
    pub digest: Digest,
    /// What is wrong with it.
    pub reason: String,
    /// Whether it was moved to the quarantine.
    pub quarantined: bool,
    /// Who holds it.
    #[serde(flatten)]
    pub holders: Holders,
}

/// A blob or a manifest that a repository holds and whose content is not there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissingContent {
    /// `blobs` or `manifests`.
    pub pool: String,
    /// Its digest.
    pub digest: Digest,
    /// Whether it is in the quarantine.
    pub quarantined: bool,
    /// Who holds it.
    #[serde(flatten)]
    pub holders: Holders,
}

/// The repositories that hold an item.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holders {
    /// The first ten.
    pub repositories: Vec<Name>,
    /// How many others there are.
    pub more_repositories: u64,
}

/// What is wrong with content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Corruption {
    /// Its bytes have another digest.
    Digest,
    /// The disk cannot return them.
    Unreadable(String),
}

impl fmt::Display for Corruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Digest => f.write_str("its bytes have another digest"),
            Self::Unreadable(error) => write!(f, "it cannot be read: {error}"),
        }
    }
}

/// Why a scrub did not come to its end. The next one continues where it was.
#[derive(Debug, thiserror::Error)]
pub enum ScrubError {
    /// It was stopped.
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
    /// The disk fails. Nothing was moved for it.
    #[error("the disk fails: {items} blobs or manifests in a row cannot be read")]
    Failing {
        /// How many.
        items: usize,
    },
    /// The store cannot be read.
    #[error("the store cannot be read")]
    Store(#[from] StoreError),
}

impl Holders {
    /// Adds one.
    pub(super) fn add(&mut self, name: &Name) {
        if self.repositories.len() < REPOSITORIES {
            self.repositories.push(name.clone());
        } else {
            self.more_repositories += 1;
        }
    }
}

impl ScrubReport {
    /// The most items of each sort that a report lists. The others are counted.
    pub const LISTED: usize = 100;

    /// Adds one that is corrupt.
    pub(super) fn add(&mut self, content: CorruptContent) {
        self.corrupt += 1;
        self.corrupt_now += 1;
        self.quarantined += u64::from(content.quarantined);
        if self.found.len() < Self::LISTED {
            self.found.push(content);
        }
    }
}
