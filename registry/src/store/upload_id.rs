//! The identifier of an upload session.

use std::fmt;
use std::sync::Arc;

use uuid::Uuid;

/// An upload session's identifier: unguessable, valid in one repository, and safe in a path or URL.
/// It is a random UUID (RFC 9562, version 4) in lower case, as distribution-spec asks for (POST then
/// PUT).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UploadId(
    // The text and not the number: it becomes a path or a URL on every use.
    Arc<str>,
);

impl UploadId {
    /// Parses the identifier in a URL. Returns `None` unless it is written exactly as
    /// [`UploadId::random`] writes it.
    pub fn parse(text: &str) -> Option<Self> {
        // The crate also reads upper case, braces, URNs and UUIDs without hyphens. Two spellings of
        // one session would be two directories.
        let uuid = Uuid::try_parse(text).ok()?;
        let mut buffer = Uuid::encode_buffer();
        (uuid.hyphenated().encode_lower(&mut buffer) == text).then(|| Self(text.into()))
    }

    /// Makes a new identifier from 122 random bits of the system.
    pub fn random() -> Self {
        let mut buffer = Uuid::encode_buffer();
        let text: &str = Uuid::new_v4().hyphenated().encode_lower(&mut buffer);
        Self(text.into())
    }

    /// Returns the identifier as text.
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
    fn a_new_identifier_is_a_uuid_and_never_the_same() {
        let (a, b) = (UploadId::random(), UploadId::random());
        assert_ne!(a, b);
        let parts: Vec<_> = a.as_str().split('-').collect();
        assert_eq!(
            parts.iter().map(|part| part.len()).collect::<Vec<_>>(),
            [8, 4, 4, 4, 12]
        );
        assert!(parts[2].starts_with('4'), "{a}");
        assert!(parts[3].starts_with(['8', '9', 'a', 'b']), "{a}");
        assert_eq!(UploadId::parse(a.as_str()), Some(a));
    }

    #[test]
    fn only_the_lower_case_hyphenated_form_is_an_identifier() {
        let wrong = [
            "",
            "..",
            "../../../../etc/passwd",
            "a/b",
            &"0".repeat(36),
            &"-".repeat(36),
            "01234567-89AB-4def-8123-456789abcdef",
            "01234567-89ab-4def-8123-456789abcde",
            "01234567-89ab-4def-8123-456789abcdef0",
            "0123456-789ab-4def-8123-456789abcdef",
            "0123456789ab4def8123456789abcdef",
            "{01234567-89ab-4def-8123-456789abcdef}",
            "urn:uuid:01234567-89ab-4def-8123-456789abcdef",
        ];
        for text in wrong {
            assert_eq!(UploadId::parse(text), None, "{text}");
        }
    }
}
