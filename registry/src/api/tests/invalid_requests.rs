//! Invalid requests: each class of bad input has its own error, and stores nothing.

use std::fmt::Write;

use super::harness::{Client, IMAGE, Running, TestResponse};
use crate::oci::{Algorithm, Digest};

const HASH: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// The request, the status, the relevant headers, and the body.
fn shown(request: &str, response: &TestResponse) -> String {
    let mut shown = format!("{request}\n  {}", response.status);
    for name in ["allow", "range", "content-range"] {
        if response.headers.contains_key(name) {
            write!(shown, " {name}: {}", response.header(name)).unwrap();
        }
    }
    write!(shown, "\n  {}\n", response.text()).unwrap();
    shown
}

#[tokio::test]
async fn error_bodies_match_the_specification() {
    let registry = Running::start().await;
    let mut all = String::new();
    for (method, target) in [
        ("GET", "/v2/UPPER/tags/list".to_owned()),
        ("GET", "/v2/a/manifests/sha256:1".to_owned()),
        ("GET", "/v2/a/manifests/1".to_owned()),
        ("GET", format!("/v2/a/blobs/sha256:{HASH}")),
        ("GET", "/v2/a/blobs/md5:1".to_owned()),
        ("GET", "/v2/a/tags/list".to_owned()),
        ("GET", "/v2/_catalog?n=x".to_owned()),
        ("GET", "/v2/a/blobs/uploads/1".to_owned()),
        ("GET", "/elsewhere".to_owned()),
        ("PUT", "/v2/a/manifests/-".to_owned()),
        ("PUT", "/v2/a/manifests/1".to_owned()),
        ("PUT", "/v2/a/blobs/uploads/1".to_owned()),
        ("POST", "/v2/a/blobs/uploads/?digest=sha256:1".to_owned()),
        (
            "POST",
            "/v2/a/blobs/uploads/?digest-algorithm=md5".to_owned(),
        ),
        (
            "POST",
            format!("/v2/a/blobs/uploads/?digest=sha512:{HASH}{HASH}"),
        ),
        ("POST", "/v2/".to_owned()),
        ("PATCH", "/v2/a/manifests/1".to_owned()),
    ] {
        let response = registry.ask(method, &target, &[], b"").await;
        assert_eq!(response.header("content-type"), "application/json");
        all += &shown(&format!("{method} {target}"), &response);
    }
    insta::assert_snapshot!(all);
}

#[tokio::test]
async fn no_spelling_of_a_name_escapes_the_data_directory() {
    let registry = Running::start().await;
    let long = "a/".repeat(127) + "ab";
    for name in [
        "..",
        "../..",
        "a/../b",
        "./a",
        "%2e%2e",
        "%2E%2E/%2E%2E",
        "..%2f..",
        "a%2Fb",
        "a%5cb",
        "a\\b",
        "a%00",
        "%00",
        "a%",
        "a%zz",
        "a%25",
        "A",
        "a..b",
        "-a",
        "a_",
        "a:b",
        "a@b",
        "%61",
        "é",
        "%c3%a9",
        "~",
        &long,
    ] {
        for (method, rest) in [
            ("GET", "manifests/1"),
            ("PUT", "manifests/1"),
            ("DELETE", "manifests/1"),
            ("GET", "tags/list"),
            ("POST", "blobs/uploads/"),
            ("GET", "blobs/uploads/00000000000000000000000000000000"),
            ("GET", &*format!("blobs/sha256:{HASH}")),
            ("GET", &*format!("referrers/sha256:{HASH}")),
        ] {
            let response = registry
                .ask(method, &format!("/v2/{name}/{rest}"), &[], b"")
                .await;
            let response = response.rejected(400, "NAME_INVALID");
            assert!(
                !response.text().contains("data"),
                "{name}: {}",
                response.text()
            );
        }
    }
    assert_eq!(registry.files(), Vec::<std::path::PathBuf>::new());
}

#[tokio::test]
async fn no_spelling_of_a_reference_or_digest_escapes_its_directory() {
    let registry = Running::start().await;
    let long = "t".repeat(129);
    for tail in [
        "..",
        ".",
        "%2e%2e",
        "..%2f..%2fx",
        "a%2fb",
        "%00",
        "-a",
        "a%20b",
        "a\u{e9}",
        &*long,
    ] {
        let target = format!("/v2/a/manifests/{tail}");
        let response = registry.get(&target).await;
        assert!([400, 404].contains(&response.status), "{target}");
        let response = registry.ask("PUT", &target, &[], b"{}").await;
        assert_eq!(response.status, 400, "{target}");
        assert!(
            !response.text().contains("digest"),
            "{target}: {}",
            response.text()
        );
        let response = registry.get(&format!("/v2/a/blobs/{tail}")).await;
        response.rejected(400, "DIGEST_INVALID");
    }
    for digest in [
        format!("sha256:{}", HASH.to_uppercase()),
        format!("sha256:{}", &HASH[1..]),
        format!("sha512:{HASH}"),
        format!("sha256%2f{HASH}"),
        format!("sha256:..%2f{}", &HASH[4..]),
        format!("sha256%253A{HASH}"),
    ] {
        for word in ["blobs", "referrers"] {
            let response = registry.get(&format!("/v2/a/{word}/{digest}")).await;
            response.rejected(400, "DIGEST_INVALID");
        }
        // Without a colon it is read as a tag.
        let (status, code) = if digest.contains(':') {
            (400, "DIGEST_INVALID")
        } else {
            (404, "MANIFEST_UNKNOWN")
        };
        let response = registry.get(&format!("/v2/a/manifests/{digest}")).await;
        response.rejected(status, code);
    }
    assert_eq!(registry.files(), Vec::<std::path::PathBuf>::new());
}

#[tokio::test]
async fn an_unsupported_method_gets_405_and_the_allowed_methods() {
    let registry = Running::start().await;
    let blob = format!("/v2/a/blobs/sha256:{HASH}");
    let referrers = format!("/v2/a/referrers/sha256:{HASH}");
    for (target, allow) in [
        ("/v2/", "GET, HEAD"),
        ("/v2/_catalog", "GET, HEAD"),
        ("/v2/a/tags/list", "GET, HEAD"),
        (&referrers, "GET, HEAD"),
        ("/v2/a/manifests/1", "GET, HEAD, PUT, DELETE"),
        (&blob, "GET, HEAD, DELETE"),
        ("/v2/a/blobs/uploads/", "POST"),
        ("/v2/a/blobs/uploads/1", "GET, HEAD, PATCH, PUT, DELETE"),
    ] {
        let methods = [
            "GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW",
        ];
        for method in methods.into_iter().filter(|method| !allow.contains(method)) {
            let response = registry.ask(method, target, &[], b"").await;
            assert_eq!(response.rejected(405, "UNSUPPORTED").header("allow"), allow);
        }
    }
}

#[tokio::test]
async fn head_and_get_of_a_session_have_the_same_headers() {
    let registry = Running::start().await;
    let session = registry.open("a").await;
    registry
        .ask("PATCH", &session, &[], b"01234")
        .await
        .expect(202);
    let get = registry.get(&session).await.expect(204);
    let head = registry.ask("HEAD", &session, &[], b"").await.expect(204);
    for name in ["location", "range", "docker-upload-uuid"] {
        assert_ne!(head.header(name), "", "{name}");
        assert_eq!(head.header(name), get.header(name), "{name}");
    }
    let unknown = "/v2/a/blobs/uploads/00000000000000000000000000000000";
    registry.ask("HEAD", unknown, &[], b"").await.expect(404);
    let start = registry.ask("HEAD", "/v2/a/blobs/uploads/", &[], b"").await;
    let start = start.expect(405);
    assert_eq!((start.header("allow"), &*start.body), ("POST", &b""[..]));
}

#[tokio::test]
async fn a_path_with_doubled_or_trailing_slashes_redirects_to_the_clean_path() {
    let registry = Running::start().await;
    let (digest, manifest) = registry.push_image("a/b", "1").await;
    for (path, clean) in [
        ("//v2/_catalog", "/v2/_catalog".to_owned()),
        ("/v2/a//b/manifests/1/", "/v2/a/b/manifests/1".to_owned()),
        ("/v2//a/b/tags/list?n=1", "/v2/a/b/tags/list?n=1".to_owned()),
        (
            &format!("/v2/a/b/manifests/{digest}//"),
            format!("/v2/a/b/manifests/{digest}"),
        ),
    ] {
        for method in ["GET", "HEAD"] {
            let response = registry.ask(method, path, &[], b"").await.expect(301);
            assert_eq!(response.header("location"), clean, "{path}");
            registry.ask(method, &clean, &[], b"").await.expect(200);
        }
    }
    // Requests that change something are not redirected.
    let response = registry.ask(
        "PUT",
        "/v2/a//b/manifests/2",
        &[("content-type", IMAGE)],
        &manifest,
    );
    response.await.rejected(400, "NAME_INVALID");
    registry
        .get("//evil.example/v2/")
        .await
        .rejected(404, "UNSUPPORTED");
}

#[tokio::test]
async fn the_error_for_an_invalid_tag_states_the_rule() {
    let registry = Running::start().await;
    let manifest = registry.image("a", "").await;
    let headers = [("content-type", IMAGE)];
    for tag in ["1.0.0+build", "1.0.0%2Bbuild", "a%20b"] {
        let target = format!("/v2/a/manifests/{tag}");
        let response = registry.ask("PUT", &target, &headers, &manifest).await;
        let response = response.rejected(400, "MANIFEST_INVALID");
        assert!(
            response.text().contains("a tag must be"),
            "{}",
            response.text()
        );
        for method in ["GET", "DELETE"] {
            let response = registry.ask(method, &target, &[], b"").await;
            response.rejected(404, "MANIFEST_UNKNOWN");
        }
    }
}

#[tokio::test]
async fn the_error_for_many_unknown_blobs_is_short_and_counts_them() {
    let registry = Running::start().await;
    let layer = |number: u32| {
        let digest = Digest::of(Algorithm::Sha256, &number.to_be_bytes());
        format!(
            r#"{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"{digest}","size":1}}"#
        )
    };
    let layers: Vec<_> = (0..20_000).map(layer).collect();
    let config = registry.push_blob("a", b"{}").await;
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"{IMAGE}","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{config}","size":2}},"layers":[{}]}}"#,
        layers.join(",")
    );
    let headers = [("content-type", IMAGE)];
    let response = registry
        .ask("PUT", "/v2/a/manifests/1", &headers, manifest.as_bytes())
        .await;
    let response = response.rejected(404, "MANIFEST_BLOB_UNKNOWN");
    assert!(
        response.body.len() < 10_000,
        "{} bytes",
        response.body.len()
    );
    let error = &response.json()["errors"][0];
    assert!(
        error["message"].as_str().unwrap().contains("20000"),
        "{error}"
    );
    assert_eq!(error["detail"].as_array().unwrap().len(), 100);
}

#[tokio::test]
async fn disabled_deletion_differs_from_an_unsupported_method() {
    let registry = Running::configured(|config| config.storage.delete = false).await;
    let (digest, _) = registry.push_image("a", "1").await;
    for (target, allow) in [
        ("/v2/a/manifests/1".to_owned(), "GET, HEAD, PUT"),
        (format!("/v2/a/manifests/{digest}"), "GET, HEAD, PUT"),
        (format!("/v2/a/blobs/sha256:{HASH}"), "GET, HEAD"),
    ] {
        let response = registry
            .ask("DELETE", &target, &[], b"")
            .await
            .rejected(405, "UNSUPPORTED");
        assert_eq!(response.header("allow"), allow);
        assert!(response.text().contains("deletion is disabled"));
    }
    let session = registry.open("a").await;
    registry.ask("DELETE", &session, &[], b"").await.expect(204);
    registry.get("/v2/a/manifests/1").await.expect(200);
}

#[tokio::test]
async fn a_read_only_registry_rejects_every_change() {
    let registry = Running::configured(|config| config.storage.read_only = true).await;
    for (method, target) in [
        ("PUT", "/v2/a/manifests/1"),
        ("DELETE", "/v2/a/manifests/1"),
        ("POST", "/v2/a/blobs/uploads/"),
        ("PATCH", "/v2/a/blobs/uploads/1"),
        ("PUT", "/v2/a/blobs/uploads/1"),
        ("DELETE", "/v2/a/blobs/uploads/1"),
    ] {
        let response = registry
            .ask(method, target, &[], b"{}")
            .await
            .rejected(405, "UNSUPPORTED");
        assert!(response.text().contains("read-only"), "{}", response.text());
    }
    registry.get("/v2/_catalog").await.expect(200);
    assert_eq!(registry.files(), Vec::<std::path::PathBuf>::new());
    let refused = r#"octoserve_registry_uploads_refused_total{reason="read_only"}"#;
    assert_eq!(registry.sample(refused).await, Some(4.0));
}

#[tokio::test]
async fn names_that_are_prefixes_of_each_other_are_different_repositories() {
    let registry = Running::start().await;
    let names = [
        "a",
        "a/b",
        "a/blobs",
        "a/manifests",
        "a/tags/list",
        "a/blobs/uploads",
        "blobs",
    ];
    for name in names {
        registry.push_image(name, "1").await;
    }
    for name in names {
        let response = registry
            .get(&format!("/v2/{name}/tags/list"))
            .await
            .expect(200);
        assert_eq!(
            response.text(),
            format!(r#"{{"name":"{name}","tags":["1"]}}"#)
        );
    }
    registry
        .ask("DELETE", "/v2/a/manifests/1", &[], b"")
        .await
        .expect(202);
    registry.get("/v2/a/b/manifests/1").await.expect(200);
}

#[tokio::test]
async fn a_request_with_ambiguous_framing_is_rejected_and_closes_the_connection() {
    let registry = Running::start().await;
    for head in [
        "POST /v2/a/blobs/uploads/ HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n",
        "POST /v2/a/blobs/uploads/ HTTP/1.1\r\nhost: x\r\ncontent-length: +5\r\n",
        "POST /v2/a/blobs/uploads/ HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked, gzip\r\n",
        "GET /v2/ HTTP/1.1\r\nhost : x\r\n",
        "GET /v2/\u{0} HTTP/1.1\r\nhost: x\r\n",
    ] {
        let mut client: Client = registry.client().await;
        client
            .send(format!(
                "{head}\r\nGET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n"
            ))
            .await;
        client.response().await.expect(400);
        assert!(client.is_closed().await, "{head}");
    }
    // With both framings, only the chunks count.
    let digest = Digest::of(Algorithm::Sha256, b"abc");
    let mut client = registry.client().await;
    client
        .send(format!(
            "POST /v2/a/blobs/uploads/?digest={digest} HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\
             transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
        ))
        .await;
    let response = client.response().await;
    assert!([201, 400].contains(&response.status), "{}", response.text());
}

#[tokio::test]
async fn an_unsupported_transfer_coding_is_rejected_and_closes_the_connection() {
    let registry = Running::start().await;
    let digest = Digest::of(Algorithm::Sha256, b"abc");
    let post = format!("POST /v2/a/blobs/uploads/?digest={digest} HTTP/1.1\r\nhost: x\r\n");
    for codings in [
        "transfer-encoding: chunked, chunked\r\n",
        "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: gzip, chunked\r\n",
        "transfer-encoding: identity\r\ntransfer-encoding: chunked\r\n",
    ] {
        let mut client = registry.client().await;
        client
            .send(format!("{post}{codings}\r\n3\r\nabc\r\n0\r\n\r\n"))
            .await;
        client.response().await.rejected(400, "UNSUPPORTED");
        assert!(client.is_closed().await, "{codings}");
    }
    let mut client = registry.client().await;
    client
        .send(format!(
            "{post}transfer-encoding: Chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
        ))
        .await;
    client.response().await.expect(201);
}

#[tokio::test]
async fn oversized_headers_get_431() {
    let registry = Running::start().await;
    let mut client = registry.client().await;
    let headers = "x: y\r\n".repeat(500);
    client
        .send(format!("GET /v2/ HTTP/1.1\r\nhost: x\r\n{headers}\r\n"))
        .await;
    client.response().await.expect(431);
    let mut client = registry.client().await;
    let long = "a".repeat(2 * 1024 * 1024);
    client
        .send(format!("GET /v2/ HTTP/1.1\r\nx: {long}\r\n\r\n"))
        .await;
    client.response().await.expect(431);
}

#[tokio::test]
async fn an_http_1_1_request_must_have_one_host() {
    let registry = Running::start().await;
    for (line, hosts, message) in [
        (
            "GET /v2/ HTTP/1.1",
            "",
            Some("the request has no Host header"),
        ),
        (
            "GET http://a/v2/ HTTP/1.1",
            "",
            Some("the request has no Host header"),
        ),
        (
            "GET /v2/ HTTP/1.1",
            "Host: a\r\nHost: a\r\n",
            Some("the request has more than one Host header"),
        ),
        (
            "GET /v2/ HTTP/1.0",
            "Host: a\r\nHost: b\r\n",
            Some("the request has more than one Host header"),
        ),
        ("GET /v2/ HTTP/1.1", "Host: a\r\n", None),
        ("GET /v2/ HTTP/1.1", "Host:\r\n", None),
        ("GET /v2/ HTTP/1.0", "", None),
    ] {
        let mut client = registry.client().await;
        client.send(format!("{line}\r\n{hosts}\r\n")).await;
        let response = client.response().await;
        let request = format!("{line} {hosts:?}");
        match message {
            Some(message) => {
                let response = response.rejected(400, "UNSUPPORTED");
                assert!(
                    response.text().contains(message),
                    "{request}: {}",
                    response.text()
                );
            }
            None => assert_eq!(response.status, 200, "{request}"),
        }
    }
}
