use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use tempfile::TempDir;

use super::*;
use crate::metrics::storage::Backend;
use crate::store::MemoryStore;
use crate::store::fs::{Durability, FsStore};
use crate::store::suite::{push, put, suite};
use service::metrics::MetricsRegistry;

fn new() -> (Instrumented<FsStore>, (TempDir, MetricsRegistry)) {
    let directory = tempfile::tempdir().unwrap();
    let store = FsStore::open(directory.path(), Durability::Relaxed, Arc::new(())).unwrap();
    let registry = MetricsRegistry::new("octoserve_");
    let metrics = Storage::register(&registry, Backend::Filesystem);
    (Instrumented::new(store, metrics), (directory, registry))
}

fn in_memory() -> (Instrumented<MemoryStore>, MetricsRegistry) {
    let registry = MetricsRegistry::new("octoserve_");
    let metrics = Storage::register(&registry, Backend::Memory);
    let store = Instrumented::new(MemoryStore::default(), metrics);
    (store, registry)
}

suite!(instrumented, super::new());
suite!(instrumented_memory, super::in_memory());

/// The lines of the exposition that hold `part`, without those of buckets and sums.
fn lines(registry: &MetricsRegistry, part: &str) -> Vec<String> {
    let mut exposition = String::new();
    registry.gather().write_text(&mut exposition);
    let wanted = |line: &&str| {
        let noise = ["#", "_bucket", "_sum"];
        line.contains(part) && !noise.iter().any(|noise| line.contains(noise))
    };
    exposition
        .lines()
        .filter(wanted)
        .map(str::to_owned)
        .collect()
}

/// The sum of the one histogram that has these labels.
fn seconds(registry: &MetricsRegistry, labels: &str) -> f64 {
    let mut exposition = String::new();
    registry.gather().write_text(&mut exposition);
    let mut sums = exposition
        .lines()
        .filter(|line| line.contains("_seconds_sum") && line.contains(labels));
    let sum = sums.next().unwrap();
    assert_eq!(sums.next(), None);
    sum.rsplit(' ').next().unwrap().parse().unwrap()
}

fn name() -> Name {
    Name::parse("a").unwrap()
}

#[tokio::test]
async fn a_read_is_timed_and_counted_when_its_stream_ends() {
    let (store, (_directory, registry)) = new();
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
async fn an_aborted_read_is_timed_once_and_is_no_error() {
    let (store, (_directory, registry)) = new();
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
    let (store, (_directory, registry)) = new();
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

#[test]
fn every_kind_of_error_has_its_own_label() {
    use service::metrics::Label as _;
    for (kind, label) in [
        (ErrorKind::NotFound, "not_found"),
        (ErrorKind::DigestMismatch, "digest_mismatch"),
        (ErrorKind::Invalid, "invalid"),
        (ErrorKind::NoSpace, "no_space"),
        (ErrorKind::Permission, "permission"),
        (ErrorKind::Io, "io"),
        (ErrorKind::Timeout, "timeout"),
        (ErrorKind::Other, "other"),
    ] {
        assert_eq!(error_type(kind).value(), label);
    }
}

#[tokio::test]
async fn damaged_tags_that_a_deletion_finds_are_counted() {
    let (store, (directory, registry)) = new();
    let digest = put(&store, "a", "{}", &["1", "2", "3"]).await;
    for tag in ["2", "3"] {
        let file = directory.path().join("repositories/a/_tags").join(tag);
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
    let (store, (_directory, registry)) = new();
    put(&store, "a", "{\"n\":1}", &["1", "2", "3"]).await;
    let second = put(&store, "a", "{\"n\":2}", &["1"]).await;
    put(&store, "a", "{\"n\":2}", &["1"]).await;
    store
        .tag_delete(&name(), &Tag::parse("2").unwrap(), None)
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

#[tokio::test]
async fn every_operation_is_timed_once_under_its_own_name() {
    let (store, registry) = in_memory();
    let (name, tag) = (name(), Tag::parse("1").unwrap());
    let blob = push(&store, "a", b"x").await;
    let manifest = put(&store, "a", "{}", &[]).await;
    store.blob_stat(&name, &blob).await.unwrap();
    drop(store.blob_read(&name, &blob, None).await.unwrap());
    store.blob_mount(&name, None, &blob).await.unwrap();
    store.blob_delete(&name, &blob).await.unwrap();
    let unknown = UploadId::random();
    store.upload_stat(&name, &unknown).await.unwrap_err();
    store.upload_cancel(&name, &unknown).await.unwrap_err();
    let reference = Reference::from(manifest.clone());
    store.manifest_read(&name, &reference).await.unwrap();
    store.tag_write(&name, &tag, &manifest).await.unwrap();
    store.tag_read(&name, &tag).await.unwrap();
    store.tag_list(&name, None, 1).await.unwrap();
    store.repository_list(None, 1).await.unwrap();
    let page = ReferrersQuery::default();
    store.referrers_list(&name, &manifest, &page).await.unwrap();
    store.tag_delete(&name, &tag, None).await.unwrap();
    store.manifest_delete(&name, &manifest).await.unwrap();
    let timed = lines(&registry, "storage_operation_duration_seconds");
    let expected = [
        ("blob_delete", "success"),
        ("blob_mount", "success"),
        ("blob_read", "success"),
        ("blob_stat", "success"),
        ("manifest_delete", "success"),
        ("manifest_read", "success"),
        ("manifest_write", "success"),
        ("referrers_list", "success"),
        ("repository_list", "success"),
        ("tag_delete", "success"),
        ("tag_list", "success"),
        ("tag_read", "success"),
        ("tag_write", "success"),
        ("upload_append", "success"),
        ("upload_cancel", "error"),
        ("upload_commit", "success"),
        ("upload_create", "success"),
        ("upload_stat", "error"),
    ];
    let expected = expected.map(|(operation, status)| {
        let labels = format!(r#"backend="memory",operation="{operation}",status="{status}""#);
        format!("octoserve_storage_operation_duration_seconds_count{{{labels}}} 1")
    });
    assert_eq!(timed, expected);
}

#[tokio::test]
async fn operations_are_timed_in_the_buckets_of_disks() {
    let (store, registry) = in_memory();
    store.repository_list(None, 1).await.unwrap();
    let mut exposition = String::new();
    registry.gather().write_text(&mut exposition);
    let buckets: Vec<_> = exposition
        .lines()
        .filter(|line| line.starts_with("octoserve_storage_operation_duration_seconds_bucket"))
        .filter_map(|line| line.split("le=\"").nth(1)?.split('"').next())
        .collect();
    let expected = [
        "0.0001", "0.0005", "0.001", "0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1.0",
        "2.5", "5.0", "10.0", "25.0", "60.0", "300.0", "900.0", "+Inf",
    ];
    assert_eq!(buckets, expected);
}

#[tokio::test]
async fn an_append_is_timed_at_the_end_of_its_stream_and_its_bytes_are_counted_as_they_arrive() {
    let (store, registry) = in_memory();
    let (name, timed) = (name(), "operation=\"upload_append\",status");
    let upload = store.upload_create(&name, Algorithm::Sha256).await.unwrap();
    let (sender, receiver) = tokio::sync::oneshot::channel::<()>();
    let rest = stream::once(Box::pin(async move {
        receiver.await.unwrap();
        Ok(Bytes::from_static(b"def"))
    }));
    let body = stream::iter([Ok(Bytes::from_static(b"abc"))]).chain(rest);
    let began = Instant::now();
    let mut append = Box::pin(store.upload_append(&name, &upload.id, 0, body));
    assert!(futures_util::FutureExt::now_or_never(append.as_mut()).is_none());
    assert_eq!(lines(&registry, timed), [""; 0]);
    let written = r#"octoserve_storage_bytes_total{backend="memory",direction="write"}"#;
    assert_eq!(lines(&registry, written), [format!("{written} 3")]);
    let moment = Duration::from_millis(20);
    while began.elapsed() < moment {
        tokio::task::yield_now().await;
    }
    sender.send(()).unwrap();
    append.await.unwrap();
    let range = moment.as_secs_f64()..=began.elapsed().as_secs_f64();
    let took = seconds(&registry, timed);
    assert!(range.contains(&took), "{took} is not in {range:?}");
    assert!(lines(&registry, timed)[0].ends_with(" 1"));
    assert_eq!(lines(&registry, written), [format!("{written} 6")]);
}
