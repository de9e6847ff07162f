//! The limits of uploads, and the responses when one is reached.

use std::sync::Arc;
use std::time::Duration;

use super::harness::{IMAGE, Running, image};
use crate::oci::{Algorithm, Digest};
use crate::store::fs::{Durability, FsStore};
use crate::store::suite::push;
use service::config::ByteSize;

fn whole(content: &[u8]) -> String {
    let digest = Digest::of(Algorithm::Sha256, content);
    format!("/v2/a/blobs/uploads/?digest={digest}")
}

#[tokio::test]
async fn an_upload_gets_429_while_all_sessions_are_in_use() {
    let registry = Running::configured(|config| config.storage.uploads.max_sessions = 1).await;
    let digest = registry.push_blob("a", b"content").await;
    let location = registry.open("a").await;
    let mut client = registry.half_sent(&location).await;
    for (target, body) in [
        ("/v2/a/blobs/uploads/", &b""[..]),
        (&whole(b"more"), b"more"),
    ] {
        let response = registry.ask("POST", target, &[], body).await;
        let response = response.rejected(429, "TOOMANYREQUESTS");
        assert_eq!(response.header("retry-after"), "10");
    }
    let mount = format!("/v2/b/blobs/uploads/?mount={digest}&from=a");
    registry.ask("POST", &mount, &[], b"").await.expect(201);
    let refused = r#"octoserve_registry_uploads_refused_total{reason="sessions"}"#;
    assert_eq!(registry.sample(refused).await, Some(2.0));
    registry.get(&location).await.expect(204);
    client.send("56789").await;
    client.response().await.expect(202);
    let response = registry.ask("DELETE", &location, &[], b"").await;
    response.expect(204);
    let response = registry.ask("POST", &whole(b"more"), &[], b"more").await;
    response.expect(201);
    registry.open("a").await;
}

#[tokio::test]
async fn a_new_session_evicts_an_idle_one() {
    let registry = Running::configured(|config| config.storage.uploads.max_sessions = 1).await;
    let first = registry.open("a").await;
    let second = registry.open("a").await;
    let gone = registry.ask("PATCH", &first, &[], b"more").await;
    gone.rejected(404, "BLOB_UPLOAD_UNKNOWN");
    registry
        .ask("PATCH", &second, &[], b"more")
        .await
        .expect(202);
}

#[tokio::test]
async fn uploads_over_the_byte_quota_are_rejected_until_sessions_end() {
    let registry = Running::configured(|config| {
        config.storage.uploads.max_bytes = Some(ByteSize::bytes(1000));
    })
    .await;
    let (first, second) = (registry.open("a").await, registry.open("a").await);
    let patch = async |location: &str, length: usize| {
        let body = vec![b'x'; length];
        registry.ask("PATCH", location, &[], &body).await
    };
    patch(&first, 800).await.expect(202);
    let response = patch(&second, 300).await.rejected(507, "UNAVAILABLE");
    assert!(
        response.text().contains("free space"),
        "{}",
        response.text()
    );
    assert!(!response.text().contains("1000"), "{}", response.text());
    let response = registry.get(&second).await.expect(204);
    assert_eq!(response.header("range"), "0-0");
    let content = [b'y'; 300];
    let response = registry.ask("POST", &whole(&content), &[], &content).await;
    response.rejected(507, "UNAVAILABLE");
    let response = registry.ask("DELETE", &first, &[], b"").await;
    response.expect(204);
    patch(&second, 300).await.expect(202);
    registry.push_blob("a", &content).await;
    let refused = r#"{backend="filesystem",error_type="no_space",operation="upload_append"}"#;
    let refused = format!("octoserve_storage_errors_total{refused}");
    assert_eq!(registry.sample(&refused).await, Some(2.0));
    let sample = async |name: &str| registry.sample(&format!("octoserve_registry_{name}")).await;
    assert_eq!(sample("upload_sessions").await, Some(1.0));
    assert_eq!(sample("upload_bytes").await, Some(300.0));
    let refused = async |reason: &str| {
        let labels = format!("uploads_refused_total{{reason=\"{reason}\"}}");
        sample(&labels).await
    };
    assert_eq!(refused("bytes").await, Some(2.0));
    assert_eq!(refused("space").await, Some(0.0));
}

#[tokio::test]
async fn below_the_reserve_only_uploads_are_rejected() {
    let data = tempfile::tempdir().unwrap();
    let directory = data.path().join("data");
    let store = FsStore::open(&directory, Durability::Relaxed, Arc::new(())).unwrap();
    let (config, layer) = (
        push(&store, "a", b"{}").await,
        push(&store, "a", b"layer").await,
    );
    drop(store);
    let registry = Running::configured(|config| {
        config.storage.data = directory;
        config.storage.reserve = ByteSize::bytes(u64::MAX / 2);
    })
    .await;
    for (target, body) in [
        ("/v2/a/blobs/uploads/", &b""[..]),
        (&whole(b"more"), b"more"),
    ] {
        let response = registry.ask("POST", target, &[], body).await;
        response.rejected(507, "UNAVAILABLE");
    }
    let refused = r#"octoserve_registry_uploads_refused_total{reason="space"}"#;
    assert_eq!(registry.sample(refused).await, Some(2.0));
    let manifest = image(&config, &layer, "");
    let layer = format!("/v2/a/blobs/{layer}");
    assert_eq!(registry.get(&layer).await.expect(200).body, b"layer");
    let headers = [("content-type", IMAGE)];
    let target = "/v2/a/manifests/1";
    let response = registry.ask("PUT", target, &headers, &manifest).await;
    response.expect(201);
    for target in [target, &layer] {
        registry.ask("DELETE", target, &[], b"").await.expect(202);
    }
}

#[tokio::test]
async fn an_idle_upload_expires_and_an_active_one_does_not() {
    let registry = Running::configured(|config| {
        config.storage.uploads.expire = Duration::from_secs(2).into();
    })
    .await;
    let busy = registry.open("a").await;
    let mut client = registry.half_sent(&busy).await;
    let idle = registry.open("a").await;
    registry
        .wait_for("octoserve_registry_upload_sessions", 1.0)
        .await;
    registry
        .get(&idle)
        .await
        .rejected(404, "BLOB_UPLOAD_UNKNOWN");
    client.send("56789").await;
    client.response().await.expect(202);
    registry
        .wait_for("octoserve_registry_upload_sessions", 0.0)
        .await;
    registry
        .get(&busy)
        .await
        .rejected(404, "BLOB_UPLOAD_UNKNOWN");
}
