//! Reports of what the store changes, so that the statistics need no walk through the tree.

use std::ops::{AddAssign, Neg, SubAssign};

use super::layout::Shard;
use crate::oci::{Kind, Name};

/// Receives every change, at once and in order.
///
/// A change of a repository, or of a shard of content, is reported while the lock is held under which
/// it was made, and a count of the same repository or shard
/// ([`FsStore::count_repository`](super::FsStore::count_repository)) delivers its figures under that
/// lock too. So a receiver that sets what a count says and adds what is reported here is never off by
/// a change that happened meanwhile. An implementation must be quick and must not call the store.
pub trait Changes: Send + Sync + 'static {
    /// A repository changed by this much.
    fn repository(&self, name: &Name, change: &RepositoryCounts);
    /// A shard's content changed by this much.
    fn content(&self, shard: Shard, change: &ContentCounts);
    /// Directories were made or removed, or content was moved to the quarantine: `bytes` more are in use
    /// on disk by what is neither of a repository nor content, or fewer if it is negative.
    fn directories(&self, bytes: i64);
}

/// Ignores all changes.
impl Changes for () {
    fn repository(&self, _: &Name, _: &RepositoryCounts) {}
    fn content(&self, _: Shard, _: &ContentCounts) {}
    fn directories(&self, _: i64) {}
}

/// What a repository holds, or by how much that changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RepositoryCounts {
    /// Tags.
    pub tags: i64,
    /// Blobs.
    pub blobs: i64,
    /// Manifests, in the order of [`Kind::ALL`].
    pub manifests: [i64; Kind::ALL.len()],
    /// The sizes of its blobs and manifests together, each counted whole, in bytes.
    pub stored: i64,
    /// What the repository's own small files take on disk, in bytes.
    pub allocated: i64,
}

impl RepositoryCounts {
    /// Whether the repository exists: it holds a blob or a manifest.
    pub fn exists(&self) -> bool {
        // Tags need not be asked for: each one points at a manifest.
        self.blobs > 0 || self.manifests.iter().any(|&count| count > 0)
    }

    /// One more manifest of a kind, or one less.
    pub(super) fn manifest(&mut self, kind: Kind, count: i64) {
        self.manifests[index(kind)] += count;
    }
}

/// The index of a kind in an array in the order of [`Kind::ALL`]. Exhaustive, so that a new kind does
/// not compile before it has a count of its own.
const fn index(kind: Kind) -> usize {
    match kind {
        Kind::Image => 0,
        Kind::Index => 1,
        Kind::Artifact => 2,
        Kind::Signature => 3,
        Kind::Attestation => 4,
        Kind::Other => 5,
    }
}

const _: () = {
    // Checked by the compiler: a kind at a wrong index would be counted as another one.
    let mut n = 0;
    while n < Kind::ALL.len() {
        assert!(index(Kind::ALL[n]) == n, "kinds are counted in this order");
        n += 1;
    }
};

impl AddAssign for RepositoryCounts {
    fn add_assign(&mut self, other: Self) {
        // Taken apart, so that a new figure does not compile before it is added up.
        let Self {
            tags,
            blobs,
            manifests,
            stored,
            allocated,
        } = other;
        self.tags += tags;
        self.blobs += blobs;
        for (count, more) in self.manifests.iter_mut().zip(manifests) {
            *count += more;
        }
        self.stored += stored;
        self.allocated += allocated;
    }
}

impl Neg for RepositoryCounts {
    type Output = Self;

    fn neg(self) -> Self {
        Self {
            tags: -self.tags,
            blobs: -self.blobs,
            manifests: self.manifests.map(Neg::neg),
            stored: -self.stored,
            allocated: -self.allocated,
        }
    }
}

impl SubAssign for RepositoryCounts {
    fn sub_assign(&mut self, other: Self) {
        *self += -other;
    }
}

/// What a shard of content holds, or by how much that changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ContentCounts {
    /// Blobs or manifests.
    pub items: i64,
    /// What they take on disk, in bytes.
    pub allocated: i64,
}

impl AddAssign for ContentCounts {
    fn add_assign(&mut self, other: Self) {
        let Self { items, allocated } = other;
        self.items += items;
        self.allocated += allocated;
    }
}
