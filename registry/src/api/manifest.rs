//! Manifests: pull, push and delete, by tag and by digest (end-3, end-7, end-9).

use std::sync::Arc;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Method, StatusCode};
use tokio::task::spawn_blocking;

use super::error::ApiError;
use super::memory_budget::MemoryShare;
use super::response::{self, ApiResponse, OCI_SUBJECT, OCI_TAG, ResponseContent};
use super::{Api, ApiRequest, precondition};
use crate::oci::{Algorithm, Digest, Manifest, MediaType, Name, Reference, References, Tag};
use crate::store::{ManifestContent, NewManifest, Store, StoreError};

/// The largest manifest, in bytes, that is parsed on the runtime's own threads: that takes about a
/// millisecond.
const LARGE: usize = 64 << 10;

/// The most tags that one push may set; the specification requires at least 10.
const MAX_TAGS: usize = 256;

impl<S: Store> Api<S> {
    /// end-3: a manifest, byte for byte, or (HEAD) its description. `Accept` is ignored: a manifest has one
    /// representation, whose media type the response states.
    pub(super) async fn manifest_get(
        &self,
        request: &ApiRequest<'_>,
    ) -> Result<ApiResponse<S::Reader>, ApiError> {
        let name = request.name()?;
        let reference =
            Reference::from_segment(request.route.tail).map_err(ApiError::unknown_reference)?;
        let manifest = self.store.manifest_read(&name, &reference).await?;
        // Of a client that has it already, too: it uses the manifest all the same.
        if let Some(pulls) = &self.recorders.pulls {
            pulls.record(&name, &reference, request.method == Method::HEAD);
        }
        // After the read: an unknown manifest is a 404, not a 412 (RFC 9110, section 13.2.1).
        if precondition::is_known_to_reader(request.headers, &manifest.digest)? {
            return Ok(response::not_modified(&manifest.digest));
        }
        let size = manifest.size;
        let mut response = response::describe(&manifest.digest, &manifest.media_type, size);
        if request.method == Method::GET {
            *response.body_mut() = match manifest.content {
                ManifestContent::Whole(bytes) => ResponseContent::Whole(bytes),
                ManifestContent::Stream(reader) => ResponseContent::Stream {
                    reader,
                    remaining: size,
                },
            };
        }
        Ok(response)
    }

    /// end-7a, end-7b: stores a manifest under its digest, and sets its tags. A precondition concerns the
    /// reference of the path, not the tags of the query.
    pub(super) async fn manifest_put(
        &self,
        request: &ApiRequest<'_>,
    ) -> Result<ApiResponse<S::Reader>, ApiError> {
        let name = request.name()?;
        let reference =
            Reference::from_segment(request.route.tail).map_err(ApiError::invalid_reference)?;
        // All headers and parameters are checked before a body of some MiB takes memory.
        let condition = precondition::of_change(request.headers, &reference)?;
        let tags = tags_to_push(request)?;
        let content_type = match request.headers.get(CONTENT_TYPE) {
            Some(value) => Some(MediaType::from_content_type(
                // Text that is not ASCII becomes empty, which is no media type, either.
                value.to_str().unwrap_or_default(),
            )?),
            None => None,
        };
        let limit = request.policy.manifest_limit;
        let body = request.body.collect(limit, &self.budget).await?;
        let pushed = PushedManifest {
            reference: reference.clone(),
            content_type,
            sparse: request.policy.sparse_manifests,
        };
        let new = self.accept(body, pushed).await?;
        let digest = new.digest.clone();
        let subject = new.subject.as_ref().map(|(subject, _)| subject.clone());
        let all: Vec<Tag> = match reference {
            Reference::Tag(tag) => std::iter::once(tag).chain(tags.iter().cloned()).collect(),
            Reference::Digest(_) => tags.clone(),
        };
        self.store
            .manifest_write(&name, new, &all, condition.as_ref())
            .await?;

        let mut response = response::created(&location(&name, &digest), &digest);
        if let Some(subject) = subject {
            // Without this header a client maintains a fallback tag by itself (distribution-spec,
            // Pushing Manifests with Subject).
            response::set(response.headers_mut(), OCI_SUBJECT, subject.as_str());
        }
        if !tags.is_empty() {
            // Without this header a client cannot know whether the registry read its parameters.
            let tags: Vec<&str> = tags.iter().map(Tag::as_str).collect();
            response::set(response.headers_mut(), OCI_TAG, &tags.join(", "));
        }
        Ok(response)
    }

    /// Verifies and parses a manifest. Parsing a large one would block the runtime, so it has a blocking
    /// thread, and only a few are parsed at once.
    async fn accept(
        &self,
        body: MemoryShare,
        pushed: PushedManifest,
    ) -> Result<NewManifest, ApiError> {
        if body.length() <= LARGE {
            return pushed.accept(body.into_bytes(None));
        }
        // The bytes keep the permit, because the parsed manifest lives until the store has written them.
        let permit = Arc::clone(&self.large_manifests).acquire_owned().await.ok();
        let parse = move || pushed.accept(body.into_bytes(permit));
        match spawn_blocking(parse).await {
            Ok(accepted) => accepted,
            Err(error) if error.is_panic() => Err(ApiError::Panicked),
            Err(_) => Err(StoreError::Interrupted.into()),
        }
    }

    /// end-9: deletes a tag, or a manifest with all tags that point to it.
    pub(super) async fn manifest_delete(
        &self,
        request: &ApiRequest<'_>,
    ) -> Result<ApiResponse<S::Reader>, ApiError> {
        let name = request.name()?;
        let reference =
            Reference::from_segment(request.route.tail).map_err(ApiError::unknown_reference)?;
        match &reference {
            Reference::Tag(tag) => {
                let condition = precondition::of_change(request.headers, &reference)?;
                self.store
                    .tag_delete(&name, tag, condition.as_ref())
                    .await?;
            }
            Reference::Digest(digest) => {
                if precondition::is_conditional(request.headers) {
                    // A condition on a manifest that does not exist is a 404, not a 412.
                    self.store.manifest_read(&name, &reference).await?;
                    precondition::check_deletion(request.headers, digest)?;
                }
                self.store.manifest_delete(&name, digest).await?;
            }
        }
        Ok(response::empty(StatusCode::ACCEPTED))
    }
}

/// How a manifest is pushed.
struct PushedManifest {
    reference: Reference,
    content_type: Option<MediaType>,
    /// Whether the manifest may reference content that its repository lacks.
    sparse: bool,
}

impl PushedManifest {
    /// Parses the manifest's bytes, and checks them against the reference.
    fn accept(self, bytes: Bytes) -> Result<NewManifest, ApiError> {
        let manifest = Manifest::parse(&bytes, self.content_type.as_ref())?;
        let digest = digest_of(&self.reference, &bytes)?;
        // The store requires what is listed here, and only that.
        let references = if self.sparse {
            References::default()
        } else {
            manifest.references()
        };
        Ok(NewManifest {
            media_type: manifest.media_type().clone(),
            kind: manifest.kind(),
            blobs: references.blobs,
            children: references.children,
            subject: manifest.referrer(digest.clone(), bytes.len() as u64),
            digest,
            bytes,
        })
    }
}

/// The `tag` parameters, each of which becomes a tag of the manifest.
fn tags_to_push(request: &ApiRequest<'_>) -> Result<Vec<Tag>, ApiError> {
    let tags: Vec<Tag> = request
        .query
        .all("tag")
        // One more than allowed shows that there are too many; the rest is not even parsed.
        .take(MAX_TAGS + 1)
        .map(|tag| Tag::parse(&tag))
        .collect::<Result<_, _>>()?;
    if tags.len() > MAX_TAGS {
        return Err(ApiError::TooManyTags { limit: MAX_TAGS });
    }
    Ok(tags)
}

/// The digest to store a manifest under: the one in the path, if it matches the bytes, or the SHA-256 of a
/// manifest that is pushed by tag.
fn digest_of(reference: &Reference, bytes: &[u8]) -> Result<Digest, ApiError> {
    match reference {
        Reference::Tag(_) => Ok(Digest::of(Algorithm::Sha256, bytes)),
        Reference::Digest(expected) => {
            // The path's algorithm, because a pull names the manifest by the same digest.
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
