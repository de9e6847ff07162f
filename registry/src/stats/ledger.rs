//! The figures, kept as they change.

use std::collections::{BTreeSet, HashMap};

use parking_lot::Mutex;

use crate::oci::{Kind, Name};
use crate::store::fs::{Changes, ContentCounts, Pool, RepositoryCounts, Shard};

/// What the store holds, by repository and by shard of content, and the sums of it.
///
/// The store tells it every change, and a count of a repository or shard comes between two changes
/// of it, in order: whatever happens while a full count runs, the sums are right at its end.
#[derive(Debug, Default)]
pub struct Ledger(Mutex<LedgerState>);

#[derive(Debug, Default)]
struct LedgerState {
    repositories: HashMap<Name, LedgerEntry>,
    shards: HashMap<Shard, ContentCounts>,
    /// Those that hold anything, by its size.
    by_size: BTreeSet<(i64, Name)>,
    existing: i64,
    sum: RepositoryCounts,
    blobs: ContentCounts,
    manifests: ContentCounts,
    folders: i64,
    /// The full count under way, or the last one.
    round: u32,
    complete: bool,
}

#[derive(Debug, Default)]
struct LedgerEntry {
    counts: RepositoryCounts,
    round: u32,
}

/// The sums at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Repositories that exist.
    pub repositories: i64,
    /// Tags.
    pub tags: i64,
    /// Blobs.
    pub blobs: i64,
    /// Manifests, in the order of [`Kind::ALL`].
    pub manifests: [i64; Kind::ALL.len()],
    /// Bytes allocated on disk, without uploads.
    pub allocated: i64,
}

impl Ledger {
    /// The sums; `None` until everything has been counted once.
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
                + state.folders,
        })
    }

    /// Calls `show` with the largest repositories, at most `limit`, and the bytes of all others;
    /// not before everything has been counted once.
    pub fn largest(&self, limit: usize, show: impl FnOnce(&[(&str, i64)], i64)) {
        let state = self.0.lock();
        if !state.complete {
            return;
        }
        let largest = state.by_size.iter().rev().take(limit);
        let largest: Vec<_> = largest.map(|(size, name)| (name.as_str(), *size)).collect();
        let shown: i64 = largest.iter().map(|(_, size)| size).sum();
        show(&largest, state.sum.stored - shown);
    }

    /// Begins a full count.
    pub(super) fn begin(&self) {
        let mut state = self.0.lock();
        state.round = state.round.wrapping_add(1);
    }

    /// A repository was counted.
    pub(super) fn counted_repository(&self, name: &Name, counts: RepositoryCounts) {
        self.0.lock().set(name, counts);
    }

    /// A repository was met and could not be counted: it keeps its figures.
    pub(super) fn met_repository(&self, name: &Name) {
        let mut state = self.0.lock();
        let round = state.round;
        if let Some(line) = state.repositories.get_mut(name) {
            line.round = round;
        }
    }

    /// A shard was counted.
    pub(super) fn counted_shard(&self, shard: Shard, counts: ContentCounts) {
        let mut state = self.0.lock();
        let old = state.shards.insert(shard, counts).unwrap_or_default();
        let change = ContentCounts {
            items: counts.items - old.items,
            allocated: counts.allocated - old.allocated,
        };
        *state.pool(shard.pool) += change;
    }

    /// The repositories that the full count has not met: they may be gone.
    pub(super) fn not_counted(&self) -> Vec<Name> {
        let state = self.0.lock();
        let missed = state
            .repositories
            .iter()
            .filter(|(_, line)| line.round != state.round);
        missed.map(|(name, _)| name.clone()).collect()
    }

    /// All is counted, and the folders take so many bytes.
    pub(super) fn end(&self, folders: i64) {
        let mut state = self.0.lock();
        state.folders = folders;
        state.complete = true;
    }
}

impl LedgerState {
    fn set(&mut self, name: &Name, counts: RepositoryCounts) {
        let round = self.round;
        if counts == RepositoryCounts::default() {
            if let Some(old) = self.repositories.remove(name) {
                self.moved(name, old.counts, counts);
            }
            return;
        }
        let line = self.repositories.entry(name.clone()).or_default();
        let old = std::mem::replace(line, LedgerEntry { counts, round }).counts;
        self.moved(name, old, counts);
    }

    fn moved(&mut self, name: &Name, old: RepositoryCounts, new: RepositoryCounts) {
        self.sum += new;
        self.sum -= old;
        self.existing += i64::from(new.exists()) - i64::from(old.exists());
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
        // Before the first count this may be a difference to nothing, even a negative one; the
        // count sets it right.
        let mut counts = state
            .repositories
            .get(name)
            .map(|line| line.counts)
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
        self.0.lock().folders += bytes;
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
    fn nothing_is_told_before_everything_was_counted_once() {
        let ledger = Ledger::default();
        ledger.begin();
        ledger.repository(&name("a"), &blobs(1, 5));
        assert_eq!(ledger.totals(), None);
        ledger.largest(10, |_, _| panic!("not yet"));
        ledger.end(0);
        assert_eq!(ledger.totals().unwrap().repositories, 1);
    }

    #[test]
    fn a_count_replaces_what_was_known_and_changes_add_to_it() {
        let ledger = Ledger::default();
        ledger.repository(&name("a"), &blobs(-1, -5));
        ledger.begin();
        ledger.counted_repository(&name("a"), blobs(3, 30));
        ledger.repository(&name("a"), &blobs(1, 10));
        ledger.end(0);
        ledger.largest(10, |largest, other| {
            assert_eq!((largest, other), (&[("a", 40)][..], 0));
        });
    }

    #[test]
    fn a_repository_is_counted_while_it_holds_something() {
        let ledger = Ledger::default();
        ledger.end(0);
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
    fn the_largest_are_shown_and_the_rest_is_summed_up() {
        let ledger = Ledger::default();
        for (n, size) in [("a", 5), ("b", 7), ("c", 5), ("d", 1), ("e", 2)] {
            ledger.repository(&name(n), &blobs(1, size));
        }
        ledger.end(0);
        ledger.largest(3, |largest, other| {
            assert_eq!((largest, other), (&[("b", 7), ("c", 5), ("a", 5)][..], 3));
        });
    }

    #[test]
    fn what_a_full_count_did_not_meet_is_told() {
        let ledger = Ledger::default();
        ledger.repository(&name("a"), &blobs(1, 1));
        ledger.repository(&name("b"), &blobs(1, 1));
        ledger.begin();
        ledger.counted_repository(&name("a"), blobs(1, 1));
        assert_eq!(ledger.not_counted(), [name("b")]);
    }
}
