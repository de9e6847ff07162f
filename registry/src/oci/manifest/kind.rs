//! The kinds of manifests.

use super::{Manifest, MediaType};
use crate::oci::named_variants;

named_variants! {
    /// A kind of manifest, for statistics. It follows from media types alone: the manifest's own, its
    /// artifact type, and those of its configuration and layers.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub enum Kind {
        /// A container image for one platform.
        Image = "image",
        /// An index: a list of manifests.
        Index = "index",
        /// Any other artifact, such as a chart, a module or a bill of materials.
        Artifact = "artifact",
        /// A signature of something in the registry.
        Signature = "signature",
        /// A statement about something in the registry, usually signed.
        Attestation = "attestation",
        /// Unknown.
        Other = "other",
    }
}

impl Kind {
    /// The most likely kind of a manifest of which only the media type is known.
    pub fn of_media_type(media_type: &MediaType) -> Self {
        if media_type.is_image() {
            Self::Image
        } else if media_type.is_index() {
            Self::Index
        } else if media_type.is(&MediaType::OCI_ARTIFACT) {
            Self::Artifact
        } else {
            Self::Other
        }
    }
}

impl Manifest {
    /// The kind.
    pub fn kind(&self) -> Kind {
        kind_of(self)
    }
}

fn kind_of(manifest: &Manifest) -> Kind {
    if manifest.media_type.is_index() {
        return Kind::Index;
    }
    let declared = manifest.artifact_type();
    let config = manifest.config().map(|config| &config.media_type);
    if let Some(kind) = [declared, config]
        .into_iter()
        .flatten()
        .find_map(|media_type| proof(manifest, media_type))
    {
        return kind;
    }
    // Older versions of cosign push signatures and attestations as images, and so does BuildKit its
    // attestations: only the types of their layers differ from an image's.
    let mut layers = manifest
        .layers()
        .iter()
        .map(|layer| proof(manifest, &layer.media_type));
    if let Some(Some(kind)) = layers.next()
        && layers.all(|other| other == Some(kind))
    {
        return kind;
    }
    let runnable = config.is_some_and(|config| is_image_config(manifest, config));
    if runnable && declared.is_none() && !holds_documents_only(manifest) {
        Kind::Image
    } else {
        Kind::Artifact
    }
}

/// The kind that a media type proves: signature or attestation, if any.
fn proof(manifest: &Manifest, media_type: &MediaType) -> Option<Kind> {
    match media_type.essence() {
        "application/vnd.cncf.notary.signature"
        | "application/vnd.cncf.notary.v2.signature"
        | "application/vnd.dev.cosign.simplesigning.v1+json"
        | "application/vnd.dev.cosign.artifact.sig.v1+json" => Some(Kind::Signature),
        "application/vnd.in-toto+json"
        | "application/vnd.dsse.envelope.v1+json"
        | "application/vnd.dev.cosign.artifact.att.v1+json"
        | "application/vnd.docker.attestation.manifest.v1+json" => Some(Kind::Attestation),
        // The version is part of the name, as in `bundle.v0.3+json`. Formerly it was a parameter.
        other
            if other
                .strip_prefix("application/vnd.dev.sigstore.bundle")
                .is_some_and(|version| version.starts_with(['.', '+'])) =>
        {
            Some(bundle(manifest))
        }
        _ => None,
    }
}

/// The kind of a sigstore bundle, which only its annotations tell.
fn bundle(manifest: &Manifest) -> Kind {
    let annotation = |key| manifest.annotations().get(key).map(String::as_str);
    match annotation("dev.sigstore.bundle.predicateType") {
        Some("https://sigstore.dev/cosign/sign/v1") => Kind::Signature,
        Some(_) => Kind::Attestation,
        None if annotation("dev.sigstore.bundle.content") == Some("dsse-envelope") => {
            Kind::Attestation
        }
        None => Kind::Signature,
    }
}

fn is_image_config(manifest: &Manifest, config: &MediaType) -> bool {
    config.is(&MediaType::OCI_CONFIG)
        || config.is(&MediaType::DOCKER_CONFIG)
        // The first schema 2 manifests of Docker have this type for their configuration.
        || (config.is(&MediaType::OCTET_STREAM) && manifest.media_type == MediaType::DOCKER_MANIFEST)
}

/// Whether all layers are documents: tools attach bills of materials as images with such layers.
fn holds_documents_only(manifest: &Manifest) -> bool {
    const DOCUMENTS: [&str; 4] = [
        "application/vnd.cyclonedx",
        "application/spdx+json",
        "application/vnd.syft+json",
        "text/",
    ];
    !manifest.layers().is_empty()
        && manifest.layers().iter().all(|layer| {
            DOCUMENTS
                .iter()
                .any(|prefix| layer.media_type.as_str().starts_with(prefix))
        })
}
