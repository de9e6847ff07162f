//! The error codes of the specification, and the body of an error response.

use serde_json::Value;

use super::named_variants;

named_variants! {
    /// An error's code (distribution-spec, Error Codes).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub enum ErrorCode {
        /// code-1: no such blob in the repository.
        BlobUnknown = "BLOB_UNKNOWN",
        /// code-2: the upload cannot be resumed.
        BlobUploadInvalid = "BLOB_UPLOAD_INVALID",
        /// code-3: no such upload session.
        BlobUploadUnknown = "BLOB_UPLOAD_UNKNOWN",
        /// code-4: the digest is malformed, or does not match the content.
        DigestInvalid = "DIGEST_INVALID",
        /// code-5: the manifest references content that the repository lacks.
        ManifestBlobUnknown = "MANIFEST_BLOB_UNKNOWN",
        /// code-6: the manifest is invalid.
        ManifestInvalid = "MANIFEST_INVALID",
        /// code-7: no such manifest in the repository.
        ManifestUnknown = "MANIFEST_UNKNOWN",
        /// code-8: the repository name is malformed.
        NameInvalid = "NAME_INVALID",
        /// code-9: no such repository.
        NameUnknown = "NAME_UNKNOWN",
        /// code-10: the length does not match the content.
        SizeInvalid = "SIZE_INVALID",
        /// code-11: the request needs credentials.
        Unauthorized = "UNAUTHORIZED",
        /// code-12: the credentials do not permit the request.
        Denied = "DENIED",
        /// code-13: the registry does not support the request.
        Unsupported = "UNSUPPORTED",
        /// code-14: the client sends too many requests.
        TooManyRequests = "TOOMANYREQUESTS",
        /// Docker's, not the specification's: the parameter `n` is not a number.
        PaginationNumberInvalid = "PAGINATION_NUMBER_INVALID",
        /// Ours, not the specification's: the registry cannot handle the request now (5xx).
        Unavailable = "UNAVAILABLE",
    }
}

impl ErrorCode {
    /// Reads a code of an error's body; `None` if the code is unknown.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.as_str() == text)
    }
}

impl std::fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// The body of an error response: `{"errors":[{"code":…,"message":…,"detail":…}]}`.
#[derive(Clone, Debug, PartialEq)]
pub struct ErrorBody {
    code: ErrorCode,
    message: String,
    detail: Option<Value>,
}

impl ErrorBody {
    /// The `Content-Type` to send it with.
    pub const CONTENT_TYPE: &'static str = "application/json";

    /// One error with a message for people.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            detail: None,
        }
    }

    /// Adds details for programs.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<Value>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// The error's code.
    pub fn code(&self) -> ErrorCode {
        self.code
    }

    /// The message for people.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The body's bytes.
    pub fn to_json(&self) -> Vec<u8> {
        self.to_string().into_bytes()
    }
}

impl std::fmt::Display for ErrorBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // A `Value` prints as JSON, with its strings escaped. A code needs no escaping.
        write!(
            f,
            r#"{{"errors":[{{"code":"{}","message":{}"#,
            self.code,
            Value::from(self.message.as_str())
        )?;
        if let Some(detail) = &self.detail {
            write!(f, r#","detail":{detail}"#)?;
        }
        f.write_str("}]}")
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_body_has_the_form_of_the_specification() {
        let body = ErrorBody::new(ErrorCode::ManifestUnknown, "manifest unknown to registry");
        assert_snapshot!(body, @r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown to registry"}]}"#);
    }

    #[test]
    fn the_detail_may_be_any_json() {
        let body = ErrorBody::new(ErrorCode::ManifestBlobUnknown, "blobs are missing")
            .detail(json!({"digests": ["sha256:00", null], "count": 2}));
        assert_snapshot!(body, @r#"{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN","message":"blobs are missing","detail":{"count":2,"digests":["sha256:00",null]}}]}"#);
    }

    #[test]
    fn the_message_is_escaped() {
        let body = ErrorBody::new(ErrorCode::NameInvalid, "\"}]}\r\n\0é\\").detail("\"\u{7}");
        assert_snapshot!(body, @r#"{"errors":[{"code":"NAME_INVALID","message":"\"}]}\r\n\u0000é\\","detail":"\"\u0007"}]}"#);
        let parsed: Value = serde_json::from_slice(&body.to_json()).unwrap();
        assert_eq!(parsed["errors"][0]["message"], body.message());
    }

    #[test]
    fn every_code_has_its_own_name() {
        let codes: Vec<_> = ErrorCode::ALL.iter().map(|code| code.as_str()).collect();
        assert_snapshot!(codes.join("\n"), @r"
        BLOB_UNKNOWN
        BLOB_UPLOAD_INVALID
        BLOB_UPLOAD_UNKNOWN
        DIGEST_INVALID
        MANIFEST_BLOB_UNKNOWN
        MANIFEST_INVALID
        MANIFEST_UNKNOWN
        NAME_INVALID
        NAME_UNKNOWN
        SIZE_INVALID
        UNAUTHORIZED
        DENIED
        UNSUPPORTED
        TOOMANYREQUESTS
        PAGINATION_NUMBER_INVALID
        UNAVAILABLE
        ");
        for code in ErrorCode::ALL {
            assert_eq!(ErrorCode::parse(code.as_str()), Some(code));
            assert_eq!(ErrorCode::ALL[code as usize], code);
        }
        assert_eq!(ErrorCode::parse("blob_unknown"), None);
        assert_eq!(ErrorCode::parse(""), None);
    }
}
