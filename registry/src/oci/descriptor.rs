//! Descriptors.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use super::{Digest, MediaType};

/// Arbitrary metadata of a manifest or a descriptor (image-spec, Annotations).
pub type Annotations = BTreeMap<String, String>;

/// A manifest's reference to other content (image-spec, Descriptors).
///
/// Fields that the registry does not use, such as `platform`, are skipped. Nothing is lost: the store keeps
/// manifests as bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// The content's media type.
    pub media_type: MediaType,
    /// The content's digest.
    pub digest: Digest,
    /// The content's length in bytes.
    pub size: u64,
    /// The artifact type of the content, if it is a manifest.
    #[serde(
        default,
        deserialize_with = "optional_type",
        skip_serializing_if = "Option::is_none"
    )]
    pub artifact_type: Option<MediaType>,
    /// Annotations.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "Annotations::is_empty"
    )]
    pub annotations: Annotations,
    /// Other locations of the content.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub urls: Vec<String>,
    /// The content itself, in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
}

/// The most bytes of annotations, as JSON, that a descriptor repeats from its manifest.
const REPEATED_ANNOTATIONS: usize = 32 << 10;

/// The fields of a descriptor without its annotations and other fields of any length.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DescriptorEssentials {
    media_type: MediaType,
    digest: Digest,
    size: u64,
    #[serde(default, deserialize_with = "optional_type")]
    artifact_type: Option<MediaType>,
}

impl Descriptor {
    /// A descriptor without optional fields.
    pub fn new(media_type: MediaType, digest: Digest, size: u64) -> Self {
        Self {
            media_type,
            digest,
            size,
            artifact_type: None,
            annotations: Annotations::new(),
            urls: Vec::new(),
            data: None,
        }
    }

    /// Repeats a manifest's annotations, the shortest first, up to a limit: they are sent with every listing
    /// of referrers. Clients that need the others read the manifest.
    pub(super) fn repeat_annotations(&mut self, of_manifest: &Annotations) {
        // Measured as JSON, because an escaped control character takes six bytes.
        let length = |text: &str| serde_json::to_string(text).map_or(usize::MAX, |json| json.len());
        let mut by_length: Vec<_> = of_manifest
            .iter()
            // Plus the colon and the comma.
            .map(|(key, value)| {
                (
                    length(key).saturating_add(length(value)).saturating_add(2),
                    key,
                    value,
                )
            })
            .collect();
        // The key decides among equal lengths: a manifest always repeats the same annotations.
        by_length.sort_unstable();
        let mut left = REPEATED_ANNOTATIONS;
        for (length, key, value) in by_length {
            let Some(rest) = left.checked_sub(length) else {
                // All others are at least as long.
                break;
            };
            left = rest;
            self.annotations.insert(key.clone(), value.clone());
        }
    }

    /// Reads a descriptor of any length, and keeps only its required fields and the artifact type.
    pub fn read_without_annotations(reader: impl std::io::Read) -> serde_json::Result<Self> {
        let fields: DescriptorEssentials = serde_json::from_reader(reader)?;
        let mut descriptor = Self::new(fields.media_type, fields.digest, fields.size);
        descriptor.artifact_type = fields.artifact_type;
        Ok(descriptor)
    }
}

/// Reads `null`, which Go's encoder writes for a nil map or slice, as the default.
pub(super) fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Reads a media type, where the empty text means none (distribution-spec, Listing Referrers).
pub(super) fn optional_type<'de, D>(deserializer: D) -> Result<Option<MediaType>, D::Error>
where
    D: Deserializer<'de>,
{
    match Option::<std::borrow::Cow<'de, str>>::deserialize(deserializer)? {
        Some(text) if !text.is_empty() => MediaType::parse(&text)
            .map(Some)
            .map_err(serde::de::Error::custom),
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";

    fn read(fields: &str) -> serde_json::Result<Descriptor> {
        serde_json::from_str(&format!(
            r#"{{"mediaType":"application/vnd.oci.empty.v1+json","digest":"{DIGEST}",{fields}}}"#
        ))
    }

    #[test]
    fn a_descriptor_without_optional_fields_has_three_fields() {
        let digest = Digest::parse(DIGEST).unwrap();
        let descriptor = Descriptor::new(MediaType::OCI_EMPTY, digest, 2);
        insta::assert_snapshot!(serde_json::to_string(&descriptor).unwrap(), @r#"{"mediaType":"application/vnd.oci.empty.v1+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2}"#);
        assert_eq!(read(r#""size":2"#).unwrap(), descriptor);
    }

    #[test]
    fn optional_fields_are_kept_and_unknown_ones_are_skipped() {
        let descriptor = read(
            r#""size":2,"artifactType":"a/b","annotations":{"k":"v"},"urls":["https://a"],
               "data":"e30=","platform":{"os":"linux"},"unknown":[1,{}]"#,
        )
        .unwrap();
        insta::assert_snapshot!(serde_json::to_string(&descriptor).unwrap(), @r#"{"mediaType":"application/vnd.oci.empty.v1+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2,"artifactType":"a/b","annotations":{"k":"v"},"urls":["https://a"],"data":"e30="}"#);
    }

    #[test]
    fn null_and_empty_mean_absent_where_a_field_is_optional() {
        let absent = read(r#""size":2"#).unwrap();
        let fields = r#""size":2,"artifactType":"","annotations":null,"urls":null,"data":null"#;
        assert_eq!(read(fields).unwrap(), absent);
        assert_eq!(read(r#""size":2,"artifactType":null"#).unwrap(), absent);
    }

    #[test]
    fn only_small_annotations_are_repeated() {
        let digest = Digest::parse(DIGEST).unwrap();
        let annotation = |key: &str, length| (key.to_owned(), "\n".repeat(length));
        let all = Annotations::from([
            annotation("huge", 4 << 20),
            annotation("half", REPEATED_ANNOTATIONS / 4),
            annotation("half-again", REPEATED_ANNOTATIONS / 4),
            annotation("small", 10),
        ]);
        let mut descriptor = Descriptor::new(MediaType::OCI_EMPTY, digest, 2);
        descriptor.repeat_annotations(&all);
        let keys: Vec<_> = descriptor.annotations.keys().collect();
        assert_eq!(keys, ["half", "small"]);
        let json = serde_json::to_string(&descriptor.annotations).unwrap();
        assert!(json.len() <= REPEATED_ANNOTATIONS);
    }

    #[test]
    fn a_large_descriptor_is_read_without_its_annotations() {
        let whole = read(r#""size":2,"artifactType":"a/b","annotations":{"k":"v"},"urls":["x"]"#);
        let whole = whole.unwrap();
        let text = serde_json::to_vec(&whole).unwrap();
        let read = Descriptor::read_without_annotations(&text[..]).unwrap();
        assert_eq!(read.artifact_type, whole.artifact_type);
        assert_eq!((read.digest, read.size), (whole.digest, whole.size));
        assert!(read.annotations.is_empty());
        assert!(Descriptor::read_without_annotations(&b"{}"[..]).is_err());
    }

    #[test]
    fn a_field_of_the_wrong_type_is_rejected() {
        for fields in [
            r#""siz":2"#,
            r#""size":-1"#,
            r#""size":2.5"#,
            r#""size":"2""#,
            r#""size":null"#,
            r#""size":2,"annotations":{"k":1}"#,
            r#""size":2,"annotations":[]"#,
            r#""size":2,"urls":"x""#,
            r#""size":2,"artifactType":"nonsense""#,
        ] {
            assert!(read(fields).is_err(), "{fields}");
        }
    }
}
