//! Media types.

use std::borrow::Cow;

use super::text;

/// A media type without parameters, such as `application/vnd.oci.image.manifest.v1+json`.
///
/// The grammar is RFC 6838's (section 4.2). The spelling is kept; the types that manifests are made
/// of need no allocation.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MediaType(Cow<'static, str>);

/// The text is no media type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a media type must be two names of at most 127 letters, digits and !#$&-^_.+, joined by a slash"
)]
pub struct MediaTypeError;

impl MediaType {
    /// An image manifest.
    pub const OCI_MANIFEST: Self = known("application/vnd.oci.image.manifest.v1+json");
    /// An image index.
    pub const OCI_INDEX: Self = known("application/vnd.oci.image.index.v1+json");
    /// An artifact manifest: in image-spec 1.1's candidates, withdrawn before its release.
    pub const OCI_ARTIFACT: Self = known("application/vnd.oci.artifact.manifest.v1+json");
    /// An image's configuration.
    pub const OCI_CONFIG: Self = known("application/vnd.oci.image.config.v1+json");
    /// The two bytes `{}`, where a descriptor is required and there is nothing to describe.
    pub const OCI_EMPTY: Self = known("application/vnd.oci.empty.v1+json");
    /// A layer, uncompressed.
    pub const OCI_LAYER: Self = known("application/vnd.oci.image.layer.v1.tar");
    /// A layer, compressed with gzip.
    pub const OCI_LAYER_GZIP: Self = known("application/vnd.oci.image.layer.v1.tar+gzip");
    /// A layer, compressed with zstd.
    pub const OCI_LAYER_ZSTD: Self = known("application/vnd.oci.image.layer.v1.tar+zstd");
    /// Docker's image manifest (schema 2).
    pub const DOCKER_MANIFEST: Self = known("application/vnd.docker.distribution.manifest.v2+json");
    /// Docker's index (schema 2).
    pub const DOCKER_MANIFEST_LIST: Self =
        known("application/vnd.docker.distribution.manifest.list.v2+json");
    /// Docker's image configuration.
    pub const DOCKER_CONFIG: Self = known("application/vnd.docker.container.image.v1+json");
    /// Docker's layer, compressed with gzip.
    pub const DOCKER_LAYER: Self = known("application/vnd.docker.image.rootfs.diff.tar.gzip");
    /// Docker's layer that may be fetched elsewhere only.
    pub const DOCKER_FOREIGN_LAYER: Self =
        known("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip");
    /// Bytes of no particular type, which is what blobs are served as.
    pub const OCTET_STREAM: Self = known("application/octet-stream");

    const KNOWN: [Self; 14] = [
        Self::OCI_MANIFEST,
        Self::OCI_INDEX,
        Self::OCI_ARTIFACT,
        Self::OCI_CONFIG,
        Self::OCI_EMPTY,
        Self::OCI_LAYER,
        Self::OCI_LAYER_GZIP,
        Self::OCI_LAYER_ZSTD,
        Self::DOCKER_MANIFEST,
        Self::DOCKER_MANIFEST_LIST,
        Self::DOCKER_CONFIG,
        Self::DOCKER_LAYER,
        Self::DOCKER_FOREIGN_LAYER,
        Self::OCTET_STREAM,
    ];

    /// Reads a media type as it stands in a `Content-Type` header; parameters are dropped, as
    /// distribution-spec asks registries to (Pushing Manifests).
    pub fn parse(text: &str) -> Result<Self, MediaTypeError> {
        let essence = text
            .split_once(';')
            .map_or(text, |(essence, _)| essence)
            .trim_ascii();
        if let Some(known) = Self::KNOWN
            .into_iter()
            .find(|known| known.as_str() == essence)
        {
            return Ok(known);
        }
        let (kind, subtype) = essence.split_once('/').ok_or(MediaTypeError)?;
        if !is_restricted_name(kind.as_bytes()) || !is_restricted_name(subtype.as_bytes()) {
            return Err(MediaTypeError);
        }
        Ok(Self(Cow::Owned(essence.to_owned())))
    }

    /// The media type as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is an image manifest, OCI's or Docker's.
    pub fn is_image(&self) -> bool {
        *self == Self::OCI_MANIFEST || *self == Self::DOCKER_MANIFEST
    }

    /// Whether it is an index, OCI's or Docker's.
    pub fn is_index(&self) -> bool {
        *self == Self::OCI_INDEX || *self == Self::DOCKER_MANIFEST_LIST
    }

    /// Whether it is any manifest that the registry accepts.
    pub fn is_manifest(&self) -> bool {
        self.is_image() || self.is_index() || *self == Self::OCI_ARTIFACT
    }

    /// Whether it is a layer that must not be, or need not be, pushed (image-spec,
    /// Non-Distributable Layers).
    pub fn is_non_distributable(&self) -> bool {
        self.as_str()
            .starts_with("application/vnd.oci.image.layer.nondistributable.")
            || self
                .as_str()
                .starts_with("application/vnd.docker.image.rootfs.foreign.")
    }
}

text!(MediaType, MediaTypeError);

const fn known(text: &'static str) -> MediaType {
    MediaType(Cow::Borrowed(text))
}

fn is_restricted_name(name: &[u8]) -> bool {
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

    #[test]
    fn parameters_and_spaces_are_dropped() {
        for text in [
            "application/vnd.oci.image.index.v1+json",
            " application/vnd.oci.image.index.v1+json ",
            "application/vnd.oci.image.index.v1+json; charset=utf-8",
            "application/vnd.oci.image.index.v1+json;",
        ] {
            assert_eq!(MediaType::parse(text), Ok(MediaType::OCI_INDEX), "{text:?}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        let long = format!("a/{}", "x".repeat(128));
        for text in [
            "", "/", "a", "a/", "/b", "a/b/c", "a b/c", "a/b c", ".a/b", "a/.b", "ä/b", "a/b,c/d",
            &long,
        ] {
            assert_eq!(MediaType::parse(text), Err(MediaTypeError), "{text:?}");
        }
    }

    #[test]
    fn known_types_are_told_apart() {
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
        fn any_text_is_read_without_a_panic(text: String) {
            if let Ok(media_type) = MediaType::parse(&text) {
                prop_assert!(text.contains(media_type.as_str()));
            }
        }
    }
}
