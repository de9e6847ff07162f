//! Reproducible bytes of any length from a seed: gigabytes without memory or disk.

use std::fmt::Write;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};
use sha2::{Digest, Sha256, Sha512};

/// Bytes per piece.
const PIECE: usize = 256 * 1024;

/// The pieces of a body of `length` bytes that depends on `seed` alone, and its digest.
///
/// The digest is computed independently of octoserve's code, so that the tests check that code.
pub struct Content {
    source: StdRng,
    left: u64,
    hash: Sha256,
}

impl Content {
    /// A body of `length` bytes.
    pub fn new(seed: u64, length: u64) -> Self {
        Self {
            source: StdRng::seed_from_u64(seed),
            left: length,
            hash: Sha256::new(),
        }
    }

    /// The digest of all pieces so far, in the format of the specification.
    pub fn digest(self) -> String {
        spell(&self.hash.finalize())
    }
}

impl Iterator for Content {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let length = usize::try_from(self.left).map_or(PIECE, |left| left.min(PIECE));
        if length == 0 {
            return None;
        }
        let mut piece = vec![0; length];
        self.source.fill_bytes(&mut piece);
        self.hash.update(&piece);
        self.left -= length as u64;
        Some(Bytes::from(piece))
    }
}

/// A small body in one piece.
pub fn bytes(seed: u64, length: u64) -> Vec<u8> {
    Content::new(seed, length).flatten().collect()
}

/// The sha256 digest of `bytes`, in the format of the specification.
pub fn digest(bytes: &[u8]) -> String {
    spell(&Sha256::digest(bytes))
}

/// The sha512 digest of `bytes`, in the format of the specification.
pub fn sha512(bytes: &[u8]) -> String {
    hexadecimal("sha512:", &Sha512::digest(bytes))
}

/// The digest of a sha256 hash, in the format of the specification.
pub fn spell(hash: &[u8]) -> String {
    hexadecimal("sha256:", hash)
}

fn hexadecimal(prefix: &str, hash: &[u8]) -> String {
    hash.iter().fold(prefix.to_owned(), |mut text, byte| {
        // Writing to a String cannot fail.
        write!(text, "{byte:02x}").ok();
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_in_pieces_has_the_digest_of_the_whole() {
        let length = PIECE as u64 * 2 + 17;
        let mut pieces = Content::new(7, length);
        assert_eq!(
            pieces.by_ref().map(|piece| piece.len() as u64).sum::<u64>(),
            length
        );
        assert_eq!(pieces.digest(), digest(&bytes(7, length)));
    }

    #[test]
    fn the_digest_of_no_bytes_is_the_known_one() {
        let known = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(digest(b""), known);
    }
}
