//! Content that is shorter on disk than it was pushed, or longer.

use std::path::PathBuf;

use super::*;
use crate::store::Result;

const LONG: usize = 600_000;

fn content(folder: &TempDir, pool: &str, digest: &Digest) -> PathBuf {
    let shard = folder
        .path()
        .join(pool)
        .join("sha256")
        .join(&digest.hex()[..2]);
    shard.join(digest.hex())
}

fn link(folder: &TempDir, repository: &str, digest: &Digest) -> PathBuf {
    let links = folder.path().join("repositories").join(repository);
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
async fn a_blob_that_has_another_length_than_it_was_pushed_with_is_refused() {
    for length in [0, 1, LONG as u64 - 1, LONG as u64 + 1] {
        let (store, folder) = new();
        let digest = push(&store, "a", &vec![7; LONG]).await;
        set_length(&content(&folder, "blobs", &digest), length);
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
        // What is of no use can still be deleted.
        store.blob_delete(&name("a"), &digest).await.unwrap();
    }
}

#[tokio::test]
async fn a_push_replaces_content_that_is_damaged() {
    let (store, folder) = new();
    let long = vec![7; LONG];
    let digest = push(&store, "a", &long).await;
    let path = content(&folder, "blobs", &digest);
    set_length(&path, 10);
    // The other repository knows no better, and the first one does again.
    push(&store, "b", &long).await;
    for repository in ["a", "b"] {
        assert_eq!(read(&store, repository, &digest).await.unwrap(), long);
    }
    assert!(
        fs::read_dir(folder.path().join("tmp"))
            .unwrap()
            .next()
            .is_none()
    );
    set_length(&path, LONG as u64 + 10);
    push(&store, "a", &long).await;
    assert_eq!(read(&store, "a", &digest).await.unwrap(), long);
}

#[tokio::test]
async fn an_empty_link_of_a_former_version_says_nothing_until_it_is_filled_in() {
    let (store, folder) = new();
    let digest = push(&store, "a", b"content").await;
    for text in ["", "7", "seven\n", "\0\0"] {
        fs::write(link(&folder, "a", &digest), text).unwrap();
        assert_eq!(store.blob_stat(&name("a"), &digest).await.unwrap(), 7);
        assert_eq!(read(&store, "a", &digest).await.unwrap(), b"content");
        store
            .blob_mount(&name("b"), Some(&name("a")), &digest)
            .await
            .unwrap();
        store.blob_delete(&name("b"), &digest).await.unwrap();
        store.blob_mount(&name("a"), None, &digest).await.unwrap();
        let filled = fs::read_to_string(link(&folder, "a", &digest)).unwrap();
        assert_eq!(filled, "7\n", "{text:?}");
    }
    fs::write(link(&folder, "a", &digest), "").unwrap();
    push(&store, "a", b"content").await;
    let filled = fs::read_to_string(link(&folder, "a", &digest)).unwrap();
    assert_eq!(filled, "7\n");
    // Who mounts what is damaged is told so, from wherever it comes.
    set_length(&content(&folder, "blobs", &digest), 3);
    is_corrupt(store.blob_mount(&name("a"), None, &digest).await);
}

#[tokio::test]
async fn a_manifest_that_has_another_length_is_refused_until_it_is_pushed_again() {
    let (store, folder) = new();
    let text = "{\"n\":1}";
    let digest = put(&store, "a", text, &["1"]).await;
    for length in [0, 3, 100] {
        set_length(&content(&folder, "manifests", &digest), length);
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
async fn an_upload_that_lost_bytes_does_not_become_a_blob() {
    let (store, folder) = new();
    let id = store
        .upload_create(&name("a"), Algorithm::Sha256)
        .await
        .unwrap()
        .id;
    let appended = store
        .upload_append(&name("a"), &id, 0, bytes("content"))
        .await;
    appended.unwrap();
    let data = folder.path().join("uploads").join(id.as_str()).join("data");
    set_length(&data, 3);
    is_corrupt(store.upload_append(&name("a"), &id, 7, bytes("more")).await);
    let digest = Digest::of(Algorithm::Sha256, b"content");
    is_corrupt(store.upload_commit(&name("a"), &id, &digest).await);
    assert!(store.blob_stat(&name("a"), &digest).await.is_err());
}
