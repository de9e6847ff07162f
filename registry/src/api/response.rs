//! Responses: their bodies and the headers they share.
//!
//! `If-Match` and `If-None-Match` are read in [`precondition`](super::precondition). There is no
//! `Last-Modified`, hence nothing for `If-Modified-Since` and `If-Unmodified-Since` to mean: they
//! are passed over.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::Stream;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, ETAG, LOCATION};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use serde::Serialize;

use super::memory_budget::MemoryShare;
use super::multipart::MultipartRanges;
use super::observation::Observation;
use crate::oci::{Digest, MediaType};
use crate::store::StoreError;

/// What a handler answers, with a body that is read from a store's reader `R` or already here.
pub(super) type ApiResponse<R> = Response<ResponseContent<R>>;

pub(super) const DOCKER_CONTENT_DIGEST: HeaderName =
    HeaderName::from_static("docker-content-digest");
pub(super) const DOCKER_UPLOAD_UUID: HeaderName = HeaderName::from_static("docker-upload-uuid");
pub(super) const OCI_FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");
pub(super) const OCI_SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
pub(super) const OCI_TAG: HeaderName = HeaderName::from_static("oci-tag");
const DOCKER_API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");

/// A response's body, before anybody watches it.
#[derive(Debug)]
pub(super) enum ResponseContent<R> {
    /// All of it; empty for none.
    Whole(Bytes),
    /// All of it, as long as it does not have to give way to others.
    Shared(MemoryShare),
    /// A reader, and the bytes still to come from it.
    Stream { reader: R, remaining: u64 },
    /// Several parts of a blob.
    Multipart(Box<MultipartRanges<R>>),
}

/// A response's body as hyper sends it. Dropping it ends the request's observation.
#[derive(Debug)]
pub struct ResponseBody<R> {
    content: ResponseContent<R>,
    observation: Observation,
}

/// Why a response ended half sent. The connection has to break, as nothing else tells the client.
#[derive(Debug, thiserror::Error)]
pub enum ResponseBodyError {
    /// A reader failed, or ended early.
    #[error("the response's body could not be read")]
    Read(#[source] Option<StoreError>),
    /// It gave way to others while its client read nothing.
    #[error("the response gave way to others")]
    Evicted,
}

impl<R> ResponseBody<R> {
    pub(super) fn new(content: ResponseContent<R>, observation: Observation) -> Self {
        Self {
            content,
            observation,
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
            ResponseContent::Whole(bytes) => std::mem::take(bytes),
            ResponseContent::Shared(share) if share.length() == 0 => return Poll::Ready(None),
            ResponseContent::Shared(share) => match share.pop() {
                Ok(bytes) => bytes,
                Err(error) => {
                    tracing::warn!(%error, "a response was cut");
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
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            ResponseContent::Whole(bytes) => bytes.is_empty(),
            ResponseContent::Shared(share) => share.length() == 0,
            ResponseContent::Stream { remaining, .. } => *remaining == 0,
            ResponseContent::Multipart(parts) => parts.remaining() == 0,
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(match &self.content {
            ResponseContent::Whole(bytes) => bytes.len() as u64,
            ResponseContent::Shared(share) => share.length() as u64,
            ResponseContent::Stream { remaining, .. } => *remaining,
            ResponseContent::Multipart(parts) => parts.remaining(),
        })
    }
}

/// The next bytes of a reader, of which `remaining` are to come. More of them, or an early end, is a
/// failure; nothing is to come after one.
pub(super) fn poll_reader<R>(
    reader: Pin<&mut R>,
    remaining: &mut u64,
    cx: &mut Context<'_>,
) -> Poll<Result<Bytes, ResponseBodyError>>
where
    R: Stream<Item = Result<Bytes, StoreError>>,
{
    match ready!(reader.poll_next(cx)) {
        Some(Ok(bytes)) if bytes.len() as u64 <= *remaining => {
            *remaining -= bytes.len() as u64;
            Poll::Ready(Ok(bytes))
        }
        failed => {
            let error = failed.and_then(Result::err);
            tracing::error!(
                error = error.as_ref().map(tracing::field::debug),
                missing = *remaining,
                "a blob could not be read to its end"
            );
            *remaining = 0;
            Poll::Ready(Err(ResponseBodyError::Read(error)))
        }
    }
}

/// A response without a body.
pub(super) fn empty<R>(status: StatusCode) -> ApiResponse<R> {
    let mut response = Response::new(ResponseContent::Whole(Bytes::new()));
    *response.status_mut() = status;
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

/// A body of ours as JSON.
pub(super) fn encode(body: &impl Serialize) -> Vec<u8> {
    // Our types hold texts, numbers and lists: nothing that JSON can't express.
    serde_json::to_vec(body).unwrap_or_default()
}

/// A response that describes content: its digest, entity tag, media type and length. The length is
/// said in so many words because a HEAD has no body to take it from.
pub(super) fn describe<R>(digest: &Digest, media_type: &MediaType, length: u64) -> ApiResponse<R> {
    let mut response = empty(StatusCode::OK);
    let headers = response.headers_mut();
    name_content(headers, digest);
    set(headers, CONTENT_TYPE, media_type.as_str());
    headers.insert(CONTENT_LENGTH, length.into());
    response
}

/// A response to a condition that says: you have it.
pub(super) fn not_modified<R>(digest: &Digest) -> ApiResponse<R> {
    let mut response = empty(StatusCode::NOT_MODIFIED);
    name_content(response.headers_mut(), digest);
    response
}

/// A response about content that now exists at `location`.
pub(super) fn created<R>(location: &str, digest: &Digest) -> ApiResponse<R> {
    let mut response = empty(StatusCode::CREATED);
    let headers = response.headers_mut();
    set(headers, LOCATION, location);
    set(headers, DOCKER_CONTENT_DIGEST, digest.as_str());
    response
}

/// A response that sends the client to another target of the API.
pub(super) fn moved<R>(target: &str) -> ApiResponse<R> {
    let mut response = empty(StatusCode::MOVED_PERMANENTLY);
    set(response.headers_mut(), LOCATION, target);
    response
}

/// Whether an entity tag is the content's.
pub(super) fn names(tag: &str, digest: &Digest) -> bool {
    tag.strip_prefix('"')
        .and_then(|tag| tag.strip_suffix('"'))
        .is_some_and(|tag| tag == digest.as_str())
}

/// Sets a header whose value our own types made; what could not stand in a header is left out.
pub(super) fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    match HeaderValue::from_str(value) {
        Ok(value) => {
            headers.insert(name, value);
        }
        Err(error) => tracing::error!(%name, %error, "a header could not be set"),
    }
}

fn name_content(headers: &mut HeaderMap, digest: &Digest) {
    set(headers, DOCKER_CONTENT_DIGEST, digest.as_str());
    set(headers, ETAG, &format!("\"{digest}\""));
}
