//! Preconditions of pushes, pulls and deletes.

use futures_util::future::join_all;
use http::header::{IF_MATCH, IF_NONE_MATCH};

use super::harness::{Answer, IMAGE, Running};
use crate::oci::{Algorithm, Digest};
use crate::store::MemoryStore;

/// A push of an image manifest of its own under a tag, with conditions.
async fn push(registry: &Running, tag: &str, n: u32, conditions: &[(&str, &str)]) -> Answer {
    let manifest = registry
        .image("a", &format!(",\"annotations\":{{\"n\":\"{n}\"}}"))
        .await;
    let headers = [&[("content-type", IMAGE)], conditions].concat();
    let target = format!("/v2/a/manifests/{tag}");
    registry.ask("PUT", &target, &headers, &manifest).await
}

fn quoted(answer: &Answer) -> String {
    format!("\"{}\"", answer.header("docker-content-digest"))
}

#[tokio::test]
async fn a_tag_is_written_once_and_moved_only_from_where_it_was() {
    let registry = Running::start().await;
    let once = [(IF_NONE_MATCH.as_str(), "*")];
    let first = push(&registry, "1", 1, &once).await.expect(201);
    let again = push(&registry, "1", 2, &once).await.refused(412, "DENIED");
    assert!(again.text().contains(first.header("docker-content-digest")));
    let from_first = quoted(&first);
    let moved = [(IF_MATCH.as_str(), from_first.as_str())];
    push(&registry, "2", 2, &moved).await.refused(412, "DENIED");
    let second = push(&registry, "1", 2, &moved).await.expect(201);
    push(&registry, "1", 3, &moved).await.refused(412, "DENIED");
    let both = [moved[0], once[0]];
    push(&registry, "1", 3, &both).await.refused(412, "DENIED");
    let weak = format!("W/{}", quoted(&second));
    let weak_match = [(IF_MATCH.as_str(), weak.as_str())];
    push(&registry, "1", 3, &weak_match)
        .await
        .refused(412, "DENIED");
    let weak_none = [(IF_NONE_MATCH.as_str(), weak.as_str())];
    push(&registry, "1", 3, &weak_none)
        .await
        .refused(412, "DENIED");
    let lines = [
        (IF_MATCH.as_str(), "\"other\""),
        (IF_MATCH.as_str(), &quoted(&second)),
    ];
    push(&registry, "1", 3, &lines).await.expect(201);
    for malformed in ["", "sha256:0", "*, \"x\"", "\"x"] {
        for name in [IF_MATCH.as_str(), IF_NONE_MATCH.as_str()] {
            let answer = push(&registry, "9", 1, &[(name, malformed)]).await;
            answer.refused(400, "UNSUPPORTED");
        }
    }
    registry.get("/v2/a/manifests/9").await.expect(404);
}

#[tokio::test]
async fn a_condition_concerns_the_reference_of_the_path_and_not_the_tags_of_the_query() {
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
        .refused(412, "DENIED");
    let latest = registry.get("/v2/a/manifests/latest").await.expect(200);
    assert_eq!(quoted(&latest), quoted(&second));
}

async fn exactly_one_wins(registry: &Running) {
    let manifests =
        (0..16).map(async |n| push(registry, "once", n, &[(IF_NONE_MATCH.as_str(), "*")]).await);
    let answers = join_all(manifests).await;
    let won: Vec<_> = answers
        .iter()
        .filter(|answer| answer.status == 201)
        .collect();
    assert_eq!(won.len(), 1);
    assert_eq!(
        answers.iter().filter(|answer| answer.status == 412).count(),
        15
    );
    let found = registry.get("/v2/a/manifests/once").await.expect(200);
    assert_eq!(quoted(&found), quoted(won[0]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_concurrent_pushes_of_an_absent_tag_exactly_one_wins() {
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
async fn reads_and_deletes_heed_their_conditions() {
    reads_and_deletes(&Running::start().await).await;
    reads_and_deletes(&Running::over(MemoryStore::default()).await).await;
}
