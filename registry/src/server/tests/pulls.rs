//! What counts as a pull, and that the next run knows of it.

use std::path::Path;
use std::sync::Arc;

use crate::api::tests::harness::Running;
use crate::oci::{Digest, Name, Tag};
use crate::store::fs::{Durability, FsStore, write_memory_since_1970};

async fn registry(directory: &Path) -> Running {
    Running::configured(|config| directory.clone_into(&mut config.storage.data)).await
}

/// Whether a pull of a tag, or of its manifest, is remembered on disk.
fn is_pulled(directory: &Path, tag: &str, digest: &Digest) -> bool {
    let store = FsStore::open(directory, Durability::Full, Arc::new(())).unwrap();
    let tag = Tag::parse(tag).unwrap();
    let last = store
        .pulls()
        .last(&Name::parse("a/b").unwrap(), &tag, digest);
    last.is_known
}

#[tokio::test]
async fn what_reads_a_tag_or_a_manifest_is_a_pull_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    write_memory_since_1970(root);
    let first = registry(root).await;
    let (digest, _) = first.push_image("a/b", "1").await;
    let etag = format!("\"{digest}\"");
    let matches = [("if-match", etag.as_str())];
    let other = format!("/v2/a/b/manifests/sha256:{}", "0".repeat(64));
    let by_digest = format!("/v2/a/b/manifests/{digest}");
    for (method, target, headers, status) in [
        ("HEAD", by_digest.as_str(), &[][..], 200),
        ("GET", "/v2/a/b/manifests/2", &[], 404),
        ("GET", "/v2/c/manifests/1", &[], 404),
        ("GET", &other, &[], 404),
        ("GET", "/v2/a/b/tags/list", &[], 200),
        ("PUT", "/v2/a/b/manifests/1", &[], 400),
        // It looks the manifest up before it checks what it requires.
        ("DELETE", &by_digest, &[("if-match", "\"x\"")], 412),
    ] {
        first.ask(method, target, headers, b"").await.expect(status);
    }
    assert!(first.stopped().await);
    assert!(!is_pulled(root, "1", &digest));

    for (method, target, headers, status) in [
        ("GET", "/v2/a/b/manifests/1", &[][..], 200),
        ("HEAD", "/v2/a/b/manifests/1", &[], 200),
        ("GET", &by_digest, &[], 200),
        ("GET", &by_digest, &[("if-none-match", etag.as_str())], 304),
        (
            "HEAD",
            "/v2/a/b/manifests/1",
            &[("if-none-match", etag.as_str())],
            304,
        ),
    ] {
        write_memory_since_1970(root);
        let again = registry(root).await;
        again.ask(method, target, headers, b"").await.expect(status);
        assert!(again.stopped().await);
        assert!(is_pulled(root, "1", &digest), "{method} {target}");
    }
    // The manifest was pulled, and this tag was not: it counts where it points at the manifest.
    write_memory_since_1970(root);
    let last = registry(root).await;
    last.get(&by_digest).await.expect(200);
    last.ask("DELETE", &by_digest, &matches, b"")
        .await
        .expect(202);
    assert!(last.stopped().await);
    assert!(is_pulled(root, "other", &digest));
    let unknown = Digest::parse(&other[17..]).unwrap();
    assert!(!is_pulled(root, "other", &unknown));
}
