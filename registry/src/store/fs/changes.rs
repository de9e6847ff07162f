//! How the store tells what it changed, so that statistics need no walk.

use std::ops::{AddAssign, Neg, SubAssign};

use super::layout::Shard;
use crate::oci::{Kind, Name};

/// Is told of every change, at once and in order.
///
/// A change of a repository, or of a shard of content, is told while the lock is held under which
/// it was made, and a survey of the same repository or shard
/// ([`FsStore::survey_repository`](super::FsStore::survey_repository)) delivers its figures under
/// that lock too. So whoever sets what a survey says and adds what it is told here is never off by
/// a change that happened meanwhile. An implementation must be quick and must not call the store.
pub trait Changes: Send + Sync + 'static {
    /// A repository changed by so much.
    fn repository(&self, name: &Name, change: &RepositoryCounts);
    /// A shard's content changed by so much.
    fn content(&self, shard: Shard, change: &ContentCounts);
    /// Folders were made or removed, which takes or frees so many bytes.
    fn folders(&self, bytes: i64);
}

/// Nobody listens.
impl Changes for () {
    fn repository(&self, _: &Name, _: &RepositoryCounts) {}
    fn content(&self, _: Shard, _: &ContentCounts) {}
    fn folders(&self, _: i64) {}
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
    /// Whether there is a repository: it holds a blob or a manifest.
    pub fn exists(&self) -> bool {
        self.blobs > 0 || self.manifests.iter().any(|&count| count > 0)
    }

    /// One more manifest of a kind, or one less.
    pub(super) fn manifest(&mut self, kind: Kind, count: i64) {
        self.manifests[kind as usize] += count;
    }
}

impl AddAssign for RepositoryCounts {
    fn add_assign(&mut self, other: Self) {
        self.tags += other.tags;
        self.blobs += other.blobs;
        for (count, more) in self.manifests.iter_mut().zip(other.manifests) {
            *count += more;
        }
        self.stored += other.stored;
        self.allocated += other.allocated;
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
        self.items += other.items;
        self.allocated += other.allocated;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_counted_in_the_order_in_which_they_are_listed() {
        for (index, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, index);
        }
    }
}
