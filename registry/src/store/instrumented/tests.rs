use std::sync::Arc;

use futures_util::{StreamExt, stream};
use tempfile::TempDir;

use super::*;
use crate::metrics::storage::Backend;
use crate::service::exposition::Registry;
use crate::store::MemoryStore;
use crate::store::fs::{Durability, FsStore};
use crate::store::suite::{push, put, suite};

fn new() -> (Instrumented<FsStore>, (TempDir, Registry)) {
    let folder = tempfile::tempdir().unwrap();
    let store = FsStore::open(folder.path(), Durability::Relaxed, Arc::new(())).unwrap();
    let registry = Registry::new("octoserve_");
    let metrics = Storage::register(&registry, Backend::Filesystem);
    (Instrumented::new(store, metrics), (folder, registry))
}

fn in_memory() -> (Instrumented<MemoryStore>, Registry) {
    let registry = Registry::new("octoserve_");
    let metrics = Storage::register(&registry, Backend::Memory);
    let store = Instrumented::new(MemoryStore::default(), metrics);
    (store, registry)
}

suite!(instrumented, super::new());
suite!(instrumented_memory, super::in_memory());

/// The lines of the page that hold `part`, without those of buckets and sums.
fn lines(registry: &Registry, part: &str) -> Vec<String> {
    let mut page = String::new();
    registry.gather().write_text(&mut page);
    let wanted = |line: &&str| {
        let noise = ["#", "_bucket", "_sum"];
        line.contains(part) && !noise.iter().any(|noise| line.contains(noise))
    };
    page.lines().filter(wanted).map(str::to_owned).collect()
}

fn name() -> Name {
    Name::parse("a").unwrap()
}

#[tokio::test]
async fn a_read_is_timed_and_counted_when_its_stream_ends() {
    let (store, (_folder, registry)) = new();
    let digest = push(&store, "a", b"hello").await;
    let mut read = store.blob_read(&name(), &digest, None).await.unwrap();
    assert_eq!(lines(&registry, "blob_read"), [""; 0]);
    while read.reader.next().await.is_some() {}
    assert!(lines(&registry, "operation=\"blob_read\"")[0].ends_with(" 1"));
    assert_eq!(
        lines(&registry, "storage_bytes_total"),
        [
            r#"octoserve_storage_bytes_total{backend="filesystem",direction="read"} 5"#,
            r#"octoserve_storage_bytes_total{backend="filesystem",direction="write"} 5"#,
        ]
    );
    drop(read);
    assert!(lines(&registry, "operation=\"blob_read\"")[0].ends_with(" 1"));
}

#[tokio::test]
async fn a_read_that_is_given_up_is_timed_once_and_no_error() {
    let (store, (_folder, registry)) = new();
    let digest = push(&store, "a", &vec![7; 1_000_000]).await;
    let mut read = store.blob_read(&name(), &digest, None).await.unwrap();
    read.reader.next().await.unwrap().unwrap();
    drop(read);
    assert_eq!(
        lines(&registry, "blob_read"),
        [
            r#"octoserve_storage_operation_duration_seconds_count{backend="filesystem",operation="blob_read",status="success"} 1"#,
        ]
    );
}

#[tokio::test]
async fn failures_are_counted_by_kind() {
    let (store, (_folder, registry)) = new();
    let upload = store
        .upload_create(&name(), Algorithm::Sha256)
        .await
        .unwrap();
    let digest = Digest::of(Algorithm::Sha256, b"x");
    store
        .upload_commit(&name(), &upload.id, &digest)
        .await
        .unwrap_err();
    store.blob_stat(&name(), &digest).await.unwrap_err();
    let stalled = std::io::Error::from(std::io::ErrorKind::TimedOut);
    let body = stream::iter([Err(StoreError::Body(Box::new(stalled)))]);
    let upload = store
        .upload_create(&name(), Algorithm::Sha256)
        .await
        .unwrap();
    store
        .upload_append(&name(), &upload.id, 0, body)
        .await
        .unwrap_err();
    assert_eq!(
        lines(&registry, "storage_errors_total"),
        [
            r#"octoserve_storage_errors_total{backend="filesystem",error_type="digest_mismatch",operation="upload_commit"} 1"#,
            r#"octoserve_storage_errors_total{backend="filesystem",error_type="no_space",operation="upload_append"} 0"#,
            r#"octoserve_storage_errors_total{backend="filesystem",error_type="not_found",operation="blob_stat"} 1"#,
            r#"octoserve_storage_errors_total{backend="filesystem",error_type="timeout",operation="upload_append"} 1"#,
        ]
    );
}

#[tokio::test]
async fn damaged_tags_that_a_deletion_met_are_counted() {
    let (store, (folder, registry)) = new();
    let digest = put(&store, "a", "{}", &["1", "2", "3"]).await;
    for tag in ["2", "3"] {
        let file = folder.path().join("repositories/a/_tags").join(tag);
        std::fs::write(file, "sha256:").unwrap();
    }
    store.manifest_delete(&name(), &digest).await.unwrap();
    assert_eq!(
        lines(&registry, "tag_read"),
        [
            r#"octoserve_storage_errors_total{backend="filesystem",error_type="io",operation="tag_read"} 2"#,
        ]
    );
}

#[tokio::test]
async fn tags_are_counted_by_what_happened_to_them() {
    let (store, (_folder, registry)) = new();
    put(&store, "a", "{\"n\":1}", &["1", "2", "3"]).await;
    let second = put(&store, "a", "{\"n\":2}", &["1"]).await;
    put(&store, "a", "{\"n\":2}", &["1"]).await;
    store
        .tag_delete(&name(), &Tag::parse("2").unwrap())
        .await
        .unwrap();
    store.manifest_delete(&name(), &second).await.unwrap();
    assert_eq!(
        lines(&registry, "tag_operations_total"),
        [
            r#"octoserve_tag_operations_total{operation="created"} 3"#,
            r#"octoserve_tag_operations_total{operation="deleted"} 2"#,
            r#"octoserve_tag_operations_total{operation="moved"} 1"#,
        ]
    );
}
