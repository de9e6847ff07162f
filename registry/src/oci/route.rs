//! Classifies a request's path by its endpoint.
//!
//! Paths are read from the right, because a repository's name may have any number of components, and each
//! may be `blobs`, `manifests`, `tags`, `uploads`, `referrers` or `list`. Nothing is decoded, and only as
//! much is validated as distinguishes the endpoints.

use super::digest::is_digest_segment;
use super::named_variants;
use super::tag::is_tag;

named_variants! {
    /// An endpoint, for metrics and for dispatch. It does not include the method.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub enum Endpoint {
        /// `/v2/` (end-1).
        Base = "base",
        /// `/v2/_catalog`.
        Catalog = "catalog",
        /// `/v2/<name>/tags/list` (end-8).
        Tags = "tags",
        /// `/v2/<name>/manifests/<reference>` (end-3, end-7, end-9).
        Manifest = "manifest",
        /// `/v2/<name>/blobs/<digest>` (end-2, end-10).
        Blob = "blob",
        /// `/v2/<name>/blobs/uploads/` (end-4, end-11).
        UploadStart = "upload_start",
        /// `/v2/<name>/blobs/uploads/<session>` (end-5, end-6, end-13, end-14).
        UploadSession = "upload_session",
        /// `/v2/<name>/referrers/<digest>` (end-12).
        Referrers = "referrers",
        /// A path at which registries commonly issue tokens.
        Token = "token",
        /// A path with a component that starts with `_`: an extension of the specification.
        Extension = "extension",
        /// Anything else.
        Other = "other",
    }
}

/// A classified path. Its strings are slices of the path, neither decoded nor validated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route<'a> {
    /// The endpoint.
    pub endpoint: Endpoint,
    /// The path's part where the repository's name belongs. It is not empty, but may be invalid. Only
    /// tags, manifests, blobs, uploads, referrers and extensions have one.
    pub repository: Option<&'a str>,
    /// The endpoint's argument: a manifest's reference, a blob's or subject's digest, a session, or an
    /// extension's components. Empty for the other endpoints.
    pub tail: &'a str,
}

impl<'a> Route<'a> {
    /// Classifies a path without its query. Never fails, and never allocates.
    ///
    /// Precedence: a valid `manifests/<reference>`, `blobs/<digest>`, `referrers/<digest>` or `tags/list`
    /// at the end; the rightmost `blobs/uploads/`, whose tail is opaque; `manifests`, `blobs` or
    /// `referrers` before a malformed last component, so that the response can say what is malformed; an
    /// extension.
    pub fn parse(path: &'a str) -> Self {
        let Some(rest) = path.strip_prefix("/v2") else {
            return Self::bare(unversioned(path), path);
        };
        let Some(rest) = rest.strip_prefix('/') else {
            return Self::bare(
                if rest.is_empty() {
                    Endpoint::Base
                } else {
                    Endpoint::Other
                },
                path,
            );
        };
        match rest {
            "" => return Self::bare(Endpoint::Base, path),
            // Before the rule for extensions, whose components begin with `_`, too.
            "_catalog" => return Self::bare(Endpoint::Catalog, path),
            "token" | "auth" => return Self::bare(Endpoint::Token, path),
            _ => {}
        }
        let last = LastComponents::of(rest);
        if let Some(last) = &last
            && last.is_valid()
        {
            return last.route(path);
        }
        // Only now, because a repository's name may itself contain `blobs/uploads`.
        if let Some(route) = upload(rest) {
            return route;
        }
        if let Some(last) = &last
            // `tags` has one fixed component after it: with another, the path is no endpoint.
            && last.endpoint != Endpoint::Tags
        {
            return last.route(path);
        }
        extension(rest).unwrap_or(Self::bare(Endpoint::Other, path))
    }

    /// The path's tag or digest, valid or not. A session's identifier is opaque, and never one of them.
    pub fn reference(&self) -> Option<&'a str> {
        match self.endpoint {
            Endpoint::Manifest | Endpoint::Blob | Endpoint::Referrers => Some(self.tail),
            _ => None,
        }
    }

    /// A route with neither repository nor tail.
    fn bare(endpoint: Endpoint, path: &'a str) -> Self {
        Self {
            endpoint,
            repository: None,
            // An empty slice of the path, rather than "": fuzzing checks that every slice is within it.
            tail: &path[path.len()..],
        }
    }
}

/// A path's last two components, the first of which is an endpoint's word, and the name before them.
struct LastComponents<'a> {
    endpoint: Endpoint,
    name: &'a str,
    tail: &'a str,
}

impl<'a> LastComponents<'a> {
    fn of(rest: &'a str) -> Option<Self> {
        let (head, tail) = split_last(rest)?;
        let (name, word) = split_last(head)?;
        let endpoint = match word {
            "manifests" => Endpoint::Manifest,
            "blobs" => Endpoint::Blob,
            "referrers" => Endpoint::Referrers,
            "tags" => Endpoint::Tags,
            _ => return None,
        };
        (!name.is_empty()).then_some(Self {
            endpoint,
            name,
            tail,
        })
    }

    fn is_valid(&self) -> bool {
        match self.endpoint {
            Endpoint::Tags => self.tail == "list",
            Endpoint::Manifest => is_tag(self.tail.as_bytes()) || is_digest_segment(self.tail),
            _ => is_digest_segment(self.tail),
        }
    }

    fn route(&self, path: &'a str) -> Route<'a> {
        let tail = if self.endpoint == Endpoint::Tags {
            &path[path.len()..]
        } else {
            self.tail
        };
        Route {
            endpoint: self.endpoint,
            repository: Some(self.name),
            tail,
        }
    }
}

/// An upload: the rightmost `blobs/uploads/` after a name, or `blobs/uploads` at the end.
fn upload(rest: &str) -> Option<Route<'_>> {
    const MARK: &[u8] = b"/blobs/uploads";
    let bytes = rest.as_bytes();
    // From 1, because a name of at least one byte precedes the mark.
    let at = (1..=bytes.len().checked_sub(MARK.len())?)
        .rev()
        .find(|&at| {
            bytes[at] == b'/'
                && bytes[at..].starts_with(MARK)
                // The mark must end a component: `blobs/uploads2` is none.
                && matches!(bytes.get(at + MARK.len()), None | Some(b'/'))
        })?;
    let tail = &rest[at + MARK.len()..];
    let tail = tail.strip_prefix('/').unwrap_or(tail);
    let endpoint = if tail.is_empty() {
        Endpoint::UploadStart
    } else {
        Endpoint::UploadSession
    };
    Some(Route {
        endpoint,
        repository: Some(&rest[..at]),
        tail,
    })
}

/// An extension: the leftmost component that starts with `_`, of a repository or of the registry.
fn extension(rest: &str) -> Option<Route<'_>> {
    let at = if rest.starts_with('_') {
        0
    } else {
        // The slash counts, because a name may have `_` within a component.
        rest.find("/_")? + 1
    };
    let name = rest[..at].strip_suffix('/').filter(|name| !name.is_empty());
    Some(Route {
        endpoint: Endpoint::Extension,
        repository: name,
        tail: &rest[at..],
    })
}

/// The endpoint of a path outside of `/v2`.
fn unversioned(path: &str) -> Endpoint {
    match path {
        "/token" | "/auth" | "/service/token" | "/jwt/auth" | "/oauth2/token" => Endpoint::Token,
        _ => Endpoint::Other,
    }
}

/// Splits at the last slash. A plain loop: components are short, and `rsplit_once` sets up a searcher first.
fn split_last(text: &str) -> Option<(&str, &str)> {
    let at = text.as_bytes().iter().rposition(|&byte| byte == b'/')?;
    Some((&text[..at], &text[at + 1..]))
}

#[cfg(test)]
mod tests;
