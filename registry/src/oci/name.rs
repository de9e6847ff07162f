//! Repository names.

use std::sync::Arc;

use super::text;

/// A repository's name: components of lower-case letters and digits, joined by slashes.
///
/// The grammar is distribution-spec's `<name>` (Pulling manifests). The length is limited to 255
/// bytes, as clients do for the host and name together. Cloning is cheap.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

/// Why a text is no repository name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing at all.
    #[error("a repository name must not be empty")]
    Empty,
    /// More than [`Name::MAX_LENGTH`] bytes.
    #[error("a repository name must not be longer than {max} bytes", max = Name::MAX_LENGTH)]
    TooLong,
    /// A component that the grammar does not allow, an empty one included.
    #[error(
        "a repository name must be components of lower-case letters and digits, separated inside by \
         one period, one or two underscores, or hyphens, and joined by single slashes"
    )]
    Component,
}

impl Name {
    /// The longest name accepted, in bytes.
    pub const MAX_LENGTH: usize = 255;

    /// Reads a name.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text.len() > Self::MAX_LENGTH {
            return Err(NameError::TooLong);
        }
        if !text
            .split('/')
            .all(|component| is_component(component.as_bytes()))
        {
            return Err(NameError::Component);
        }
        Ok(Self(text.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The components, from the left; at least one.
    pub fn components(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }
}

text!(Name, NameError);

/// Whether `component` is runs of letters and digits with a valid separator between each two.
fn is_component(component: &[u8]) -> bool {
    let mut rest = component;
    loop {
        let run = length(rest, |byte| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit()
        });
        rest = &rest[run..];
        if run == 0 || rest.is_empty() {
            return run > 0;
        }
        let separator = length(rest, |byte| matches!(byte, b'.' | b'_' | b'-'));
        if !matches!(&rest[..separator], b"." | b"_" | b"__")
            && (separator == 0 || rest[..separator].iter().any(|&byte| byte != b'-'))
        {
            return false;
        }
        rest = &rest[separator..];
    }
}

/// How many bytes at the front satisfy `wanted`.
fn length(bytes: &[u8], wanted: impl Fn(u8) -> bool) -> usize {
    bytes.iter().take_while(|&&byte| wanted(byte)).count()
}
