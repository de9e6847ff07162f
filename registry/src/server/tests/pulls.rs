//! What counts as a pull, and that the next run knows of it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::api::tests::harness::{DEADLINE, Running};
use crate::oci::{Algorithm, Digest, Name, Tag};
use crate::store::fs::{Durability, FsStore, OpenError, write_memory_since_1970};

async fn registry(directory: &Path) -> Running {
    Running::configured(|config| directory.clone_into(&mut config.storage.data)).await
}

/// Opens the store once the last connection of the registry has let it go.
async fn reopen(directory: &Path) -> FsStore {
    let open = async {
        loop {
            match FsStore::open(directory, Durability::Full, Arc::new(())) {
                Err(OpenError::InUse { .. }) => sleep(Duration::from_millis(10)).await,
                opened => return opened.unwrap(),
            }
        }
    };
    timeout(DEADLINE, open).await.unwrap()
}

/// Whether a pull of a tag, or of its manifest, is remembered on disk.
async fn is_pulled(directory: &Path, tag: &str, digest: &Digest) -> bool {
    let store = reopen(directory).await;
    let tag = Tag::parse(tag).unwrap();
    let name = Name::parse("a/b").unwrap();
    store.pulls().last(&name, &tag, digest).is_known
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
    let unknown = Digest::of(Algorithm::Sha256, b"unknown");
    let other = format!("/v2/a/b/manifests/{unknown}");
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
    first.stop();
    assert!(first.stopped().await);
    assert!(!is_pulled(root, "1", &digest).await);

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
        again.stop();
        assert!(again.stopped().await);
        assert!(is_pulled(root, "1", &digest).await, "{method} {target}");
    }
    // The manifest was pulled, and this tag was not: it counts where it points at the manifest.
    write_memory_since_1970(root);
    let last = registry(root).await;
    last.get(&by_digest).await.expect(200);
    last.ask("DELETE", &by_digest, &matches, b"")
        .await
        .expect(202);
    last.stop();
    assert!(last.stopped().await);
    assert!(is_pulled(root, "other", &digest).await);
    assert!(!is_pulled(root, "other", &unknown).await);
}
