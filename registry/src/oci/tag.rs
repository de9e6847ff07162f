//! Tags.

use std::sync::Arc;

use super::checked_string;

/// A tag: a movable name for a manifest, of at most 128 characters.
///
/// The grammar is distribution-spec's `<tag-or-digest>` as a tag (Pulling manifests). Cloning is
/// cheap.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(Arc<str>);

/// The text is not a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a tag must be 1 to {max} letters, digits, underscores, periods and hyphens, and must not start with \
     a period or a hyphen",
    max = Tag::MAX_LENGTH
)]
pub struct TagError;

impl Tag {
    /// The longest tag accepted, in bytes.
    pub const MAX_LENGTH: usize = 128;

    /// Reads a tag.
    pub fn parse(text: &str) -> Result<Self, TagError> {
        if !is_tag(text.as_bytes()) {
            return Err(TagError);
        }
        Ok(Self(text.into()))
    }

    /// The tag as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

checked_string!(Tag, TagError);

/// Whether the bytes are a tag.
pub(super) fn is_tag(bytes: &[u8]) -> bool {
    bytes.len() <= Tag::MAX_LENGTH
        && bytes.first().is_some_and(|&byte| is_word(byte))
        && bytes
            .iter()
            .all(|&byte| is_word(byte) || matches!(byte, b'.' | b'-'))
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn valid_tags_are_accepted() {
        let longest = "x".repeat(128);
        for tag in [
            "latest",
            "1",
            "v1.0.0-rc.1",
            "_",
            "A_b-C.d",
            "list",
            longest.as_str(),
        ] {
            assert_eq!(Tag::parse(tag).unwrap().as_str(), tag);
        }
    }

    #[test]
    fn invalid_tags_are_rejected() {
        let too_long = "x".repeat(129);
        for tag in [
            "", ".", "..", ".a", "-a", "a/b", "a:b", "a b", "a\0", "a\n", "ä", "a%20", "a+b",
            &too_long,
        ] {
            assert_eq!(Tag::parse(tag), Err(TagError), "{tag:?}");
        }
    }

    proptest! {
        #[test]
        fn a_tag_survives_printing_and_parsing(tag in "[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}") {
            prop_assert_eq!(Tag::parse(&tag).unwrap().to_string(), tag);
        }

        #[test]
        fn parsing_keeps_the_text_or_fails(text in any::<String>()) {
            if let Ok(tag) = Tag::parse(&text) {
                prop_assert_eq!(tag.as_str(), text);
            }
        }
    }
}
