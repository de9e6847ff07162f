//! Digests: their algorithms, their text, and their computation.

use std::sync::Arc;

use sha2::Digest as _;

use super::{checked_string, named_variants};

named_variants! {
    /// A digest algorithm that the registry can compute (image-spec, Registered algorithms).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub enum Algorithm {
        /// SHA-256, which everyone uses.
        #[default]
        Sha256 = "sha256",
        /// SHA-512.
        Sha512 = "sha512",
    }
}

/// The registry cannot compute digests of this algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the digest algorithm must be sha256 or sha512")]
pub struct UnknownAlgorithm;

impl Algorithm {
    /// Reads a name such as `sha256`, as in the `digest-algorithm` parameter (end-4c).
    pub fn parse(text: &str) -> Result<Self, UnknownAlgorithm> {
        Self::ALL
            .into_iter()
            .find(|algorithm| algorithm.as_str() == text)
            .ok_or(UnknownAlgorithm)
    }

    /// The number of hexadecimal digits of its digests.
    pub fn hex_length(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha512 => 128,
        }
    }
}

checked_string!(Algorithm, UnknownAlgorithm);

/// The digest of some content, such as `sha256:44136fa3…` (image-spec, Digests).
///
/// Its algorithm is one that the registry can verify. Its digits are lower-case and of the algorithm's
/// number, so that each content has one spelling per algorithm. Cloning is cheap.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(Arc<str>);

/// Why a text is not a digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// It has no colon.
    #[error("a digest must be an algorithm, a colon and hexadecimal digits")]
    Malformed,
    /// The algorithm is unknown.
    #[error(transparent)]
    Algorithm(#[from] UnknownAlgorithm),
    /// The part after the colon is not the algorithm's number of lower-case hexadecimal digits.
    #[error("a {algorithm} digest must have {} lower-case hexadecimal digits", algorithm.hex_length())]
    Hex {
        /// The digest's algorithm.
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

    /// Reads a digest from a raw path segment or query value, in which the colon may be escaped as `%3A`.
    pub fn from_segment(segment: &str) -> Result<Self, DigestError> {
        match split_escaped_colon(segment) {
            // Other escapes stay as they are, and fail: no other character of a digest needs one.
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

    /// The algorithm.
    pub fn algorithm(&self) -> Algorithm {
        let name = self.0.split(':').next().unwrap_or_default();
        // The name is valid, because a digest is only made with one.
        Algorithm::parse(name).unwrap_or_default()
    }

    /// The hexadecimal digits.
    pub fn hex(&self) -> &str {
        &self.0[self.algorithm().as_str().len() + 1..]
    }
}

checked_string!(Digest, DigestError);

/// Computes a digest. A clone continues from the same state.
#[derive(Clone, Debug)]
pub struct Hasher(HasherState);

#[derive(Clone, Debug)]
enum HasherState {
    Sha256(sha2::Sha256),
    Sha512(sha2::Sha512),
}

impl Hasher {
    /// A hasher that has read no bytes.
    pub fn new(algorithm: Algorithm) -> Self {
        Self(match algorithm {
            Algorithm::Sha256 => HasherState::Sha256(sha2::Sha256::new()),
            Algorithm::Sha512 => HasherState::Sha512(sha2::Sha512::new()),
        })
    }

    /// The algorithm.
    pub fn algorithm(&self) -> Algorithm {
        match self.0 {
            HasherState::Sha256(_) => Algorithm::Sha256,
            HasherState::Sha512(_) => Algorithm::Sha512,
        }
    }

    /// Adds the next bytes of the content.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            HasherState::Sha256(state) => state.update(bytes),
            HasherState::Sha512(state) => state.update(bytes),
        }
    }

    /// The digest of all bytes added.
    pub fn finish(self) -> Digest {
        let algorithm = self.algorithm();
        match self.0 {
            HasherState::Sha256(state) => spell(algorithm, &state.finalize()),
            HasherState::Sha512(state) => spell(algorithm, &state.finalize()),
        }
    }
}

fn spell(algorithm: Algorithm, hash: &[u8]) -> Digest {
    Digest(format!("{}:{}", algorithm.as_str(), hex::encode(hash)).into())
}

/// Whether a raw path segment is a digest by image-spec's grammar, of any algorithm: other registries may
/// support more of them.
pub(super) fn is_digest_segment(segment: &str) -> bool {
    let Some((algorithm, encoded)) = split_escaped_colon(segment).or(segment.split_once(':'))
    else {
        return false;
    };
    match Algorithm::parse(algorithm) {
        // image-spec fixes the digits of these algorithms, so that any registry refuses others.
        Ok(known) => encoded.len() == known.hex_length() && is_hex(encoded.as_bytes()),
        Err(UnknownAlgorithm) => {
            is_algorithm(algorithm.as_bytes()) && is_encoded(encoded.as_bytes())
        }
    }
}

/// Splits at the first colon, if it is escaped.
fn split_escaped_colon(segment: &str) -> Option<(&str, &str)> {
    // The first of both decides: after a literal colon, an escape is part of the digits.
    let at = segment.find(['%', ':'])?;
    // `get`, because the segment may end here or go on with a wider character.
    let escape = segment.get(at..at + 3)?;
    escape
        .eq_ignore_ascii_case("%3a")
        .then(|| (&segment[..at], &segment[at + 3..]))
}

/// Whether all bytes are lower-case hexadecimal digits. The `hex` crate reads upper case, too.
///
/// Folded rather than searched, which lets the compiler use vector instructions: this runs on each
/// path with a digest.
fn is_hex(bytes: &[u8]) -> bool {
    bytes.iter().fold(true, |valid, &byte| {
        valid & matches!(byte, b'0'..=b'9' | b'a'..=b'f')
    })
}

fn is_algorithm(bytes: &[u8]) -> bool {
    bytes
        .split(|byte| matches!(byte, b'+' | b'.' | b'_' | b'-'))
        .all(|part| {
            // The grammar joins components by one separator each, so that `a++b` is none.
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EMPTY_256: &str =
        "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    const EMPTY_512: &str = "sha512:cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce\
                             47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e";

    #[test]
    fn the_digests_of_no_bytes_are_the_well_known_ones() {
        assert_eq!(Digest::of(Algorithm::Sha256, b"").as_str(), EMPTY_256);
        assert_eq!(Digest::of(Algorithm::Sha512, b"").as_str(), EMPTY_512);
    }

    #[test]
    fn a_digest_knows_its_parts() {
        for (text, algorithm) in [
            (EMPTY_256, Algorithm::Sha256),
            (EMPTY_512, Algorithm::Sha512),
        ] {
            let digest = Digest::parse(text).unwrap();
            assert_eq!(digest.algorithm(), algorithm);
            assert_eq!(digest.hex(), &text[7..]);
            assert_eq!(digest.hex().len(), algorithm.hex_length());
        }
    }

    #[test]
    fn a_malformed_digest_is_rejected_with_a_reason() {
        let short = Err(DigestError::Hex {
            algorithm: Algorithm::Sha256,
        });
        let unknown = Err(DigestError::Algorithm(UnknownAlgorithm));
        assert_eq!(Digest::parse(""), Err(DigestError::Malformed));
        assert_eq!(Digest::parse("latest"), Err(DigestError::Malformed));
        assert_eq!(Digest::parse("sha256:"), short);
        assert_eq!(Digest::parse("sha256:baddigeststring"), short);
        assert_eq!(Digest::parse(&EMPTY_256[..70]), short);
        assert_eq!(Digest::parse(&format!("{EMPTY_256}0")), short);
        assert_eq!(Digest::parse(&EMPTY_256.replace('e', "E")), short);
        assert_eq!(Digest::parse(&EMPTY_256.replace('e', "g")), short);
        assert_eq!(
            Digest::parse(&EMPTY_256.replace("sha256", "blake3")),
            unknown
        );
        assert_eq!(
            Digest::parse(&EMPTY_256.replace("sha256", "SHA256")),
            unknown
        );
        assert_eq!(
            Digest::parse(&EMPTY_256.replace("sha256", "sha256:sha256")),
            short
        );
        assert_eq!(
            Digest::parse(&EMPTY_256.replace("sha256", "../sha256")),
            unknown
        );
    }

    #[test]
    fn only_the_colon_of_a_segment_may_be_escaped() {
        let digest = Digest::parse(EMPTY_256).unwrap();
        for segment in [
            EMPTY_256,
            &EMPTY_256.replace(':', "%3A"),
            &EMPTY_256.replace(':', "%3a"),
        ] {
            assert_eq!(Digest::from_segment(segment), Ok(digest.clone()));
        }
        for segment in [
            "%3A",
            "%",
            "%3",
            "sha256%3A",
            "sha256%3A%3A",
            "é%3a",
            "sha256%é",
            ":%3a",
        ] {
            assert!(Digest::from_segment(segment).is_err(), "{segment}");
            assert!(!is_digest_segment(segment), "{segment}");
        }
    }

    #[test]
    fn a_cloned_hasher_is_independent() {
        for algorithm in Algorithm::ALL {
            let mut first = Hasher::new(algorithm);
            first.update(b"one ");
            let mut second = first.clone();
            first.update(b"two");
            second.update(b"three");
            assert_eq!(first.finish(), Digest::of(algorithm, b"one two"));
            assert_eq!(second.finish(), Digest::of(algorithm, b"one three"));
        }
    }

    #[test]
    fn algorithms_are_parsed_by_their_exact_names() {
        for algorithm in Algorithm::ALL {
            assert_eq!(Algorithm::parse(algorithm.as_str()), Ok(algorithm));
        }
        for name in ["", "SHA256", "sha384", "md5", "sha256 "] {
            assert_eq!(Algorithm::parse(name), Err(UnknownAlgorithm));
        }
    }

    proptest! {
        #[test]
        fn a_digest_survives_printing_and_parsing(
            text in "sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}"
        ) {
            prop_assert_eq!(Digest::parse(&text).unwrap().to_string(), text);
        }

        #[test]
        fn a_computed_digest_can_be_parsed(bytes: Vec<u8>, cut: prop::sample::Index) {
            for algorithm in Algorithm::ALL {
                let digest = Digest::of(algorithm, &bytes);
                prop_assert_eq!(Digest::parse(digest.as_str()), Ok(digest.clone()));
                let (head, tail) = bytes.split_at(cut.index(bytes.len() + 1));
                let mut hasher = Hasher::new(algorithm);
                hasher.update(head);
                hasher.update(tail);
                prop_assert_eq!(hasher.finish(), digest);
            }
        }

        #[test]
        fn parsing_never_panics(text: String) {
            let _ = Digest::parse(&text);
            let _ = Digest::from_segment(&text);
            let _ = is_digest_segment(&text);
        }
    }
}
