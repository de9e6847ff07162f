//! Which series an exposition holds, by the hash of name and label set.
//!
//! The table is hashbrown's, with foldhash: `SipHash` would take longer than the rest of parsing.

use std::hash::BuildHasher as _;
use std::sync::LazyLock;

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

/// Hashes series piece by piece. The hashes of labels are added, so that their order does not
/// matter and none has to be sorted or copied.
#[derive(Clone, Copy)]
pub(super) struct SeriesHasher(&'static RandomState);

impl SeriesHasher {
    /// The process's own: hashes of different expositions can be compared.
    pub(super) fn get() -> Self {
        Self(&SEED)
    }

    /// The hash of a series of that name without labels.
    pub(super) fn name(self, name: &str) -> u64 {
        self.0.hash_one(name)
    }

    /// What a label adds to the hash, given its value as we would write it. A label with an empty
    /// value is equal to no label.
    pub(super) fn label(self, name: &str, value: &str) -> u64 {
        if value.is_empty() {
            return 0;
        }
        self.0.hash_one((name, value))
    }
}

/// Finds series among those that the caller keeps and numbers.
#[derive(Default)]
pub(super) struct SeriesIndex(HashTable<u32>);

impl SeriesIndex {
    /// Adds series number `id`, which has this hash, unless one that `is_equal` is there. `hash_of`
    /// tells the hash of a series by its number.
    pub(super) fn insert(
        &mut self,
        hash: u64,
        id: u32,
        hash_of: impl Fn(u32) -> u64,
        is_equal: impl Fn(u32) -> bool,
    ) -> bool {
        // Hashes first: most candidates of a lookup differ in theirs.
        let is_same = |&other: &u32| hash_of(other) == hash && is_equal(other);
        match self.0.entry(hash, is_same, |&other| hash_of(other)) {
            Entry::Occupied(_) => false,
            Entry::Vacant(slot) => {
                slot.insert(id);
                true
            }
        }
    }
}

/// Random, so that no exposition can be made to collide on purpose.
static SEED: LazyLock<RandomState> = LazyLock::new(RandomState::default);

#[cfg(test)]
mod tests {
    use super::super::labels::same_labels;
    use super::*;

    #[test]
    fn the_order_of_labels_changes_neither_hash_nor_equality() {
        let hasher = SeriesHasher::get();
        let [a, b] = [hasher.label("a", "1"), hasher.label("b", "2")];
        assert_eq!(a.wrapping_add(b), b.wrapping_add(a));
        assert!(same_labels(r#"a="1",b="2""#, r#"b="2",a="1""#));
        assert!(!same_labels(r#"a="1",b="2""#, r#"a="2",b="1""#));
        assert_eq!(hasher.label("a", ""), 0);
        assert!(same_labels(r#"a="",b="2""#, r#"b="2",c="""#));
    }

    #[test]
    fn names_and_values_are_not_confused() {
        let hash = |labels: &[(&str, &str)]| {
            let hasher = SeriesHasher::get();
            let labels = labels.iter().map(|(name, value)| hasher.label(name, value));
            labels.fold(hasher.name("x"), u64::wrapping_add)
        };
        let all = [
            hash(&[]),
            hash(&[("a", "1"), ("b", "2")]),
            hash(&[("a", "2"), ("b", "1")]),
            hash(&[("1", "a"), ("b", "2")]),
            hash(&[("", "a")]),
            hash(&[("a", "\0")]),
            hash(&[("a", "\0\0")]),
            hash(&[("a", "12345678")]),
            hash(&[("a", "123456789")]),
            hash(&[("a", "1234567812345678")]),
        ];
        for (at, one) in all.iter().enumerate() {
            assert!(all.iter().skip(at + 1).all(|other| other != one), "{at}");
        }
    }

    #[test]
    fn a_collision_of_hashes_keeps_both_series() {
        let mut index = SeriesIndex::default();
        assert!(index.insert(7, 0, |_| 7, |_| false));
        assert!(index.insert(7, 1, |_| 7, |_| false));
        assert!(!index.insert(7, 2, |_| 7, |id| id == 1));
    }

    #[test]
    fn a_growing_index_loses_nothing() {
        let mut index = SeriesIndex::default();
        let hash = |id| SeriesHasher::get().name(&format!("{id}"));
        for id in 0..2_000 {
            assert!(index.insert(hash(id), id, hash, |other| other == id));
        }
        for id in 0..2_000 {
            assert!(!index.insert(hash(id), 9_999, hash, |other| other == id));
        }
    }
}
