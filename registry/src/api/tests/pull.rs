//! end-1, end-2 and end-3.

use super::harness::{IMAGE, Running};
use crate::oci::{Algorithm, Digest};

#[tokio::test]
async fn the_base_endpoint_says_that_the_api_exists() {
    let registry = Running::start().await;
    for target in ["/v2/", "/v2"] {
        let response = registry.get(target).await.expect(200);
        assert_eq!(
            response.header("docker-distribution-api-version"),
            "registry/2.0"
        );
        assert_eq!(response.text(), "{}");
    }
    let response = registry.ask("HEAD", "/v2/", &[], b"").await.expect(200);
    assert_eq!(response.header("content-length"), "2");
}

#[tokio::test]
async fn a_blob_is_pulled_byte_for_byte_with_its_digest_and_entity_tag() {
    let registry = Running::start().await;
    let content: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    let digest = registry.push_blob("a/b", &content).await;
    let target = format!("/v2/a/b/blobs/{digest}");
    for method in ["GET", "HEAD"] {
        let response = registry.ask(method, &target, &[], b"").await.expect(200);
        assert_eq!(response.header("docker-content-digest"), digest.as_str());
        assert_eq!(response.header("etag"), format!("\"{digest}\""));
        assert_eq!(response.header("content-length"), "3000000");
        assert_eq!(response.header("content-type"), "application/octet-stream");
        assert_eq!(response.header("accept-ranges"), "bytes");
        assert!(method == "HEAD" || response.body == content);
    }
    let encoded = target.replace(':', "%3A");
    assert_eq!(registry.get(&encoded).await.expect(200).body, content);
}

#[tokio::test]
async fn an_empty_blob_can_be_pulled() {
    let registry = Running::start().await;
    let digest = registry.push_blob("a", b"").await;
    let target = format!("/v2/a/blobs/{digest}");
    let response = registry.get(&target).await.expect(200);
    assert_eq!(response.header("content-length"), "0");
    let range = [("range", "bytes=0-")];
    let response = registry.ask("GET", &target, &range, b"").await;
    assert_eq!(
        response
            .rejected(416, "SIZE_INVALID")
            .header("content-range"),
        "bytes */0"
    );
}

#[tokio::test]
async fn a_range_gets_its_part_and_an_ignored_range_the_whole() {
    let registry = Running::start().await;
    let digest = registry.push_blob("a", b"0123456789").await;
    let target = format!("/v2/a/blobs/{digest}");
    for (range, part, place) in [
        ("bytes=2-4", "234", "bytes 2-4/10"),
        ("bytes=7-", "789", "bytes 7-9/10"),
        ("bytes=-2", "89", "bytes 8-9/10"),
        ("bytes=8-99", "89", "bytes 8-9/10"),
        ("bytes=-99", "0123456789", "bytes 0-9/10"),
    ] {
        let response = registry
            .ask("GET", &target, &[("range", range)], b"")
            .await
            .expect(206);
        assert_eq!(
            (response.text().as_str(), response.header("content-range")),
            (part, place)
        );
        assert_eq!(response.header("content-length"), part.len().to_string());
    }
    for range in ["bytes=10-", "bytes=5-0", "bytes=-0", "bytes=x", "bytes"] {
        let response = registry.ask("GET", &target, &[("range", range)], b"").await;
        let response = response.rejected(416, "SIZE_INVALID");
        assert_eq!(response.header("content-range"), "bytes */10", "{range}");
    }
    for range in ["lines=1-2", "bytes=0-9,5-6"] {
        let response = registry
            .ask("GET", &target, &[("range", range)], b"")
            .await
            .expect(200);
        assert_eq!(response.text(), "0123456789", "{range}");
    }
}

#[tokio::test]
async fn several_ranges_are_sent_as_parts_in_request_order() {
    let registry = Running::start().await;
    let digest = registry.push_blob("a", b"0123456789abcdef").await;
    let target = format!("/v2/a/blobs/{digest}");
    let response = registry
        .ask("GET", &target, &[("range", "bytes=10-13,0-3,99-")], b"")
        .await
        .expect(206);
    let kind = response.header("content-type");
    let boundary = kind
        .strip_prefix("multipart/byteranges; boundary=")
        .unwrap();
    assert_eq!(
        response.header("content-length"),
        response.body.len().to_string()
    );
    assert_eq!(response.header("etag"), format!("\"{digest}\""));
    let part = |range, bytes| {
        format!(
            "--{boundary}\r\nContent-Type: application/octet-stream\r\n\
             Content-Range: bytes {range}/16\r\n\r\n{bytes}\r\n"
        )
    };
    let (first, second) = (part("10-13", "abcd"), part("0-3", "0123"));
    assert_eq!(
        response.text(),
        format!("{first}{second}--{boundary}--\r\n")
    );
    // HEAD ignores ranges, and a single remaining range is not sent as multipart.
    let headers = [("range", "bytes=0-3,10-13")];
    registry
        .ask("HEAD", &target, &headers, b"")
        .await
        .expect(200);
    let headers = [("range", "bytes=0-3,99-")];
    let response = registry
        .ask("GET", &target, &headers, b"")
        .await
        .expect(206);
    assert_eq!(response.header("content-range"), "bytes 0-3/16");
    assert_eq!(response.text(), "0123");
    let headers = [("range", "bytes=16-,99-")];
    let response = registry.ask("GET", &target, &headers, b"").await;
    assert_eq!(
        response
            .rejected(416, "SIZE_INVALID")
            .header("content-range"),
        "bytes */16"
    );
    let other = [("range", "bytes=0-3,10-13"), ("if-range", "\"other\"")];
    registry.ask("GET", &target, &other, b"").await.expect(200);
}

#[tokio::test]
async fn an_if_range_that_does_not_match_gets_the_whole() {
    let registry = Running::start().await;
    let digest = registry.push_blob("a", b"0123456789").await;
    let target = format!("/v2/a/blobs/{digest}");
    let same = format!("\"{digest}\"");
    for (tag, status) in [(same.as_str(), 206), ("\"other\"", 200)] {
        let headers = [("range", "bytes=0-0"), ("if-range", tag)];
        registry
            .ask("GET", &target, &headers, b"")
            .await
            .expect(status);
    }
}

#[tokio::test]
async fn content_that_the_client_has_is_not_sent_again() {
    let registry = Running::start().await;
    let blob = registry.push_blob("a", b"content").await;
    let (manifest, _) = registry.push_image("a", "1").await;
    for (target, digest) in [
        (format!("/v2/a/blobs/{blob}"), &blob),
        ("/v2/a/manifests/1".to_owned(), &manifest),
        (format!("/v2/a/manifests/{manifest}"), &manifest),
    ] {
        let tag = format!("\"{digest}\"");
        for method in ["GET", "HEAD"] {
            let headers = [("if-none-match", tag.as_str())];
            let response = registry
                .ask(method, &target, &headers, b"")
                .await
                .expect(304);
            assert_eq!(response.header("etag"), tag);
            let headers = [("if-none-match", "\"other\"")];
            registry
                .ask(method, &target, &headers, b"")
                .await
                .expect(200);
        }
    }
    // Without Last-Modified, conditions on dates are ignored.
    let target = format!("/v2/a/manifests/{manifest}");
    for header in ["if-unmodified-since", "if-modified-since"] {
        let headers = [(header, "\"other\"")];
        registry
            .ask("GET", &target, &headers, b"")
            .await
            .expect(200);
    }
    let gone = Digest::of(Algorithm::Sha256, b"gone");
    let headers = [("if-none-match", &*format!("\"{gone}\""))];
    let target = format!("/v2/a/blobs/{gone}");
    registry
        .ask("GET", &target, &headers, b"")
        .await
        .rejected(404, "BLOB_UNKNOWN");
}

#[tokio::test]
async fn a_manifest_is_pulled_byte_for_byte_by_tag_and_by_digest() {
    let registry = Running::start().await;
    let (digest, manifest) = registry.push_image("team/app", "v1").await;
    for reference in ["v1", digest.as_str()] {
        let target = format!("/v2/team/app/manifests/{reference}");
        for method in ["GET", "HEAD"] {
            let response = registry.ask(method, &target, &[], b"").await.expect(200);
            assert_eq!(response.header("docker-content-digest"), digest.as_str());
            assert_eq!(response.header("content-type"), IMAGE);
            assert_eq!(
                response.header("content-length"),
                manifest.len().to_string()
            );
            assert!(method == "HEAD" || response.body == manifest);
        }
    }
}

#[tokio::test]
async fn unknown_content_gets_the_error_code_of_its_kind() {
    let registry = Running::start().await;
    registry.push_image("a", "1").await;
    let unknown = Digest::of(Algorithm::Sha256, b"unknown");
    for (target, code) in [
        (format!("/v2/a/blobs/{unknown}"), "BLOB_UNKNOWN"),
        (format!("/v2/b/blobs/{unknown}"), "BLOB_UNKNOWN"),
        (format!("/v2/a/manifests/{unknown}"), "MANIFEST_UNKNOWN"),
        ("/v2/a/manifests/2".to_owned(), "MANIFEST_UNKNOWN"),
        ("/v2/b/manifests/1".to_owned(), "MANIFEST_UNKNOWN"),
        // An invalid tag is an unknown one.
        ("/v2/a/manifests/.INVALID".to_owned(), "MANIFEST_UNKNOWN"),
        ("/v2/b/tags/list".to_owned(), "NAME_UNKNOWN"),
        ("/v2/a/_trust".to_owned(), "UNSUPPORTED"),
        ("/metrics".to_owned(), "UNSUPPORTED"),
    ] {
        registry.get(&target).await.rejected(404, code);
        let head = registry.ask("HEAD", &target, &[], b"").await.expect(404);
        assert_ne!(head.header("content-length"), "0", "{target}");
    }
}
