//! The identifier of an upload session.

use std::fmt;
use std::sync::Arc;

/// An upload session's identifier: unguessable, valid in one repository, and safe in a path or URL.
/// It is a UUID, as distribution-spec wants (POST then PUT), in lower case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UploadId(Arc<str>);

impl UploadId {
    const LENGTH: usize = 36;

    /// Where its hyphens are.
    const HYPHENS: [usize; 4] = [8, 13, 18, 23];

    /// The identifier that a URL names; `None` for what no store has issued.
    pub fn parse(text: &str) -> Option<Self> {
        let fits = |(place, byte): (usize, u8)| match byte {
            b'-' => Self::HYPHENS.contains(&place),
            b'0'..=b'9' | b'a'..=b'f' => !Self::HYPHENS.contains(&place),
            _ => false,
        };
        (text.len() == Self::LENGTH && text.bytes().enumerate().all(fits))
            .then(|| Self(text.into()))
    }

    /// A new one: 122 random bits, and 6 that say so (RFC 9562, section 5.4).
    pub fn random() -> Self {
        const VERSION: u128 = 0xf << 76;
        const VARIANT: u128 = 0b11 << 62;
        let bits = rand::random::<u128>() & !VERSION & !VARIANT | 4 << 76 | 0b10 << 62;
        let mut text = format!("{bits:032x}");
        for place in Self::HYPHENS {
            text.insert(place, '-');
        }
        Self(text.into())
    }

    /// Its text.
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
    fn what_could_leave_the_folder_is_no_identifier() {
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
        ];
        for text in wrong {
            assert_eq!(UploadId::parse(text), None, "{text}");
        }
    }
}
