//! What is acknowledged is on disk: no operation leaves a changed directory unsynced.

use super::*;
use crate::oci::Descriptor;
use crate::store::fs::manifest::{self as manifests, WriteProgress};
use crate::store::{Condition, Versions};

fn assert_synced(store: &FsStore, operation: &str) {
    let unsynced = store.data.directories.all_unsynced();
    assert!(unsynced.is_empty(), "{operation}: {unsynced:?}");
}

#[tokio::test]
async fn every_operation_syncs_the_directories_that_it_changes() {
    let (store, _directory) = new();
    let (a, b, tag) = (name("a/b"), name("c/d"), Tag::parse("1").unwrap());
    let blob = push(&store, "a/b", b"x").await;
    assert_synced(&store, "push");
    push(&store, "a/b", b"x").await;
    assert_synced(&store, "push of what is there");
    store.blob_mount(&b, Some(&a), &blob).await.unwrap();
    assert_synced(&store, "mount");
    store.blob_delete(&b, &blob).await.unwrap();
    assert_synced(&store, "blob delete");

    let subject = put(&store, "a/b", "{}", &["1", "2"]).await;
    assert_synced(&store, "manifest write");
    let mut referrer = manifest("{\"n\":1}");
    let size = referrer.bytes.len() as u64;
    let descriptor = Descriptor::new(referrer.media_type.clone(), referrer.digest.clone(), size);
    referrer.subject = Some((subject.clone(), descriptor));
    referrer.blobs = vec![blob.clone()];
    let referring = referrer.digest.clone();
    let written = store.manifest_write(&a, referrer, &[], None).await;
    written.unwrap();
    assert_synced(&store, "referrer write");
    store.tag_write(&a, &tag, &referring).await.unwrap();
    assert_synced(&store, "tag write");
    store.tag_delete(&a, &tag, None).await.unwrap();
    assert_synced(&store, "tag delete");
    for digest in [referring, subject] {
        store.manifest_delete(&a, &digest).await.unwrap();
        assert_synced(&store, "manifest delete");
    }
    store.blob_delete(&a, &blob).await.unwrap();
    assert_synced(&store, "last delete");
}

#[tokio::test]
async fn an_operation_syncs_what_it_relies_on_and_another_has_not_synced() {
    let (store, directory) = new();
    let blob = push(&store, "a", b"x").await;
    // As if the push were still to sync the content, and the directories above it.
    let shard = directory.path().join("blobs/sha256").join(&blob.hex()[..2]);
    for changed in [&shard, shard.parent().unwrap()] {
        store.data.directories.change(changed, || Ok(())).unwrap();
    }
    store.blob_mount(&name("b"), None, &blob).await.unwrap();
    assert_synced(&store, "mount");

    let links = directory.path().join("repositories/b/_blobs");
    store.data.directories.change(&links, || Ok(())).unwrap();
    let mut new = manifest("{}");
    new.blobs = vec![blob];
    let written = store.manifest_write(&name("b"), new, &[], None).await;
    written.unwrap();
    assert_synced(&store, "manifest write");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn simultaneous_operations_leave_no_directory_unsynced() {
    let (store, _directory) = new();
    let blob = push(&store, "keep", b"x").await;
    let tasks: Vec<_> = (0..4)
        .map(|n| {
            let (store, blob) = (store.clone(), blob.clone());
            tokio::spawn(async move {
                let name = name(&format!("a/b/{}", n % 2));
                for _ in 0..20 {
                    store.blob_mount(&name, None, &blob).await.unwrap();
                    // Of two tasks with one repository, one finds that the other was faster.
                    match store.blob_delete(&name, &blob).await {
                        Ok(()) | Err(StoreError::BlobUnknown) => {}
                        Err(error) => panic!("{error:?}"),
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_synced(&store, "all");
}

#[tokio::test]
async fn a_write_that_is_attempted_again_ignores_its_own_change() {
    let (store, _directory) = new();
    let (a, tag) = (name("a"), Tag::parse("1").unwrap());
    let new = manifest("{}");
    let absent = Condition {
        reference: tag.clone().into(),
        matches: None,
        differs: Some(Versions::Any),
    };
    let mut progress = WriteProgress::default();
    for _ in 0..2 {
        let tags = std::slice::from_ref(&tag);
        let written = manifests::write(&store.data, &a, &new, tags, Some(&absent), &mut progress);
        let changes = written.unwrap().sync(&store.data).unwrap();
        assert_eq!((changes.created, changes.moved), (1, 0));
    }
    let again = store.manifest_write(&a, new, &[tag], Some(&absent)).await;
    let error = again.unwrap_err();
    assert!(
        matches!(error, StoreError::ConditionFailed { .. }),
        "{error:?}"
    );
}
