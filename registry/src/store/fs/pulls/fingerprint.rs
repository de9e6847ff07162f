//! The numbers that stand for what was pulled.

use crate::oci::{Digest, Name, Tag};

/// Stands for a tag or a manifest of a repository. Two of them may have the same: then a pull of one counts
/// for the other, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PullFingerprint(u64);

/// Makes the fingerprints of one data directory. The numbers are written to disk, so that the function must
/// stay the same in all versions of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FingerprintKey([u64; 2]);

/// What a fingerprint stands for, so that a tag and a manifest never have the same by their names alone.
const TAG: u64 = 1;
const MANIFEST: u64 = 2;

/// The bytes of a digest that are read, from its end: 128 bits, of which 64 remain.
const DIGITS: usize = 32;

impl PullFingerprint {
    pub(super) const LENGTH: usize = 8;

    pub(super) const fn from_bytes(bytes: [u8; Self::LENGTH]) -> Self {
        Self(u64::from_le_bytes(bytes))
    }

    pub(super) const fn to_bytes(self) -> [u8; Self::LENGTH] {
        self.0.to_le_bytes()
    }

    /// The number: all of its bits depend on the whole item.
    pub(super) const fn number(self) -> u64 {
        self.0
    }
}

impl FingerprintKey {
    /// A key that nobody knows: who chooses names and tags cannot choose their fingerprints.
    pub(super) fn random() -> Self {
        Self(rand::random())
    }

    pub(super) const fn from_halves(halves: [u64; 2]) -> Self {
        Self(halves)
    }

    pub(super) const fn halves(self) -> [u64; 2] {
        self.0
    }

    pub(super) fn tag(self, name: &Name, tag: &Tag) -> PullFingerprint {
        self.of(TAG, name, tag.as_str().as_bytes())
    }

    pub(super) fn manifest(self, name: &Name, digest: &Digest) -> PullFingerprint {
        let text = digest.as_str().as_bytes();
        self.of(MANIFEST, name, &text[text.len().saturating_sub(DIGITS)..])
    }

    fn of(self, kind: u64, name: &Name, item: &[u8]) -> PullFingerprint {
        let Self([first, second]) = self;
        let name = name.as_str().as_bytes();
        // With the lengths: no byte can belong to the name in one item and to the tag in another.
        let lengths = kind << 32 | (name.len() as u64) << 16 | item.len() as u64;
        let state = fold(first ^ lengths, second);
        let state = absorb(state, name, second);
        PullFingerprint(fold(absorb(state, item, second) ^ first, second))
    }
}

/// Mixes bytes into a state, eight at a time. The last ones are filled up with zeros.
fn absorb(mut state: u64, bytes: &[u8], key: u64) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        state = fold(state ^ u64::from_le_bytes(*word), key);
    }
    if !rest.is_empty() {
        let mut word = [0; 8];
        word[..rest.len()].copy_from_slice(rest);
        state = fold(state ^ u64::from_le_bytes(word), key);
    }
    state
}

/// Both halves of a product, over each other: the cheapest mix of all bits, as in wyhash.
#[expect(
    clippy::cast_possible_truncation,
    reason = "the lower half of the product"
)]
fn fold(state: u64, key: u64) -> u64 {
    let product = u128::from(state) * u128::from(key | 1);
    product as u64 ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::oci::Algorithm;

    const KEY: FingerprintKey = FingerprintKey([0x0123_4567_89ab_cdef, 0x9e37_79b9_7f4a_7c15]);

    #[test]
    fn items_that_differ_have_different_fingerprints() {
        let mut found = HashSet::new();
        let mut count = 0;
        for repository in ["a", "ab", "a/b", "team/app/web", "team/app/webs"] {
            let name = Name::parse(repository).unwrap();
            for n in 0..20_000 {
                let tag = Tag::parse(&format!("{n}")).unwrap();
                let digest = Digest::of(Algorithm::Sha256, tag.as_str().as_bytes());
                found.insert(KEY.tag(&name, &tag).number());
                found.insert(KEY.manifest(&name, &digest).number());
                count += 2;
            }
        }
        assert_eq!(found.len(), count);
        let tag = |name, tag| KEY.tag(&Name::parse(name).unwrap(), &Tag::parse(tag).unwrap());
        assert_ne!(tag("ab", "c"), tag("a", "bc"));
        assert_ne!(tag("a", "b0"), tag("a", "b00"));
    }

    #[test]
    fn every_bit_is_set_in_half_of_them() {
        let name = Name::parse("team/app").unwrap();
        let mut set = [0_u32; 64];
        for n in 0..4096 {
            let number = KEY
                .tag(&name, &Tag::parse(&n.to_string()).unwrap())
                .number();
            for (bit, count) in set.iter_mut().enumerate() {
                *count += u32::from(number >> bit & 1 == 1);
            }
        }
        for (bit, count) in set.iter().enumerate() {
            assert!((1850..2250).contains(count), "bit {bit}: {count}");
        }
    }

    #[test]
    fn a_fingerprint_is_the_same_in_all_versions() {
        let name = Name::parse("team/app/web").unwrap();
        let digest = Digest::of(Algorithm::Sha256, b"");
        let tag = KEY.tag(&name, &Tag::parse("latest").unwrap());
        let manifest = KEY.manifest(&name, &digest);
        insta::assert_snapshot!(format!("{:016x} {:016x}", tag.number(), manifest.number()), @"2bd821793b20c00d 894e4ac151c8a81a");
        assert_eq!(PullFingerprint::from_bytes(tag.to_bytes()), tag);
        assert_ne!(FingerprintKey::random(), FingerprintKey::random());
    }
}
