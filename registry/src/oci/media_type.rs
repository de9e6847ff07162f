//! Media types.
//!
//! Parsed here rather than by the `mime` crate, which lower-cases what it reads: image-spec compares
//! media types as they are written. It also accepts names that RFC 6838 does not.

use std::borrow::Cow;

use super::checked_string;

/// A media type in its original spelling, such as `application/vnd.oci.image.manifest.v1+json` or
/// `application/vnd.dev.sigstore.bundle+json;version=0.2`.
///
/// The grammar is RFC 6838's (section 4.2) for the type, and RFC 9110's (section 5.6.6) for its parameters.
/// Two media types are equal if their spellings are. The `is` methods compare the type only, and ignore case
/// and parameters. Known types need no allocation.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MediaType(Cow<'static, str>);

/// The text is not a media type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a media type must be two names joined by a slash, each of at most 127 letters, digits and \
     !#$&-^_.+, optionally with parameters such as ;version=1, and at most {max} bytes in all",
    max = MediaType::MAX_LENGTH
)]
pub struct MediaTypeError;

/// Declares the media types that the registry knows: a constant for each, and the list of them.
macro_rules! known_types {
    ($($(#[$meta:meta])* $name:ident = $text:literal,)+) => {
        impl MediaType {
            $($(#[$meta])* pub const $name: Self = Self(Cow::Borrowed($text));)+

            const KNOWN: [Self; [$($text),+].len()] = [$(Self::$name),+];
        }
    };
}

known_types! {
    /// An image manifest.
    OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json",
    /// An image index.
    OCI_INDEX = "application/vnd.oci.image.index.v1+json",
    /// An artifact manifest, of the release candidates of image-spec 1.1. The release dropped it.
    OCI_ARTIFACT = "application/vnd.oci.artifact.manifest.v1+json",
    /// An image's configuration.
    OCI_CONFIG = "application/vnd.oci.image.config.v1+json",
    /// The two bytes `{}`, for a required descriptor of no content.
    OCI_EMPTY = "application/vnd.oci.empty.v1+json",
    /// A layer, uncompressed.
    OCI_LAYER = "application/vnd.oci.image.layer.v1.tar",
    /// A layer, compressed with gzip.
    OCI_LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip",
    /// A layer, compressed with zstd.
    OCI_LAYER_ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd",
    /// Docker's image manifest (schema 2).
    DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json",
    /// Docker's index (schema 2).
    DOCKER_MANIFEST_LIST = "application/vnd.docker.distribution.manifest.list.v2+json",
    /// Docker's image configuration.
    DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json",
    /// Docker's layer, compressed with gzip.
    DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip",
    /// Docker's layer that registries do not distribute.
    DOCKER_FOREIGN_LAYER = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    /// Bytes of no particular type. Blobs are served with it.
    OCTET_STREAM = "application/octet-stream",
}

impl MediaType {
    /// The longest media type accepted, in bytes, parameters included.
    pub const MAX_LENGTH: usize = 1024;

    /// Reads a media type and keeps its spelling: image-spec compares media types as they are written, and some
    /// artifact types have a parameter.
    pub fn parse(text: &str) -> Result<Self, MediaTypeError> {
        if let Some(known) = Self::KNOWN.into_iter().find(|known| known.as_str() == text) {
            return Ok(known);
        }
        let essence = essence(text);
        if text.len() > Self::MAX_LENGTH
            || !is_essence(essence)
            // The essence is a prefix of the text: trimmed spaces are left to the parameters.
            || !are_parameters(&text[essence.len()..])
        {
            return Err(MediaTypeError);
        }
        Ok(Self(Cow::Owned(text.to_owned())))
    }

    /// Reads a `Content-Type` header. Parameters are dropped, as distribution-spec asks registries to do
    /// (Pushing Manifests), and so is the case, which is insignificant (RFC 9110, section 8.3.1).
    pub fn from_content_type(text: &str) -> Result<Self, MediaTypeError> {
        let essence = essence(text.trim_ascii());
        if let Some(known) = Self::known(essence) {
            return Ok(known);
        }
        if !is_essence(essence) {
            return Err(MediaTypeError);
        }
        // `MAX_LENGTH` needs no check: the grammar allows two names of at most 127 bytes.
        Ok(Self(Cow::Owned(essence.to_ascii_lowercase())))
    }

    /// The media type as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The media type without parameters.
    pub fn essence(&self) -> &str {
        essence(&self.0)
    }

    /// Whether both have the same type. Case and parameters are ignored.
    pub fn is(&self, other: &Self) -> bool {
        self.essence().eq_ignore_ascii_case(other.essence())
    }

    /// The usual spelling of a manifest's media type; `None` if the registry accepts no manifests of this
    /// type.
    pub fn as_manifest(&self) -> Option<Self> {
        Self::known(self.essence()).filter(Self::is_manifest)
    }

    /// Whether it is an image manifest, OCI's or Docker's.
    pub fn is_image(&self) -> bool {
        self.is(&Self::OCI_MANIFEST) || self.is(&Self::DOCKER_MANIFEST)
    }

    /// Whether it is an index, OCI's or Docker's.
    pub fn is_index(&self) -> bool {
        self.is(&Self::OCI_INDEX) || self.is(&Self::DOCKER_MANIFEST_LIST)
    }

    /// Whether it is a manifest that the registry accepts.
    pub fn is_manifest(&self) -> bool {
        self.is_image() || self.is_index() || self.is(&Self::OCI_ARTIFACT)
    }

    /// Whether it is a layer that need not be pushed (image-spec, Non-Distributable Layers).
    pub fn is_non_distributable(&self) -> bool {
        [
            // Prefixes, because each compression has a type of its own.
            "application/vnd.oci.image.layer.nondistributable.",
            "application/vnd.docker.image.rootfs.foreign.",
        ]
        .into_iter()
        .any(|prefix| {
            let start = self.as_str().get(..prefix.len());
            start.is_some_and(|start| start.eq_ignore_ascii_case(prefix))
        })
    }

    fn known(essence: &str) -> Option<Self> {
        Self::KNOWN
            .into_iter()
            .find(|known| known.as_str().eq_ignore_ascii_case(essence))
    }
}

checked_string!(MediaType, MediaTypeError);

/// The type without its parameters, and without the spaces before them.
fn essence(text: &str) -> &str {
    let essence = text.split_once(';').map_or(text, |(essence, _)| essence);
    essence.trim_end_matches(SPACE)
}

/// Optional whitespace (RFC 9110, section 5.6.3).
const SPACE: [char; 2] = [' ', '\t'];

fn is_essence(text: &str) -> bool {
    text.split_once('/').is_some_and(|(kind, subtype)| {
        is_restricted_name(kind.as_bytes()) && is_restricted_name(subtype.as_bytes())
    })
}

/// Whether `rest` is parameters: each after a semicolon, and possibly empty.
fn are_parameters(mut rest: &str) -> bool {
    loop {
        let Some(next) = rest.trim_start_matches(SPACE).strip_prefix(';') else {
            return rest.is_empty();
        };
        let next = next.trim_start_matches(SPACE);
        let name = token(next);
        rest = match next[name..].strip_prefix('=') {
            Some(value) if name > 0 => match length_of_value(value) {
                Some(length) => &value[length..],
                None => return false,
            },
            // A parameter may be empty, as in `a/b;;c=1` (RFC 9110, section 5.6.6).
            _ if name == 0 => next,
            _ => return false,
        };
    }
}

/// The length of the leading value, which is a token or a quoted string. `None` if it is neither.
fn length_of_value(text: &str) -> Option<usize> {
    let Some(quoted) = text.strip_prefix('"') else {
        return Some(token(text)).filter(|&length| length > 0);
    };
    let mut escaped = false;
    for (at, byte) in quoted.bytes().enumerate() {
        // ASCII only, so that every media type can be the value of a header.
        if !matches!(byte, b'\t' | b' '..=b'~') {
            return None;
        }
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            // `at` does not count the opening quote, and the length includes both quotes.
            b'"' => return Some(at + 2),
            _ => {}
        }
    }
    None
}

/// The length of the leading token (RFC 9110, section 5.6.2).
fn token(text: &str) -> usize {
    text.bytes()
        .take_while(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
        .count()
}

fn is_restricted_name(name: &[u8]) -> bool {
    // `restricted-name` of RFC 6838 (section 4.2), with its longest length.
    name.len() <= 127
        && name.first().is_some_and(u8::is_ascii_alphanumeric)
        && name.iter().all(|byte| {
            byte.is_ascii_alphanumeric()
                || matches!(
                    byte,
                    b'!' | b'#' | b'$' | b'&' | b'-' | b'^' | b'_' | b'.' | b'+'
                )
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BUNDLE: &str = "application/vnd.dev.sigstore.bundle+json";

    #[test]
    fn a_content_type_loses_its_parameters_and_its_case() {
        for text in [
            "application/vnd.oci.image.index.v1+json",
            " application/vnd.oci.image.index.v1+json ",
            "application/vnd.oci.image.index.v1+json; charset=utf-8",
            "application/vnd.oci.image.index.v1+json ;",
            "Application/Vnd.OCI.Image.Index.V1+JSON",
        ] {
            let read = MediaType::from_content_type(text);
            assert_eq!(read, Ok(MediaType::OCI_INDEX), "{text:?}");
        }
        let other = MediaType::from_content_type("Application/X; Y=Z").unwrap();
        assert_eq!(other.as_str(), "application/x");
        assert!(MediaType::from_content_type("x; charset=utf-8").is_err());
    }

    #[test]
    fn a_media_type_keeps_its_spelling() {
        for parameters in [
            "",
            ";version=0.2",
            "; version=0.2",
            " ;version=0.2\t; b=\"c; \\\"d\"",
            ";",
            ";;a=b",
        ] {
            let text = format!("{BUNDLE}{parameters}");
            let read = MediaType::parse(&text).unwrap();
            assert_eq!(read.as_str(), text);
            assert_eq!(read.essence(), BUNDLE);
        }
        let read = |text| MediaType::parse(text).unwrap();
        assert_ne!(read("a/b;version=1"), read("a/b"));
        assert_ne!(read("a/b"), read("A/b"));
        assert!(read("a/b;version=1").is(&read("A/B")));
    }

    #[test]
    fn the_length_of_a_media_type_is_bounded() {
        let text = |length: usize| format!("a/b;c={}", "d".repeat(length - "a/b;c=".len()));
        assert!(MediaType::parse(&text(MediaType::MAX_LENGTH)).is_ok());
        assert!(MediaType::parse(&text(MediaType::MAX_LENGTH + 1)).is_err());
    }

    #[test]
    fn invalid_media_types_are_rejected() {
        let long = format!("a/{}", "x".repeat(128));
        for text in [
            "",
            "/",
            "a",
            "a/",
            "/b",
            "a/b/c",
            "a b/c",
            "a/b c",
            ".a/b",
            "a/.b",
            "ä/b",
            "a/b,c/d",
            "a/b ",
            " a/b",
            "a/b;c",
            "a/b;c=",
            "a/b;=c",
            "a/b;c =d",
            "a/b;c= d",
            "a/b;c=d e",
            "a/b;c=\"d",
            "a/b;c=\"d\\\"",
            "a/b;c=\"d\"e",
            "a/b;c=\"\n\"",
            "a/b;c=d\n",
            "a/b;c=ä",
            "a/b;c=\"ä\"",
            &long,
        ] {
            assert_eq!(MediaType::parse(text), Err(MediaTypeError), "{text:?}");
        }
    }

    #[test]
    fn a_manifest_type_is_recognised_with_any_parameters_and_case() {
        for text in [
            "application/vnd.oci.image.index.v1+json;a=b",
            "application/vnd.oci.IMAGE.index.v1+json",
        ] {
            let read = MediaType::parse(text).unwrap();
            assert!(read.is_index() && read.is_manifest(), "{text}");
            assert_eq!(read.as_manifest(), Some(MediaType::OCI_INDEX));
        }
        assert_eq!(MediaType::OCI_CONFIG.as_manifest(), None);
    }

    #[test]
    fn known_types_are_distinguished() {
        for known in MediaType::KNOWN {
            assert_eq!(MediaType::parse(known.as_str()), Ok(known));
        }
        let manifests = MediaType::KNOWN
            .into_iter()
            .filter(MediaType::is_manifest)
            .count();
        assert_eq!(manifests, 5);
        for text in [
            "application/vnd.oci.image.layer.nondistributable.v1.tar",
            "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
            "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
            "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
            "application/vnd.docker.image.rootfs.foreign.diff.tar",
        ] {
            assert!(
                MediaType::parse(text).unwrap().is_non_distributable(),
                "{text}"
            );
        }
        assert!(!MediaType::OCI_LAYER_GZIP.is_non_distributable());
    }

    proptest! {
        #[test]
        fn printing_a_media_type_and_reading_it_gives_it_back(
            text in "[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}"
        ) {
            prop_assert_eq!(MediaType::parse(&text).unwrap().to_string(), text);
        }

        #[test]
        fn parsing_never_panics(text: String) {
            if let Ok(media_type) = MediaType::parse(&text) {
                prop_assert_eq!(media_type.as_str(), &text);
            }
            if let Ok(media_type) = MediaType::from_content_type(&text) {
                let text = text.to_ascii_lowercase();
                prop_assert!(text.contains(media_type.as_str()));
            }
        }

        #[test]
        fn what_follows_a_media_type_is_read_without_a_panic(
            parameters in "[;= \t\"\\\\a-cä]{0,12}"
        ) {
            let text = format!("a/b{parameters}");
            if let Ok(media_type) = MediaType::parse(&text) {
                prop_assert_eq!(media_type.as_str(), &text);
                prop_assert!(text.starts_with(media_type.essence()));
            }
        }
    }
}
