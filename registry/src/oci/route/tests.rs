use proptest::prelude::*;

use super::*;

const SHA256: &str = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";

/// Checks each path's endpoint, repository (`-` for none) and tail. `{d}` stands for a digest.
fn check(table: &[(&str, Endpoint, &str, &str)]) {
    for &(path, endpoint, repository, tail) in table {
        let path = path.replace("{d}", SHA256);
        let route = Route::parse(&path);
        let found = (route.endpoint, route.repository.unwrap_or("-"), route.tail);
        assert_eq!(
            found,
            (endpoint, repository, tail.replace("{d}", SHA256).as_str()),
            "{path}"
        );
    }
}

#[test]
fn every_endpoint_of_the_specification_is_recognised() {
    check(&[
        ("/v2/", Endpoint::Base, "-", ""),
        ("/v2", Endpoint::Base, "-", ""),
        ("/v2/_catalog", Endpoint::Catalog, "-", ""),
        ("/v2/team/app/tags/list", Endpoint::Tags, "team/app", ""),
        (
            "/v2/team/app/manifests/1.0",
            Endpoint::Manifest,
            "team/app",
            "1.0",
        ),
        (
            "/v2/team/app/manifests/{d}",
            Endpoint::Manifest,
            "team/app",
            "{d}",
        ),
        ("/v2/team/app/blobs/{d}", Endpoint::Blob, "team/app", "{d}"),
        (
            "/v2/team/app/referrers/{d}",
            Endpoint::Referrers,
            "team/app",
            "{d}",
        ),
        (
            "/v2/team/app/blobs/uploads/",
            Endpoint::UploadStart,
            "team/app",
            "",
        ),
        (
            "/v2/team/app/blobs/uploads",
            Endpoint::UploadStart,
            "team/app",
            "",
        ),
        (
            "/v2/team/app/blobs/uploads/0b5c",
            Endpoint::UploadSession,
            "team/app",
            "0b5c",
        ),
        (
            "/v2/_oci/ext/discover",
            Endpoint::Extension,
            "-",
            "_oci/ext/discover",
        ),
        (
            "/v2/team/app/_oci/x",
            Endpoint::Extension,
            "team/app",
            "_oci/x",
        ),
    ]);
}

#[test]
fn names_may_contain_the_words_of_endpoints() {
    check(&[
        (
            "/v2/manifests/manifests/manifests",
            Endpoint::Manifest,
            "manifests",
            "manifests",
        ),
        ("/v2/blobs/blobs/{d}", Endpoint::Blob, "blobs", "{d}"),
        ("/v2/tags/list/tags/list", Endpoint::Tags, "tags/list", ""),
        (
            "/v2/blobs/uploads/manifests/x",
            Endpoint::Manifest,
            "blobs/uploads",
            "x",
        ),
        (
            "/v2/a/blobs/uploads/blobs/uploads/",
            Endpoint::UploadStart,
            "a/blobs/uploads",
            "",
        ),
        (
            "/v2/a/blobs/uploads/tags/list",
            Endpoint::Tags,
            "a/blobs/uploads",
            "",
        ),
        (
            "/v2/a/blobs/uploads/blobs/{d}",
            Endpoint::Blob,
            "a/blobs/uploads",
            "{d}",
        ),
        (
            "/v2/a/blobs/uploads/b/c/d",
            Endpoint::UploadSession,
            "a",
            "b/c/d",
        ),
        ("/v2/a/blobs/uploads/b/", Endpoint::UploadSession, "a", "b/"),
        ("/v2/a/blobs/uploads//", Endpoint::UploadSession, "a", "/"),
        (
            "/v2/a/manifests/blobs/uploads",
            Endpoint::UploadStart,
            "a/manifests",
            "",
        ),
        (
            "/v2/a/manifests/uploads",
            Endpoint::Manifest,
            "a",
            "uploads",
        ),
        (
            "/v2/referrers/referrers/{d}",
            Endpoint::Referrers,
            "referrers",
            "{d}",
        ),
    ]);
}

#[test]
fn an_opaque_session_is_not_mistaken_for_a_malformed_reference() {
    check(&[
        (
            "/v2/a/blobs/uploads/x/blobs/y",
            Endpoint::UploadSession,
            "a",
            "x/blobs/y",
        ),
        (
            "/v2/a/blobs/uploads/blobs/~",
            Endpoint::UploadSession,
            "a",
            "blobs/~",
        ),
        (
            "/v2/a/blobs/uploads/_state",
            Endpoint::UploadSession,
            "a",
            "_state",
        ),
    ]);
}

#[test]
fn a_malformed_reference_keeps_its_endpoint() {
    check(&[
        (
            "/v2/a/manifests/sha256:bad",
            Endpoint::Manifest,
            "a",
            "sha256:bad",
        ),
        ("/v2/a/manifests/-x", Endpoint::Manifest, "a", "-x"),
        ("/v2/a/manifests/", Endpoint::Manifest, "a", ""),
        ("/v2/a/blobs/latest", Endpoint::Blob, "a", "latest"),
        ("/v2/a/blobs/", Endpoint::Blob, "a", ""),
        ("/v2/a/referrers/%00", Endpoint::Referrers, "a", "%00"),
        ("/v2/A!/manifests/x", Endpoint::Manifest, "A!", "x"),
        ("/v2/../manifests/x", Endpoint::Manifest, "..", "x"),
        ("/v2/a/tags/other", Endpoint::Other, "-", ""),
        ("/v2/a/tags/list/", Endpoint::Other, "-", ""),
    ]);
}

#[test]
fn a_digest_may_have_an_escaped_colon_or_another_algorithm() {
    for algorithm in ["sha256", "blake3", "multihash+base58"] {
        for colon in [":", "%3A", "%3a"] {
            let hex = &SHA256["sha256:".len()..];
            // Only a valid digest takes precedence over the upload in the middle.
            let path = format!("/v2/a/blobs/uploads/blobs/{algorithm}{colon}{hex}");
            assert_eq!(Route::parse(&path).endpoint, Endpoint::Blob, "{path}");
        }
    }
    for digest in [
        "sha256%3B00",
        "sha256:00",
        "sha256",
        ":00",
        "sha256:",
        "a++b:0",
        "SHA:0",
        "a:!",
    ] {
        let path = format!("/v2/a/blobs/uploads/blobs/{digest}");
        assert_eq!(
            Route::parse(&path).endpoint,
            Endpoint::UploadSession,
            "{path}"
        );
    }
}

#[test]
fn an_endpoint_without_a_repository_is_classified_as_other() {
    for path in [
        "",
        "/",
        "v2/",
        "/v1/",
        "/v2x/a/tags/list",
        "/v2/tags/list",
        "/v2//tags/list",
        "/v2/manifests/latest",
        "/v2//manifests/latest",
        "/v2/blobs/uploads/",
        "/v2/blobs/uploads",
        "/v2/blobs/uploadsx/",
        "/v2/a/blobs/uploadsx/y",
        "/v2/a",
        "/v2//",
        "/metrics",
        "/a/v2/a/tags/list",
        "/tokens",
    ] {
        let route = Route::parse(path);
        assert_eq!(
            (route.endpoint, route.repository),
            (Endpoint::Other, None),
            "{path}"
        );
    }
}

#[test]
fn well_known_token_paths_are_recognised() {
    for path in [
        "/token",
        "/auth",
        "/v2/token",
        "/v2/auth",
        "/service/token",
        "/jwt/auth",
        "/oauth2/token",
    ] {
        assert_eq!(Route::parse(path).endpoint, Endpoint::Token, "{path}");
    }
}

/// A component of a repository's name, often a confusing one.
fn component() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z0-9]{1,8}((\\.|_|__|-{1,3})[a-z0-9]{1,4}){0,2}",
        prop::sample::select(vec![
            "blobs",
            "manifests",
            "tags",
            "uploads",
            "referrers",
            "list",
            "v2",
            "token"
        ])
        .prop_map(str::to_owned),
    ]
}

fn name() -> impl Strategy<Value = String> {
    prop::collection::vec(component(), 1..6).prop_map(|components| components.join("/"))
}

fn digest() -> impl Strategy<Value = String> {
    prop_oneof![
        "sha256(:|%3A|%3a)[0-9a-f]{64}",
        "sha512(:|%3A|%3a)[0-9a-f]{128}",
        "[a-z0-9]{1,5}([+._-][a-z0-9]{1,4}){1,2}:[a-zA-Z0-9=_-]{1,40}",
    ]
}

fn tag() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}",
        component().prop_filter("a tag", |tag| { tag.len() <= 128 })
    ]
}

/// An arbitrary path: words of endpoints, escapes, control characters, any text.
fn soup() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => component(),
        2 => Just(SHA256.to_owned()),
        2 => "%[0-9a-fA-F]{0,2}|%2[fF]|%3[aA]|%00",
        1 => "[\\x00-\\x1f\\x7f]{0,3}",
        1 => Just(String::new()),
        1 => prop::sample::select(vec![".", "..", "_catalog", "_", "blobs/uploads", "?", "#", ":"])
            .prop_map(str::to_owned),
        1 => any::<String>(),
    ];
    (
        prop::sample::select(vec!["/v2", "/v2/", "", "/", "/v2//"]),
        prop::collection::vec(piece, 0..9),
    )
        .prop_map(|(prefix, pieces)| prefix.to_owned() + &pieces.join("/"))
}

/// Whether `part` is a slice of `whole`.
fn lies_within(part: &str, whole: &str) -> bool {
    let (part, whole) = (
        part.as_bytes().as_ptr_range(),
        whole.as_bytes().as_ptr_range(),
    );
    whole.start <= part.start && part.end <= whole.end
}

proptest! {
    #[test]
    fn the_strings_of_any_path_s_route_are_slices_of_it(path in soup()) {
        let route = Route::parse(&path);
        prop_assert!(lies_within(route.tail, &path));
        if let Some(repository) = route.repository {
            prop_assert!(!repository.is_empty());
            prop_assert!(lies_within(repository, &path));
        }
    }

    #[test]
    fn the_strings_of_any_text_s_route_are_slices_of_it(path in any::<String>()) {
        prop_assert!(lies_within(Route::parse(&path).tail, &path));
    }

    #[test]
    fn only_endpoints_of_a_repository_have_a_repository(path in soup()) {
        let route = Route::parse(&path);
        match route.endpoint {
            Endpoint::Tags
            | Endpoint::Manifest
            | Endpoint::Blob
            | Endpoint::UploadStart
            | Endpoint::UploadSession
            | Endpoint::Referrers => prop_assert!(route.repository.is_some()),
            Endpoint::Extension => prop_assert!(route.tail.starts_with('_')),
            Endpoint::Base | Endpoint::Catalog | Endpoint::Token | Endpoint::Other => {
                prop_assert_eq!((route.repository, route.tail), (None, ""));
            }
        }
    }

    #[test]
    fn any_name_may_precede_tags(name in name()) {
        let path = format!("/v2/{name}/tags/list");
        let expected = Route { endpoint: Endpoint::Tags, repository: Some(&name), tail: "" };
        prop_assert_eq!(Route::parse(&path), expected);
    }

    #[test]
    fn any_name_may_precede_manifests(name in name(), tail in prop_oneof![tag(), digest()]) {
        let path = format!("/v2/{name}/manifests/{tail}");
        let expected = Route { endpoint: Endpoint::Manifest, repository: Some(&name), tail: &tail };
        prop_assert_eq!(Route::parse(&path), expected);
    }

    #[test]
    fn any_name_may_precede_blobs_and_referrers(name in name(), tail in digest()) {
        for (word, endpoint) in [("blobs", Endpoint::Blob), ("referrers", Endpoint::Referrers)] {
            let path = format!("/v2/{name}/{word}/{tail}");
            let expected = Route { endpoint, repository: Some(&name), tail: &tail };
            prop_assert_eq!(Route::parse(&path), expected);
        }
    }

    #[test]
    fn any_name_may_precede_uploads(name in name(), session in "[A-Za-z0-9_=-]{1,60}(/[A-Za-z0-9]{30})?") {
        let path = format!("/v2/{name}/blobs/uploads/");
        let expected = Route { endpoint: Endpoint::UploadStart, repository: Some(&name), tail: "" };
        prop_assert_eq!(Route::parse(&path), expected);

        let path = format!("/v2/{name}/blobs/uploads/{session}");
        let expected =
            Route { endpoint: Endpoint::UploadSession, repository: Some(&name), tail: &session };
        prop_assert_eq!(Route::parse(&path), expected);
    }

    #[test]
    fn the_route_accepts_every_valid_tag_and_digest(tail in prop_oneof![tag(), digest()]) {
        if crate::oci::Reference::from_segment(&tail).is_ok() {
            let path = format!("/v2/a/blobs/uploads/manifests/{tail}");
            prop_assert_eq!(Route::parse(&path).endpoint, Endpoint::Manifest);
        }
    }
}
