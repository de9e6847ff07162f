//! The labels and buckets of the proxy's families alone. Every label is a closed set.

use registry::oci::{self, Reference};
use service::metrics::{Label, labels};

labels! {
    /// An operation on a blob.
    pub enum BlobOperation: "operation" {
        Pull = "pull",
        Head = "head",
        Push = "push",
        Mount = "mount",
        Delete = "delete",
    }

    /// An operation on a manifest.
    pub enum ManifestOperation: "operation" {
        /// A GET.
        Pull = "pull",
        /// A HEAD.
        Resolve = "resolve",
        Push = "push",
        Delete = "delete",
    }

    /// How a cross-repository mount ended.
    pub enum MountResult: "result" {
        Mounted = "mounted",
        /// An upload session was opened instead.
        Fallback = "fallback",
        Error = "error",
    }

    /// The side that aborted a transfer.
    pub enum Side: "side" {
        Client = "client",
        Upstream = "upstream",
    }

    /// The direction of a body.
    pub enum Transfer: "direction" {
        Upload = "upload",
        Download = "download",
    }

    /// What a request is for.
    pub enum Purpose: "operation" {
        Pull = "pull",
        Push = "push",
        Other = "other",
    }

    /// The scheme of a request's credentials.
    pub enum AuthScheme: "scheme" {
        Basic = "basic",
        Bearer = "bearer",
        None = "none",
        Other = "other",
    }

    /// The upstream's verdict on a request's credentials, or on their absence.
    pub enum AuthResult: "result" {
        /// 401 to a request without credentials.
        Challenge = "challenge",
        Ok = "ok",
        Unauthorized = "unauthorized",
        Forbidden = "forbidden",
    }

    /// How an operation of the registry's API ended.
    pub enum OpResult: "result" {
        Ok = "ok",
        NotFound = "not_found",
        /// 401 or 403.
        Denied = "denied",
        ClientError = "client_error",
        ServerError = "server_error",
        /// One side aborted it.
        Aborted = "aborted",
    }

    /// How a request names a manifest.
    pub enum ReferenceKind: "reference" {
        Tag = "tag",
        Digest = "digest",
    }
}

/// Buckets for sizes of bodies: 1 KiB to 16 GiB, in bytes.
pub const BYTES: &[f64] = &powers_of_four::<13>(1024.0);

/// Buckets for speeds of transfers: 64 KiB/s to 4 GiB/s, in bytes a second.
pub const SPEED: &[f64] = &powers_of_four::<9>(65536.0);

const fn powers_of_four<const N: usize>(first: f64) -> [f64; N] {
    // Steps of four: sizes span many orders of magnitude, and each bucket is one more series.
    let mut bounds = [first; N];
    let mut n = 1;
    while n < N {
        bounds[n] = bounds[n - 1] * 4.0;
        n += 1;
    }
    bounds
}

impl OpResult {
    /// The result that a whole response's status stands for.
    pub fn of(status: u16) -> Self {
        match status {
            // A redirect and a 304 are successes: the client gets or has the content.
            ..400 => Self::Ok,
            401 | 403 => Self::Denied,
            404 => Self::NotFound,
            // No registry sends it: the proxy counts it where the client left before the response.
            499 => Self::Aborted,
            400..500 => Self::ClientError,
            500.. => Self::ServerError,
        }
    }
}

impl ReferenceKind {
    /// The kind of a reference as it stands in a path: no tag has a colon, plain or escaped.
    pub fn of(reference: &str) -> Self {
        if reference.contains([':', '%']) {
            Self::Digest
        } else {
            Self::Tag
        }
    }
}

impl From<&Reference> for ReferenceKind {
    fn from(reference: &Reference) -> Self {
        match reference {
            Reference::Tag(_) => Self::Tag,
            Reference::Digest(_) => Self::Digest,
        }
    }
}

/// An OCI error's code, or `other`: upstreams have codes of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ErrorCodeLabel {
    /// A code that we know.
    Known(oci::ErrorCode),
    /// Any other. Printed as `other`.
    Other,
}

impl ErrorCodeLabel {
    /// The label of a code as it stands in an error's body.
    pub fn of(code: &str) -> Self {
        oci::ErrorCode::parse(code).into()
    }
}

impl From<oci::ErrorCode> for ErrorCodeLabel {
    fn from(code: oci::ErrorCode) -> Self {
        Self::Known(code)
    }
}

impl From<Option<oci::ErrorCode>> for ErrorCodeLabel {
    fn from(code: Option<oci::ErrorCode>) -> Self {
        code.map_or(Self::Other, Self::Known)
    }
}

impl Label for ErrorCodeLabel {
    const NAME: &'static str = "code";
    const ALL: &'static [Self] = &{
        // From the list of codes, so that a new code raises the bound of the series by itself.
        let mut all = [Self::Other; oci::ErrorCode::ALL.len() + 1];
        let mut n = 0;
        while n < oci::ErrorCode::ALL.len() {
            all[n] = Self::Known(oci::ErrorCode::ALL[n]);
            n += 1;
        }
        all
    };

    fn index(self) -> usize {
        match self {
            // In the order of `ALL`, as a test checks.
            Self::Known(code) => code as usize,
            Self::Other => oci::ErrorCode::ALL.len(),
        }
    }

    fn value(self) -> &'static str {
        match self {
            Self::Known(code) => code.as_str(),
            Self::Other => "other",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_code_has_its_own_index_and_value() {
        for (index, label) in ErrorCodeLabel::ALL.iter().enumerate() {
            assert_eq!(label.index(), index, "{label:?}");
        }
        // The bound of the series relies on it.
        assert_eq!(ErrorCodeLabel::ALL.len(), 17);
    }

    #[test]
    fn a_result_follows_from_the_status() {
        let results = [
            (200, "ok"),
            (206, "ok"),
            (307, "ok"),
            (304, "ok"),
            (400, "client_error"),
            (401, "denied"),
            (403, "denied"),
            (404, "not_found"),
            (412, "client_error"),
            (416, "client_error"),
            (499, "aborted"),
            (500, "server_error"),
            (507, "server_error"),
            (999, "server_error"),
        ];
        for (status, result) in results {
            assert_eq!(OpResult::of(status).value(), result, "{status}");
        }
    }

    #[test]
    fn an_unknown_error_code_is_other() {
        assert_eq!(
            ErrorCodeLabel::of("TOOMANYREQUESTS").value(),
            "TOOMANYREQUESTS"
        );
        assert_eq!(ErrorCodeLabel::of("UNAVAILABLE").value(), "UNAVAILABLE");
        assert_eq!(ErrorCodeLabel::of("QUOTA_EXCEEDED").value(), "other");
        assert_eq!(ErrorCodeLabel::of("blob_unknown").value(), "other");
    }

    #[test]
    fn a_reference_with_a_colon_of_any_spelling_is_a_digest() {
        assert_eq!(ReferenceKind::of("latest"), ReferenceKind::Tag);
        assert_eq!(ReferenceKind::of("sha256:00"), ReferenceKind::Digest);
        assert_eq!(ReferenceKind::of("sha256%3A00"), ReferenceKind::Digest);
    }

    #[test]
    fn buckets_ascend_to_the_documented_ends() {
        for buckets in [BYTES, SPEED] {
            assert!(buckets.is_sorted_by(|a, b| a < b));
        }
        let ends = |buckets: &[f64]| (buckets.len(), buckets[0], buckets[buckets.len() - 1]);
        assert_eq!(ends(BYTES), (13, 1024.0, 17_179_869_184.0));
        assert_eq!(ends(SPEED), (9, 65536.0, 4_294_967_296.0));
    }
}
