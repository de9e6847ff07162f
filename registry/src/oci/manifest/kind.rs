//! What sort of manifest a manifest is.

use super::{Manifest, MediaType};
use crate::oci::named_variants;

named_variants! {
    /// A sort of manifest, for statistics. Found by types alone: its media type, artifact type, and the
    /// types of its configuration and layers.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub enum Kind {
        /// A container image for one platform.
        Image = "image",
        /// A list of manifests.
        Index = "index",
        /// Anything else that a registry can hold: a chart, a module, a bill of materials.
        Artifact = "artifact",
        /// A signature of something in the registry.
        Signature = "signature",
        /// A statement about something in the registry, usually signed.
        Attestation = "attestation",
        /// Not known.
        Other = "other",
    }
}

impl Kind {
    /// The likeliest kind, where nothing but the manifest's media type is known.
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

/// The kind of a whole manifest.
pub(super) fn of(manifest: &Manifest) -> Kind {
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
    // Cosign's signatures and attestations were images by every other sign, and so are BuildKit's
    // attestations still.
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

/// Which of signature and attestation a type stands for, if any.
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
        // Its version is a part of the name, as in `bundle.v0.3+json`, and was a parameter before.
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

/// Sigstore's bundles hold either; only an annotation tells which.
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
        // Docker's first schema 2 manifests called their configuration so.
        || (config.is(&MediaType::OCTET_STREAM) && manifest.media_type == MediaType::DOCKER_MANIFEST)
}

/// Bills of materials were attached as images with a document for a layer.
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
