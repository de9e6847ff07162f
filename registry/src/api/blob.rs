//! Blobs: pull, whole and in part, and delete (end-2, end-10).

use http::header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, IF_NONE_MATCH, IF_RANGE, RANGE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use super::answer::{self, Answer, Content};
use super::error::ApiError;
use super::{Api, Call};
use crate::oci::{ByteRange, Digest, MediaType, Name, RangeError};
use crate::store::Store;

impl<S: Store> Api<S> {
    /// end-2: a blob, a range of it, or what there is to know of it.
    pub(super) async fn blob_get(&self, call: &Call<'_>) -> Result<Answer<S::Reader>, ApiError> {
        let name = call.name()?;
        let digest = Digest::from_segment(call.route.tail)?;
        if call.headers.contains_key(IF_NONE_MATCH)
            && answer::is_known_to_client(call.headers, &digest)
        {
            self.store.blob_stat(&name, &digest).await?;
            return Ok(answer::not_modified(&digest));
        }
        if call.method == Method::HEAD {
            let size = self.store.blob_stat(&name, &digest).await?;
            return Ok(described(&digest, size));
        }
        let Ok(range) = range(call.headers, &digest) else {
            let size = self.store.blob_stat(&name, &digest).await?;
            return Err(ApiError::Range { size });
        };
        self.send(&name, &digest, range).await
    }

    /// end-10: removes a blob from a repository.
    pub(super) async fn blob_delete(&self, call: &Call<'_>) -> Result<Answer<S::Reader>, ApiError> {
        let name = call.name()?;
        let digest = Digest::from_segment(call.route.tail)?;
        self.store.blob_delete(&name, &digest).await?;
        Ok(answer::empty(StatusCode::ACCEPTED))
    }

    async fn send(
        &self,
        name: &Name,
        digest: &Digest,
        range: Option<ByteRange>,
    ) -> Result<Answer<S::Reader>, ApiError> {
        let blob = self.store.blob_read(name, digest, range).await?;
        let mut answer = described(digest, blob.size);
        if range.is_some() {
            *answer.status_mut() = StatusCode::PARTIAL_CONTENT;
            let headers = answer.headers_mut();
            headers.insert(CONTENT_LENGTH, blob.span.length.into());
            let (first, last) = (blob.span.start, blob.span.start + blob.span.length - 1);
            let part = format!("bytes {first}-{last}/{}", blob.size);
            answer::set(headers, CONTENT_RANGE, &part);
        }
        *answer.body_mut() = Content::Stream {
            reader: blob.reader,
            remaining: blob.span.length,
        };
        Ok(answer)
    }
}

fn described<R>(digest: &Digest, size: u64) -> Answer<R> {
    let mut answer = answer::describe(digest, &MediaType::OCTET_STREAM, size);
    let bytes = HeaderValue::from_static("bytes");
    answer.headers_mut().insert(ACCEPT_RANGES, bytes);
    answer
}

/// The part that is asked for. With an `If-Range` that names other content than there is, all of
/// it; the validator has to be strong (RFC 9110, section 13.1.5).
fn range(headers: &HeaderMap, digest: &Digest) -> Result<Option<ByteRange>, RangeError> {
    let text = |name| match headers.get(name) {
        Some(value) => value.to_str().map(Some).map_err(|_| RangeError),
        None => Ok(None),
    };
    if text(IF_RANGE)?.is_some_and(|tag| !answer::names(tag, digest)) {
        return Ok(None);
    }
    ByteRange::parse(text(RANGE)?)
}
