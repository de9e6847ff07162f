//! What a handler refuses, and the only place where a failure becomes a status and a code.

use std::borrow::Cow;

use http::header::{ALLOW, CONTENT_RANGE, LOCATION, RANGE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::Value;

use super::body::RequestBodyError;
use super::memory_budget::Evicted;
use super::precondition::PreconditionError;
use super::response::{self, ApiResponse, DOCKER_UPLOAD_UUID};
use crate::metrics::label::CLIENT_CLOSED_REQUEST;
use crate::oci::{
    Digest, DigestError, ErrorBody, ErrorCode, ManifestError, MediaTypeError, NameError,
    RangeError, ReferenceError, TagError, UnknownAlgorithm,
};
use crate::store::StoreError;
use service::log::causes;

/// The most digests that an error's detail names: the message says how many there are.
const DETAILS: usize = 100;

/// Where an upload session stands, for the client that is to carry on with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct UploadProgress {
    pub(super) location: String,
    pub(super) id: String,
    /// The bytes the session holds.
    pub(super) offset: u64,
}

/// Why a request is refused. Everything but a [`StoreError`] of the store's own troubles is the
/// client's to know.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApiError {
    #[error("no such endpoint")]
    NoSuchEndpoint,
    #[error("the endpoint does not support this method")]
    Method { allow: &'static str },
    #[error("this registry is read-only")]
    ReadOnly { allow: &'static str },
    #[error("this registry does not delete")]
    DeleteDisabled { allow: &'static str },
    #[error("{0}")]
    Name(#[from] NameError),
    #[error("{0}")]
    Digest(#[from] DigestError),
    #[error("the digest parameter is missing")]
    DigestMissing,
    #[error("{0}")]
    Algorithm(#[from] UnknownAlgorithm),
    #[error("{0}")]
    Tag(#[from] TagError),
    #[error("no more than {limit} tags can be pushed at once")]
    TooManyTags { limit: usize },
    #[error("no upload session has such an identifier")]
    UploadId,
    #[error("Content-Type: {0}")]
    MediaType(#[from] MediaTypeError),
    #[error("{0}")]
    Manifest(#[from] ManifestError),
    #[error("a manifest may have at most {limit} bytes")]
    ManifestTooLarge { limit: u64 },
    #[error("the content has the digest {actual}, not {expected}")]
    DigestMismatch { expected: Digest, actual: Digest },
    #[error("{0}")]
    Precondition(#[from] PreconditionError),
    #[error("the parameter n must be a number of entries, in decimal digits")]
    PageSize,
    #[error("the Range header is malformed")]
    Range { size: u64 },
    #[error("Content-Range: {0}")]
    ContentRange(RangeError),
    #[error("Content-Range spans {range} bytes, but Content-Length is {length}")]
    RangeLength { range: u64, length: u64 },
    #[error("the upload continues at byte {}", .0.offset)]
    OutOfOrder(UploadProgress),
    #[error("{0}")]
    Body(#[from] RequestBodyError),
    #[error("{0}")]
    Evicted(#[from] Evicted),
    #[error("{0}")]
    Store(#[from] StoreError),
    #[error("no transfer coding is understood but chunked, once")]
    TransferCoding,
    #[error("the request has no Host header")]
    NoHost,
    #[error("the request has more than one Host header")]
    ManyHosts,
    #[error("the request could not be handled")]
    Panicked,
}

impl ApiError {
    /// A reference that can't name a manifest, where one was to be found: no tag is spelt so, and a
    /// malformed digest is told as such (end-3, end-9).
    pub(super) fn unknown_reference(error: ReferenceError) -> Self {
        match error {
            ReferenceError::Tag(_) => Self::Store(StoreError::ManifestUnknown),
            ReferenceError::Digest(error) => Self::Digest(error),
        }
    }

    /// A reference that a manifest can't be pushed to (end-7).
    pub(super) fn invalid_reference(error: ReferenceError) -> Self {
        match error {
            ReferenceError::Tag(error) => Self::Tag(error),
            ReferenceError::Digest(error) => Self::Digest(error),
        }
    }

    /// Its status and code.
    fn classify(&self) -> (StatusCode, ErrorCode) {
        use ErrorCode as Code;
        match self {
            Self::NoSuchEndpoint => (StatusCode::NOT_FOUND, Code::Unsupported),
            Self::Method { .. } | Self::ReadOnly { .. } | Self::DeleteDisabled { .. } => {
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
            Self::TooManyTags { .. } => (StatusCode::URI_TOO_LONG, Code::ManifestInvalid),
            Self::UploadId => (StatusCode::NOT_FOUND, Code::BlobUploadUnknown),
            Self::ManifestTooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, Code::ManifestInvalid),
            Self::PageSize => (StatusCode::BAD_REQUEST, Code::PaginationNumberInvalid),
            Self::Precondition(_) | Self::TransferCoding | Self::NoHost | Self::ManyHosts => {
                (StatusCode::BAD_REQUEST, Code::Unsupported)
            }
            Self::Range { .. } => (StatusCode::RANGE_NOT_SATISFIABLE, Code::SizeInvalid),
            Self::ContentRange(_) => (StatusCode::BAD_REQUEST, Code::BlobUploadInvalid),
            Self::OutOfOrder(_) => (StatusCode::RANGE_NOT_SATISFIABLE, Code::BlobUploadInvalid),
            Self::RangeLength { .. } | Self::Body(RequestBodyError::Length) => {
                (StatusCode::BAD_REQUEST, Code::SizeInvalid)
            }
            Self::Body(RequestBodyError::Stalled) => {
                (StatusCode::REQUEST_TIMEOUT, Code::SizeInvalid)
            }
            Self::Body(RequestBodyError::Gone) => (
                // Nobody is left to read it; it is counted.
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
                // The manifest is fine, and so is the request: it is what it asks for that is not
                // granted. No code of the specification comes closer.
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

    /// The response that tells the client. A 5xx says nothing of our insides; the log says all.
    pub(super) fn into_response<R>(self) -> ApiResponse<R> {
        let (status, code) = self.classify();
        let turned_away =
            matches!(self, Self::Evicted(_)) || status == StatusCode::TOO_MANY_REQUESTS;
        let message: Cow<'static, str> = if status.is_server_error() && !turned_away {
            self.log(status);
            Cow::Borrowed(self.vague(status))
        } else if turned_away {
            // Whoever runs the registry can do something about it, and should know.
            tracing::warn!(error = ?self, %status, "a request was turned away");
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

    /// The log says what the response leaves out. That the data directory is lost it says once, when
    /// that happens.
    fn log(&self, status: StatusCode) {
        let error = causes(self);
        if matches!(self, Self::Store(StoreError::Lost { .. })) {
            tracing::debug!(error, %status, "a request failed");
        } else {
            tracing::error!(error, %status, "a request failed");
        }
    }

    /// What the client is told of a 5xx.
    fn vague(&self, status: StatusCode) -> &'static str {
        match status {
            StatusCode::INSUFFICIENT_STORAGE => {
                "the registry has no space left for this: try again later, or ask whoever runs it to \
                 make room; pulls and deletes go on"
            }
            _ if matches!(self, Self::Store(StoreError::Lost { .. })) => {
                "the registry cannot reach its storage: try again later"
            }
            StatusCode::SERVICE_UNAVAILABLE => "the registry is stopping",
            _ => "the registry failed to handle the request",
        }
    }

    /// What a program may want to know beyond the code.
    fn detail(&self) -> Option<Value> {
        match self {
            Self::Store(StoreError::ReferenceUnknown { digests }) => {
                let first = digests.iter().take(DETAILS);
                Some(first.map(Digest::as_str).collect())
            }
            _ => None,
        }
    }

    /// The headers that go with a status.
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
    /// `Location`, `Docker-Upload-UUID` and `Range` of a session. A session without bytes says
    /// `0-0`: the grammar has no way to name none.
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

    /// One of each sort of failure that a store has.
    fn all() -> Vec<StoreError> {
        let digest = |text: &str| Digest::of(Algorithm::Sha256, text.as_bytes());
        let place = || "/secret/place".into();
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
                path: place(),
                source: Lost::Gone,
            },
            StoreError::NoSpace {
                path: place(),
                source: io::Error::other("secret"),
            },
            StoreError::Body("the client left".into()),
            StoreError::Corrupt {
                path: place(),
                reason: "secret",
            },
            StoreError::Interrupted,
            StoreError::Io {
                path: place(),
                source: io::Error::other("secret"),
            },
        ];
        // Whoever adds a sort adds it above, too.
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
    fn every_failure_of_the_store_has_its_status_and_code_and_keeps_its_secrets() {
        let mut told = String::new();
        for error in all() {
            let name = format!("{error:?}");
            let name = name.split([' ', '(']).next().unwrap_or_default().to_owned();
            let response: ApiResponse<()> = ApiError::from(error).into_response();
            let status = response.status().as_u16();
            let response::ResponseContent::Whole(body) = response.body() else {
                panic!("the body of an error is here");
            };
            let body = String::from_utf8_lossy(body).into_owned();
            assert!(!body.contains("secret"), "{body}");
            let code = body.split('"').nth(5).unwrap_or_default();
            writeln!(told, "{name} {status} {code}").unwrap();
        }
        insta::assert_snapshot!(told, @r"
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
