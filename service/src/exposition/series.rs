//! Which series a page holds: hashes of name and label set, whatever the labels' order.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::LazyLock;

/// Hashes series piece by piece. LabelPairs are added up, so that their order does not matter and none
/// has to be sorted or copied.
#[derive(Clone, Copy)]
pub(super) struct SeriesHasher {
    first: u64,
    second: u64,
}

impl SeriesHasher {
    /// The process's own: hashes of different pages can be compared.
    pub(super) fn get() -> Self {
        *HASHER
    }

    /// The hash of a series of that name without labels.
    pub(super) fn name(self, name: &str) -> u64 {
        mix(self.bytes(name) ^ self.first, self.second)
    }

    /// What a label adds to the hash. The value is spelt as we would spell it; a label without one
    /// is as none.
    pub(super) fn label(self, name: &str, value: &str) -> u64 {
        if value.is_empty() {
            return 0;
        }
        mix(
            self.bytes(name) ^ self.first,
            self.bytes(value) ^ self.second,
        )
    }

    fn bytes(self, text: &str) -> u64 {
        const PRIME: u64 = 0x9e37_79b9_7f4a_7c15;
        let bytes = text.as_bytes();
        let mut hash = self.first ^ (bytes.len() as u64).wrapping_mul(PRIME);
        let mut rest = bytes;
        while let Some((chunk, after)) = rest.split_first_chunk()
            && !after.is_empty()
        {
            hash = mix(hash ^ u64::from_le_bytes(*chunk), self.second);
            rest = after;
        }
        // The last eight bytes, some of them again, or all there are.
        let tail = match (bytes.last_chunk(), rest) {
            (Some(chunk), _) => u64::from_le_bytes(*chunk),
            (None, rest) => rest
                .iter()
                .fold(0, |tail, &byte| tail << 8 | u64::from(byte)),
        };
        mix(hash ^ tail, PRIME)
    }
}

/// Finds series among those that the caller keeps and numbers: an open-addressed table of eight
/// bytes a place, which is looked at without touching the series themselves.
#[derive(Default)]
pub(super) struct SeriesIndex {
    /// At most half of them are taken.
    places: Vec<Place>,
    taken: usize,
}

#[derive(Clone, Copy, Default)]
struct Place {
    /// The upper half of the hash; its lower half is what places it.
    tag: u32,
    /// The number of the series, plus one; 0 is an empty place.
    id: u32,
}

impl SeriesIndex {
    /// Notes series number `id`, which has this hash, unless one that `is_equal` is there.
    /// `hash_of` tells the hash of a series by its number.
    pub(super) fn insert(
        &mut self,
        hash: u64,
        id: u32,
        hash_of: impl Fn(u32) -> u64,
        is_equal: impl Fn(u32) -> bool,
    ) -> bool {
        if self.taken * 2 >= self.places.len() {
            let size = (self.places.len() * 4).max(256);
            let old = std::mem::replace(&mut self.places, vec![Place::default(); size]);
            for id in old.iter().filter_map(|place| place.id.checked_sub(1)) {
                self.put(hash_of(id), id, |_| false);
            }
        }
        let is_new = self.put(hash, id, is_equal);
        self.taken += usize::from(is_new);
        is_new
    }

    fn put(&mut self, hash: u64, id: u32, is_equal: impl Fn(u32) -> bool) -> bool {
        let mask = self.places.len() - 1;
        let tag = (hash >> 32) as u32;
        #[expect(
            clippy::cast_possible_truncation,
            reason = "only the low bits are wanted"
        )]
        let mut at = hash as usize & mask;
        while let Some(other) = self.places[at].id.checked_sub(1) {
            if self.places[at].tag == tag && is_equal(other) {
                return false;
            }
            at = (at + 1) & mask;
        }
        self.places[at] = Place { tag, id: id + 1 };
        true
    }
}

/// Random, so that no page can be made to clash on purpose.
static HASHER: LazyLock<SeriesHasher> = LazyLock::new(|| {
    let state = RandomState::new();
    SeriesHasher {
        first: state.hash_one(0_u8),
        second: state.hash_one(1_u8) | 1,
    }
});

/// Both halves of the product, folded.
fn mix(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the low half is what is wanted"
    )]
    let low = product as u64;
    low ^ (product >> 64) as u64
}

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
    fn names_and_values_are_not_mixed_up() {
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
    fn a_clash_of_hashes_keeps_both_series() {
        let mut index = SeriesIndex::default();
        assert!(index.insert(7, 0, |_| 7, |_| false));
        assert!(index.insert(7, 1, |_| 7, |_| false));
        assert!(!index.insert(7, 2, |_| 7, |id| id == 1));
    }

    #[test]
    fn a_growing_index_forgets_nothing() {
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
