//! Which texts name an upstream, and which URLs are its own.

use proptest::{prop_assert_eq, proptest};

use super::*;

fn target(text: &str) -> Target {
    text.parse().unwrap()
}

#[test]
fn a_target_is_a_url_or_a_socket() {
    for (text, scheme, authority, prefix) in [
        ("http://registry:5000", Scheme::Http, "registry:5000", ""),
        ("http://registry/", Scheme::Http, "registry", ""),
        ("http://[::1]:5000", Scheme::Http, "[::1]:5000", ""),
        ("https://registry", Scheme::Https, "registry", ""),
        ("https://registry:5000/", Scheme::Https, "registry:5000", ""),
        ("unix:/run/r.sock", Scheme::Unix, "localhost", ""),
        (
            "https://a/artifactory/api/docker/x/",
            Scheme::Https,
            "a",
            "/artifactory/api/docker/x",
        ),
        ("http://a/%C3%A4/v2x", Scheme::Http, "a", "/%C3%A4/v2x"),
    ] {
        let target = target(text);
        assert_eq!(target.scheme(), scheme, "{text}");
        assert_eq!(target.authority(), authority, "{text}");
        assert_eq!(target.prefix(), prefix, "{text}");
        assert_eq!(target.url("/v2/").path(), Some(&*format!("{prefix}/v2/")));
    }
}

#[test]
fn only_a_url_of_the_targets_own_address_is_within_it() {
    let within = |target: &str, url: &str| {
        let target: Target = target.parse().unwrap();
        target.within(url, &[], None).map(str::to_owned)
    };
    for (target, url, rest) in [
        (
            "http://registry:5000",
            "http://registry:5000/v2/?a=b",
            "/v2/?a=b",
        ),
        ("http://registry:5000", "HTTP://Registry:5000/v2/", "/v2/"),
        ("http://registry", "http://registry/v2/", "/v2/"),
        ("http://registry", "http://registry:80/v2/", "/v2/"),
        ("http://registry", "http://registry:/v2/", "/v2/"),
        ("http://registry:80", "http://registry?x", "?x"),
        ("https://registry", "https://registry:443/v2/", "/v2/"),
        ("https://registry", "HTTPS://REGISTRY/v2/", "/v2/"),
        ("http://registry/p", "http://registry/p/v2/", "/v2/"),
        ("http://registry/p", "http://registry/p", ""),
        ("http://registry/p", "http://registry/p?a", "?a"),
        ("http://registry:5000", "http://registry:5000", ""),
        ("http://[::1]:5000", "http://[0:0::1]:5000/x", "/x"),
        ("http://[::1]", "http://[::1]/x", "/x"),
        (
            "http://127.0.0.1:1",
            "http://127.0.0.1:1/%2F../x",
            "/%2F../x",
        ),
    ] {
        assert_eq!(within(target, url).as_deref(), Some(rest), "{url}");
    }
    for (target, url) in [
        ("http://registry:5000", "/v2/"),
        ("http://registry:5000", ""),
        ("http://registry:5000", "//registry:5000/v2/"),
        ("http://registry:5000", "https://registry:5000/v2/"),
        ("http://registry:5000", "http://registry/v2/"),
        ("http://registry:5000", "http://registry:5001/v2/"),
        ("http://registry:5000", "http://registry:50000/v2/"),
        ("http://registry:5000", "http://registry.example:5000/v2/"),
        ("http://registry:5000", "http://registry:5000@evil/v2/"),
        ("http://registry:5000", "http://user@registry:5000/v2/"),
        ("http://registry:5000", "http://registry:5000x/v2/"),
        ("http://[::1]:5000", "http://[::1]5000/v2/"),
        ("http://[::1]:5000", "http://::1:5000/v2/"),
        ("https://registry", "http://registry/v2/"),
        ("https://registry", "https://registry:80/v2/"),
        ("http://registry/p", "http://registry/v2/"),
        ("http://registry/p", "http://registry/p2/v2/"),
        ("http://registry/p", "http://registry/q/p/v2/"),
        ("http://registry/p", "http://registry/%70/v2/"),
        ("unix:/run/r.sock", "http://localhost/v2/"),
        ("unix:/run/r.sock", "http:///run/r.sock/v2/"),
    ] {
        assert_eq!(within(target, url), None, "{url}");
    }
}

#[test]
fn what_is_no_target_is_refused_with_its_reason() {
    let reason = |text: &str| text.parse::<Target>().unwrap_err();
    assert!(matches!(reason("registry:5000"), TargetError::Url(_)));
    assert!(matches!(reason(""), TargetError::Url(_)));
    assert!(matches!(reason("unix:r.sock"), TargetError::Url(_)));
    assert!(matches!(reason("http://a:99999"), TargetError::Url(_)));
    for text in ["http://registry/v2/", "https://registry/a/v2"] {
        assert!(matches!(reason(text), TargetError::Version(_)), "{text}");
    }
    for text in [
        "http://registry/a?b",
        "http://registry?b",
        "http://registry/a#b",
        "http://registry#b",
        "http://registry/a//b",
        "http://registry//",
        "http://registry/a/../b",
        "http://registry/..",
        "http://registry/./a",
        "http://registry/%2e%2E/a",
        "http://registry/.%2e",
    ] {
        assert!(matches!(reason(text), TargetError::Path(_)), "{text}");
    }
}

#[test]
fn a_password_in_a_url_is_not_repeated() {
    let error = "http://user:secret@registry".parse::<Target>().unwrap_err();
    assert!(!error.to_string().contains("secret"), "{error}");
}

#[test]
fn the_host_that_an_upstream_is_asked_for_is_its_own() {
    let within = |asked: &str, url: &str| {
        let target = target("https://10.0.0.1:8443/p");
        target.within(url, &[], Some(asked)).map(str::to_owned)
    };
    for (asked, url) in [
        ("registry.example", "https://registry.example/p/v2/"),
        // The upstream believes what it is told of the client's scheme.
        ("registry.example", "http://registry.example/p/v2/"),
        ("registry.example", "https://Registry.Example:443/p/v2/"),
        (
            "registry.example:5000",
            "http://registry.example:5000/p/v2/",
        ),
        ("[::1]:5000", "http://[0::1]:5000/p/v2/"),
        // And so is its address.
        ("registry.example", "https://10.0.0.1:8443/p/v2/"),
    ] {
        assert_eq!(within(asked, url).as_deref(), Some("/v2/"), "{url}");
    }
    for (asked, url) in [
        ("registry.example", "https://registry.example:5000/p/v2/"),
        ("registry.example:5000", "https://registry.example/p/v2/"),
        ("registry.example", "https://registry.example/v2/"),
        ("registry.example", "https://a@registry.example/p/v2/"),
        ("registry.example", "ftp://registry.example/p/v2/"),
        ("registry.example", "https://other.example/p/v2/"),
    ] {
        assert_eq!(within(asked, url), None, "{url}");
    }
}

#[test]
fn a_path_below_the_prefix_loses_it() {
    for (text, path, below) in [
        ("http://a/p/q", "/p/q/v2/x?y", Some("/v2/x?y")),
        ("http://a/p/q", "/p/q", Some("")),
        ("http://a/p/q", "/p/q2/v2/", None),
        ("http://a/p/q", "/v2/", None),
        // Another host would be named by what follows.
        ("http://a/p/q", "/p/q//evil.example/v2/", None),
        ("http://a/p/q", "/p/q/\\evil.example/v2/", None),
        ("http://a/p/q", "//p/q/v2/", None),
        ("http://a/p/q", "p/q/v2/", None),
        ("http://a", "/v2/", None),
    ] {
        assert_eq!(target(text).below(path), below, "{path}");
    }
}

proptest! {
    #[test]
    fn what_is_written_with_the_prefix_is_read_without_it(
        prefix in "(/[a-z%][a-z0-9]{0,5}){0,3}",
        path in "(/[ -~]{0,12})?",
        is_https: bool,
    ) {
        let scheme = if is_https { "https" } else { "http" };
        // `%` alone is no encoding; what matters is that it is kept.
        let text = format!("{scheme}://registry:5000{prefix}");
        let Ok(target) = text.parse::<Target>() else {
            return Ok(());
        };
        prop_assert_eq!(target.prefix(), &prefix);
        let path = path.replace(' ', "_");
        let absolute = format!("{text}{path}");
        prop_assert_eq!(target.within(&absolute, &[], None), Some(path.as_str()));
        if !prefix.is_empty() {
            let relative = format!("{prefix}{path}");
            let is_host = path.starts_with("//") || path.starts_with("/\\");
            let below = (!is_host).then_some(path.as_str());
            prop_assert_eq!(target.below(&relative), below);
        }
    }
}
