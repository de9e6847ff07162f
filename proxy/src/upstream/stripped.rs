//! A prefix of repositories that clients write, and that the upstream does not know of.
//!
//! `/v2/team-a/app/…` is `/v2/app/…` at the upstream, and a Location of it gets the prefix again. What is
//! no path of a repository stays as it is, in both directions: then taking the prefix away from a Location
//! that got it always leads back to the Location.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;
use registry::oci::Route;
use url::form_urlencoded;

use super::requested::{self, VERSION};

/// What precedes the name in a scope of a token.
const SCOPE: &str = "repository:";

/// A prefix that the upstream does not know of: one component of a repository's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StrippedPrefix(String);

/// Nothing is left of a repository's name without the prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NothingLeft;

impl StrippedPrefix {
    /// This one.
    pub fn new(component: &str) -> StrippedPrefix {
        StrippedPrefix(component.to_owned())
    }

    /// The target of a request as the upstream knows it; `None` if it is the same.
    pub(crate) fn strip_target(
        &self,
        path: &str,
        query: Option<&str>,
    ) -> Result<Option<String>, NothingLeft> {
        let stripped = self.strip_path(path)?;
        let from = query.and_then(|query| self.strip_query(query));
        if stripped.is_none() && from.is_none() {
            return Ok(None);
        }
        let mut target = stripped.unwrap_or_else(|| path.to_owned());
        // A query of which nothing is left goes with its question mark.
        let is_emptied = from.as_ref().is_some_and(String::is_empty);
        if let Some(query) = from.as_deref().or(query).filter(|_| !is_emptied) {
            target.push('?');
            target += query;
        }
        Ok(Some(target))
    }

    /// A path of the client as the upstream knows it; `None` if it names no repository with the prefix.
    fn strip_path(&self, path: &str) -> Result<Option<String>, NothingLeft> {
        let Some((component, rest)) = requested::component(path) else {
            return Ok(None);
        };
        if !percent_decode_str(component).eq(self.0.bytes()) {
            return Ok(None);
        }
        let stripped = [VERSION, rest].concat();
        // Else the request would be another one: `/v2/PREFIX/_catalog` is not for the catalog.
        if is_alike(path, &stripped) {
            Ok(Some(stripped))
        } else {
            Err(NothingLeft)
        }
    }

    /// A path of the upstream as clients know it, whatever query follows; `None` if it names no
    /// repository.
    pub(crate) fn add_to_path(&self, target: &str) -> Option<String> {
        let end = target.find(['?', '#']).unwrap_or(target.len());
        let (path, rest) = target.split_at(end);
        let below = path.strip_prefix(VERSION)?;
        let added = [VERSION, &self.0, "/", below].concat();
        is_alike(&added, path).then(|| added + rest)
    }

    /// The scopes of a challenge, with the names by which clients know the repositories.
    pub(crate) fn add_to_scopes(&self, scopes: &str) -> Option<String> {
        let each = scopes
            .split(' ')
            .map(|scope| match scope.strip_prefix(SCOPE) {
                Some(name) => Cow::Owned([SCOPE, &self.0, "/", name].concat()),
                None => Cow::Borrowed(scope),
            });
        let added = each.collect::<Vec<_>>().join(" ");
        (added != scopes).then_some(added)
    }

    /// A query as the upstream knows it: the scopes of a token, and the repository that a blob is to be
    /// mounted from. `None` if it is the same.
    fn strip_query(&self, query: &str) -> Option<String> {
        let fields = || query.split('&');
        let is = |field: &str, name: &str| {
            let found = field.split('=').next().unwrap_or_default();
            percent_decode_str(found).eq(name.bytes())
        };
        let value = |field: &str| {
            let mut parsed = form_urlencoded::parse(field.as_bytes());
            parsed.next().map(|(_, value)| value.into_owned())
        };
        let is_mount = fields().any(|field| is(field, "mount"));
        let is_of_another = |field: &str| {
            let from = is(field, "from").then(|| value(field)).flatten();
            from.is_some_and(|from| self.strip_name(&from).is_none())
        };
        // A blob of another upstream cannot be mounted: without both, the upstream opens a session.
        let is_refused = is_mount && fields().any(is_of_another);
        let mut stripped: Vec<Cow<'_, str>> = Vec::new();
        for field in fields() {
            let new = match value(field) {
                _ if is_refused && (is(field, "mount") || is(field, "from")) => continue,
                Some(from) if is_mount && is(field, "from") => {
                    self.strip_name(&from).map(|name| encoded(field, name))
                }
                Some(scopes) if is(field, "scope") => self
                    .strip_scopes(&scopes)
                    .map(|scopes| encoded(field, &scopes)),
                _ => None,
            };
            stripped.push(new.map_or(Cow::Borrowed(field), Cow::Owned));
        }
        let stripped = stripped.join("&");
        (stripped != query).then_some(stripped)
    }

    fn strip_scopes(&self, scopes: &str) -> Option<String> {
        let strip = |scope: &str| {
            let name = self.strip_name(scope.strip_prefix(SCOPE)?)?;
            Some([SCOPE, name].concat())
        };
        let each = scopes
            .split(' ')
            .map(|scope| strip(scope).unwrap_or_else(|| scope.to_owned()));
        let stripped = each.collect::<Vec<_>>().join(" ");
        (stripped != scopes).then_some(stripped)
    }

    fn strip_name<'n>(&self, name: &'n str) -> Option<&'n str> {
        name.strip_prefix(&self.0)?.strip_prefix('/')
    }
}

/// Whether two paths are of one endpoint, and both name a repository or neither does.
fn is_alike(one: &str, other: &str) -> bool {
    let (one, other) = (Route::parse(one), Route::parse(other));
    one.endpoint == other.endpoint && one.repository.is_some() == other.repository.is_some()
}

/// The same field with another value.
fn encoded(field: &str, value: &str) -> String {
    let name = field.split('=').next().unwrap_or_default();
    let value: String = form_urlencoded::byte_serialize(value.as_bytes()).collect();
    format!("{name}={value}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn prefix() -> StrippedPrefix {
        StrippedPrefix::new("team-a")
    }

    fn stripped(target: &str) -> Result<Option<String>, NothingLeft> {
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        };
        prefix().strip_target(path, query)
    }

    #[test]
    fn a_target_loses_the_prefix_and_stays_the_same_otherwise() {
        for (target, seen) in [
            (
                "/v2/team-a/app/tags/list?n=1",
                Some("/v2/app/tags/list?n=1"),
            ),
            ("/v2/team%2Da/app/manifests/1", Some("/v2/app/manifests/1")),
            (
                "/v2/team-a/a%2Bb/manifests/x%20y",
                Some("/v2/a%2Bb/manifests/x%20y"),
            ),
            (
                "/v2/team-a/team-a/manifests/1",
                Some("/v2/team-a/manifests/1"),
            ),
            (
                "/v2/team-a/app/blobs/uploads/",
                Some("/v2/app/blobs/uploads/"),
            ),
            (
                "/v2/team-a/app/blobs/uploads/1?_state=%2f+",
                Some("/v2/app/blobs/uploads/1?_state=%2f+"),
            ),
            ("/v2/team-a/app/_oci/ext", Some("/v2/app/_oci/ext")),
            ("/v2/team-a/app/unknown", Some("/v2/app/unknown")),
            ("/v2/team-a/app/tags/list?", Some("/v2/app/tags/list?")),
            ("/v2/team-b/app/manifests/1", None),
            ("/v2/team-ab/app/manifests/1", None),
            ("/v2/", None),
            ("/v2/_catalog?n=1", None),
            ("/u/team-a/1", None),
            ("/token?service=team-a/x", None),
        ] {
            assert_eq!(stripped(target), Ok(seen.map(str::to_owned)), "{target}");
        }
        for target in [
            "/v2/team-a/manifests/1",
            "/v2/team-a/tags/list",
            "/v2/team-a/_catalog",
            "/v2/team-a/_oci/ext",
            "/v2/team-a/token",
            "/v2/team-a/",
            "/v2/team-a/blobs/uploads/",
        ] {
            assert_eq!(stripped(target), Err(NothingLeft), "{target}");
        }
    }

    #[test]
    fn a_mount_of_the_same_upstream_is_stripped_and_another_one_opens_a_session() {
        let target = |query: &str| stripped(&format!("/v2/team-a/app/blobs/uploads/?{query}"));
        for (query, seen) in [
            (
                "mount=sha256:0&from=team-a/b/c",
                "?mount=sha256:0&from=b%2Fc",
            ),
            (
                "mount=sha256:0&from=team-a%2Fb&x=%2f",
                "?mount=sha256:0&from=b&x=%2f",
            ),
            ("from=team%2da/b&mount=sha256:0", "?from=b&mount=sha256:0"),
            ("mount=sha256:0&from=team-b/b", ""),
            ("mount=sha256:0&from=team-a", ""),
            (
                "x=1&mount=sha256:0&from=b&digest-algorithm=sha512",
                "?x=1&digest-algorithm=sha512",
            ),
            ("mount=sha256:0&from=team-a/b&from=b", ""),
            ("mount=sha256:0", "?mount=sha256:0"),
            ("from=b", "?from=b"),
        ] {
            let seen = format!("/v2/app/blobs/uploads/{seen}");
            assert_eq!(target(query), Ok(Some(seen)), "{query}");
        }
    }

    #[test]
    fn scopes_lose_the_prefix_and_get_it_again() {
        for (query, seen) in [
            (
                "service=s%20t&scope=repository:team-a/b:pull",
                Some("service=s%20t&scope=repository%3Ab%3Apull"),
            ),
            (
                "scope=repository%3Ateam-a%2Fb%3Apull&x=%2f",
                Some("scope=repository%3Ab%3Apull&x=%2f"),
            ),
            (
                "scope=registry:catalog:*+repository:team-a/b:pull,push&scope=repository:c:pull",
                Some(
                    "scope=registry%3Acatalog%3A*+repository%3Ab%3Apull%2Cpush&scope=repository:c:pull",
                ),
            ),
            ("scope=repository:team-b/b:pull", None),
        ] {
            let seen = seen.map(|seen| format!("/token?{seen}"));
            assert_eq!(stripped(&format!("/token?{query}")), Ok(seen), "{query}");
        }
        for (scopes, added) in [
            ("repository:b:pull", Some("repository:team-a/b:pull")),
            (
                "registry:catalog:* repository:b/c:pull,push",
                Some("registry:catalog:* repository:team-a/b/c:pull,push"),
            ),
            ("registry:catalog:*", None),
            ("", None),
        ] {
            assert_eq!(prefix().add_to_scopes(scopes).as_deref(), added);
        }
    }

    #[test]
    fn a_path_of_a_repository_gets_the_prefix_and_no_other_one() {
        for (target, added) in [
            (
                "/v2/app/blobs/uploads/1?a=/v2/#x",
                Some("/v2/team-a/app/blobs/uploads/1?a=/v2/#x"),
            ),
            (
                "/v2/app/tags/list?n=1&last=a",
                Some("/v2/team-a/app/tags/list?n=1&last=a"),
            ),
            ("/v2/_uploads/1", None),
            ("/v2/", None),
            ("/v2/token", None),
            ("/v2/_catalog?last=a", None),
            ("/u/1", None),
            ("v2/app/tags/list", None),
            ("?x", None),
            ("", None),
        ] {
            assert_eq!(prefix().add_to_path(target).as_deref(), added, "{target}");
        }
    }

    proptest! {
        #[test]
        fn what_got_the_prefix_loses_it_again_and_what_did_not_keeps_its_path(
            words in prop::collection::vec(
                "(team-a|team%2da|v2|app|blobs|uploads|manifests|tags|list|token|auth|_catalog|_x|\
                 referrers|latest|%2f|\\.\\.|;|sha256:[0-9a-f]{4}|)",
                0..8,
            ),
            is_versioned: bool,
        ) {
            let start = if is_versioned { "/v2/" } else { "/" };
            let path = start.to_owned() + &words.join("/");
            let expected = match prefix().add_to_path(&path) {
                Some(added) => {
                    prop_assert_eq!(stripped(&added), Ok(Some(path)));
                    return Ok(());
                }
                // It is asked for as it is, by a request with a tag.
                None => Ok(None),
            };
            prop_assert_eq!(stripped(&path), expected);
        }
    }
}
