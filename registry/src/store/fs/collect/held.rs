//! Which content is in any repository: 8 bytes for each.

use super::would_go::WouldGo;
use crate::oci::{Digest, Name};
use crate::store::StoreError;
use crate::store::fs::data_directory::DataDirectory;
use crate::store::fs::file::visit_entries;
use crate::store::fs::layout::{Pool, Shard, digest_of};
use crate::store::fs::manifest;
use crate::store::fs::reliance::fingerprint;

/// Content that a repository holds.
#[derive(Default)]
pub(super) struct HeldContent {
    blobs: Fingerprints,
    manifests: Fingerprints,
}

/// A set of fingerprints in sorted runs, without the spare room of a hash table.
struct Fingerprints(Vec<SortedRun>);

/// Those with the same first byte.
#[derive(Clone, Default)]
struct SortedRun {
    all: Vec<u64>,
    /// How many of them, from the start, are sorted and each there once.
    sorted: usize,
}

impl Default for Fingerprints {
    fn default() -> Self {
        Self(vec![SortedRun::default(); 256])
    }
}

impl HeldContent {
    /// Adds what a repository holds, without what would go. Returns whether it holds anything. It pauses after
    /// each item.
    pub(super) fn add<E: From<StoreError>>(
        &mut self,
        data: &DataDirectory,
        name: &Name,
        gone: &WouldGo,
        pause: impl Fn() -> Result<(), E>,
    ) -> Result<bool, E> {
        let mut holds = false;
        visit_entries(&data.layout.blob_links(name), |file| {
            if let Some(digest) = digest_of(&file.file_name())
                && !gone.blobs.contains(&fingerprint(&digest))
            {
                self.blobs.add(&digest);
                holds = true;
            }
            pause()
        })?;
        manifest::each(data, name, |digest, _| {
            if !gone.manifests.contains(&fingerprint(&digest)) {
                self.manifests.add(&digest);
                holds = true;
            }
            pause()
        })?;
        Ok(holds)
    }

    /// Whether a repository may hold content.
    pub(super) fn contains(&mut self, shard: Shard, digest: &Digest) -> bool {
        let of_pool = match shard.pool {
            Pool::Blobs => &mut self.blobs,
            Pool::Manifests => &mut self.manifests,
        };
        let run = &mut of_pool.0[usize::from(shard.prefix)];
        run.sort();
        run.all.binary_search(&fingerprint(digest)).is_ok()
    }
}

impl Fingerprints {
    fn add(&mut self, digest: &Digest) {
        let fingerprint = fingerprint(digest);
        let run = &mut self.0[usize::from((fingerprint >> 56) as u8)];
        // A blob that many repositories share must not take room for each of them.
        if run.all.len() == run.all.capacity() && run.all.len() >= 2 * run.sorted {
            run.sort();
        }
        run.all.push(fingerprint);
    }
}

impl SortedRun {
    fn sort(&mut self) {
        if self.sorted < self.all.len() {
            self.all.sort_unstable();
            self.all.dedup();
            self.sorted = self.all.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Algorithm;

    #[test]
    fn what_was_added_is_held_and_takes_room_once() {
        let mut held = HeldContent::default();
        let digest = |n: u64| Digest::of(Algorithm::Sha256, &n.to_le_bytes());
        for _ in 0..50 {
            for n in 0..2_000 {
                held.blobs.add(&digest(n));
            }
        }
        let shard = |n| Shard::of(Pool::Blobs, &digest(n));
        for n in 0..4_000 {
            assert_eq!(held.contains(shard(n), &digest(n)), n < 2_000);
            let manifests = Shard::of(Pool::Manifests, &digest(n));
            assert!(!held.contains(manifests, &digest(n)));
        }
        let room: usize = held.blobs.0.iter().map(|run| run.all.capacity()).sum();
        assert!(room < 20_000, "{room}");
    }
}
