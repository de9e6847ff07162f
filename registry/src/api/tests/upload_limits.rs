//! What uploads may take, and what clients are told when it is taken.

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
async fn while_all_sessions_are_in_use_a_client_is_asked_to_come_back_later() {
    let registry = Running::configured(|config| config.storage.uploads.max_sessions = 1).await;
    let digest = registry.push_blob("a", b"content").await;
    let location = registry.open("a").await;
    let mut client = registry.half_sent(&location).await;
    for (target, body) in [
        ("/v2/a/blobs/uploads/", &b""[..]),
        (&whole(b"more"), b"more"),
    ] {
        let answer = registry.ask("POST", target, &[], body).await;
        let answer = answer.refused(429, "TOOMANYREQUESTS");
        assert_eq!(answer.header("retry-after"), "10");
    }
    let mount = format!("/v2/b/blobs/uploads/?mount={digest}&from=a");
    registry.ask("POST", &mount, &[], b"").await.expect(201);
    registry.get(&location).await.expect(204);
    client.send("56789").await;
    client.answer().await.expect(202);
    let answer = registry.ask("DELETE", &location, &[], b"").await;
    answer.expect(204);
    let answer = registry.ask("POST", &whole(b"more"), &[], b"more").await;
    answer.expect(201);
    registry.open("a").await;
}

#[tokio::test]
async fn an_idle_session_gives_way_to_a_new_one() {
    let registry = Running::configured(|config| config.storage.uploads.max_sessions = 1).await;
    let first = registry.open("a").await;
    let second = registry.open("a").await;
    let gone = registry.ask("PATCH", &first, &[], b"more").await;
    gone.refused(404, "BLOB_UPLOAD_UNKNOWN");
    registry
        .ask("PATCH", &second, &[], b"more")
        .await
        .expect(202);
}

#[tokio::test]
async fn over_the_bytes_of_all_sessions_uploads_are_refused_until_some_have_ended() {
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
    let answer = patch(&second, 300).await.refused(507, "UNAVAILABLE");
    assert!(answer.text().contains("free space"), "{}", answer.text());
    assert!(!answer.text().contains("1000"), "{}", answer.text());
    let answer = registry.get(&second).await.expect(204);
    assert_eq!(answer.header("range"), "0-0");
    let content = [b'y'; 300];
    let answer = registry.ask("POST", &whole(&content), &[], &content).await;
    answer.refused(507, "UNAVAILABLE");
    let answer = registry.ask("DELETE", &first, &[], b"").await;
    answer.expect(204);
    patch(&second, 300).await.expect(202);
    registry.push_blob("a", &content).await;
    let refused = r#"{backend="filesystem",error_type="no_space",operation="upload_append"}"#;
    let refused = format!("octoserve_storage_errors_total{refused}");
    assert_eq!(registry.sample(&refused).await, Some(2.0));
    let sample = async |name: &str| registry.sample(&format!("octoserve_registry_{name}")).await;
    assert_eq!(sample("upload_sessions").await, Some(1.0));
    assert_eq!(sample("upload_bytes").await, Some(300.0));
}

#[tokio::test]
async fn below_the_reserve_nothing_is_uploaded_and_all_else_goes_on() {
    let data = tempfile::tempdir().unwrap();
    let folder = data.path().join("data");
    let store = FsStore::open(&folder, Durability::Relaxed, Arc::new(())).unwrap();
    let (config, layer) = (
        push(&store, "a", b"{}").await,
        push(&store, "a", b"layer").await,
    );
    drop(store);
    let registry = Running::configured(|config| {
        config.storage.data = folder;
        config.storage.reserve = ByteSize::bytes(u64::MAX / 2);
    })
    .await;
    for (target, body) in [
        ("/v2/a/blobs/uploads/", &b""[..]),
        (&whole(b"more"), b"more"),
    ] {
        let answer = registry.ask("POST", target, &[], body).await;
        answer.refused(507, "UNAVAILABLE");
    }
    let manifest = image(&config, &layer, "");
    let layer = format!("/v2/a/blobs/{layer}");
    assert_eq!(registry.get(&layer).await.expect(200).body, b"layer");
    let headers = [("content-type", IMAGE)];
    let target = "/v2/a/manifests/1";
    let answer = registry.ask("PUT", target, &headers, &manifest).await;
    answer.expect(201);
    for target in [target, &layer] {
        registry.ask("DELETE", target, &[], b"").await.expect(202);
    }
}

#[tokio::test]
async fn an_upload_that_nobody_carries_on_with_expires_and_one_that_is_arriving_does_not() {
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
        .refused(404, "BLOB_UPLOAD_UNKNOWN");
    client.send("56789").await;
    client.answer().await.expect(202);
    registry
        .wait_for("octoserve_registry_upload_sessions", 0.0)
        .await;
    registry
        .get(&busy)
        .await
        .refused(404, "BLOB_UPLOAD_UNKNOWN");
}
