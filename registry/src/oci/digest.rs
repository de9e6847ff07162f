//! Digests, the algorithms they name, and computing them.

use std::sync::Arc;

use sha2::Digest as _;

use super::text;

/// A digest algorithm that the registry can compute (image-spec, Registered algorithms).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// SHA-256, which everyone uses.
    #[default]
    Sha256,
    /// SHA-512.
    Sha512,
}

/// The text names no algorithm that the registry can compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the digest algorithm must be sha256 or sha512")]
pub struct UnknownAlgorithm;

impl Algorithm {
    /// Every algorithm.
    pub const ALL: [Self; 2] = [Self::Sha256, Self::Sha512];

    /// Reads a name such as `sha256`, as in the `digest-algorithm` parameter (end-4c).
    pub fn parse(text: &str) -> Result<Self, UnknownAlgorithm> {
        Self::ALL
            .into_iter()
            .find(|algorithm| algorithm.as_str() == text)
            .ok_or(UnknownAlgorithm)
    }

    /// The name as it stands in a digest.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    /// How many hexadecimal digits its digests have.
    pub fn hex_length(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha512 => 128,
        }
    }
}

text!(Algorithm, UnknownAlgorithm);

/// The digest of some content, such as `sha256:44136fa3…` (image-spec, Digests).
///
/// Only algorithms that can be verified are accepted, and only lower-case hexadecimal of their
/// length, so that equal content has one spelling. Cloning is cheap.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(Arc<str>);

/// Why a text is no digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// There is no colon.
    #[error("a digest must be an algorithm, a colon and hexadecimal digits")]
    Malformed,
    /// The registry cannot compute this algorithm.
    #[error(transparent)]
    Algorithm(#[from] UnknownAlgorithm),
    /// What follows the colon is not the algorithm's number of lower-case hexadecimal digits.
    #[error("a {algorithm} digest must have {} lower-case hexadecimal digits", algorithm.hex_length())]
    Hex {
        /// The algorithm that the digest names.
        algorithm: Algorithm,
    },
}

impl Digest {
    /// Reads a digest.
    pub fn parse(text: &str) -> Result<Self, DigestError> {
        let (algorithm, hex) = text.split_once(':').ok_or(DigestError::Malformed)?;
        let algorithm = Algorithm::parse(algorithm)?;
        if hex.len() != algorithm.hex_length() || !is_hex(hex.as_bytes()) {
            return Err(DigestError::Hex { algorithm });
        }
        Ok(Self(text.into()))
    }

    /// Reads a digest from a raw path segment or query value, whose colon may be written `%3A`.
    pub fn from_segment(segment: &str) -> Result<Self, DigestError> {
        match split_escaped_colon(segment) {
            Some((algorithm, hex)) => Self::parse(&format!("{algorithm}:{hex}")),
            None => Self::parse(segment),
        }
    }

    /// The digest of `bytes`.
    pub fn of(algorithm: Algorithm, bytes: &[u8]) -> Self {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(bytes);
        hasher.finish()
    }

    /// The whole digest as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The algorithm it was computed with.
    pub fn algorithm(&self) -> Algorithm {
        // The name is all that differs, and both names are equally long.
        if self.0.starts_with("sha512") {
            Algorithm::Sha512
        } else {
            Algorithm::Sha256
        }
    }

    /// The hexadecimal digits.
    pub fn hex(&self) -> &str {
        &self.0[self.algorithm().as_str().len() + 1..]
    }
}

text!(Digest, DigestError);

/// A digest in the making. A clone goes on from the same state.
#[derive(Clone, Debug)]
pub struct Hasher(State);

#[derive(Clone, Debug)]
enum State {
    Sha256(sha2::Sha256),
    Sha512(sha2::Sha512),
}

impl Hasher {
    /// Starts with no bytes.
    pub fn new(algorithm: Algorithm) -> Self {
        Self(match algorithm {
            Algorithm::Sha256 => State::Sha256(sha2::Sha256::new()),
            Algorithm::Sha512 => State::Sha512(sha2::Sha512::new()),
        })
    }

    /// The algorithm it computes.
    pub fn algorithm(&self) -> Algorithm {
        match self.0 {
            State::Sha256(_) => Algorithm::Sha256,
            State::Sha512(_) => Algorithm::Sha512,
        }
    }

    /// Takes in the next bytes of the content.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            State::Sha256(state) => state.update(bytes),
            State::Sha512(state) => state.update(bytes),
        }
    }

    /// The digest of all bytes taken in.
    pub fn finish(self) -> Digest {
        let algorithm = self.algorithm();
        match self.0 {
            State::Sha256(state) => spell(algorithm, &state.finalize()),
            State::Sha512(state) => spell(algorithm, &state.finalize()),
        }
    }
}

fn spell(algorithm: Algorithm, hash: &[u8]) -> Digest {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(algorithm.as_str().len() + 1 + algorithm.hex_length());
    text.push_str(algorithm.as_str());
    text.push(':');
    for byte in hash {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    Digest(text.into())
}

/// Whether a raw path segment is a digest by image-spec's grammar, of whatever algorithm: other
/// registries may know more than ours.
pub(super) fn is_digest_segment(segment: &str) -> bool {
    let Some((algorithm, encoded)) = split_escaped_colon(segment).or(segment.split_once(':'))
    else {
        return false;
    };
    match Algorithm::parse(algorithm) {
        Ok(known) => encoded.len() == known.hex_length() && is_hex(encoded.as_bytes()),
        Err(UnknownAlgorithm) => {
            is_algorithm(algorithm.as_bytes()) && is_encoded(encoded.as_bytes())
        }
    }
}

/// Splits at an escaped colon before which there is no plain one.
fn split_escaped_colon(segment: &str) -> Option<(&str, &str)> {
    let at = segment.find(['%', ':'])?;
    let escape = segment.get(at..at + 3)?;
    escape
        .eq_ignore_ascii_case("%3a")
        .then(|| (&segment[..at], &segment[at + 3..]))
}

/// Folded rather than searched, which lets the compiler use vector instructions.
fn is_hex(bytes: &[u8]) -> bool {
    bytes.iter().fold(true, |valid, &byte| {
        valid & matches!(byte, b'0'..=b'9' | b'a'..=b'f')
    })
}

fn is_algorithm(bytes: &[u8]) -> bool {
    bytes
        .split(|byte| matches!(byte, b'+' | b'.' | b'_' | b'-'))
        .all(|part| {
            !part.is_empty()
                && part
                    .iter()
                    .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9'))
        })
}

fn is_encoded(bytes: &[u8]) -> bool {
    !bytes.is_empty()
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'=' | b'_' | b'-'))
}
