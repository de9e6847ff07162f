//! end-4 to end-6, end-11, end-13 and end-14.

use super::harness::{Client, Running};
use crate::oci::{Algorithm, Digest};

fn digest(content: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha256, content)
}

async fn assert_pulls(registry: &Running, location: &str, content: &[u8]) {
    assert_eq!(registry.get(location).await.expect(200).body, content);
}

#[tokio::test]
async fn a_blob_is_pushed_in_one_request() {
    let registry = Running::start().await;
    let (content, sha256) = (b"at once", digest(b"at once"));
    for digest in [sha256, Digest::of(Algorithm::Sha512, content)] {
        let target = format!("/v2/a/blobs/uploads/?digest={digest}");
        let response = registry
            .ask("POST", &target, &[], content)
            .await
            .expect(201);
        assert_eq!(response.header("location"), format!("/v2/a/blobs/{digest}"));
        assert_eq!(response.header("docker-content-digest"), digest.as_str());
        assert_pulls(&registry, response.header("location"), content).await;
    }
}

#[tokio::test]
async fn a_session_has_a_location_and_accepts_a_whole_blob() {
    let registry = Running::start().await;
    let response = registry
        .ask("POST", "/v2/a/b/blobs/uploads/", &[], b"")
        .await
        .expect(202);
    let location = response.header("location").to_owned();
    let id = response.header("docker-upload-uuid");
    assert_eq!(location, format!("/v2/a/b/blobs/uploads/{id}"));
    assert_eq!(response.header("range"), "0-0");
    let target = format!("{location}?digest={}", digest(b"content"));
    let response = registry
        .ask("PUT", &target, &[], b"content")
        .await
        .expect(201);
    assert_pulls(&registry, response.header("location"), b"content").await;
    registry
        .get(&location)
        .await
        .rejected(404, "BLOB_UPLOAD_UNKNOWN");
}

#[tokio::test]
async fn chunks_are_accepted_in_order_only() {
    let registry = Running::start().await;
    let location = registry.open("a").await;
    let patch = async |range: &str, chunk: &[u8]| {
        registry
            .ask("PATCH", &location, &[("content-range", range)], chunk)
            .await
    };
    let response = patch("0-4", b"01234").await.expect(202);
    assert_eq!(
        (response.header("range"), response.header("location")),
        ("0-4", &*location)
    );
    for range in ["0-4", "6-10", "4-8"] {
        let response = patch(range, b"xxxxx")
            .await
            .rejected(416, "BLOB_UPLOAD_INVALID");
        assert_eq!(response.header("range"), "0-4", "{range}");
        assert_eq!(response.header("location"), location);
    }
    let response = registry.get(&location).await.expect(204);
    assert_eq!(
        (response.header("range"), response.header("location")),
        ("0-4", &*location)
    );
    patch("bytes 5-6/*", b"56").await.expect(202);
    let target = format!("{location}?digest={}", digest(b"0123456789"));
    let last = [("content-range", "8-9")];
    registry
        .ask("PUT", &target, &last, b"89")
        .await
        .rejected(416, "BLOB_UPLOAD_INVALID");
    let last = [("content-range", "7-9")];
    let response = registry
        .ask("PUT", &target, &last, b"789")
        .await
        .expect(201);
    assert_pulls(&registry, response.header("location"), b"0123456789").await;
}

#[tokio::test]
async fn a_stream_of_unknown_length_is_accepted() {
    let registry = Running::start().await;
    let location = registry.open("a").await;
    let chunked = [("transfer-encoding", "chunked")];
    let body = b"3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n";
    let response = registry
        .ask("PATCH", &location, &chunked, body)
        .await
        .expect(202);
    assert_eq!(response.header("range"), "0-6");
    let target = format!("{location}?digest={}", digest(b"abcdefg"));
    registry.ask("PUT", &target, &[], b"").await.expect(201);
}

#[tokio::test]
async fn an_upload_can_be_cancelled() {
    let registry = Running::start().await;
    let location = registry.open("a").await;
    registry
        .ask("PATCH", &location, &[], b"bytes")
        .await
        .expect(202);
    registry
        .ask("DELETE", &location, &[], b"")
        .await
        .expect(204);
    registry
        .get(&location)
        .await
        .rejected(404, "BLOB_UPLOAD_UNKNOWN");
    let again = registry.ask("DELETE", &location, &[], b"").await;
    again.rejected(404, "BLOB_UPLOAD_UNKNOWN");
    assert_eq!(registry.files(), Vec::<std::path::PathBuf>::new());
}

#[tokio::test]
async fn the_algorithm_may_be_set_at_the_start_or_at_the_end() {
    let registry = Running::start().await;
    let sha512 = Digest::of(Algorithm::Sha512, b"content");
    for query in ["", "?digest-algorithm=sha512", "?digest-algorithm=sha256"] {
        let target = format!("/v2/a/blobs/uploads/{query}");
        let response = registry.ask("POST", &target, &[], b"").await.expect(202);
        let target = format!("{}?digest={sha512}", response.header("location"));
        registry
            .ask("PUT", &target, &[], b"content")
            .await
            .expect(201);
    }
    for algorithm in ["md5", "", "SHA256"] {
        let target = format!("/v2/a/blobs/uploads/?digest-algorithm={algorithm}");
        registry
            .ask("POST", &target, &[], b"")
            .await
            .rejected(400, "DIGEST_INVALID");
    }
}

#[tokio::test]
async fn an_existing_blob_is_mounted_and_another_is_uploaded() {
    let registry = Running::start().await;
    let digest = registry.push_blob("from", b"content").await;
    for query in [
        format!("mount={digest}&from=from"),
        format!("mount={digest}"),
    ] {
        let name = format!("to/{}", query.len());
        let target = format!("/v2/{name}/blobs/uploads/?{query}");
        let response = registry.ask("POST", &target, &[], b"").await.expect(201);
        assert_eq!(
            response.header("location"),
            format!("/v2/{name}/blobs/{digest}")
        );
        assert_eq!(response.header("docker-content-digest"), digest.as_str());
        assert_pulls(&registry, response.header("location"), b"content").await;
    }
    let unknown = self::digest(b"unknown");
    for query in [
        format!("mount={unknown}&from=from"),
        format!("mount={digest}&from=empty"),
        format!("mount={unknown}"),
    ] {
        let target = format!("/v2/other/blobs/uploads/?{query}");
        let response = registry.ask("POST", &target, &[], b"").await.expect(202);
        assert_ne!(response.header("docker-upload-uuid"), "");
    }
}

#[tokio::test]
async fn a_failed_mount_never_fails_the_push() {
    let registry = Running::start().await;
    let digest = registry.push_blob("from", b"content").await;
    for query in [
        format!("mount={digest}&from=registry.example.com:5000/team/app"),
        format!("mount={digest}&from=..%2Ffrom"),
        format!("mount={digest}&from=UPPER"),
        format!("mount={digest}&from=%00"),
        "mount=sha256:1&from=from".to_owned(),
        "mount=md5:d41d8cd98f00b204e9800998ecf8427e&from=from".to_owned(),
        "mount=&from=from".to_owned(),
        "mount".to_owned(),
    ] {
        let target = format!("/v2/to/blobs/uploads/?{query}");
        let response = registry.ask("POST", &target, &[], b"").await.expect(202);
        let location = response.header("location");
        let commit = format!("{location}?digest={digest}");
        let response = registry.ask("PUT", &commit, &[], b"content").await;
        response.expect(201);
    }
    // Errors of the push itself are still errors.
    for (target, code) in [
        ("/v2/UPPER/blobs/uploads/?mount=x", "NAME_INVALID"),
        (
            "/v2/to/blobs/uploads/?mount=&digest=sha256:1",
            "DIGEST_INVALID",
        ),
    ] {
        let response = registry.ask("POST", target, &[], b"").await;
        response.rejected(400, code);
    }
}

#[tokio::test]
async fn a_wrong_digest_stores_nothing() {
    let registry = Running::start().await;
    let wrong = digest(b"other");
    let target = format!("/v2/a/blobs/uploads/?digest={wrong}");
    registry
        .ask("POST", &target, &[], b"content")
        .await
        .rejected(400, "DIGEST_INVALID");
    let location = registry.open("a").await;
    let target = format!("{location}?digest={wrong}");
    registry
        .ask("PUT", &target, &[], b"content")
        .await
        .rejected(400, "DIGEST_INVALID");
    registry
        .get(&location)
        .await
        .rejected(404, "BLOB_UPLOAD_UNKNOWN");
    registry
        .get(&format!("/v2/a/blobs/{wrong}"))
        .await
        .rejected(404, "BLOB_UNKNOWN");
    assert_eq!(registry.files(), Vec::<std::path::PathBuf>::new());
}

#[tokio::test]
async fn a_session_survives_a_commit_with_a_missing_or_malformed_digest() {
    let registry = Running::start().await;
    let location = registry.open("a").await;
    registry
        .ask("PUT", &location, &[], b"content")
        .await
        .rejected(400, "DIGEST_INVALID");
    for digest in ["", "sha256:1", "md5:d41d8cd98f00b204e9800998ecf8427e"] {
        let target = format!("{location}?digest={digest}");
        registry
            .ask("PUT", &target, &[], b"content")
            .await
            .rejected(400, "DIGEST_INVALID");
    }
    let target = format!(
        "{location}?digest={}",
        digest(b"content").as_str().replace(':', "%3A")
    );
    registry
        .ask("PUT", &target, &[], b"content")
        .await
        .expect(201);
}

#[tokio::test]
async fn lengths_that_disagree_are_rejected() {
    let registry = Running::start().await;
    let location = registry.open("a").await;
    let ask = async |headers: &[(&str, &str)], body: &[u8]| {
        registry.ask("PATCH", &location, headers, body).await
    };
    ask(&[("content-range", "0-9")], b"short")
        .await
        .rejected(400, "SIZE_INVALID");
    ask(&[("content-range", "0-9")], b"")
        .await
        .rejected(400, "SIZE_INVALID");
    for range in ["", "5", "9-0", "a-b", "0-18446744073709551615", "-5"] {
        ask(&[("content-range", range)], b"short")
            .await
            .rejected(400, "BLOB_UPLOAD_INVALID");
    }
    let chunked = [("transfer-encoding", "chunked"), ("content-range", "0-2")];
    ask(&chunked, b"5\r\nabcde\r\n0\r\n\r\n")
        .await
        .rejected(400, "SIZE_INVALID");
    let location = registry.open("a").await;
    let short = [("transfer-encoding", "chunked"), ("content-range", "0-9")];
    let response = registry
        .ask("PATCH", &location, &short, b"2\r\nab\r\n0\r\n\r\n")
        .await;
    response.rejected(400, "SIZE_INVALID");
}

#[tokio::test]
async fn an_aborted_body_can_be_resumed() {
    let registry = Running::start().await;
    let location = registry.open("a").await;
    let mut client: Client = registry.client().await;
    client
        .send(format!(
            "PATCH {location} HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n0123"
        ))
        .await;
    tokio::io::AsyncWriteExt::shutdown(&mut client.stream)
        .await
        .unwrap();
    client.response().await.rejected(400, "SIZE_INVALID");
    let response = registry.get(&location).await.expect(204);
    assert_eq!(response.header("range"), "0-3");
    let rest = [("content-range", "4-9")];
    registry
        .ask("PATCH", &location, &rest, b"456789")
        .await
        .expect(202);
    let target = format!("{location}?digest={}", digest(b"0123456789"));
    registry.ask("PUT", &target, &[], b"").await.expect(201);
}

#[tokio::test]
async fn a_malformed_chunk_is_rejected() {
    let registry = Running::start().await;
    let location = registry.open("a").await;
    let chunked = [("transfer-encoding", "chunked")];
    let response = registry
        .ask("PATCH", &location, &chunked, b"zz\r\nabc\r\n")
        .await;
    response.rejected(400, "SIZE_INVALID");
}

#[tokio::test]
async fn a_session_exists_in_its_repository_only() {
    let registry = Running::start().await;
    let location = registry.open("a").await;
    let elsewhere = location.replace("/v2/a/", "/v2/b/");
    let nowhere = "/v2/a/blobs/uploads/00000000000000000000000000000000";
    for target in [
        &*elsewhere,
        nowhere,
        "/v2/a/blobs/uploads/../x",
        "/v2/a/blobs/uploads/x/y",
    ] {
        for method in ["GET", "PATCH", "DELETE"] {
            let response = registry.ask(method, target, &[], b"").await;
            response.rejected(404, "BLOB_UPLOAD_UNKNOWN");
        }
        let target = format!("{target}?digest={}", digest(b""));
        registry
            .ask("PUT", &target, &[], b"")
            .await
            .rejected(404, "BLOB_UPLOAD_UNKNOWN");
    }
    registry.get(&location).await.expect(204);
}
