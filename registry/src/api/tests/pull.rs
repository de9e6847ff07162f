//! end-1, end-2 and end-3.

use super::harness::{IMAGE, Running};
use crate::oci::{Algorithm, Digest};

#[tokio::test]
async fn the_api_says_that_it_is_there() {
    let registry = Running::start().await;
    for target in ["/v2/", "/v2"] {
        let answer = registry.get(target).await.expect(200);
        assert_eq!(
            answer.header("docker-distribution-api-version"),
            "registry/2.0"
        );
        assert_eq!(answer.text(), "{}");
    }
    let answer = registry.ask("HEAD", "/v2/", &[], b"").await.expect(200);
    assert_eq!(answer.header("content-length"), "2");
}

#[tokio::test]
async fn a_blob_comes_back_byte_for_byte_with_what_names_it() {
    let registry = Running::start().await;
    let content: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    let digest = registry.push_blob("a/b", &content).await;
    let target = format!("/v2/a/b/blobs/{digest}");
    for method in ["GET", "HEAD"] {
        let answer = registry.ask(method, &target, &[], b"").await.expect(200);
        assert_eq!(answer.header("docker-content-digest"), digest.as_str());
        assert_eq!(answer.header("etag"), format!("\"{digest}\""));
        assert_eq!(answer.header("content-length"), "3000000");
        assert_eq!(answer.header("content-type"), "application/octet-stream");
        assert_eq!(answer.header("accept-ranges"), "bytes");
        assert!(method == "HEAD" || answer.body == content);
    }
    let encoded = target.replace(':', "%3A");
    assert_eq!(registry.get(&encoded).await.expect(200).body, content);
}

#[tokio::test]
async fn an_empty_blob_is_a_blob() {
    let registry = Running::start().await;
    let digest = registry.push_blob("a", b"").await;
    let target = format!("/v2/a/blobs/{digest}");
    let answer = registry.get(&target).await.expect(200);
    assert_eq!(answer.header("content-length"), "0");
    let range = [("range", "bytes=0-")];
    let answer = registry.ask("GET", &target, &range, b"").await;
    assert_eq!(
        answer.refused(416, "SIZE_INVALID").header("content-range"),
        "bytes */0"
    );
}

#[tokio::test]
async fn a_range_gives_its_part_and_what_is_none_gives_everything() {
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
        let answer = registry
            .ask("GET", &target, &[("range", range)], b"")
            .await
            .expect(206);
        assert_eq!(
            (answer.text().as_str(), answer.header("content-range")),
            (part, place)
        );
        assert_eq!(answer.header("content-length"), part.len().to_string());
    }
    for range in ["bytes=10-", "bytes=5-0", "bytes=-0", "bytes=x", "bytes"] {
        let answer = registry.ask("GET", &target, &[("range", range)], b"").await;
        let answer = answer.refused(416, "SIZE_INVALID");
        assert_eq!(answer.header("content-range"), "bytes */10", "{range}");
    }
    for range in ["lines=1-2", "bytes=0-9,5-6"] {
        let answer = registry
            .ask("GET", &target, &[("range", range)], b"")
            .await
            .expect(200);
        assert_eq!(answer.text(), "0123456789", "{range}");
    }
}

#[tokio::test]
async fn several_ranges_come_as_parts_in_their_order() {
    let registry = Running::start().await;
    let digest = registry.push_blob("a", b"0123456789abcdef").await;
    let target = format!("/v2/a/blobs/{digest}");
    let answer = registry
        .ask("GET", &target, &[("range", "bytes=10-13,0-3,99-")], b"")
        .await
        .expect(206);
    let kind = answer.header("content-type");
    let boundary = kind
        .strip_prefix("multipart/byteranges; boundary=")
        .unwrap();
    assert_eq!(
        answer.header("content-length"),
        answer.body.len().to_string()
    );
    assert_eq!(answer.header("etag"), format!("\"{digest}\""));
    let part = |range, bytes| {
        format!(
            "--{boundary}\r\nContent-Type: application/octet-stream\r\n\
             Content-Range: bytes {range}/16\r\n\r\n{bytes}\r\n"
        )
    };
    let (first, second) = (part("10-13", "abcd"), part("0-3", "0123"));
    assert_eq!(answer.text(), format!("{first}{second}--{boundary}--\r\n"));
    // A HEAD has no range, and one range that is left is sent alone.
    let headers = [("range", "bytes=0-3,10-13")];
    registry
        .ask("HEAD", &target, &headers, b"")
        .await
        .expect(200);
    let headers = [("range", "bytes=0-3,99-")];
    let answer = registry
        .ask("GET", &target, &headers, b"")
        .await
        .expect(206);
    assert_eq!(answer.header("content-range"), "bytes 0-3/16");
    assert_eq!(answer.text(), "0123");
    let headers = [("range", "bytes=16-,99-")];
    let answer = registry.ask("GET", &target, &headers, b"").await;
    assert_eq!(
        answer.refused(416, "SIZE_INVALID").header("content-range"),
        "bytes */16"
    );
    let other = [("range", "bytes=0-3,10-13"), ("if-range", "\"other\"")];
    registry.ask("GET", &target, &other, b"").await.expect(200);
}

#[tokio::test]
async fn a_range_of_other_content_than_the_client_has_gives_everything() {
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
async fn what_the_client_has_is_not_sent_again() {
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
            let answer = registry
                .ask(method, &target, &headers, b"")
                .await
                .expect(304);
            assert_eq!(answer.header("etag"), tag);
            let headers = [("if-none-match", "\"other\"")];
            registry
                .ask(method, &target, &headers, b"")
                .await
                .expect(200);
        }
    }
    // There is no time of a last change that a condition could mean.
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
        .refused(404, "BLOB_UNKNOWN");
}

#[tokio::test]
async fn a_manifest_comes_back_byte_for_byte_by_tag_and_by_digest() {
    let registry = Running::start().await;
    let (digest, manifest) = registry.push_image("team/app", "v1").await;
    for reference in ["v1", digest.as_str()] {
        let target = format!("/v2/team/app/manifests/{reference}");
        for method in ["GET", "HEAD"] {
            let answer = registry.ask(method, &target, &[], b"").await.expect(200);
            assert_eq!(answer.header("docker-content-digest"), digest.as_str());
            assert_eq!(answer.header("content-type"), IMAGE);
            assert_eq!(answer.header("content-length"), manifest.len().to_string());
            assert!(method == "HEAD" || answer.body == manifest);
        }
    }
}

#[tokio::test]
async fn what_is_not_there_is_told_by_its_kind() {
    let registry = Running::start().await;
    registry.push_image("a", "1").await;
    let unknown = Digest::of(Algorithm::Sha256, b"unknown");
    for (target, code) in [
        (format!("/v2/a/blobs/{unknown}"), "BLOB_UNKNOWN"),
        (format!("/v2/b/blobs/{unknown}"), "BLOB_UNKNOWN"),
        (format!("/v2/a/manifests/{unknown}"), "MANIFEST_UNKNOWN"),
        ("/v2/a/manifests/2".to_owned(), "MANIFEST_UNKNOWN"),
        ("/v2/b/manifests/1".to_owned(), "MANIFEST_UNKNOWN"),
        // No tag is spelt so, hence none can be found.
        ("/v2/a/manifests/.INVALID".to_owned(), "MANIFEST_UNKNOWN"),
        ("/v2/b/tags/list".to_owned(), "NAME_UNKNOWN"),
        ("/v2/a/_trust".to_owned(), "UNSUPPORTED"),
        ("/metrics".to_owned(), "UNSUPPORTED"),
    ] {
        registry.get(&target).await.refused(404, code);
        let head = registry.ask("HEAD", &target, &[], b"").await.expect(404);
        assert_ne!(head.header("content-length"), "0", "{target}");
    }
}
