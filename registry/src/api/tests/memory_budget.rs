//! The memory budget of manifests and listings.

use std::time::Duration;

use super::harness::{Client, DEADLINE, IMAGE, Running};
use crate::oci::{Algorithm, Digest};
use service::config::ByteSize;

/// The largest manifest of these tests, in bytes. The budget is the default one.
const MANIFEST: usize = 4 << 20;
/// The number of pushes that fill the budget.
const PUSHES: usize = 14;

/// A push of a manifest without its last byte.
async fn stalled(registry: &Running) -> Client {
    let mut client = registry.client().await;
    let head = format!(
        "PUT /v2/a/manifests/1 HTTP/1.1\r\nhost: x\r\ncontent-type: {IMAGE}\r\n\
         content-length: {MANIFEST}\r\n\r\n"
    );
    client.send(head).await;
    client.send(vec![b' '; MANIFEST - 1]).await;
    client
}

async fn without_time_limits() -> Running {
    Running::configured(|config| config.limits.body_stall = Duration::from_hours(1)).await
}

#[tokio::test]
async fn the_push_that_stalls_longest_is_evicted_and_the_others_continue() {
    let registry = without_time_limits().await;
    let mut first = stalled(&registry).await;
    let mut pushes = Vec::new();
    for _ in 0..PUSHES {
        pushes.push(stalled(&registry).await);
    }
    let response = first.response().await.rejected(503, "UNAVAILABLE");
    assert_eq!(response.header("retry-after"), "1");
    assert!(response.text().contains("slowest"), "{}", response.text());
    let (_, manifest) = registry.push_image("a", "2").await;
    let found = registry.get("/v2/a/manifests/2").await.expect(200);
    assert_eq!(found.body, manifest);
    // The last one was not evicted: its last byte shows that it is not a manifest.
    let mut last = pushes.pop().unwrap();
    last.send(" ").await;
    last.response().await.rejected(400, "MANIFEST_INVALID");
}

#[tokio::test]
async fn a_manifest_of_the_largest_size_is_stored_and_its_memory_freed() {
    let registry = without_time_limits().await;
    let digest = registry.push_blob("a", b"{}").await;
    let layer = registry.push_blob("a", b"layer").await;
    // One after another, and together more than the budget.
    for n in 0..PUSHES {
        let annotation = "x".repeat(MANIFEST - 1024);
        let fields = format!(r#","annotations":{{"n":"{n}","long":"{annotation}"}}"#);
        let manifest = super::harness::image(&digest, &layer, &fields);
        let target = format!("/v2/a/manifests/{n}");
        let headers = [("content-type", IMAGE)];
        let pushed = registry.ask("PUT", &target, &headers, &manifest).await;
        pushed.expect(201);
        let found = registry.get(&target).await.expect(200);
        assert_eq!(
            Digest::of(Algorithm::Sha256, &found.body),
            Digest::of(Algorithm::Sha256, &manifest)
        );
    }
}

#[tokio::test]
async fn concurrent_large_manifests_are_all_stored() {
    let registry = Running::configured(|config| {
        config.storage.manifest_limit = ByteSize::bytes(1 << 20);
    });
    let registry = registry.await;
    let digest = registry.push_blob("a", b"{}").await;
    let layer = registry.push_blob("a", b"layer").await;
    let pushes = (0..20).map(async |n| {
        let annotation = "x".repeat(1_000_000);
        let fields = format!(r#","annotations":{{"n":"{n}","long":"{annotation}"}}"#);
        let manifest = super::harness::image(&digest, &layer, &fields);
        let target = format!("/v2/a/manifests/{n}");
        let headers = [("content-type", IMAGE)];
        registry
            .ask("PUT", &target, &headers, &manifest)
            .await
            .expect(201);
    });
    let all = futures_util::future::join_all(pushes);
    tokio::time::timeout(DEADLINE, all).await.unwrap();
}

#[tokio::test]
async fn a_large_page_that_no_client_reads_is_evicted() {
    let registry = without_time_limits().await;
    let digest = registry.push_blob("a", b"{}").await;
    let layer = registry.push_blob("a", b"layer").await;
    let subject = Digest::of(Algorithm::Sha256, b"subject");
    let annotation = "x".repeat(31 << 10);
    for n in 0..129 {
        let fields = format!(
            r#","annotations":{{"n":"{n}","long":"{annotation}"}},
            "subject":{{"mediaType":"{IMAGE}","digest":"{subject}","size":7}}"#
        );
        let manifest = super::harness::image(&digest, &layer, &fields);
        let target = format!("/v2/a/manifests/{n}");
        let headers = [("content-type", IMAGE)];
        registry
            .ask("PUT", &target, &headers, &manifest)
            .await
            .expect(201);
    }
    let target = format!("/v2/a/referrers/{subject}");
    let mut clients = Vec::new();
    for _ in 0..PUSHES {
        let mut client = registry.client().await;
        client
            .send(format!("GET {target} HTTP/1.1\r\nhost: x\r\n\r\n"))
            .await;
        clients.push(client);
    }
    // Unread pages do not block one that is read.
    let page = registry.get(&target).await.expect(200);
    assert!(page.body.len() > 3 << 20, "{}", page.body.len());
    registry.push_image("a", "pushed").await;
}
