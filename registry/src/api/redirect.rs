//! Redirects paths with doubled or trailing slashes to the path without them.
//!
//! Clients that build paths by hand make such paths, and Docker's registry redirects them. Only GET and
//! HEAD are redirected: other requests must not be repeated at another path.

use http::{Method, Uri};

use crate::oci::{Endpoint, Route};

/// The target to redirect a request to. `None` if its path is clean, or outside of the API.
///
/// The target begins with `/v2/`, so that it cannot name another host (`//host/`), and has no component
/// of dots, so that it stays below `/v2/`.
pub(super) fn target(method: &Method, uri: &Uri) -> Option<String> {
    let path = uri.path();
    if !(path.contains("//") || path.ends_with('/'))
        || !matches!(*method, Method::GET | Method::HEAD)
    {
        return None;
    }
    let components = path.split('/').filter(|component| !component.is_empty());
    let mut clean = String::with_capacity(path.len());
    for component in components {
        // `%2` may begin an escaped dot or slash, which some clients decode before they follow.
        if component.starts_with('.') || component.starts_with("%2") {
            return None;
        }
        clean.push('/');
        clean.push_str(component);
    }
    // The paths of these two endpoints end with a slash.
    if path.ends_with('/')
        && matches!(
            Route::parse(&clean).endpoint,
            Endpoint::Base | Endpoint::UploadStart
        )
    {
        clean.push('/');
    }
    if clean == path || !clean.starts_with("/v2/") || !clean.is_ascii() {
        return None;
    }
    if let Some(query) = uri.query() {
        clean.push('?');
        clean.push_str(query);
    }
    Some(clean)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(text: &str) -> Option<String> {
        target(&Method::GET, &text.parse().unwrap())
    }

    #[test]
    fn doubled_and_trailing_slashes_redirect_to_the_clean_path() {
        for (path, clean) in [
            ("/v2/a/tags/list/", "/v2/a/tags/list"),
            ("//v2/_catalog", "/v2/_catalog"),
            ("/v2//a///manifests/1", "/v2/a/manifests/1"),
            ("/v2/a/manifests/1//", "/v2/a/manifests/1"),
            ("//v2//", "/v2/"),
            ("//v2/a/blobs/uploads/", "/v2/a/blobs/uploads/"),
            ("/v2/_catalog/?n=1&last=a//b", "/v2/_catalog?n=1&last=a//b"),
            ("http://registry//v2/_catalog", "/v2/_catalog"),
        ] {
            assert_eq!(of(path).as_deref(), Some(clean), "{path}");
        }
    }

    #[test]
    fn a_clean_path_and_one_outside_of_the_api_are_not_redirected() {
        for path in [
            "/v2/",
            "/v2",
            "/v2/a/tags/list",
            "/v2/a/blobs/uploads/",
            "/v2/a/blobs/uploads/id",
            "//evil.example/v2/",
            "//v2",
            "/elsewhere/",
            "/v2/..//evil",
            "/v2//%2e%2e/evil",
            "/v2//.",
            "/v2/%2F/",
        ] {
            assert_eq!(of(path), None, "{path}");
        }
        let uri: Uri = "/v2//a".parse().unwrap();
        for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
            assert_eq!(target(&method, &uri), None, "{method}");
        }
    }

    proptest! {
        #[test]
        fn a_target_stays_in_the_api_and_is_clean(path in "(/{1,3}(v2|[a.%2eF\\\\:@_-]{0,4})){1,6}/{0,2}") {
            let Ok(uri) = path.parse::<Uri>() else {
                return Ok(());
            };
            if let Some(clean) = target(&Method::GET, &uri) {
                prop_assert!(clean.starts_with("/v2/"), "{}", clean);
                prop_assert!(!clean.contains("//") && !clean.contains("/.."), "{}", clean);
                prop_assert_eq!(target(&Method::GET, &clean.parse().unwrap()), None);
            }
        }
    }
}
