//! The identifier of an upload session.

use std::fmt;
use std::sync::Arc;

/// An upload session's identifier: unguessable, valid in one repository, and safe in a path or URL
/// (32 lower-case hexadecimal digits).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UploadId(Arc<str>);

impl UploadId {
    const LENGTH: usize = 32;

    /// The identifier that a URL names; `None` for what no store has issued.
    pub fn parse(text: &str) -> Option<Self> {
        let digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        (text.len() == Self::LENGTH && text.bytes().all(digit)).then(|| Self(text.into()))
    }

    /// A new one: 128 random bits.
    pub fn random() -> Self {
        Self(format!("{:032x}", rand::random::<u128>()).into())
    }

    /// Its digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UploadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_identifier_parses_and_is_never_the_same() {
        let (a, b) = (UploadId::random(), UploadId::random());
        assert_ne!(a, b);
        assert_eq!(UploadId::parse(a.as_str()), Some(a));
    }

    #[test]
    fn what_could_leave_the_folder_is_no_identifier() {
        let wrong = [
            "",
            "..",
            "../../../../etc/passwd",
            "a/b",
            &"A".repeat(32),
            &"0".repeat(33),
        ];
        for text in wrong {
            assert_eq!(UploadId::parse(text), None, "{text}");
        }
    }
}
