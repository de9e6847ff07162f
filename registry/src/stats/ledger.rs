//! The figures of the store, updated with every change.

use std::collections::{BTreeSet, HashMap};

use parking_lot::Mutex;

use crate::oci::{Kind, Name};
use crate::store::fs::{Changes, ContentCounts, Pool, RepositoryCounts, Shard};

/// What the store holds: by repository, by shard of content, and in sum.
///
/// The store reports every change. It reports the count of a repository or shard under the same lock as
/// changes of it, so that no change is counted twice or lost: at the end of a reconcile the sums are right,
/// whatever happens during it.
#[derive(Debug, Default)]
pub struct Ledger(Mutex<LedgerState>);

#[derive(Debug, Default)]
struct LedgerState {
    repositories: HashMap<Name, LedgerEntry>,
    shards: HashMap<Shard, ContentCounts>,
    /// The repositories that hold any bytes, ordered by size: a scrape reads the largest without sorting.
    by_size: BTreeSet<(i64, Name)>,
    /// How many repositories exist.
    existing: i64,
    sum: RepositoryCounts,
    blobs: ContentCounts,
    manifests: ContentCounts,
    /// The bytes that directories take on disk.
    directories: i64,
    /// The number of the current or last reconcile.
    round: u32,
    /// Whether a reconcile has completed.
    complete: bool,
}

#[derive(Debug, Default)]
struct LedgerEntry {
    counts: RepositoryCounts,
    /// The last reconcile that counted or met the repository.
    round: u32,
}

/// The sums at one point in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// The number of repositories that exist.
    pub repositories: i64,
    /// The number of tags.
    pub tags: i64,
    /// The number of blobs.
    pub blobs: i64,
    /// The number of manifests of each kind, in the order of [`Kind::ALL`].
    pub manifests: [i64; Kind::ALL.len()],
    /// Bytes allocated on disk, without uploads.
    pub allocated: i64,
}

impl Ledger {
    /// The sums; `None` until the first reconcile is complete.
    pub fn totals(&self) -> Option<Totals> {
        let state = self.0.lock();
        state.complete.then(|| Totals {
            repositories: state.existing,
            tags: state.sum.tags,
            blobs: state.blobs.items,
            manifests: state.sum.manifests,
            allocated: state.sum.allocated
                + state.blobs.allocated
                + state.manifests.allocated
                + state.directories,
        })
    }

    /// Calls `show` with the largest repositories, at most `limit`, and the bytes of all others. Does nothing
    /// until the first reconcile is complete.
    pub fn largest(&self, limit: usize, show: impl FnOnce(&[(&str, i64)], i64)) {
        let state = self.0.lock();
        if !state.complete {
            return;
        }
        // `show` runs under the lock, so that names need no copy.
        let largest = state.by_size.iter().rev().take(limit);
        let largest: Vec<_> = largest.map(|(size, name)| (name.as_str(), *size)).collect();
        let shown: i64 = largest.iter().map(|(_, size)| size).sum();
        show(&largest, state.sum.stored - shown);
    }

    /// Begins a reconcile.
    pub(super) fn begin(&self) {
        let mut state = self.0.lock();
        // Rounds are only compared for equality, so that a wrap does no harm.
        state.round = state.round.wrapping_add(1);
    }

    /// Sets the figures of a counted repository.
    pub(super) fn set_repository(&self, name: &Name, counts: RepositoryCounts) {
        self.0.lock().set(name, counts);
    }

    /// Keeps the figures of a repository that exists but could not be counted.
    pub(super) fn keep_repository(&self, name: &Name) {
        let mut state = self.0.lock();
        let round = state.round;
        if let Some(entry) = state.repositories.get_mut(name) {
            entry.round = round;
        }
    }

    /// Sets the figures of a counted shard.
    pub(super) fn set_shard(&self, shard: Shard, counts: ContentCounts) {
        let mut state = self.0.lock();
        let old = state.shards.insert(shard, counts).unwrap_or_default();
        let change = ContentCounts {
            items: counts.items - old.items,
            allocated: counts.allocated - old.allocated,
        };
        *state.pool(shard.pool) += change;
    }

    /// The repositories that this reconcile has not met. They may be gone, or be new.
    pub(super) fn unmet_repositories(&self) -> Vec<Name> {
        let state = self.0.lock();
        let unmet = state
            .repositories
            .iter()
            .filter(|(_, entry)| entry.round != state.round);
        unmet.map(|(name, _)| name.clone()).collect()
    }

    /// Completes the reconcile. Directories take this many bytes on disk.
    pub(super) fn complete(&self, directories: i64) {
        let mut state = self.0.lock();
        state.directories = directories;
        state.complete = true;
    }
}

impl LedgerState {
    fn set(&mut self, name: &Name, counts: RepositoryCounts) {
        let round = self.round;
        // Forgotten once empty: deleted repositories must not take memory.
        if counts == RepositoryCounts::default() {
            if let Some(old) = self.repositories.remove(name) {
                self.update_sums(name, old.counts, counts);
            }
            return;
        }
        let entry = self.repositories.entry(name.clone()).or_default();
        let old = std::mem::replace(entry, LedgerEntry { counts, round }).counts;
        self.update_sums(name, old, counts);
    }

    fn update_sums(&mut self, name: &Name, old: RepositoryCounts, new: RepositoryCounts) {
        self.sum += new;
        self.sum -= old;
        self.existing += i64::from(new.exists()) - i64::from(old.exists());
        // A change of a tag, for example, leaves the size and so the index alone.
        if old.stored != new.stored {
            self.by_size.remove(&(old.stored, name.clone()));
            if new.stored > 0 {
                self.by_size.insert((new.stored, name.clone()));
            }
        }
    }

    fn pool(&mut self, pool: Pool) -> &mut ContentCounts {
        match pool {
            Pool::Blobs => &mut self.blobs,
            Pool::Manifests => &mut self.manifests,
        }
    }
}

impl Changes for Ledger {
    fn repository(&self, name: &Name, change: &RepositoryCounts) {
        let mut state = self.0.lock();
        // Until the first reconcile has counted the repository, this sums changes to unknown figures, and may
        // be negative. The count replaces it.
        let mut counts = state
            .repositories
            .get(name)
            .map(|entry| entry.counts)
            .unwrap_or_default();
        counts += *change;
        state.set(name, counts);
    }

    fn content(&self, shard: Shard, change: &ContentCounts) {
        let mut state = self.0.lock();
        *state.shards.entry(shard).or_default() += *change;
        *state.pool(shard.pool) += *change;
    }

    fn directories(&self, bytes: i64) {
        self.0.lock().directories += bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::parse(text).unwrap()
    }

    fn blobs(blobs: i64, stored: i64) -> RepositoryCounts {
        RepositoryCounts {
            blobs,
            stored,
            ..Default::default()
        }
    }

    #[test]
    fn there_are_no_figures_before_the_first_reconcile_is_complete() {
        let ledger = Ledger::default();
        ledger.begin();
        ledger.repository(&name("a"), &blobs(1, 5));
        assert_eq!(ledger.totals(), None);
        ledger.largest(10, |_, _| panic!("not yet"));
        ledger.complete(0);
        assert_eq!(ledger.totals().unwrap().repositories, 1);
    }

    #[test]
    fn a_count_replaces_the_figures_and_changes_add_to_it() {
        let ledger = Ledger::default();
        ledger.repository(&name("a"), &blobs(-1, -5));
        ledger.begin();
        ledger.set_repository(&name("a"), blobs(3, 30));
        ledger.repository(&name("a"), &blobs(1, 10));
        ledger.complete(0);
        ledger.largest(10, |largest, other| {
            assert_eq!((largest, other), (&[("a", 40)][..], 0));
        });
    }

    #[test]
    fn a_repository_exists_while_it_holds_content() {
        let ledger = Ledger::default();
        ledger.complete(0);
        let repositories = || ledger.totals().unwrap().repositories;
        ledger.repository(&name("a"), &blobs(1, 0));
        ledger.repository(&name("b"), &blobs(1, 1));
        assert_eq!(repositories(), 2);
        ledger.repository(&name("b"), &blobs(-1, -1));
        assert_eq!(repositories(), 1);
        ledger.repository(&name("a"), &blobs(-1, 0));
        assert_eq!(repositories(), 0);
        assert!(ledger.0.lock().repositories.is_empty());
    }

    #[test]
    fn the_largest_repositories_are_shown_and_the_others_are_summed() {
        let ledger = Ledger::default();
        for (n, size) in [("a", 5), ("b", 7), ("c", 5), ("d", 1), ("e", 2)] {
            ledger.repository(&name(n), &blobs(1, size));
        }
        ledger.complete(0);
        ledger.largest(3, |largest, other| {
            assert_eq!((largest, other), (&[("b", 7), ("c", 5), ("a", 5)][..], 3));
        });
    }

    #[test]
    fn repositories_that_a_reconcile_has_not_met_are_listed() {
        let ledger = Ledger::default();
        ledger.repository(&name("a"), &blobs(1, 1));
        ledger.repository(&name("b"), &blobs(1, 1));
        ledger.begin();
        ledger.set_repository(&name("a"), blobs(1, 1));
        assert_eq!(ledger.unmet_repositories(), [name("b")]);
    }
}
