//! Tags.

use std::sync::Arc;

use super::text;

/// A tag: a human's name for a manifest, at most 128 characters.
///
/// The grammar is distribution-spec's `<tag-or-digest>` as a tag (Pulling manifests). Cloning is
/// cheap.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(Arc<str>);

/// The text is no tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a tag must be 1 to {max} letters, digits, underscores, periods and hyphens, and start with \
     neither period nor hyphen",
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

text!(Tag, TagError);

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
