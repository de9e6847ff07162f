//! The key of an upload session: made of a Location, or of the target of a request for it.
//!
//! The specification leaves the form of a Location to the registry: it may be absolute or relative,
//! its query may change with each response, or the query alone may identify the session. A client
//! follows the Location and adds `digest` to its query, and may write the query in another order
//! and with other escapes. So a key compares the decoded path and the decoded parameters in any
//! order, without the digest. It holds only their hashes, because a Location can be as good as a
//! password.

use std::borrow::Cow;
use std::hash::{BuildHasher, RandomState};

use percent_encoding::percent_decode_str;
use registry::oci::{Endpoint, Route};
use url::{Url, form_urlencoded};

/// The key of a session in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LocationKey {
    /// The hash of the path.
    pub(super) path_hash: u64,
    /// The hash of the query.
    pub(super) query_hash: u64,
    /// The endpoint that the path looks like, if that is not an upload session.
    pub(super) looks_like: Option<Endpoint>,
}

impl LocationKey {
    pub(super) fn new(hasher: &RandomState, path: &str, query: Option<&str>) -> LocationKey {
        let endpoint = Route::parse(path).endpoint;
        LocationKey {
            path_hash: hash_path(hasher, path),
            query_hash: hash_query(hasher, query),
            looks_like: (endpoint != Endpoint::UploadSession).then_some(endpoint),
        }
    }

    /// The key of a Location in the response to a request for the path `base`.
    pub(super) fn of_location(hasher: &RandomState, location: &str, base: &str) -> LocationKey {
        match resolve(location, base) {
            Ok(url) => LocationKey::new(hasher, url.path(), url.query()),
            // No client can follow it, but the registry has opened a session, which must count.
            Err(_) => LocationKey::new(hasher, location, None),
        }
    }
}

pub(super) fn hash_path(hasher: &RandomState, path: &str) -> u64 {
    let decoded: Cow<'_, [u8]> = percent_decode_str(path).into();
    hasher.hash_one(decoded)
}

/// The sum of the parameters' hashes, so that their order does not matter.
pub(super) fn hash_query(hasher: &RandomState, query: Option<&str>) -> u64 {
    form_urlencoded::parse(query.unwrap_or_default().as_bytes())
        .filter(|(name, _)| name != "digest")
        .map(|part| hasher.hash_one(part))
        // Not XOR: a parameter that comes twice would cancel itself.
        .fold(0, u64::wrapping_add)
}

/// The URL that a client follows from a Location in the response for the path `base`. Its host is
/// not used: clients may know the proxy by any name.
fn resolve(location: &str, base: &str) -> Result<Url, url::ParseError> {
    let mut url = Url::parse("http://proxy")?;
    url.set_path(base);
    url.join(location)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_resolves_to_the_url_that_a_client_follows() {
        let base = "/v2/team/app/blobs/uploads/";
        for (location, path, query) in [
            ("/v2/a/blobs/uploads/1", "/v2/a/blobs/uploads/1", None),
            (
                "/v2/a/blobs/uploads/1?_state=x",
                "/v2/a/blobs/uploads/1",
                Some("_state=x"),
            ),
            ("http://localhost:5000/v2/a?b", "/v2/a", Some("b")),
            ("HTTPS://registry/v2/a#b", "/v2/a", None),
            ("//registry/u/1", "/u/1", None),
            ("http://registry", "/", None),
            ("http://registry?upload=1", "/", Some("upload=1")),
            ("1", "/v2/team/app/blobs/uploads/1", None),
            ("./1/2", "/v2/team/app/blobs/uploads/1/2", None),
            ("../up/1", "/v2/team/app/blobs/up/1", None),
            ("../../../../../../1", "/1", None),
            ("..", "/v2/team/app/blobs/", None),
            ("?upload=1", base, Some("upload=1")),
            ("", base, None),
            ("/u?to=http://x/y", "/u", Some("to=http://x/y")),
            ("/u/http://x", "/u/http://x", None),
        ] {
            let url = resolve(location, base).unwrap();
            assert_eq!((url.path(), url.query()), (path, query), "{location}");
        }
    }

    #[test]
    fn a_query_has_one_hash_in_any_order_with_any_escapes_and_any_digest() {
        let hasher = RandomState::new();
        let hash = |query: &str| hash_query(&hasher, Some(query));
        let same = [
            "a=x%3D%3D&b=1+2",
            "b=1%202&a=x==",
            "&b=1+2&a=x%3d=&digest=sha256:0",
            "digest=sha256%3A0&a=%78==&b=1 2",
        ];
        for query in same {
            assert_eq!(hash(query), hash(same[0]), "{query}");
        }
        for other in [
            "a=x==",
            "a=1+2&b=x==",
            "a=x==&b=1%2B2",
            "a=x==&b=1+2&c",
            "",
            "b",
        ] {
            assert_ne!(hash(other), hash(same[0]), "{other}");
        }
        assert_eq!(hash("digest=sha256:0"), hash_query(&hasher, None));
    }

    #[test]
    fn a_path_has_one_hash_with_any_escapes() {
        let hasher = RandomState::new();
        let hash = |path: &str| hash_path(&hasher, path);
        assert_eq!(hash("/v2/a%7Eb"), hash("/v2/a~b"));
        assert_ne!(hash("/v2/a"), hash("/v2/a/"));
    }
}
