//! end-7 and end-9.

use super::harness::{IMAGE, Running, image};
use crate::oci::{Algorithm, Digest};

const TYPE: [(&str, &str); 1] = [("content-type", IMAGE)];
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

#[tokio::test]
async fn a_push_by_digest_must_match_the_digest() {
    let registry = Running::start().await;
    let manifest = registry.image("a", "").await;
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        let digest = Digest::of(algorithm, &manifest);
        let target = format!("/v2/a/manifests/{digest}");
        let response = registry
            .ask("PUT", &target, &TYPE, &manifest)
            .await
            .expect(201);
        assert_eq!(response.header("location"), target);
        assert_eq!(response.header("docker-content-digest"), digest.as_str());
        assert_eq!(registry.get(&target).await.expect(200).body, manifest);
        let wrong = Digest::of(algorithm, b"other");
        let target = format!("/v2/a/manifests/{wrong}");
        let response = registry.ask("PUT", &target, &TYPE, &manifest).await;
        response.rejected(400, "DIGEST_INVALID");
    }
    let target = "/v2/a/manifests/sha256:baddigeststring";
    registry
        .ask("PUT", target, &TYPE, &manifest)
        .await
        .rejected(400, "DIGEST_INVALID");
    let target = "/v2/a/manifests/.bad";
    registry
        .ask("PUT", target, &TYPE, &manifest)
        .await
        .rejected(400, "MANIFEST_INVALID");
}

#[tokio::test]
async fn tags_are_pushed_with_a_digest() {
    let registry = Running::start().await;
    let manifest = registry.image("a", "").await;
    let digest = Digest::of(Algorithm::Sha256, &manifest);
    let target = format!("/v2/a/manifests/{digest}?tag=1.2.3&tag=1%2E2&tag=1&tag=latest");
    let response = registry
        .ask("PUT", &target, &TYPE, &manifest)
        .await
        .expect(201);
    assert_eq!(response.header("oci-tag"), "1.2.3, 1.2, 1, latest");
    let tags = registry.get("/v2/a/tags/list").await.expect(200);
    assert_eq!(
        tags.text(),
        r#"{"name":"a","tags":["1","1.2","1.2.3","latest"]}"#
    );
    let target = format!("/v2/b/manifests/{digest}?tag=good&tag=-bad");
    registry
        .ask("PUT", &target, &TYPE, &manifest)
        .await
        .rejected(400, "MANIFEST_INVALID");
    let many = "&tag=t".repeat(300);
    let target = format!("/v2/a/manifests/{digest}?{many}");
    registry
        .ask("PUT", &target, &TYPE, &manifest)
        .await
        .rejected(414, "MANIFEST_INVALID");
}

#[tokio::test]
async fn a_manifest_over_the_limit_is_rejected_with_and_without_a_content_length() {
    let registry = Running::configured(|config| {
        config.storage.manifest_limit = service::config::ByteSize::bytes(2000);
    })
    .await;
    let small = registry.image("a", "").await;
    registry
        .ask("PUT", "/v2/a/manifests/1", &TYPE, &small)
        .await
        .expect(201);
    let large = registry.image("a", &" ".repeat(2000)).await;
    let response = registry
        .ask("PUT", "/v2/a/manifests/1", &TYPE, &large)
        .await;
    response.rejected(413, "MANIFEST_INVALID");
    let chunked = [("transfer-encoding", "chunked")];
    let body = format!(
        "{:x}\r\n{}\r\n0\r\n\r\n",
        large.len(),
        String::from_utf8_lossy(&large)
    );
    let response = registry
        .ask("PUT", "/v2/a/manifests/1", &chunked, body.as_bytes())
        .await;
    response.rejected(413, "MANIFEST_INVALID");
    assert_eq!(registry.get("/v2/a/manifests/1").await.body, small);
}

#[tokio::test]
async fn a_manifest_with_unknown_references_is_rejected_and_the_error_lists_them() {
    let registry = Running::start().await;
    let config = registry.push_blob("a", b"{}").await;
    let unknown = Digest::of(Algorithm::Sha256, b"unknown");
    let manifest = image(&config, &unknown, "");
    let response = registry
        .ask("PUT", "/v2/a/manifests/1", &TYPE, &manifest)
        .await;
    let response = response.rejected(404, "MANIFEST_BLOB_UNKNOWN");
    assert_eq!(response.json()["errors"][0]["detail"][0], unknown.as_str());
    registry
        .get("/v2/a/manifests/1")
        .await
        .rejected(404, "MANIFEST_UNKNOWN");
    // A blob of another repository does not count.
    registry.push_image("b", "1").await;
    let manifest = registry.get("/v2/b/manifests/1").await.body;
    let response = registry
        .ask("PUT", "/v2/c/manifests/1", &TYPE, &manifest)
        .await;
    response.rejected(404, "MANIFEST_BLOB_UNKNOWN");
}

#[tokio::test]
async fn a_sparse_manifest_is_accepted_if_configured() {
    let registry = Running::configured(|config| config.storage.sparse_manifests = true).await;
    let absent = ["config", "layer", "child"];
    let [config, layer, child] =
        absent.map(|content| Digest::of(Algorithm::Sha256, content.as_bytes()));
    let manifest = image(&config, &layer, "");
    let index = format!(
        r#"{{"schemaVersion":2,"mediaType":"{INDEX}",
        "manifests":[{{"mediaType":"{IMAGE}","digest":"{child}","size":7}}]}}"#
    );
    for (tag, media_type, body) in [("1", IMAGE, &*manifest), ("2", INDEX, index.as_bytes())] {
        let target = format!("/v2/a/manifests/{tag}");
        let headers = [("content-type", media_type)];
        let response = registry.ask("PUT", &target, &headers, body).await;
        response.expect(201);
        assert_eq!(registry.get(&target).await.expect(200).body, body);
    }
    // The missing blob is unknown, and can still be pushed.
    let target = format!("/v2/a/manifests/{child}");
    registry
        .get(&target)
        .await
        .rejected(404, "MANIFEST_UNKNOWN");
    let target = format!("/v2/a/blobs/{layer}");
    registry.get(&target).await.rejected(404, "BLOB_UNKNOWN");
    registry.push_blob("a", b"layer").await;
    registry.get(&target).await.expect(200);
    // The manifest must still be valid.
    let response = registry.ask("PUT", "/v2/a/manifests/3", &TYPE, b"{}").await;
    response.rejected(400, "MANIFEST_INVALID");
}

#[tokio::test]
async fn a_subject_need_not_exist_and_lists_its_referrer() {
    let registry = Running::start().await;
    let subject = Digest::of(Algorithm::Sha256, b"subject");
    let descriptor = format!(
        r#","subject":{{"mediaType":"{IMAGE}","digest":"{subject}","size":7}},
        "artifactType":"application/x.sbom+json","annotations":{{"a":"b"}}"#
    );
    let manifest = registry.image("a", &descriptor).await;
    let digest = Digest::of(Algorithm::Sha256, &manifest);
    let target = format!("/v2/a/manifests/{digest}");
    let response = registry
        .ask("PUT", &target, &TYPE, &manifest)
        .await
        .expect(201);
    assert_eq!(response.header("oci-subject"), subject.as_str());
    let target = format!("/v2/a/referrers/{subject}");
    let response = registry.get(&target).await.expect(200);
    let referrer = &response.json()["manifests"][0];
    assert_eq!(referrer["digest"], digest.as_str());
    assert_eq!(referrer["artifactType"], "application/x.sbom+json");
    assert_eq!(referrer["annotations"]["a"], "b");
    assert_eq!(response.header("oci-filters-applied"), "");
    for (filter, found) in [
        ("application/x.sbom%2Bjson", 1),
        ("application/x.sbom+json", 1),
        ("x/y", 0),
    ] {
        let response = registry
            .get(&format!("{target}?artifactType={filter}"))
            .await
            .expect(200);
        assert_eq!(
            response.json()["manifests"].as_array().unwrap().len(),
            found
        );
        assert_eq!(response.header("oci-filters-applied"), "artifactType");
    }
    registry
        .ask("DELETE", &format!("/v2/a/manifests/{digest}"), &[], b"")
        .await
        .expect(202);
    let response = registry.get(&target).await.expect(200);
    assert_eq!(response.json()["manifests"].as_array().unwrap().len(), 0);
}

#[tokio::test]
async fn the_media_types_of_header_and_body_must_agree() {
    let registry = Running::start().await;
    let manifest = registry.image("a", "").await;
    let parameters = [("content-type", &*format!("{IMAGE}; charset=utf-8"))];
    for headers in [&[][..], &parameters] {
        registry
            .ask("PUT", "/v2/a/manifests/1", headers, &manifest)
            .await
            .expect(201);
        let response = registry.get("/v2/a/manifests/1").await.expect(200);
        assert_eq!(response.header("content-type"), IMAGE);
    }
    for wrong in [
        "application/vnd.oci.image.index.v1+json",
        "nonsense",
        "a/b/c",
    ] {
        let headers = [("content-type", wrong)];
        let response = registry
            .ask("PUT", "/v2/a/manifests/2", &headers, &manifest)
            .await;
        response.rejected(400, "MANIFEST_INVALID");
    }
}

#[tokio::test]
async fn an_invalid_manifest_is_rejected() {
    let registry = Running::start().await;
    let deep = format!(
        r#"{{"schemaVersion":2,"x":{}{}}}"#,
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    for body in [
        "",
        "null",
        "[]",
        "{}",
        "blablabla",
        r#"{"schemaVersion":2"#,
        r#"{"schemaVersion":"2","config":1,"layers":"x"}"#,
        r#"{"schemaVersion":2,"schemaVersion":2,"manifests":[]}"#,
        "\u{0}",
        &deep,
    ] {
        let response = registry
            .ask("PUT", "/v2/a/manifests/1", &TYPE, body.as_bytes())
            .await;
        response.rejected(400, "MANIFEST_INVALID");
    }
    assert_eq!(registry.files(), Vec::<std::path::PathBuf>::new());
}

#[tokio::test]
async fn deleting_a_tag_keeps_the_manifest_and_deleting_a_manifest_deletes_its_tags() {
    let registry = Running::start().await;
    let (digest, manifest) = registry.push_image("a", "1").await;
    registry
        .ask("PUT", "/v2/a/manifests/2", &TYPE, &manifest)
        .await
        .expect(201);
    registry
        .ask("DELETE", "/v2/a/manifests/1", &[], b"")
        .await
        .expect(202);
    registry.get("/v2/a/manifests/1").await.expect(404);
    registry.get("/v2/a/manifests/2").await.expect(200);
    let target = format!("/v2/a/manifests/{digest}");
    registry.ask("DELETE", &target, &[], b"").await.expect(202);
    for gone in ["/v2/a/manifests/2", &target] {
        registry.get(gone).await.rejected(404, "MANIFEST_UNKNOWN");
        registry
            .ask("DELETE", gone, &[], b"")
            .await
            .rejected(404, "MANIFEST_UNKNOWN");
    }
    let layer = Digest::of(Algorithm::Sha256, b"layer");
    let target = format!("/v2/a/blobs/{layer}");
    registry.ask("DELETE", &target, &[], b"").await.expect(202);
    registry
        .ask("DELETE", &target, &[], b"")
        .await
        .rejected(404, "BLOB_UNKNOWN");
}
