//! Blobs: pull, whole and in part, and delete (end-2, end-10).

use http::header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, IF_RANGE, RANGE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use super::error::ApiError;
use super::multipart::MultipartRanges;
use super::response::{self, ApiResponse, ResponseContent};
use super::{Api, ApiRequest, precondition};
use crate::oci::{ByteRanges, Digest, MediaType, Name, RangeError, Span, Spans};
use crate::store::{BlobRead, Store};

impl<S: Store> Api<S> {
    /// end-2: a blob, ranges of it, or (HEAD) its description.
    pub(super) async fn blob_get(
        &self,
        request: &ApiRequest<'_>,
    ) -> Result<ApiResponse<S::Reader>, ApiError> {
        let name = request.name()?;
        let digest = Digest::from_segment(request.route.tail)?;
        if precondition::is_conditional(request.headers) {
            // A condition on a blob that does not exist is a 404, not a 412.
            self.store.blob_stat(&name, &digest).await?;
            if precondition::is_known_to_reader(request.headers, &digest)? {
                return Ok(response::not_modified(&digest));
            }
        }
        // `Range` has a meaning for GET only (RFC 9110, section 14.2): a HEAD ignores it.
        if request.method == Method::HEAD {
            let size = self.store.blob_stat(&name, &digest).await?;
            return Ok(described(&digest, size));
        }
        let Ok(ranges) = ranges(request.headers, &digest) else {
            // A 416 states the size (RFC 9110, section 15.5.17).
            let size = self.store.blob_stat(&name, &digest).await?;
            return Err(ApiError::Range { size });
        };
        self.send(&name, &digest, ranges).await
    }

    /// end-10: removes a blob from a repository.
    pub(super) async fn blob_delete(
        &self,
        request: &ApiRequest<'_>,
    ) -> Result<ApiResponse<S::Reader>, ApiError> {
        let name = request.name()?;
        let digest = Digest::from_segment(request.route.tail)?;
        if precondition::is_conditional(request.headers) {
            // As for reads, a condition on a blob that does not exist is a 404.
            self.store.blob_stat(&name, &digest).await?;
            precondition::check_deletion(request.headers, &digest)?;
        }
        self.store.blob_delete(&name, &digest).await?;
        Ok(response::empty(StatusCode::ACCEPTED))
    }

    async fn send(
        &self,
        name: &Name,
        digest: &Digest,
        ranges: Option<ByteRanges>,
    ) -> Result<ApiResponse<S::Reader>, ApiError> {
        let BlobRead {
            size,
            spans,
            reader,
        } = self.store.blob_read(name, digest, ranges).await?;
        let is_partial = spans != Spans::Whole;
        let mut response = described(digest, size);
        let headers = response.headers_mut();
        let content = match spans {
            Spans::Whole => ResponseContent::Stream {
                reader,
                remaining: size,
            },
            Spans::One(Span { start, length }) => {
                headers.insert(CONTENT_LENGTH, length.into());
                let part = format!("bytes {start}-{}/{size}", start + length - 1);
                response::set(headers, CONTENT_RANGE, &part);
                ResponseContent::Stream {
                    reader,
                    remaining: length,
                }
            }
            Spans::Several(spans) => {
                let parts = MultipartRanges::new(reader, spans, size);
                headers.insert(CONTENT_LENGTH, parts.remaining().into());
                // No `Content-Range` here: each part has its own (RFC 9110, section 15.3.7.2).
                response::set(headers, CONTENT_TYPE, &parts.content_type());
                ResponseContent::Multipart(Box::new(parts))
            }
        };
        if is_partial {
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        }
        *response.body_mut() = content;
        Ok(response)
    }
}

fn described<R>(digest: &Digest, size: u64) -> ApiResponse<R> {
    let mut response = response::describe(digest, &MediaType::OCTET_STREAM, size);
    let bytes = HeaderValue::from_static("bytes");
    response.headers_mut().insert(ACCEPT_RANGES, bytes);
    response
}

/// The requested ranges; `None` for the whole blob. An `If-Range` that does not match the blob requests the
/// whole, too. Its validator must be strong (RFC 9110, section 13.1.5).
fn ranges(headers: &HeaderMap, digest: &Digest) -> Result<Option<ByteRanges>, RangeError> {
    let text = |name| match headers.get(name) {
        Some(value) => value.to_str().map(Some).map_err(|_| RangeError),
        None => Ok(None),
    };
    if text(IF_RANGE)?.is_some_and(|tag| !response::is_entity_tag_of(tag, digest)) {
        return Ok(None);
    }
    ByteRanges::parse(text(RANGE)?)
}
