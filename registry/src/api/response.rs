//! Responses: their bodies, and the headers that they have in common.
//!
//! [`precondition`](super::precondition) reads `If-Match` and `If-None-Match`. Responses have no
//! `Last-Modified`, so `If-Modified-Since` and `If-Unmodified-Since` are ignored.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::Stream;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, ETAG, LOCATION};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use serde::Serialize;

use super::body_reader::{ResponseBodyError, poll_reader};
use super::memory_budget::MemoryShare;
use super::multipart::MultipartRanges;
use super::observation::Observation;
use crate::oci::{Digest, MediaType};
use crate::store::StoreError;

/// A handler's response. Its body is in memory, or comes from a store's reader `R`.
pub(super) type ApiResponse<R> = Response<ResponseContent<R>>;

pub(super) const DOCKER_CONTENT_DIGEST: HeaderName =
    HeaderName::from_static("docker-content-digest");
pub(super) const DOCKER_UPLOAD_UUID: HeaderName = HeaderName::from_static("docker-upload-uuid");
pub(super) const OCI_FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");
pub(super) const OCI_SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
pub(super) const OCI_TAG: HeaderName = HeaderName::from_static("oci-tag");
const DOCKER_API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");

/// A response's body, not yet observed.
#[derive(Debug)]
pub(super) enum ResponseContent<R> {
    /// The whole body; empty if there is none.
    Whole(Bytes),
    /// The whole body, in a share of the memory budget that may be evicted.
    Shared(MemoryShare),
    /// A reader, and how many bytes are still to come from it.
    Stream { reader: R, remaining: u64 },
    /// Several ranges of a blob.
    Multipart(Box<MultipartRanges<R>>),
}

impl<R> ResponseContent<R> {
    fn has_ended(&self) -> bool {
        match self {
            ResponseContent::Whole(bytes) => bytes.is_empty(),
            ResponseContent::Shared(share) => share.length() == 0,
            ResponseContent::Stream { remaining, .. } => *remaining == 0,
            ResponseContent::Multipart(parts) => parts.remaining() == 0,
        }
    }
}

/// A response's body as hyper sends it. Dropping it ends the request's observation: hyper drops it after
/// the last byte, or when the client closes the connection.
#[derive(Debug)]
pub struct ResponseBody<R> {
    content: ResponseContent<R>,
    observation: Observation,
}

impl<R> ResponseBody<R> {
    pub(super) fn new(content: ResponseContent<R>, observation: Observation) -> Self {
        let mut body = Self {
            content,
            observation,
        };
        body.note_end();
        body
    }

    /// hyper does not poll for the end of a body that has ended.
    fn note_end(&mut self) {
        if self.content.has_ended() {
            self.observation.sent_whole();
        }
    }
}

impl<R> Body for ResponseBody<R>
where
    R: Stream<Item = Result<Bytes, StoreError>> + Unpin,
{
    type Data = Bytes;
    type Error = ResponseBodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ResponseBodyError>>> {
        let this = self.get_mut();
        let bytes = match &mut this.content {
            ResponseContent::Whole(bytes) if bytes.is_empty() => return Poll::Ready(None),
            // The empty rest makes the next poll and `is_end_stream` report the end.
            ResponseContent::Whole(bytes) => std::mem::take(bytes),
            ResponseContent::Shared(share) if share.length() == 0 => return Poll::Ready(None),
            ResponseContent::Shared(share) => match share.pop() {
                Ok(bytes) => bytes,
                Err(error) => {
                    tracing::warn!(%error, "response aborted");
                    // hyper must not poll for the rest.
                    this.content = ResponseContent::Whole(Bytes::new());
                    return Poll::Ready(Some(Err(ResponseBodyError::Evicted)));
                }
            },
            ResponseContent::Stream { remaining: 0, .. } => return Poll::Ready(None),
            ResponseContent::Stream { reader, remaining } => {
                match ready!(poll_reader(Pin::new(reader), remaining, cx)) {
                    Ok(bytes) => bytes,
                    Err(error) => return Poll::Ready(Some(Err(error))),
                }
            }
            ResponseContent::Multipart(parts) => match ready!(parts.poll_bytes(cx)) {
                Some(Ok(bytes)) => bytes,
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            },
        };
        this.observation.sent(bytes.len());
        this.note_end();
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.content.has_ended()
    }

    // Exact, because hyper would otherwise send HTTP/1.1 bodies in chunks, without a length.
    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(match &self.content {
            ResponseContent::Whole(bytes) => bytes.len() as u64,
            ResponseContent::Shared(share) => share.length() as u64,
            ResponseContent::Stream { remaining, .. } => *remaining,
            ResponseContent::Multipart(parts) => parts.remaining(),
        })
    }
}

/// A response without a body.
pub(super) fn empty<R>(status: StatusCode) -> ApiResponse<R> {
    let mut response = Response::new(ResponseContent::Whole(Bytes::new()));
    *response.status_mut() = status;
    // Older clients of Docker take a server without this header for no registry of API version 2.
    let version = HeaderValue::from_static("registry/2.0");
    response.headers_mut().insert(DOCKER_API_VERSION, version);
    response
}

/// A response with a JSON body.
pub(super) fn json<R>(
    status: StatusCode,
    media_type: &'static str,
    body: Vec<u8>,
) -> ApiResponse<R> {
    let mut response = empty(status);
    let media_type = HeaderValue::from_static(media_type);
    response.headers_mut().insert(CONTENT_TYPE, media_type);
    *response.body_mut() = ResponseContent::Whole(body.into());
    response
}

/// Encodes a body as JSON.
pub(super) fn encode(body: &impl Serialize) -> Vec<u8> {
    // Cannot fail: the types hold strings, numbers and lists, all of which JSON has.
    serde_json::to_vec(body).unwrap_or_default()
}

/// A response that describes content: its digest, entity tag, media type and length. The length is set
/// explicitly, because the response to a HEAD has no body to derive it from.
pub(super) fn describe<R>(digest: &Digest, media_type: &MediaType, length: u64) -> ApiResponse<R> {
    let mut response = empty(StatusCode::OK);
    let headers = response.headers_mut();
    name_content(headers, digest);
    set(headers, CONTENT_TYPE, media_type.as_str());
    headers.insert(CONTENT_LENGTH, length.into());
    response
}

/// A response to a client that has the content already.
pub(super) fn not_modified<R>(digest: &Digest) -> ApiResponse<R> {
    let mut response = empty(StatusCode::NOT_MODIFIED);
    // A 304 has the `ETag` that a 200 would have (RFC 9110, section 15.4.5).
    name_content(response.headers_mut(), digest);
    response
}

/// A response to a request that created content at `location`.
pub(super) fn created<R>(location: &str, digest: &Digest) -> ApiResponse<R> {
    let mut response = empty(StatusCode::CREATED);
    let headers = response.headers_mut();
    set(headers, LOCATION, location);
    set(headers, DOCKER_CONTENT_DIGEST, digest.as_str());
    response
}

/// A redirect to another target of the API.
pub(super) fn moved<R>(target: &str) -> ApiResponse<R> {
    let mut response = empty(StatusCode::MOVED_PERMANENTLY);
    set(response.headers_mut(), LOCATION, target);
    response
}

/// Whether `tag` is the entity tag of the content with this digest.
pub(super) fn is_entity_tag_of(tag: &str, digest: &Digest) -> bool {
    tag.strip_prefix('"')
        .and_then(|tag| tag.strip_suffix('"'))
        .is_some_and(|tag| tag == digest.as_str())
}

/// Sets a header. The callers' values are made of checked types; one that is invalid in a header is left
/// out and logged.
pub(super) fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    match HeaderValue::from_str(value) {
        Ok(value) => {
            headers.insert(name, value);
        }
        Err(error) => tracing::error!(%name, %error, "invalid response header"),
    }
}

fn name_content(headers: &mut HeaderMap, digest: &Digest) {
    set(headers, DOCKER_CONTENT_DIGEST, digest.as_str());
    set(headers, ETAG, &format!("\"{digest}\""));
}
