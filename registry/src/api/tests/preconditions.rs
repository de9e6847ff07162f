//! Preconditions of pushes, pulls and deletes.

use futures_util::future::join_all;
use http::header::{IF_MATCH, IF_NONE_MATCH};

use super::harness::{IMAGE, Running, TestResponse};
use crate::oci::{Algorithm, Digest};
use crate::store::MemoryStore;

/// Pushes the `n`th image manifest by tag, with conditions.
async fn push(registry: &Running, tag: &str, n: u32, conditions: &[(&str, &str)]) -> TestResponse {
    let manifest = registry
        .image("a", &format!(",\"annotations\":{{\"n\":\"{n}\"}}"))
        .await;
    let headers = [&[("content-type", IMAGE)], conditions].concat();
    let target = format!("/v2/a/manifests/{tag}");
    registry.ask("PUT", &target, &headers, &manifest).await
}

fn quoted(response: &TestResponse) -> String {
    format!("\"{}\"", response.header("docker-content-digest"))
}

#[tokio::test]
async fn a_conditional_push_creates_a_tag_once_and_moves_it_only_from_the_expected_digest() {
    let registry = Running::start().await;
    let once = [(IF_NONE_MATCH.as_str(), "*")];
    let first = push(&registry, "1", 1, &once).await.expect(201);
    let again = push(&registry, "1", 2, &once).await.rejected(412, "DENIED");
    assert!(again.text().contains(first.header("docker-content-digest")));
    let from_first = quoted(&first);
    let moved = [(IF_MATCH.as_str(), from_first.as_str())];
    push(&registry, "2", 2, &moved)
        .await
        .rejected(412, "DENIED");
    let second = push(&registry, "1", 2, &moved).await.expect(201);
    push(&registry, "1", 3, &moved)
        .await
        .rejected(412, "DENIED");
    let both = [moved[0], once[0]];
    push(&registry, "1", 3, &both).await.rejected(412, "DENIED");
    let weak = format!("W/{}", quoted(&second));
    let weak_match = [(IF_MATCH.as_str(), weak.as_str())];
    push(&registry, "1", 3, &weak_match)
        .await
        .rejected(412, "DENIED");
    let weak_none = [(IF_NONE_MATCH.as_str(), weak.as_str())];
    push(&registry, "1", 3, &weak_none)
        .await
        .rejected(412, "DENIED");
    let lines = [
        (IF_MATCH.as_str(), "\"other\""),
        (IF_MATCH.as_str(), &quoted(&second)),
    ];
    push(&registry, "1", 3, &lines).await.expect(201);
    for malformed in ["", "sha256:0", "*, \"x\"", "\"x"] {
        for name in [IF_MATCH.as_str(), IF_NONE_MATCH.as_str()] {
            let response = push(&registry, "9", 1, &[(name, malformed)]).await;
            response.rejected(400, "UNSUPPORTED");
        }
    }
    registry.get("/v2/a/manifests/9").await.expect(404);
}

#[tokio::test]
async fn a_condition_applies_to_the_reference_of_the_path_only() {
    let registry = Running::start().await;
    let once = [(IF_NONE_MATCH.as_str(), "*")];
    push(&registry, "1.0?tag=latest", 1, &once)
        .await
        .expect(201);
    let second = push(&registry, "1.1?tag=latest", 2, &once)
        .await
        .expect(201);
    let latest = registry.get("/v2/a/manifests/latest").await.expect(200);
    assert_eq!(quoted(&latest), quoted(&second));
    push(&registry, "1.0?tag=latest", 3, &once)
        .await
        .rejected(412, "DENIED");
    let latest = registry.get("/v2/a/manifests/latest").await.expect(200);
    assert_eq!(quoted(&latest), quoted(&second));
}

async fn exactly_one_wins(registry: &Running) {
    let manifests =
        (0..16).map(async |n| push(registry, "once", n, &[(IF_NONE_MATCH.as_str(), "*")]).await);
    let responses = join_all(manifests).await;
    let won: Vec<_> = responses
        .iter()
        .filter(|response| response.status == 201)
        .collect();
    assert_eq!(won.len(), 1);
    assert_eq!(
        responses
            .iter()
            .filter(|response| response.status == 412)
            .count(),
        15
    );
    let found = registry.get("/v2/a/manifests/once").await.expect(200);
    assert_eq!(quoted(&found), quoted(won[0]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exactly_one_of_concurrent_pushes_creates_an_absent_tag() {
    exactly_one_wins(&Running::start().await).await;
    exactly_one_wins(&Running::over(MemoryStore::default()).await).await;
}

async fn reads_and_deletes(registry: &Running) {
    let (manifest, _) = registry.push_image("a", "1").await;
    let blob = registry.push_blob("a", b"layer").await;
    let other = format!("\"{}\"", Digest::of(Algorithm::Sha256, b"other"));
    for (target, digest) in [
        ("/v2/a/manifests/1".to_owned(), &manifest),
        (format!("/v2/a/manifests/{manifest}"), &manifest),
        (format!("/v2/a/blobs/{blob}"), &blob),
    ] {
        let same = format!("\"{digest}\"");
        for method in ["GET", "HEAD"] {
            let ask = async |conditions: &[(&str, &str)]| {
                registry.ask(method, &target, conditions, b"").await.status
            };
            assert_eq!(ask(&[("if-match", &same)]).await, 200);
            assert_eq!(ask(&[("if-match", "*")]).await, 200);
            assert_eq!(ask(&[("if-match", &other)]).await, 412);
            assert_eq!(ask(&[("if-match", "other")]).await, 400);
            assert_eq!(
                ask(&[("if-match", &same), ("if-none-match", "*")]).await,
                304
            );
            assert_eq!(
                ask(&[("if-match", &other), ("if-none-match", "*")]).await,
                412
            );
            assert_eq!(ask(&[("if-none-match", &other)]).await, 200);
        }
        let delete = async |conditions: &[(&str, &str)]| {
            registry
                .ask("DELETE", &target, conditions, b"")
                .await
                .status
        };
        assert_eq!(delete(&[("if-match", &other)]).await, 412);
        assert_eq!(delete(&[("if-none-match", "*")]).await, 412);
        assert_eq!(delete(&[("if-match", "other")]).await, 400);
        registry.get(&target).await.expect(200);
        assert_eq!(delete(&[("if-match", &same)]).await, 202);
        for method in ["GET", "HEAD", "DELETE"] {
            let gone = registry
                .ask(method, &target, &[("if-match", &same)], b"")
                .await;
            assert_eq!(gone.status, 404, "{method} {target}");
        }
    }
}

#[tokio::test]
async fn reads_and_deletes_obey_their_conditions() {
    reads_and_deletes(&Running::start().await).await;
    reads_and_deletes(&Running::over(MemoryStore::default()).await).await;
}
