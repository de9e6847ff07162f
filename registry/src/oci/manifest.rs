//! Manifests: images, indexes and artifacts, OCI's and Docker's.

mod kind;

use serde::{Deserialize, Deserializer};

pub use self::kind::Kind;
use super::descriptor::{optional_type, or_default};
use super::{Annotations, Descriptor, Digest, MediaType, duplicate_keys};

/// A manifest that was read and found valid.
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

/// What must exist in a repository before a manifest may. Each digest is named once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct References {
    /// Configuration and layers.
    pub blobs: Vec<Digest>,
    /// Manifests of an index.
    pub children: Vec<Digest>,
}

/// Why bytes are no manifest. What it quotes of them is cut short.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Not JSON, nested too deep, or with a key that comes twice.
    #[error("the manifest is not valid JSON: {0}")]
    Json(String),
    /// A field with a value that it can't have.
    #[error("the manifest's {path} is invalid: {reason}")]
    Field {
        /// Where, such as `layers[1].digest`.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// Neither the header nor the body says what it is, nor do its fields.
    #[error("the manifest has no media type")]
    NoMediaType,
    /// It is something else than a manifest, or one that is not accepted.
    #[error("{} is not the media type of a manifest that this registry accepts", brief(.0))]
    UnsupportedMediaType(MediaType),
    /// Header and body do not agree.
    #[error(
        "the manifest says it is {}, the Content-Type says {}",
        brief(body),
        brief(header)
    )]
    MediaTypeMismatch {
        /// The header's.
        header: MediaType,
        /// The body's.
        body: MediaType,
    },
    /// Docker's schema 1, or one from the future.
    #[error("the manifest's schemaVersion must be 2")]
    SchemaVersion,
    /// A field that its media type requires.
    #[error("the manifest has no {0}")]
    Missing(&'static str),
    /// A field that makes it look like a manifest of another sort.
    #[error("a manifest of this media type must not have {0}")]
    Unexpected(&'static str),
}

impl Manifest {
    /// Reads a manifest's bytes, with the `Content-Type` they came with, if any.
    ///
    /// Strict where two readers could see two different manifests: no key may come twice at any
    /// depth, header and body must agree on the media type, and an image must not look like an
    /// index as well. Unknown fields and unknown types of content are fine, as image-spec demands.
    pub fn parse(bytes: &[u8], content_type: Option<&MediaType>) -> Result<Self, ManifestError> {
        duplicate_keys::check(bytes).map_err(|error| ManifestError::Json(brief(&error)))?;
        let fields = ManifestFields::parse(bytes)?;
        let media_type = fields.media_type(content_type)?;
        fields.check(&media_type)?;
        Ok(Self {
            media_type,
            artifact_type: fields.artifact_type,
            config: fields.config,
            layers: fields.layers.or(fields.blobs).unwrap_or_default(),
            manifests: fields.manifests.unwrap_or_default(),
            subject: fields.subject,
            annotations: fields.annotations,
        })
    }

    /// Its media type, in the usual spelling.
    pub fn media_type(&self) -> &MediaType {
        &self.media_type
    }

    /// The sort of artifact that it says it is.
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

    /// The manifest that it refers to.
    pub fn subject(&self) -> Option<&Descriptor> {
        self.subject.as_ref()
    }

    /// Its metadata.
    pub fn annotations(&self) -> &Annotations {
        &self.annotations
    }

    /// What must exist in the repository: everything but the subject and non-distributable layers.
    ///
    /// An entry of an index whose type is no manifest's is a blob: build caches are pushed so.
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

    /// Its subject's digest, and the descriptor to list it with among the subject's referrers
    /// (end-12), given its own digest and size. It repeats the manifest's annotations but for large
    /// ones. `None` if it has no subject.
    pub fn referrer(&self, digest: Digest, size: u64) -> Option<(Digest, Descriptor)> {
        let subject = self.subject.as_ref()?;
        let mut descriptor = Descriptor::new(self.media_type.clone(), digest, size);
        descriptor.artifact_type = self
            .artifact_type
            .clone()
            .or_else(|| self.config.as_ref().map(|config| config.media_type.clone()));
        descriptor.repeat_annotations(&self.annotations);
        Some((subject.digest.clone(), descriptor))
    }

    /// What sort of manifest it is.
    pub fn kind(&self) -> Kind {
        kind::of(self)
    }
}

/// The fields of every sort of manifest, before it is known which sort it is. A field that must be
/// there may be `null`, which Go's encoder makes of an empty list.
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
            // Only a failure pays for knowing where it happened.
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
            (Some(header), Some(body)) if !header.is(body) => {
                return Err(ManifestError::MediaTypeMismatch {
                    header: header.clone(),
                    body: body.clone(),
                });
            }
            (Some(media_type), _) | (None, Some(media_type)) => media_type.clone(),
            (None, None) if self.manifests.is_some() => MediaType::OCI_INDEX,
            (None, None) if self.config.is_some() => MediaType::OCI_MANIFEST,
            (None, None) => return Err(ManifestError::NoMediaType),
        };
        media_type
            .as_manifest()
            .ok_or(ManifestError::UnsupportedMediaType(media_type))
    }

    /// Checks that the fields are those of the media type.
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

/// Tells a field that is `null` from one that is not there.
fn present<'de, D>(deserializer: D) -> Result<Option<Vec<Descriptor>>, D::Error>
where
    D: Deserializer<'de>,
{
    or_default(deserializer).map(Some)
}

/// The start of a message, which may quote a key or a value as long as the whole body.
fn brief(message: &impl std::fmt::Display) -> String {
    const LIMIT: usize = 200;
    let mut message = message.to_string();
    if message.len() > LIMIT {
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
