//! Which requests the upstream's credentials are for, and what a token must allow for each.

use http::Method;
use http::uri::PathAndQuery;
use registry::oci::{Endpoint, Name, Route};
use url::form_urlencoded;

/// What a token must allow, as the token's server is asked for it: each scope after a space. Empty where
/// nothing but the user matters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct AccessScope(String);

impl AccessScope {
    /// The access that a request needs; `None` if it is none that the credentials are for: it is not of the
    /// registry's protocol, or changes something.
    ///
    /// A path that a server may resolve to another one is not, either: it would reach what lies beside the
    /// registry.
    pub(crate) fn of(
        method: &Method,
        target: &PathAndQuery,
        may_push: bool,
    ) -> Option<AccessScope> {
        let reads = matches!(*method, Method::GET | Method::HEAD);
        let pushes = matches!(*method, Method::POST | Method::PUT | Method::PATCH);
        let is_eligible = reads || pushes && may_push;
        if !is_eligible || !is_plain(target.path()) {
            return None;
        }
        let route = Route::parse(target.path());
        let repository = route.repository.map(Name::parse).transpose().ok()?;
        let scope = match route.endpoint {
            Endpoint::Token | Endpoint::Other => return None,
            Endpoint::Base => String::new(),
            Endpoint::Catalog => "registry:catalog:*".to_owned(),
            Endpoint::Extension
            | Endpoint::Tags
            | Endpoint::Manifest
            | Endpoint::Blob
            | Endpoint::Referrers
            | Endpoint::UploadStart
            | Endpoint::UploadSession => repository.map_or(String::new(), |name| {
                let actions = if reads { "pull" } else { "pull,push" };
                format!("repository:{}:{actions}", name.as_str())
            }),
        };
        let is_mount = pushes && route.endpoint == Endpoint::UploadStart;
        let source = target.query().filter(|_| is_mount).and_then(mount_source);
        Some(AccessScope(match source {
            Some(name) => format!("{scope} repository:{}:pull", name.as_str()),
            None => scope,
        }))
    }

    /// The scopes, each alone.
    pub(super) fn each(&self) -> impl Iterator<Item = &str> {
        self.0.split(' ').filter(|scope| !scope.is_empty())
    }

    /// Its text, by which tokens are known.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// The repository that a blob is to be mounted from (end-11).
fn mount_source(query: &str) -> Option<Name> {
    let mut parameters = form_urlencoded::parse(query.as_bytes());
    let (_, from) = parameters.find(|(name, _)| name == "from")?;
    Name::parse(&from).ok()
}

/// Whether a path is the same for every server: nothing in it is resolved or decoded to a separator.
fn is_plain(path: &str) -> bool {
    let lower = path.to_ascii_lowercase();
    let has_dots = lower
        .replace("%2e", ".")
        .split('/')
        .any(|segment| matches!(segment, "." | ".."));
    let is_ambiguous = ["//", "\\", "%2f", "%5c", "%25", ";"];
    !has_dots && !is_ambiguous.iter().any(|text| lower.contains(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(method: &str, target: &str, may_push: bool) -> Option<String> {
        let method = method.parse().unwrap();
        AccessScope::of(&method, &target.parse().unwrap(), may_push).map(|scope| scope.0)
    }

    #[test]
    fn reads_of_the_registry_need_their_own_access() {
        let digest = format!("sha256:{}", "0".repeat(64));
        for (target, needed) in [
            ("/v2/", ""),
            ("/v2", ""),
            ("/v2/_catalog?n=1", "registry:catalog:*"),
            ("/v2/a/b/tags/list?from=c", "repository:a/b:pull"),
            ("/v2/a/manifests/latest", "repository:a:pull"),
            (&format!("/v2/a/blobs/{digest}"), "repository:a:pull"),
            (&format!("/v2/a/referrers/{digest}"), "repository:a:pull"),
            ("/v2/a/blobs/uploads/x", "repository:a:pull"),
            ("/v2/a/_oci/ext", "repository:a:pull"),
            ("/v2/_oci/ext/discover", ""),
        ] {
            for method in ["GET", "HEAD"] {
                assert_eq!(
                    scope(method, target, false).as_deref(),
                    Some(needed),
                    "{target}"
                );
            }
        }
    }

    #[test]
    fn other_endpoints_and_paths_that_may_be_others_need_none() {
        for target in [
            "/",
            "/token?scope=x",
            "/v2/token",
            "/v2/auth",
            "/service/token",
            "/api/v2.0/projects",
            "/v2x/a/manifests/latest",
            "/v2/a/..",
            "/v2/a/../../api/manifests/latest",
            "/v2/a/%2e%2E/%2e./manifests/latest",
            "/v2/_x/../../api",
            "/v2/_x/..%2fapi",
            "/v2/_x/..%252fapi",
            "/v2/_x/..\\api",
            "/v2/_x/..;/api",
            "/v2/_x//api",
            "/v2/A/manifests/latest",
            "/v2/a/./manifests/latest",
        ] {
            let Ok(_) = target.parse::<PathAndQuery>() else {
                continue;
            };
            assert_eq!(scope("GET", target, true), None, "{target}");
        }
    }

    #[test]
    fn pushes_need_access_only_where_they_are_allowed_and_deletes_never() {
        for (method, target, needed) in [
            ("PUT", "/v2/a/manifests/latest", "repository:a:pull,push"),
            ("POST", "/v2/a/blobs/uploads/", "repository:a:pull,push"),
            ("PATCH", "/v2/a/blobs/uploads/x", "repository:a:pull,push"),
            (
                "POST",
                "/v2/a/blobs/uploads/?mount=sha256:0&from=b%2Fc",
                "repository:a:pull,push repository:b/c:pull",
            ),
            (
                "POST",
                "/v2/a/blobs/uploads/?mount=sha256:0&from=B",
                "repository:a:pull,push",
            ),
        ] {
            assert_eq!(scope(method, target, true).as_deref(), Some(needed));
            assert_eq!(scope(method, target, false), None);
        }
        for method in ["DELETE", "OPTIONS", "TRACE", "QUERY"] {
            assert_eq!(scope(method, "/v2/a/manifests/latest", true), None);
        }
    }
}
