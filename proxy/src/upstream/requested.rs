//! What of a request says which upstream it is for. Nothing here allocates: every request is read.

use memchr::{memchr_iter, memchr3};
use percent_encoding::{PercentDecode, percent_decode_str};
use registry::oci::{Endpoint, Route};

/// What precedes the name of every repository in a path.
pub(super) const VERSION: &str = "/v2/";

/// What of a request says which upstream it is for.
#[derive(Clone, Copy, Debug)]
pub struct Requested<'r> {
    /// The host that the client asks for.
    pub host: Option<&'r [u8]>,
    /// The path, as it is written.
    pub path: &'r str,
    /// What follows the path's `?`.
    pub query: Option<&'r str>,
}

impl<'r> Requested<'r> {
    /// The first component of the repository in the path, as it is written; `None` if there is none.
    pub(super) fn component(&self) -> Option<&'r str> {
        component(self.path).map(|(component, _)| component)
    }

    /// The first component of the first repository that a token is asked for, decoded.
    pub(super) fn scoped_component(&self) -> Option<impl Iterator<Item = u8> + 'r> {
        let query = self.query?;
        if Route::parse(self.path).endpoint != Endpoint::Token {
            return None;
        }
        let mut scopes = parameters(query).filter(|(name, _)| name.clone().eq(*b"scope"));
        scopes.find_map(|(_, value)| scope_component(value))
    }

    /// The values of a parameter of the query, decoded.
    pub(super) fn parameters(&self, name: &'static str) -> impl Iterator<Item = PercentDecode<'r>> {
        let all = parameters(self.query.unwrap_or_default());
        let named = all.filter(move |(found, _)| found.clone().eq(name.bytes()));
        named.map(|(_, value)| value)
    }

    /// Whether the path asks for the registry's catalog.
    pub(super) fn is_catalog(&self) -> bool {
        let rest = self.path.strip_prefix(VERSION);
        rest.is_some_and(|rest| begins_with(percent_decode_str(rest), b"_catalog").is_some())
    }

    /// Whether no server can resolve the path to the repository of another upstream: by dots, by empty
    /// components, or by a second way to write a separator.
    pub(super) fn is_plain(&self) -> bool {
        let bytes = self.path.as_bytes();
        let is_odd = |slash: usize| matches!(bytes.get(slash + 1), Some(b'/' | b'.'));
        let is_common =
            memchr3(b'%', b'\\', b';', bytes).is_none() && !memchr_iter(b'/', bytes).any(is_odd);
        is_common || is_plain(self.path)
    }
}

/// The first component of the repository in a path, and what follows its slash. A path that ends with
/// the component names no repository, and no component of a name begins with an underscore.
pub(super) fn component(path: &str) -> Option<(&str, &str)> {
    let rest = path.strip_prefix(VERSION)?;
    let at = memchr::memchr(b'/', rest.as_bytes())?;
    let (component, rest) = (&rest[..at], &rest[at + 1..]);
    (!component.is_empty() && !component.starts_with('_')).then_some((component, rest))
}

/// The names and values in a query, decoded. A plus stays one: it is in no name that matters here.
fn parameters(query: &str) -> impl Iterator<Item = (PercentDecode<'_>, PercentDecode<'_>)> {
    query.split('&').map(|field| {
        let (name, value) = field.split_once('=').unwrap_or((field, ""));
        (percent_decode_str(name), percent_decode_str(value))
    })
}

/// The first component of the first repository in a list of scopes, `repository:NAME:ACTIONS`.
fn scope_component(mut scopes: PercentDecode<'_>) -> Option<impl Iterator<Item = u8>> {
    loop {
        if let Some(name) = begins_with(scopes.clone(), b"repository:") {
            // A name has no colon; but for a class, that is no part of it: `repository(plugin)`.
            return Some(name.take_while(|byte| !matches!(byte, b'/' | b':' | b' ' | b'+')));
        }
        scopes.find(|byte| matches!(byte, b' ' | b'+'))?;
    }
}

/// What follows a text.
fn begins_with<'t>(mut text: PercentDecode<'t>, start: &[u8]) -> Option<PercentDecode<'t>> {
    let is_start = start.iter().all(|byte| text.next() == Some(*byte));
    is_start.then_some(text)
}

/// The same for a path that has percent signs, dots and the like.
fn is_plain(path: &str) -> bool {
    let is_versioned = path.starts_with(VERSION);
    let bytes = path.as_bytes();
    let is = |at: usize, digits: &[u8]| {
        let found = bytes.get(at..at + digits.len());
        found.is_some_and(|found| found.eq_ignore_ascii_case(digits))
    };
    let mut may_have_dots = false;
    for (at, byte) in bytes.iter().enumerate() {
        // Some servers end a component at its parameters, and some decode twice.
        let is_odd = match byte {
            b'/' => is(at + 1, b"/"),
            b'%' => {
                may_have_dots |= is(at + 1, b"2e");
                is(at + 1, b"5c")
                    || is(at + 1, b"252e")
                    || is_versioned && (is(at + 1, b"2f") || is(at + 1, b"25"))
            }
            b'.' => {
                may_have_dots = true;
                false
            }
            b';' => is_versioned,
            byte => *byte == b'\\',
        };
        if is_odd {
            return false;
        }
    }
    // It may be the version, written in another way.
    let first = path.split('/').nth(1).unwrap_or_default();
    (is_versioned || !first.contains(['%', ';'])) && !(may_have_dots && has_dots(path))
}

/// Whether a component is `.` or `..`, in whatever way it and the slashes around it are written.
fn has_dots(path: &str) -> bool {
    let (mut dots, mut others) = (0, 0);
    for byte in percent_decode_str(path).chain(*b"/") {
        match byte {
            b'/' | b';' if others == 0 && (dots == 1 || dots == 2) => return true,
            b'/' | b';' => (dots, others) = (0, 0),
            b'.' => dots += 1,
            _ => others += 1,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requested<'r>(path: &'r str, query: Option<&'r str>) -> Requested<'r> {
        Requested {
            host: None,
            path,
            query,
        }
    }

    #[test]
    fn the_first_component_is_that_of_a_repository() {
        for (path, component) in [
            ("/v2/a/manifests/1", Some("a")),
            ("/v2/team-a/app/tags/list", Some("team-a")),
            ("/v2/team%2Da/x", Some("team%2Da")),
            ("/v2/a/", Some("a")),
            ("/v2/token/app/tags/list", Some("token")),
            ("/v2/", None),
            ("/v2", None),
            ("/v2/a", None),
            ("/v2/token", None),
            ("/v2/_catalog", None),
            ("/v2/_oci/ext", None),
            ("/v2//a/tags/list", None),
            ("/", None),
            ("*", None),
            ("/v2x/a/b", None),
            ("/api/v2/a/b", None),
        ] {
            assert_eq!(requested(path, None).component(), component, "{path}");
        }
    }

    #[test]
    fn a_token_is_for_the_first_repository_of_its_scopes() {
        let scoped = |path: &str, query: &str| {
            let component = requested(path, Some(query)).scoped_component()?.collect();
            Some(String::from_utf8(component).unwrap())
        };
        for (query, component) in [
            ("service=x&scope=repository:a/b:pull", Some("a")),
            ("scope=repository%3Aa%2Fb%3Apull", Some("a")),
            ("sc%6Fpe=repository:a:pull", Some("a")),
            (
                "scope=registry:catalog:*&scope=repository:b/c:pull&scope=repository:a:x",
                Some("b"),
            ),
            ("scope=registry:catalog:*%20repository:b/c:pull", Some("b")),
            ("scope=registry:catalog:*+repository:b/c:pull", Some("b")),
            ("scope=repository:", Some("")),
            ("scope=repositor", None),
            ("scope=registry:catalog:*", None),
            ("scope", None),
            ("scoped=repository:a:pull", None),
            ("", None),
        ] {
            assert_eq!(scoped("/token", query).as_deref(), component, "{query}");
        }
        assert_eq!(
            scoped("/v2/auth", "scope=repository:a:x").as_deref(),
            Some("a")
        );
        assert_eq!(scoped("/v2/", "scope=repository:a:x"), None);
        assert_eq!(
            requested("/token", None).scoped_component().map(|_| ()),
            None
        );
    }

    #[test]
    fn a_path_that_may_be_another_one_is_not_plain() {
        let digest = format!("/v2/a/b/blobs/sha256:{}", "0".repeat(64));
        for path in [
            &*digest,
            "/",
            "*",
            "/v2/",
            "/v2/a/manifests/v1.0",
            "/v2/a/manifests/...",
            "/v2/a/manifests/sha256%3A00",
            "/v2/team%2Da/tags/list",
            "/.well-known/x",
            "/api/projects/a%252Fb/x%2fy;z",
            "/v2/a/blobs/uploads/x..y.",
        ] {
            assert!(requested(path, None).is_plain(), "{path}");
        }
        for path in [
            "/v2/./a/tags/list",
            "/v2/b/../a/tags/list",
            "/v2/b/%2e%2E/a/tags/list",
            "/v2/b/.%2e/a/tags/list",
            "/v2/b%2f..%2fa/tags/list",
            "/v2/b/%252e%252e/a",
            "/v2/b%25252e",
            "/v2/a%2Fb/tags/list",
            "/v2/a%5cb/tags/list",
            "/v2/a\\b/tags/list",
            "/v2/a;x/b/tags/list",
            "/v2/b/..;x/a/tags/list",
            "/v2//a/tags/list",
            "//v2/a/tags/list",
            "/api/../v2/a/tags/list",
            "/api/x%2f..%2f..%2fv2/a/tags/list",
            "/api//../v2/a",
            "/%76%32/a/tags/list",
            "/v2;x/a/tags/list",
            "/v2%2fa/tags/list",
            "/..",
            "/v2/a/.",
        ] {
            assert!(!requested(path, None).is_plain(), "{path}");
        }
    }

    #[test]
    fn the_catalog_is_known_however_it_is_written() {
        for (path, is_catalog) in [
            ("/v2/_catalog", true),
            ("/v2/_catalog/", true),
            ("/v2/%5Fcatalo%67", true),
            ("/v2/_catalo", false),
            ("/v2/a/_catalog", false),
            ("/_catalog", false),
        ] {
            assert_eq!(requested(path, None).is_catalog(), is_catalog, "{path}");
        }
    }
}
