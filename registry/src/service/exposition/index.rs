//! Which series a page holds: hashes of name and label set, whatever the labels' order.

use std::collections::HashMap;
use std::collections::hash_map::{Entry, RandomState};
use std::hash::{BuildHasher, BuildHasherDefault, Hasher};
use std::sync::LazyLock;

use super::escape::unescape;
use super::lex::Labels;

/// The hash of one series, put together piece by piece. Labels are added up, so that their order
/// does not matter and none has to be sorted or copied.
#[derive(Clone, Copy, Debug)]
pub(super) struct SeriesHash(pub(super) u64);

impl SeriesHash {
    pub(super) fn of_name(name: &str) -> Self {
        Self(mix(bytes(name) ^ KEYS.0, KEYS.1))
    }

    /// Adds a label, its value as a page spells it.
    pub(super) fn add(&mut self, name: &str, value: &str) {
        self.0 = self.0.wrapping_add(label(name, value));
    }

    /// Takes a label out again.
    pub(super) fn remove(&mut self, name: &str, value: &str) {
        self.0 = self.0.wrapping_sub(label(name, value));
    }
}

/// Series by hash; equality is for the caller to say, so that a clash of hashes loses nothing.
#[derive(Default)]
pub(super) struct SeriesIndex(HashMap<u64, u32, BuildHasherDefault<Identity>>);

impl SeriesIndex {
    pub(super) fn with_capacity(capacity: usize) -> Self {
        Self(HashMap::with_capacity_and_hasher(
            capacity,
            BuildHasherDefault::default(),
        ))
    }

    /// Notes series number `id`, unless one that `is_equal` is there.
    pub(super) fn insert(&mut self, hash: u64, id: u32, is_equal: impl Fn(u32) -> bool) -> bool {
        let mut key = hash;
        loop {
            match self.0.entry(key) {
                Entry::Vacant(entry) => {
                    entry.insert(id);
                    return true;
                }
                Entry::Occupied(entry) if is_equal(*entry.get()) => return false,
                // Another series of this hash: once in ages. It takes the next place.
                Entry::Occupied(_) => key = key.wrapping_add(1),
            }
        }
    }
}

/// Whether two label sets, as pages spell them, are equal.
pub(super) fn same_labels(left: &str, right: &str) -> bool {
    if left == right {
        return true;
    }
    let sorted = |labels| {
        let mut labels: Vec<_> = Labels::new(labels)
            .map(|(name, value)| (name, unescape(value)))
            .collect();
        labels.sort_unstable();
        labels
    };
    sorted(left) == sorted(right)
}

/// Random, so that no page can be made to clash on purpose.
static KEYS: LazyLock<(u64, u64)> = LazyLock::new(|| {
    let state = RandomState::new();
    (state.hash_one(0u8), state.hash_one(1u8) | 1)
});

fn label(name: &str, value: &str) -> u64 {
    mix(bytes(name) ^ KEYS.0, bytes(value) ^ KEYS.1)
}

fn bytes(text: &str) -> u64 {
    const PRIME: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut hash = KEYS.0 ^ (text.len() as u64).wrapping_mul(PRIME);
    let mut chunks = text.as_bytes().chunks_exact(8);
    for chunk in &mut chunks {
        let chunk = chunk.try_into().map_or(0, u64::from_le_bytes);
        hash = mix(hash ^ chunk, KEYS.1);
    }
    let mut tail = [0; 8];
    tail[..chunks.remainder().len()].copy_from_slice(chunks.remainder());
    mix(hash ^ u64::from_le_bytes(tail), PRIME)
}

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

/// The keys of the index are hashes already.
#[derive(Default)]
struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_labels_changes_neither_hash_nor_equality() {
        let mut left = SeriesHash::of_name("x");
        left.add("a", "1");
        left.add("b", "2");
        let mut right = SeriesHash::of_name("x");
        right.add("b", "2");
        right.add("a", "1");
        assert_eq!(left.0, right.0);
        assert!(same_labels(r#"a="1",b="2""#, r#"b="2",a="1""#));
        assert!(!same_labels(r#"a="1",b="2""#, r#"a="2",b="1""#));
    }

    #[test]
    fn names_and_values_are_not_mixed_up() {
        let hash = |labels: &[(&str, &str)]| {
            let mut hash = SeriesHash::of_name("x");
            for (name, value) in labels {
                hash.add(name, value);
            }
            hash.0
        };
        let all = [
            hash(&[]),
            hash(&[("a", "1"), ("b", "2")]),
            hash(&[("a", "2"), ("b", "1")]),
            hash(&[("1", "a"), ("b", "2")]),
            hash(&[("a", "")]),
            hash(&[("", "a")]),
            hash(&[("a", "\0")]),
        ];
        for (at, one) in all.iter().enumerate() {
            assert!(all.iter().skip(at + 1).all(|other| other != one), "{at}");
        }
    }

    #[test]
    fn a_clash_of_hashes_keeps_both_series() {
        let mut index = SeriesIndex::default();
        assert!(index.insert(7, 0, |_| false));
        assert!(index.insert(7, 1, |_| false));
        assert!(!index.insert(7, 2, |id| id == 1));
    }
}
