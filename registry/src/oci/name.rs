//! Repository names.

use std::sync::Arc;

use super::checked_string;

/// A repository's name: components of lower-case letters and digits, joined by slashes.
///
/// The grammar is distribution-spec's `<name>` (Pulling manifests). The length is limited to 255 bytes;
/// clients limit host and name together to that. Cloning is cheap.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

/// Why a text is not a repository name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// It is empty.
    #[error("a repository name must not be empty")]
    Empty,
    /// It has more than [`Name::MAX_LENGTH`] bytes.
    #[error("a repository name must not be longer than {max} bytes", max = Name::MAX_LENGTH)]
    TooLong,
    /// A component is invalid or empty.
    #[error(
        "a repository name must be components joined by single slashes; a component must be lower-case \
         letters and digits, and may have single periods, one or two underscores, or hyphens between them"
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

checked_string!(Name, NameError);

/// Whether `component` consists of runs of letters and digits, with a valid separator between them.
fn is_component(component: &[u8]) -> bool {
    let mut rest = component;
    loop {
        let run = length(rest, |byte| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit()
        });
        rest = &rest[run..];
        // Separators stand between two runs only: a component neither begins nor ends with one.
        if run == 0 || rest.is_empty() {
            return run > 0;
        }
        let separator = length(rest, |byte| matches!(byte, b'.' | b'_' | b'-'));
        // The grammar allows any number of hyphens, but no other repetition and no mix.
        if !matches!(&rest[..separator], b"." | b"_" | b"__")
            && (separator == 0 || rest[..separator].iter().any(|&byte| byte != b'-'))
        {
            return false;
        }
        rest = &rest[separator..];
    }
}

/// The number of leading bytes that satisfy `wanted`.
fn length(bytes: &[u8], wanted: impl Fn(u8) -> bool) -> usize {
    bytes.iter().take_while(|&&byte| wanted(byte)).count()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn valid_names_are_accepted() {
        for name in [
            "a",
            "0",
            "library/alpine",
            "a/b/c/d/e",
            "a.b",
            "a_b",
            "a__b",
            "a-b",
            "a---b",
            "a.b_c__d-e--f/0",
            "blobs/uploads/manifests/tags/list",
            "v2",
        ] {
            assert_eq!(Name::parse(name).unwrap().as_str(), name);
        }
    }

    #[test]
    fn invalid_names_are_rejected() {
        for name in [
            "/", "a/", "/a", "a//b", "A", "aB", ".a", "a.", "a..b", "a___b", "a._b", "a-.b", "-a",
            "a-", "_a", "a_", ".", "..", "../a", "a/../b", "a/./b", "a b", "a\0", "a\n", "ä",
            "a%2fb", "a:b", "a\\b", "_catalog", "a/_b",
        ] {
            assert_eq!(Name::parse(name), Err(NameError::Component), "{name:?}");
        }
        assert_eq!(Name::parse(""), Err(NameError::Empty));
    }

    #[test]
    fn the_length_of_the_whole_name_is_limited() {
        assert!(Name::parse(&"a".repeat(255)).is_ok());
        assert_eq!(Name::parse(&"a".repeat(256)), Err(NameError::TooLong));
        assert_eq!(Name::parse(&"a/".repeat(128)), Err(NameError::TooLong));
    }

    #[test]
    fn serde_validates_names() {
        assert_eq!(
            serde_json::from_str::<Name>(r#""a\/b""#).unwrap().as_str(),
            "a/b"
        );
        assert!(serde_json::from_str::<Name>(r#""a//b""#).is_err());
        assert_eq!(
            serde_json::to_string(&Name::parse("a/b").unwrap()).unwrap(),
            r#""a/b""#
        );
    }

    proptest! {
        #[test]
        fn a_name_survives_printing_and_parsing(
            name in "[a-z0-9]+((\\.|_|__|-+)[a-z0-9]+){0,3}(/[a-z0-9]+((\\.|_|__|-+)[a-z0-9]+){0,3}){0,3}"
        ) {
            prop_assume!(name.len() <= Name::MAX_LENGTH);
            let parsed = Name::parse(&name).unwrap();
            prop_assert_eq!(&parsed.to_string(), &name);
            prop_assert_eq!(parsed.components().collect::<Vec<_>>().join("/"), name);
        }

        #[test]
        fn parsing_keeps_the_text_or_fails(text in "[a-z0-9._/-]{0,20}|.{0,20}") {
            if let Ok(name) = Name::parse(&text) {
                prop_assert_eq!(name.as_str(), text);
            }
        }
    }
}
