//! Content that is shorter on disk than it was pushed, or longer, and small files that say nothing.

use std::path::PathBuf;

use super::*;
use crate::store::Result;

const LONG: usize = 600_000;

fn content(directory: &TempDir, pool: &str, digest: &Digest) -> PathBuf {
    let shard = directory
        .path()
        .join(pool)
        .join("sha256")
        .join(&digest.hex()[..2]);
    shard.join(digest.hex())
}

fn link(directory: &TempDir, repository: &str, digest: &Digest) -> PathBuf {
    let links = directory.path().join("repositories").join(repository);
    links
        .join("_blobs")
        .join(format!("sha256-{}", digest.hex()))
}

fn set_length(file: &Path, length: u64) {
    let file = fs::OpenOptions::new().write(true).open(file).unwrap();
    file.set_len(length).unwrap();
}

fn is_corrupt<T: std::fmt::Debug>(result: Result<T>) {
    match result.unwrap_err() {
        StoreError::Corrupt { .. } => {}
        error => panic!("{error:?}"),
    }
}

async fn read(store: &FsStore, repository: &str, digest: &Digest) -> Result<Vec<u8>> {
    let read = store.blob_read(&name(repository), digest, None).await?;
    let chunks: Vec<Bytes> = read.reader.try_collect().await?;
    Ok(chunks.concat())
}

#[tokio::test]
async fn a_blob_whose_length_is_not_the_pushed_one_is_refused() {
    for length in [0, 1, LONG as u64 - 1, LONG as u64 + 1] {
        let (store, directory) = new();
        let digest = push(&store, "a", &vec![7; LONG]).await;
        set_length(&content(&directory, "blobs", &digest), length);
        is_corrupt(store.blob_stat(&name("a"), &digest).await);
        is_corrupt(read(&store, "a", &digest).await);
        is_corrupt(
            store
                .blob_mount(&name("b"), Some(&name("a")), &digest)
                .await,
        );
        let mut new = manifest("{}");
        new.blobs = vec![digest.clone()];
        is_corrupt(store.manifest_write(&name("a"), new, &[], None).await);
        // A damaged blob can still be deleted.
        store.blob_delete(&name("a"), &digest).await.unwrap();
    }
}

#[tokio::test]
async fn a_push_replaces_damaged_content() {
    let (store, directory) = new();
    let long = vec![7; LONG];
    let digest = push(&store, "a", &long).await;
    let path = content(&directory, "blobs", &digest);
    set_length(&path, 10);
    // The content is good again for both repositories.
    push(&store, "b", &long).await;
    for repository in ["a", "b"] {
        assert_eq!(read(&store, repository, &digest).await.unwrap(), long);
    }
    assert!(
        fs::read_dir(directory.path().join("tmp"))
            .unwrap()
            .next()
            .is_none()
    );
    set_length(&path, LONG as u64 + 10);
    push(&store, "a", &long).await;
    assert_eq!(read(&store, "a", &digest).await.unwrap(), long);
}

#[tokio::test]
async fn an_empty_link_of_an_older_version_says_nothing_until_it_is_filled_in() {
    let (store, directory) = new();
    let digest = push(&store, "a", b"content").await;
    for text in ["", "7", "seven\n", "\0\0"] {
        fs::write(link(&directory, "a", &digest), text).unwrap();
        assert_eq!(store.blob_stat(&name("a"), &digest).await.unwrap(), 7);
        assert_eq!(read(&store, "a", &digest).await.unwrap(), b"content");
        store
            .blob_mount(&name("b"), Some(&name("a")), &digest)
            .await
            .unwrap();
        store.blob_delete(&name("b"), &digest).await.unwrap();
        store.blob_mount(&name("a"), None, &digest).await.unwrap();
        let filled = fs::read_to_string(link(&directory, "a", &digest)).unwrap();
        assert_eq!(filled, "7\n", "{text:?}");
    }
    fs::write(link(&directory, "a", &digest), "").unwrap();
    push(&store, "a", b"content").await;
    let filled = fs::read_to_string(link(&directory, "a", &digest)).unwrap();
    assert_eq!(filled, "7\n");
    // A mount of damaged content fails, whichever repository it comes from.
    set_length(&content(&directory, "blobs", &digest), 3);
    is_corrupt(store.blob_mount(&name("a"), None, &digest).await);
}

#[tokio::test]
async fn a_manifest_whose_length_is_wrong_is_refused_until_it_is_pushed_again() {
    let (store, directory) = new();
    let text = "{\"n\":1}";
    let digest = put(&store, "a", text, &["1"]).await;
    for length in [0, 3, 100] {
        set_length(&content(&directory, "manifests", &digest), length);
        let reference = Reference::from(digest.clone());
        is_corrupt(store.manifest_read(&name("a"), &reference).await);
        put(&store, "a", text, &[]).await;
        let read = store.manifest_read(&name("a"), &reference).await.unwrap();
        assert_eq!(read.bytes(), text.as_bytes());
        // So that the next round is not served from memory.
        store.manifest_delete(&name("a"), &digest).await.unwrap();
        put(&store, "a", text, &["1"]).await;
    }
}

#[tokio::test]
async fn a_manifest_whose_entry_is_damaged_can_be_deleted_or_pushed_again() {
    let (store, directory) = new();
    let digest = put(&store, "a", "{}", &["1"]).await;
    let entries = directory.path().join("repositories/a/_manifests");
    let entry = entries.join(format!("sha256-{}", digest.hex()));
    let tag = Reference::from(Tag::parse("1").unwrap());
    for text in ["", "{}", "\0\0\0"] {
        fs::write(&entry, text).unwrap();
        let by_digest = Reference::from(digest.clone());
        is_corrupt(store.manifest_read(&name("a"), &by_digest).await);
        put(&store, "a", "{}", &["1"]).await;
        store.manifest_read(&name("a"), &tag).await.unwrap();

        fs::write(&entry, text).unwrap();
        let deleted = store.manifest_delete(&name("a"), &digest).await.unwrap();
        assert_eq!(deleted.deleted, 1);
        let found = store.manifest_read(&name("a"), &tag).await;
        assert!(
            matches!(found, Err(StoreError::ManifestUnknown)),
            "{found:?}"
        );
        put(&store, "a", "{}", &["1"]).await;
    }
}

#[tokio::test]
async fn an_upload_that_lost_bytes_does_not_become_a_blob() {
    let (store, directory) = new();
    let id = store
        .upload_create(&name("a"), Algorithm::Sha256)
        .await
        .unwrap()
        .id;
    let appended = store
        .upload_append(&name("a"), &id, 0, bytes("content"))
        .await;
    appended.unwrap();
    let data = directory
        .path()
        .join("uploads")
        .join(id.as_str())
        .join("data");
    set_length(&data, 3);
    is_corrupt(store.upload_append(&name("a"), &id, 7, bytes("more")).await);
    let digest = Digest::of(Algorithm::Sha256, b"content");
    is_corrupt(store.upload_commit(&name("a"), &id, &digest).await);
    assert!(store.blob_stat(&name("a"), &digest).await.is_err());
}
