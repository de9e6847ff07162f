//! Manifests: images, indexes and artifacts, OCI's and Docker's.

mod kind;

use serde::{Deserialize, Deserializer};

pub use self::kind::Kind;
use super::descriptor::{optional_type, or_default};
use super::{Annotations, Descriptor, Digest, MediaType, duplicate_keys};

/// A valid manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    media_type: MediaType,
    artifact_type: Option<MediaType>,
    config: Option<Descriptor>,
    layers: Vec<Descriptor>,
    manifests: Vec<Descriptor>,
    subject: Option<Descriptor>,
    annotations: Annotations,
}

/// The content that must exist in a repository before a manifest can be pushed. Each digest is listed once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct References {
    /// The configuration and the layers.
    pub blobs: Vec<Digest>,
    /// The manifests of an index.
    pub children: Vec<Digest>,
}

/// Why bytes are not a valid manifest. Quotes of the bytes are cut short.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// It is not JSON, is nested too deep, or has a duplicate key.
    #[error("the manifest is not valid JSON: {0}")]
    Json(String),
    /// A field has an invalid value.
    #[error("the manifest's {path} is invalid: {reason}")]
    Field {
        /// The field's path, such as `layers[1].digest`.
        path: String,
        /// What is wrong with the value.
        reason: String,
    },
    /// Neither the header nor the body has a media type, and the fields do not imply one.
    #[error("the manifest has no media type: set Content-Type or the field mediaType")]
    NoMediaType,
    /// The media type is not a manifest's, or the registry does not accept such manifests.
    #[error("this registry does not accept manifests of the media type {}", brief(.0))]
    UnsupportedMediaType(MediaType),
    /// The header and the body have different media types.
    #[error(
        "the manifest's mediaType is {}, but the Content-Type header is {}",
        brief(body),
        brief(header)
    )]
    MediaTypeMismatch {
        /// The header's media type.
        header: MediaType,
        /// The body's media type.
        body: MediaType,
    },
    /// It has another schema version, such as Docker's schema 1.
    #[error("the manifest's schemaVersion must be 2")]
    SchemaVersion,
    /// It lacks a field that its media type requires.
    #[error("the manifest lacks the required field {0}")]
    Missing(&'static str),
    /// It has a field of another kind of manifest.
    #[error("a manifest of this media type must not have the field {0}")]
    Unexpected(&'static str),
}

impl Manifest {
    /// Parses a manifest's bytes, given the `Content-Type` of the request, if any.
    ///
    /// Strict where two readers could see two different manifests: duplicate keys are rejected, header and
    /// body must agree on the media type, and an image must not have the fields of an index. Unknown fields
    /// and unknown types of content are accepted, as image-spec requires.
    pub fn parse(bytes: &[u8], content_type: Option<&MediaType>) -> Result<Self, ManifestError> {
        // First, because serde silently takes the last of two annotations with the same key.
        duplicate_keys::check(bytes).map_err(|error| ManifestError::Json(brief(&error)))?;
        let fields = ManifestFields::parse(bytes)?;
        let media_type = fields.media_type(content_type)?;
        fields.check(&media_type)?;
        Ok(Self {
            media_type,
            artifact_type: fields.artifact_type,
            config: fields.config,
            // `blobs` is what an artifact manifest calls its layers.
            layers: fields.layers.or(fields.blobs).unwrap_or_default(),
            manifests: fields.manifests.unwrap_or_default(),
            subject: fields.subject,
            annotations: fields.annotations,
        })
    }

    /// The media type, in its usual spelling.
    pub fn media_type(&self) -> &MediaType {
        &self.media_type
    }

    /// The artifact type, if declared.
    pub fn artifact_type(&self) -> Option<&MediaType> {
        self.artifact_type.as_ref()
    }

    /// An image's configuration.
    pub fn config(&self) -> Option<&Descriptor> {
        self.config.as_ref()
    }

    /// An image's layers, or an artifact manifest's blobs.
    pub fn layers(&self) -> &[Descriptor] {
        &self.layers
    }

    /// An index's manifests.
    pub fn manifests(&self) -> &[Descriptor] {
        &self.manifests
    }

    /// The subject: the manifest that this one refers to.
    pub fn subject(&self) -> Option<&Descriptor> {
        self.subject.as_ref()
    }

    /// The annotations.
    pub fn annotations(&self) -> &Annotations {
        &self.annotations
    }

    /// The content that must exist in the repository: all but the subject and non-distributable layers.
    ///
    /// An entry of an index whose media type is not a manifest's is a blob, as in `BuildKit`'s build caches.
    pub fn references(&self) -> References {
        let (children, other): (Vec<_>, Vec<_>) = self
            .manifests
            .iter()
            .partition(|entry| entry.media_type.is_manifest());
        let blobs = self
            .config
            .iter()
            .chain(&self.layers)
            .chain(other)
            .filter(|blob| !blob.media_type.is_non_distributable());
        References {
            blobs: distinct(blobs),
            children: distinct(children),
        }
    }

    /// The subject's digest, and the descriptor that lists this manifest, of the given digest and size, among
    /// the subject's referrers (end-12). The descriptor repeats the manifest's annotations except large ones.
    /// `None` if the manifest has no subject.
    pub fn referrer(&self, digest: Digest, size: u64) -> Option<(Digest, Descriptor)> {
        let subject = self.subject.as_ref()?;
        let mut descriptor = Descriptor::new(self.media_type.clone(), digest, size);
        descriptor.artifact_type = self
            .artifact_type
            .clone()
            // distribution-spec (Listing Referrers) puts the configuration's type in its place.
            .or_else(|| self.config.as_ref().map(|config| config.media_type.clone()));
        descriptor.repeat_annotations(&self.annotations);
        Some((subject.digest.clone(), descriptor))
    }
}

/// The fields of all kinds of manifests. A required list may be `null`, as Go's encoder writes a nil slice.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ManifestFields {
    schema_version: Option<u64>,
    #[serde(default, deserialize_with = "optional_type")]
    media_type: Option<MediaType>,
    #[serde(default, deserialize_with = "optional_type")]
    artifact_type: Option<MediaType>,
    config: Option<Descriptor>,
    #[serde(default, deserialize_with = "present")]
    layers: Option<Vec<Descriptor>>,
    #[serde(default, deserialize_with = "present")]
    manifests: Option<Vec<Descriptor>>,
    #[serde(default, deserialize_with = "present")]
    blobs: Option<Vec<Descriptor>>,
    subject: Option<Descriptor>,
    #[serde(default, deserialize_with = "or_default")]
    annotations: Annotations,
}

impl ManifestFields {
    fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        serde_json::from_slice(bytes).or_else(|_| {
            // Parsed again for the path of the invalid field, so that valid manifests do not pay for it.
            let mut deserializer = serde_json::Deserializer::from_slice(bytes);
            serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
                ManifestError::Field {
                    path: brief(error.path()),
                    reason: brief(error.inner()),
                }
            })
        })
    }

    fn media_type(&self, header: Option<&MediaType>) -> Result<MediaType, ManifestError> {
        let media_type = match (header, &self.media_type) {
            // Case and parameters may differ: the usual spelling is stored in any case.
            (Some(header), Some(body)) if !header.is(body) => {
                return Err(ManifestError::MediaTypeMismatch {
                    header: header.clone(),
                    body: body.clone(),
                });
            }
            (Some(media_type), _) | (None, Some(media_type)) => media_type.clone(),
            // image-spec makes `mediaType` optional: the fields decide. `check` refuses a mix.
            (None, None) if self.manifests.is_some() => MediaType::OCI_INDEX,
            (None, None) if self.config.is_some() => MediaType::OCI_MANIFEST,
            (None, None) => return Err(ManifestError::NoMediaType),
        };
        media_type
            .as_manifest()
            .ok_or(ManifestError::UnsupportedMediaType(media_type))
    }

    /// Checks that the fields match the media type.
    fn check(&self, media_type: &MediaType) -> Result<(), ManifestError> {
        let config = ("config", self.config.is_some());
        let layers = ("layers", self.layers.is_some());
        let manifests = ("manifests", self.manifests.is_some());
        let (required, forbidden): (&[_], &[_]) = if media_type.is_image() {
            (&[config, layers], &[manifests])
        } else if media_type.is_index() {
            (&[manifests], &[config, layers])
        } else {
            (&[], &[config, layers, manifests])
        };
        // An artifact manifest has no `schemaVersion`.
        let is_artifact = *media_type == MediaType::OCI_ARTIFACT;
        if !is_artifact && self.schema_version != Some(2) {
            return Err(ManifestError::SchemaVersion);
        }
        if let Some((field, _)) = required.iter().find(|(_, present)| !present) {
            return Err(ManifestError::Missing(field));
        }
        if let Some((field, _)) = forbidden.iter().find(|(_, present)| *present) {
            return Err(ManifestError::Unexpected(field));
        }
        Ok(())
    }
}

/// Reads a field that is present, so that `null` (an empty list) differs from an absent field.
fn present<'de, D>(deserializer: D) -> Result<Option<Vec<Descriptor>>, D::Error>
where
    D: Deserializer<'de>,
{
    or_default(deserializer).map(Some)
}

/// The start of a message. Without the cut it could quote a key or a value as long as the whole body.
fn brief(message: &impl std::fmt::Display) -> String {
    const LIMIT: usize = 200;
    let mut message = message.to_string();
    if message.len() > LIMIT {
        // `truncate` panics within a character, and the message may quote any text.
        message.truncate(message.floor_char_boundary(LIMIT));
        message.push('…');
    }
    message
}

/// The descriptors' digests, each once, in order of their first mention.
fn distinct<'a>(descriptors: impl IntoIterator<Item = &'a Descriptor>) -> Vec<Digest> {
    let mut seen = std::collections::HashSet::new();
    let digests = descriptors.into_iter().map(|descriptor| &descriptor.digest);
    digests
        .filter(|digest| seen.insert(*digest))
        .cloned()
        .collect()
}

#[cfg(test)]
mod tests;
