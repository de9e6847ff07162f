//! One request as its client saw it.

use serde_json::Value;

/// How much of something there was. Both are the same where the client knows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) low: u64,
    pub(crate) high: u64,
}

/// What a client may know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    Yes,
    No,
    Unknown,
}

/// One request and its response, as far as the client saw them.
#[derive(Clone, Debug)]
pub(crate) struct Observation {
    pub(crate) method: String,
    /// The path and the query.
    pub(crate) target: String,
    pub(crate) agent: String,
    /// The media type and the bytes of the request's body, where it is a manifest.
    pub(crate) pushed: Option<(String, Vec<u8>)>,
    /// The body bytes that the proxy may have read.
    pub(crate) sent: Bounds,
    /// Whether the proxy has read the whole body.
    pub(crate) sent_whole: Known,
    /// `None` if no head of a response arrived.
    pub(crate) status: Option<u16>,
    pub(crate) has_location: bool,
    /// Whether the content begins with its first byte.
    pub(crate) from_start: bool,
    /// The media type of the response.
    pub(crate) media_type: String,
    /// The start of the response's body, where it is a manifest or an error.
    pub(crate) body: Vec<u8>,
    /// The body bytes that the proxy may have sent.
    pub(crate) received: Bounds,
    /// Whether the proxy has sent the whole body.
    pub(crate) received_whole: Known,
    /// Whether the client has left before the end.
    pub(crate) left: bool,
}

/// How many bytes of a body are kept for the books.
pub(crate) const KEPT: usize = 256 << 10;

impl Bounds {
    pub(crate) fn exactly(value: u64) -> Self {
        Self {
            low: value,
            high: value,
        }
    }

    pub(crate) fn between(low: u64, high: u64) -> Self {
        Self {
            low,
            high: high.max(low),
        }
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.low += other.low;
        self.high += other.high;
    }
}

impl Known {
    /// Yes, or no.
    pub(crate) fn certainly(holds: bool) -> Self {
        if holds { Self::Yes } else { Self::No }
    }

    /// One event, if it holds.
    pub(crate) fn once(self) -> Bounds {
        match self {
            Self::Yes => Bounds::exactly(1),
            Self::No => Bounds::exactly(0),
            Self::Unknown => Bounds::between(0, 1),
        }
    }

    pub(crate) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::No, _) | (_, Self::No) => Self::No,
            (Self::Yes, Self::Yes) => Self::Yes,
            _ => Self::Unknown,
        }
    }
}

impl Observation {
    /// A request without a body that got nothing so far.
    pub(crate) fn new(method: &str, target: &str, agent: &str) -> Self {
        Self {
            method: method.to_owned(),
            target: target.to_owned(),
            agent: agent.to_owned(),
            pushed: None,
            sent: Bounds::default(),
            sent_whole: Known::Yes,
            status: None,
            has_location: false,
            from_start: false,
            media_type: String::new(),
            body: Vec::new(),
            received: Bounds::default(),
            received_whole: Known::Unknown,
            left: false,
        }
    }

    /// Takes from a response's head what the books need.
    pub(crate) fn head(&mut self, status: u16, header: impl Fn(&str) -> Option<String>) {
        self.status = Some(status);
        self.has_location = header("location").is_some();
        self.media_type = header("content-type").unwrap_or_default();
        self.from_start = match status {
            200 => true,
            206 => header("content-range").is_some_and(|range| range.starts_with("bytes 0-")),
            _ => false,
        };
    }

    /// The endpoint, as the label of that name has it. This is not the proxy's code, so that the books
    /// check that code.
    pub(crate) fn endpoint(&self) -> &'static str {
        let path = self.path();
        let Some(rest) = path.strip_prefix("/v2") else {
            return "other";
        };
        let tail: Vec<_> = rest.rsplitn(3, '/').collect();
        match (rest, tail.as_slice()) {
            ("" | "/", _) => "base",
            ("/_catalog", _) => "catalog",
            (_, ["list", "tags", _]) => "tags",
            (_, ["", "uploads", before]) if before.ends_with("/blobs") => "upload_start",
            (_, [_, "uploads", before]) if before.ends_with("/blobs") => "upload_session",
            (_, [_, "manifests", _]) => "manifest",
            (_, [_, "blobs", _]) => "blob",
            (_, [_, "referrers", _]) => "referrers",
            _ => "other",
        }
    }

    /// Whether the query has this parameter.
    pub(crate) fn asks(&self, name: &str) -> bool {
        let query = self.target.split_once('?').map_or("", |(_, query)| query);
        query
            .split('&')
            .any(|field| field.split('=').next() == Some(name))
    }

    /// `tag` or `digest`.
    pub(crate) fn reference(&self) -> &'static str {
        let reference = self.path().rsplit('/').next().unwrap_or_default();
        if reference.contains(':') {
            "digest"
        } else {
            "tag"
        }
    }

    /// The family of the client.
    pub(crate) fn client(&self) -> &'static str {
        let agent = self.agent.to_ascii_lowercase();
        let families = [
            ("docker/", "docker"),
            ("docker-client/", "docker"),
            ("skopeo/", "containers"),
            ("libpod/", "containers"),
            ("containers/", "containers"),
            ("buildah/", "containers"),
            ("curl/", "curl"),
        ];
        let family = families.iter().find(|(start, _)| agent.starts_with(start));
        family.map_or("other", |(_, family)| family)
    }

    /// The kind of the manifest that was moved, where the operation succeeded.
    pub(crate) fn kind(&self) -> &'static str {
        let media_type = self.media_type.split(';').next().unwrap_or_default();
        match (self.method.as_str(), self.status, &self.pushed) {
            ("GET", Some(200), _) => kind(media_type, &self.body),
            ("GET" | "HEAD", Some(..400), _) => of_media_type(media_type),
            ("PUT", _, Some((media_type, body))) => kind(media_type, body),
            _ => "other",
        }
    }

    /// The code of the OCI error in the body, as the label has it.
    pub(crate) fn error_code(&self) -> Option<String> {
        let is_error = self.status.is_some_and(|status| status >= 400);
        if !is_error || !self.media_type.contains("json") {
            return None;
        }
        let body: Value = serde_json::from_slice(&self.body).ok()?;
        let code = body.get("errors")?.get(0)?.get("code")?.as_str()?;
        let known = [
            "BLOB_UNKNOWN",
            "BLOB_UPLOAD_INVALID",
            "BLOB_UPLOAD_UNKNOWN",
            "DIGEST_INVALID",
            "MANIFEST_BLOB_UNKNOWN",
            "MANIFEST_INVALID",
            "MANIFEST_UNKNOWN",
            "NAME_INVALID",
            "NAME_UNKNOWN",
            "SIZE_INVALID",
            "UNAUTHORIZED",
            "DENIED",
            "UNSUPPORTED",
            "TOOMANYREQUESTS",
            "UNAVAILABLE",
        ];
        let code = if known.contains(&code) { code } else { "other" };
        Some(code.to_owned())
    }

    fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }
}

fn of_media_type(media_type: &str) -> &'static str {
    match media_type {
        "application/vnd.oci.image.manifest.v1+json"
        | "application/vnd.docker.distribution.manifest.v2+json" => "image",
        "application/vnd.oci.image.index.v1+json"
        | "application/vnd.docker.distribution.manifest.list.v2+json" => "index",
        _ => "other",
    }
}

/// The kinds that the clients of a soak push: images, indexes, and artifacts with a type.
fn kind(media_type: &str, body: &[u8]) -> &'static str {
    let Ok(body) = serde_json::from_slice::<Value>(body) else {
        return of_media_type(media_type);
    };
    let has_type = body.get("artifactType").is_some();
    match of_media_type(media_type) {
        "image" if has_type => "artifact",
        kind => kind,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_told_apart_by_the_ends_of_paths() {
        for (target, endpoint) in [
            ("/v2/", "base"),
            ("/v2/_catalog?n=1", "catalog"),
            ("/v2/a/b/tags/list", "tags"),
            ("/v2/a/b/manifests/1", "manifest"),
            ("/v2/a/b/blobs/sha256:00", "blob"),
            ("/v2/a/b/blobs/uploads/?mount=x", "upload_start"),
            ("/v2/a/b/blobs/uploads/1?_state=x/y", "upload_session"),
            ("/v2/a/b/referrers/sha256:00", "referrers"),
            ("/elsewhere", "other"),
        ] {
            let seen = Observation::new("GET", target, "");
            assert_eq!(seen.endpoint(), endpoint, "{target}");
        }
    }
}
