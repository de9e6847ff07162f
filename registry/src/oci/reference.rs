//! References: a manifest's tag or digest within a repository.

use std::fmt;
use std::str::FromStr;

use super::{Digest, DigestError, Tag, TagError};

/// A tag or a digest (distribution-spec's `<tag-or-digest>`, end-3, end-7, end-9).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reference {
    /// A tag, which may move.
    Tag(Tag),
    /// A digest, which always names the same content.
    Digest(Digest),
}

/// Why a text is neither a tag nor a digest. A text with a colon is read as a digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// The text has no colon, and is not a tag.
    #[error(transparent)]
    Tag(#[from] TagError),
    /// The text has a colon, and is not a digest.
    #[error(transparent)]
    Digest(#[from] DigestError),
}

impl Reference {
    /// Reads a reference.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        if text.contains(':') {
            Ok(Self::Digest(Digest::parse(text)?))
        } else {
            Ok(Self::Tag(Tag::parse(text)?))
        }
    }

    /// Reads a reference from a raw path segment, in which a digest's colon may be escaped as `%3A`.
    pub fn from_segment(segment: &str) -> Result<Self, ReferenceError> {
        // A tag can have neither a colon nor an escape, so that no tag is taken for a digest.
        if segment.contains(':') || contains_escaped_colon(segment) {
            Ok(Self::Digest(Digest::from_segment(segment)?))
        } else {
            Ok(Self::Tag(Tag::parse(segment)?))
        }
    }

    /// The reference as text.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Tag(tag) => tag.as_str(),
            Self::Digest(digest) => digest.as_str(),
        }
    }
}

/// Whether a segment has a colon escaped as `%3A`. No other escape makes it a digest.
fn contains_escaped_colon(segment: &str) -> bool {
    let bytes = segment.as_bytes();
    bytes
        .windows(3)
        .any(|three| three.eq_ignore_ascii_case(b"%3a"))
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        Self::parse(text)
    }
}

impl From<Tag> for Reference {
    fn from(tag: Tag) -> Self {
        Self::Tag(tag)
    }
}

impl From<Digest> for Reference {
    fn from(digest: Digest) -> Self {
        Self::Digest(digest)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_text_with_a_colon_is_read_as_a_digest() {
        assert!(matches!(Reference::parse("latest"), Ok(Reference::Tag(_))));
        assert!(matches!(
            Reference::parse("sha256:0"),
            Err(ReferenceError::Digest(_))
        ));
        assert!(matches!(Reference::parse("-"), Err(ReferenceError::Tag(_))));
        assert!(matches!(Reference::parse(""), Err(ReferenceError::Tag(_))));
        assert!(matches!(
            Reference::from_segment("sha256%3A0"),
            Err(ReferenceError::Digest(_))
        ));
        // Semantic versions have plus signs, which clients escape.
        for tag in ["1.0.0%2Bbuild", "1.0.0+build", "a%20b", "%3"] {
            assert!(
                matches!(Reference::from_segment(tag), Err(ReferenceError::Tag(_))),
                "{tag}"
            );
        }
        let digest = format!("sha256%3a{}", "0".repeat(64));
        assert!(matches!(
            Reference::from_segment(&digest),
            Ok(Reference::Digest(_))
        ));
    }

    proptest! {
        #[test]
        fn a_reference_survives_printing_and_parsing(
            text in "[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}|sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}"
        ) {
            let reference = Reference::parse(&text).unwrap();
            prop_assert_eq!(&reference.to_string(), &text);
            prop_assert_eq!(Reference::from_segment(&text), Ok(reference));
        }
    }
}
