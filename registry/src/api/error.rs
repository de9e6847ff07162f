//! Why a request fails, and the only place that maps a failure to a status and a code.

use std::borrow::Cow;

use http::header::{ALLOW, CONTENT_RANGE, LOCATION, RANGE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::Value;

use super::memory_budget::Evicted;
use super::precondition_error::PreconditionError;
use super::request_body_error::RequestBodyError;
use super::response::{self, ApiResponse, DOCKER_UPLOAD_UUID};
use crate::metrics::http::UploadRefusal;
use crate::metrics::label::CLIENT_CLOSED_REQUEST;
use crate::oci::{
    Digest, DigestError, Endpoint, ErrorBody, ErrorCode, ManifestError, MediaTypeError, NameError,
    RangeError, ReferenceError, TagError, UnknownAlgorithm,
};
use crate::store::StoreError;
use service::log::causes;

/// The most digests in an error's detail. The message states how many there are.
const DETAILS: usize = 100;

/// The progress of an upload session, for the client that resumes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct UploadProgress {
    pub(super) location: String,
    pub(super) id: String,
    /// The bytes the session holds.
    pub(super) offset: u64,
}

/// Why a request fails. The client gets the message of each error but of the store's own failures.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApiError {
    #[error("no such endpoint")]
    NoSuchEndpoint,
    #[error("the endpoint does not support this method")]
    Method { allow: &'static str },
    #[error("this registry is read-only")]
    ReadOnly { allow: &'static str },
    #[error("deletion is disabled in this registry")]
    DeleteDisabled { allow: &'static str },
    #[error("{0}")]
    Name(#[from] NameError),
    #[error("{0}")]
    Digest(#[from] DigestError),
    #[error("the query parameter digest is missing")]
    DigestMissing,
    #[error("{0}")]
    Algorithm(#[from] UnknownAlgorithm),
    #[error("{0}")]
    Tag(#[from] TagError),
    #[error("a push can set at most {limit} tags")]
    TooManyTags { limit: usize },
    #[error("the identifier of the upload session is invalid")]
    UploadId,
    #[error("Content-Type: {0}")]
    MediaType(#[from] MediaTypeError),
    #[error("{0}")]
    Manifest(#[from] ManifestError),
    #[error("the manifest exceeds the limit of {limit} bytes")]
    ManifestTooLarge { limit: u64 },
    #[error("the content has the digest {actual}, not {expected}")]
    DigestMismatch { expected: Digest, actual: Digest },
    #[error("{0}")]
    Precondition(#[from] PreconditionError),
    #[error("the query parameter n must be a decimal number")]
    PageSize,
    #[error("the Range header is malformed")]
    Range { size: u64 },
    #[error("Content-Range: {0}")]
    ContentRange(RangeError),
    #[error("Content-Range spans {range} bytes, but Content-Length is {length}")]
    RangeLength { range: u64, length: u64 },
    #[error("the next chunk must begin at byte {}", .0.offset)]
    OutOfOrder(UploadProgress),
    #[error("{0}")]
    Body(#[from] RequestBodyError),
    #[error("{0}")]
    Evicted(#[from] Evicted),
    #[error("{0}")]
    Store(#[from] StoreError),
    #[error("Transfer-Encoding must be chunked, and only once")]
    TransferCoding,
    #[error("the request has no Host header")]
    NoHost,
    #[error("the request has more than one Host header")]
    ManyHosts,
    #[error("the handler panicked")]
    Panicked,
}

impl ApiError {
    /// The error for an invalid reference to an existing manifest (end-3, end-9). No manifest has an invalid
    /// tag, so it is unknown; an invalid digest is an error of its own.
    pub(super) fn unknown_reference(error: ReferenceError) -> Self {
        match error {
            ReferenceError::Tag(_) => Self::Store(StoreError::ManifestUnknown),
            ReferenceError::Digest(error) => Self::Digest(error),
        }
    }

    /// The error for an invalid reference of a push (end-7).
    pub(super) fn invalid_reference(error: ReferenceError) -> Self {
        match error {
            ReferenceError::Tag(error) => Self::Tag(error),
            ReferenceError::Digest(error) => Self::Digest(error),
        }
    }

    /// Why it refuses an upload, if it does so for the state of the registry and not for what the client sent.
    pub(super) fn upload_refusal(&self, endpoint: Endpoint) -> Option<UploadRefusal> {
        if !matches!(endpoint, Endpoint::UploadStart | Endpoint::UploadSession) {
            return None;
        }
        match self {
            Self::ReadOnly { .. } => Some(UploadRefusal::ReadOnly),
            Self::Store(StoreError::TooManySessions { .. }) => Some(UploadRefusal::Sessions),
            Self::Store(StoreError::TooManyBytes { .. }) => Some(UploadRefusal::Bytes),
            Self::Store(
                StoreError::Reserved { .. }
                | StoreError::ReservedFiles { .. }
                | StoreError::NoSpace { .. },
            ) => Some(UploadRefusal::Space),
            _ => None,
        }
    }

    /// The status and the code of the response.
    fn classify(&self) -> (StatusCode, ErrorCode) {
        use ErrorCode as Code;
        match self {
            Self::NoSuchEndpoint => (StatusCode::NOT_FOUND, Code::Unsupported),
            Self::Method { .. } | Self::ReadOnly { .. } | Self::DeleteDisabled { .. } => {
                // distribution-spec (Content Management) wants 400 or 405 for a disabled deletion.
                (StatusCode::METHOD_NOT_ALLOWED, Code::Unsupported)
            }
            Self::Name(_) => (StatusCode::BAD_REQUEST, Code::NameInvalid),
            Self::Digest(_)
            | Self::DigestMissing
            | Self::Algorithm(_)
            | Self::DigestMismatch { .. } => (StatusCode::BAD_REQUEST, Code::DigestInvalid),
            Self::Tag(_) | Self::MediaType(_) | Self::Manifest(_) => {
                (StatusCode::BAD_REQUEST, Code::ManifestInvalid)
            }
            // The tags are parameters, and so it is the URI that is too long.
            Self::TooManyTags { .. } => (StatusCode::URI_TOO_LONG, Code::ManifestInvalid),
            // No session has such an identifier, so that it is as unknown as one that expired.
            Self::UploadId => (StatusCode::NOT_FOUND, Code::BlobUploadUnknown),
            Self::ManifestTooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, Code::ManifestInvalid),
            Self::PageSize => (StatusCode::BAD_REQUEST, Code::PaginationNumberInvalid),
            Self::Precondition(_) | Self::TransferCoding | Self::NoHost | Self::ManyHosts => {
                (StatusCode::BAD_REQUEST, Code::Unsupported)
            }
            Self::Range { .. } => (StatusCode::RANGE_NOT_SATISFIABLE, Code::SizeInvalid),
            Self::ContentRange(_) => (StatusCode::BAD_REQUEST, Code::BlobUploadInvalid),
            // A 416, as distribution-spec (Pushing a blob in chunks) asks: the client resumes.
            Self::OutOfOrder(_) => (StatusCode::RANGE_NOT_SATISFIABLE, Code::BlobUploadInvalid),
            Self::RangeLength { .. } | Self::Body(RequestBodyError::Length) => {
                (StatusCode::BAD_REQUEST, Code::SizeInvalid)
            }
            Self::Body(RequestBodyError::Stalled) => {
                (StatusCode::REQUEST_TIMEOUT, Code::SizeInvalid)
            }
            Self::Body(RequestBodyError::Gone) => (
                // The client cannot read it, but metrics and logs record it.
                StatusCode::from_u16(CLIENT_CLOSED_REQUEST).unwrap_or(StatusCode::BAD_REQUEST),
                Code::BlobUploadInvalid,
            ),
            Self::Evicted(Evicted) => (StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable),
            Self::Panicked => (StatusCode::INTERNAL_SERVER_ERROR, Code::Unavailable),
            Self::Store(error) => match error {
                StoreError::RepositoryUnknown => (StatusCode::NOT_FOUND, Code::NameUnknown),
                StoreError::BlobUnknown => (StatusCode::NOT_FOUND, Code::BlobUnknown),
                StoreError::ManifestUnknown => (StatusCode::NOT_FOUND, Code::ManifestUnknown),
                StoreError::UploadUnknown => (StatusCode::NOT_FOUND, Code::BlobUploadUnknown),
                StoreError::UploadBusy | StoreError::UploadOffset { .. } => {
                    (StatusCode::RANGE_NOT_SATISFIABLE, Code::BlobUploadInvalid)
                }
                StoreError::DigestMismatch { .. } => (StatusCode::BAD_REQUEST, Code::DigestInvalid),
                StoreError::ReferenceUnknown { .. } => {
                    (StatusCode::NOT_FOUND, Code::ManifestBlobUnknown)
                }
                // The specification has no code for a failed precondition. DENIED comes closest: the
                // request is valid, but not granted.
                StoreError::ConditionFailed { .. } => {
                    (StatusCode::PRECONDITION_FAILED, Code::Denied)
                }
                StoreError::RangeUnsatisfiable { .. } => {
                    (StatusCode::RANGE_NOT_SATISFIABLE, Code::SizeInvalid)
                }
                StoreError::Body(_) => (StatusCode::BAD_REQUEST, Code::SizeInvalid),
                StoreError::TooManySessions { .. } => {
                    (StatusCode::TOO_MANY_REQUESTS, Code::TooManyRequests)
                }
                StoreError::TooManyBytes { .. }
                | StoreError::Reserved { .. }
                | StoreError::ReservedFiles { .. }
                | StoreError::NoSpace { .. } => {
                    (StatusCode::INSUFFICIENT_STORAGE, Code::Unavailable)
                }
                StoreError::Interrupted | StoreError::Lost { .. } => {
                    (StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable)
                }
                StoreError::Corrupt { .. } | StoreError::Io { .. } => {
                    (StatusCode::INTERNAL_SERVER_ERROR, Code::Unavailable)
                }
            },
        }
    }

    /// Turns the failure into a response. A 5xx reveals nothing of the registry's internals; the log has the
    /// details.
    pub(super) fn into_response<R>(self) -> ApiResponse<R> {
        let (status, code) = self.classify();
        // An eviction is a 5xx, but its message reveals nothing: the client may read it.
        let overloaded =
            matches!(self, Self::Evicted(_)) || status == StatusCode::TOO_MANY_REQUESTS;
        let message: Cow<'static, str> = if status.is_server_error() && !overloaded {
            self.log(status);
            Cow::Borrowed(self.public_message(status))
        } else if overloaded {
            // The operator can raise a limit, and the message tells the client to come back.
            tracing::warn!(error = %self, %status, "request rejected: registry overloaded");
            Cow::Owned(self.to_string())
        } else {
            Cow::Owned(self.to_string())
        };
        let mut body = ErrorBody::new(code, message);
        if let Some(detail) = self.detail() {
            body = body.detail(detail);
        }
        let mut response = response::json(status, ErrorBody::CONTENT_TYPE, body.to_json());
        self.headers(response.headers_mut());
        response
    }

    /// Logs what the response leaves out. While the data directory is unavailable, every request fails; the
    /// store logs that once, so that each request is a debug message only.
    fn log(&self, status: StatusCode) {
        let error = causes(self);
        if matches!(self, Self::Store(StoreError::Lost { .. })) {
            tracing::debug!(error, %status, "request failed");
        } else {
            tracing::error!(error, %status, "request failed");
        }
    }

    /// The client's message for a 5xx.
    fn public_message(&self, status: StatusCode) -> &'static str {
        match status {
            StatusCode::INSUFFICIENT_STORAGE => {
                "the registry is out of storage space: try again later, or ask its operator to free \
                 space; pulls and deletes still work"
            }
            _ if matches!(self, Self::Store(StoreError::Lost { .. })) => {
                "the registry cannot reach its storage: try again later"
            }
            StatusCode::SERVICE_UNAVAILABLE => "the registry is shutting down: try again later",
            _ => "the registry failed to handle the request",
        }
    }

    /// The details for programs: the digests that a manifest references and the repository lacks.
    fn detail(&self) -> Option<Value> {
        match self {
            Self::Store(StoreError::ReferenceUnknown { digests }) => {
                // A manifest of some MiB can name tens of thousands of digests.
                let first = digests.iter().take(DETAILS);
                Some(first.map(Digest::as_str).collect())
            }
            _ => None,
        }
    }

    /// Sets the headers that belong to the failure.
    fn headers(&self, headers: &mut HeaderMap) {
        match self {
            Self::Method { allow } | Self::ReadOnly { allow } | Self::DeleteDisabled { allow } => {
                headers.insert(ALLOW, HeaderValue::from_static(allow));
            }
            Self::Range { size } | Self::Store(StoreError::RangeUnsatisfiable { size }) => {
                response::set(headers, CONTENT_RANGE, &format!("bytes */{size}"));
            }
            Self::OutOfOrder(progress) => progress.headers(headers),
            Self::Store(StoreError::Interrupted | StoreError::Lost { .. }) | Self::Evicted(_) => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
            }
            Self::Store(StoreError::TooManySessions { .. }) => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("10"));
            }
            _ => {}
        }
    }
}

impl UploadProgress {
    /// Sets a session's `Location`, `Docker-Upload-UUID` and `Range`. A session without bytes has the range
    /// `0-0`: the grammar has no empty range.
    pub(super) fn headers(&self, headers: &mut HeaderMap) {
        response::set(headers, LOCATION, &self.location);
        response::set(headers, DOCKER_UPLOAD_UUID, &self.id);
        let last = self.offset.saturating_sub(1);
        response::set(headers, RANGE, &format!("0-{last}"));
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;
    use std::io;

    use super::*;
    use crate::oci::Algorithm;
    use crate::store::Lost;

    /// One error of each variant.
    fn all() -> Vec<StoreError> {
        let digest = |text: &str| Digest::of(Algorithm::Sha256, text.as_bytes());
        let path = || "/secret/path".into();
        let all = vec![
            StoreError::RepositoryUnknown,
            StoreError::BlobUnknown,
            StoreError::ManifestUnknown,
            StoreError::UploadUnknown,
            StoreError::UploadBusy,
            StoreError::UploadOffset { expected: 3 },
            StoreError::DigestMismatch {
                expected: digest("a"),
                actual: digest("b"),
            },
            StoreError::ReferenceUnknown {
                digests: vec![digest("a")],
            },
            StoreError::ConditionFailed { current: None },
            StoreError::RangeUnsatisfiable { size: 3 },
            StoreError::TooManySessions { limit: 3 },
            StoreError::TooManyBytes {
                limit: 3,
                missing: 1,
            },
            StoreError::Reserved {
                available: 3,
                reserve: 4,
                missing: 1,
            },
            StoreError::ReservedFiles {
                available: 3,
                reserve: 4,
                missing: 1,
            },
            StoreError::Lost {
                path: path(),
                source: Lost::Gone,
            },
            StoreError::NoSpace {
                path: path(),
                source: io::Error::other("secret"),
            },
            StoreError::Body("the client left".into()),
            StoreError::Corrupt {
                path: path(),
                reason: "secret",
            },
            StoreError::Interrupted,
            StoreError::Io {
                path: path(),
                source: io::Error::other("secret"),
            },
        ];
        // Without a wildcard: a new variant does not compile until it is in this match, and belongs above.
        for error in &all {
            match error {
                StoreError::RepositoryUnknown
                | StoreError::BlobUnknown
                | StoreError::ManifestUnknown
                | StoreError::UploadUnknown
                | StoreError::UploadBusy
                | StoreError::UploadOffset { .. }
                | StoreError::DigestMismatch { .. }
                | StoreError::ReferenceUnknown { .. }
                | StoreError::ConditionFailed { .. }
                | StoreError::RangeUnsatisfiable { .. }
                | StoreError::TooManySessions { .. }
                | StoreError::TooManyBytes { .. }
                | StoreError::Reserved { .. }
                | StoreError::ReservedFiles { .. }
                | StoreError::Lost { .. }
                | StoreError::NoSpace { .. }
                | StoreError::Body(_)
                | StoreError::Corrupt { .. }
                | StoreError::Interrupted
                | StoreError::Io { .. } => {}
            }
        }
        all
    }

    #[test]
    fn every_store_error_has_a_status_and_a_code_and_reveals_no_path() {
        let mut table = String::new();
        for error in all() {
            let name = format!("{error:?}");
            let name = name.split([' ', '(']).next().unwrap_or_default().to_owned();
            let response: ApiResponse<()> = ApiError::from(error).into_response();
            let status = response.status().as_u16();
            let response::ResponseContent::Whole(body) = response.body() else {
                panic!("the body of an error is in memory");
            };
            let body = String::from_utf8_lossy(body).into_owned();
            assert!(!body.contains("secret"), "{body}");
            let code = body.split('"').nth(5).unwrap_or_default();
            writeln!(table, "{name} {status} {code}").unwrap();
        }
        insta::assert_snapshot!(table, @r"
        RepositoryUnknown 404 NAME_UNKNOWN
        BlobUnknown 404 BLOB_UNKNOWN
        ManifestUnknown 404 MANIFEST_UNKNOWN
        UploadUnknown 404 BLOB_UPLOAD_UNKNOWN
        UploadBusy 416 BLOB_UPLOAD_INVALID
        UploadOffset 416 BLOB_UPLOAD_INVALID
        DigestMismatch 400 DIGEST_INVALID
        ReferenceUnknown 404 MANIFEST_BLOB_UNKNOWN
        ConditionFailed 412 DENIED
        RangeUnsatisfiable 416 SIZE_INVALID
        TooManySessions 429 TOOMANYREQUESTS
        TooManyBytes 507 UNAVAILABLE
        Reserved 507 UNAVAILABLE
        ReservedFiles 507 UNAVAILABLE
        Lost 503 UNAVAILABLE
        NoSpace 507 UNAVAILABLE
        Body 400 SIZE_INVALID
        Corrupt 500 UNAVAILABLE
        Interrupted 503 UNAVAILABLE
        Io 500 UNAVAILABLE
        ");
    }
}
