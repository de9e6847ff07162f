//! Manifests: pull, push and delete, by tag and by digest (end-3, end-7, end-9).

use http::header::CONTENT_TYPE;
use http::{Method, StatusCode};

use super::answer::{self, Answer, Content, OCI_SUBJECT, OCI_TAG};
use super::error::ApiError;
use super::{Api, Call};
use crate::oci::{Algorithm, Digest, Manifest, MediaType, Name, Reference, References, Tag};
use crate::store::{NewManifest, Store};

/// The most tags that one push may name; the specification asks for at least 10.
const MAX_TAGS: usize = 256;

impl<S: Store> Api<S> {
    /// end-3: a manifest, byte for byte, or what there is to know of it. `Accept` is not
    /// negotiated over: there is one representation, and its type is told.
    pub(super) async fn manifest_get(
        &self,
        call: &Call<'_>,
    ) -> Result<Answer<S::Reader>, ApiError> {
        let name = call.name()?;
        let reference =
            Reference::from_segment(call.route.tail).map_err(ApiError::unknown_reference)?;
        let manifest = self.store.manifest_read(&name, &reference).await?;
        if answer::is_known_to_client(call.headers, &manifest.digest) {
            return Ok(answer::not_modified(&manifest.digest));
        }
        let length = manifest.bytes.len() as u64;
        let mut answer = answer::describe(&manifest.digest, &manifest.media_type, length);
        if call.method == Method::GET {
            *answer.body_mut() = Content::Whole(manifest.bytes);
        }
        Ok(answer)
    }

    /// end-7a, end-7b: stores a manifest under its digest, and the tags that go with it.
    pub(super) async fn manifest_put(
        &self,
        call: &Call<'_>,
    ) -> Result<Answer<S::Reader>, ApiError> {
        let name = call.name()?;
        let reference =
            Reference::from_segment(call.route.tail).map_err(ApiError::invalid_reference)?;
        let tags = tags_to_push(call)?;
        let content_type = match call.headers.get(CONTENT_TYPE) {
            Some(value) => Some(MediaType::from_content_type(
                value.to_str().unwrap_or_default(),
            )?),
            None => None,
        };
        let limit = self.policy.manifest_limit;
        let bytes = call
            .body
            .collect(limit)
            .await?
            .ok_or(ApiError::ManifestTooLarge { limit })?;
        let manifest = Manifest::parse(&bytes, content_type.as_ref())?;
        let digest = digest_of(&reference, &bytes)?;

        let references = if self.policy.sparse_manifests {
            References::default()
        } else {
            manifest.references()
        };
        let subject = manifest.referrer(digest.clone(), bytes.len() as u64);
        let subject_digest = subject.as_ref().map(|(subject, _)| subject.clone());
        let new = NewManifest {
            digest: digest.clone(),
            media_type: manifest.media_type().clone(),
            bytes,
            kind: manifest.kind(),
            blobs: references.blobs,
            children: references.children,
            subject,
        };
        let all: Vec<Tag> = match reference {
            Reference::Tag(tag) => std::iter::once(tag).chain(tags.iter().cloned()).collect(),
            Reference::Digest(_) => tags.clone(),
        };
        self.store.manifest_write(&name, new, &all).await?;

        let mut answer = answer::created(&location(&name, &digest), &digest);
        if let Some(subject) = subject_digest {
            answer::set(answer.headers_mut(), OCI_SUBJECT, subject.as_str());
        }
        if !tags.is_empty() {
            let tags: Vec<&str> = tags.iter().map(Tag::as_str).collect();
            answer::set(answer.headers_mut(), OCI_TAG, &tags.join(", "));
        }
        Ok(answer)
    }

    /// end-9: removes a tag, or a manifest with every tag that points at it.
    pub(super) async fn manifest_delete(
        &self,
        call: &Call<'_>,
    ) -> Result<Answer<S::Reader>, ApiError> {
        let name = call.name()?;
        match Reference::from_segment(call.route.tail).map_err(ApiError::unknown_reference)? {
            Reference::Tag(tag) => self.store.tag_delete(&name, &tag).await?,
            Reference::Digest(digest) => {
                self.store.manifest_delete(&name, &digest).await?;
            }
        }
        Ok(answer::empty(StatusCode::ACCEPTED))
    }
}

/// The `tag` parameters, each of which becomes a tag of the manifest.
fn tags_to_push(call: &Call<'_>) -> Result<Vec<Tag>, ApiError> {
    let tags: Vec<Tag> = call
        .query
        .all("tag")
        .take(MAX_TAGS + 1)
        .map(|tag| Tag::parse(&tag))
        .collect::<Result<_, _>>()?;
    if tags.len() > MAX_TAGS {
        return Err(ApiError::TooManyTags { limit: MAX_TAGS });
    }
    Ok(tags)
}

/// The digest to store a manifest under: the one it is pushed by, which has to be right, or else
/// its SHA-256.
fn digest_of(reference: &Reference, bytes: &[u8]) -> Result<Digest, ApiError> {
    match reference {
        Reference::Tag(_) => Ok(Digest::of(Algorithm::Sha256, bytes)),
        Reference::Digest(expected) => {
            let actual = Digest::of(expected.algorithm(), bytes);
            if actual == *expected {
                Ok(actual)
            } else {
                Err(ApiError::DigestMismatch {
                    expected: expected.clone(),
                    actual,
                })
            }
        }
    }
}

fn location(name: &Name, digest: &Digest) -> String {
    format!("/v2/{name}/manifests/{digest}")
}
