//! The data directory is moved away, replaced or emptied while the store is open.

use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::store::{Lost, NewManifest, ReferrersQuery, Result, UploadId};

/// A directory that holds a store, and can be moved.
struct MovableDirectory {
    parent: TempDir,
}

impl MovableDirectory {
    fn data(&self) -> std::path::PathBuf {
        self.parent.path().join("data")
    }

    fn aside(&self) -> std::path::PathBuf {
        self.parent.path().join("aside")
    }

    fn open() -> (FsStore, Self) {
        let parent = tempfile::tempdir().unwrap();
        let place = Self { parent };
        (open(&place.data()), place)
    }
}

fn is_lost<T: std::fmt::Debug>(result: Result<T>, lost: Lost) {
    match result.unwrap_err() {
        StoreError::Lost { source, .. } => assert_eq!(source, lost),
        error => panic!("{error:?}"),
    }
}

/// What the store holds before it is lost.
struct Content {
    blob: Digest,
    manifest: Digest,
    upload: UploadId,
}

async fn fill(store: &FsStore) -> Content {
    let blob = push(store, "a", b"x").await;
    let manifest = put(store, "a", "{}", &["1"]).await;
    let upload = store
        .upload_create(&name("a"), Algorithm::Sha256)
        .await
        .unwrap();
    Content {
        blob,
        manifest,
        upload: upload.id,
    }
}

fn image() -> NewManifest {
    manifest("[]")
}

/// Runs every operation, and expects each to fail.
async fn every_operation_fails(store: &FsStore, content: &Content, lost: Lost) {
    let (a, b) = (name("a"), name("b"));
    let tag = Tag::parse("1").unwrap();
    let Content {
        blob,
        manifest,
        upload,
    } = content;
    is_lost(store.blob_stat(&a, blob).await, lost);
    is_lost(store.blob_read(&a, blob, None).await.map(drop), lost);
    is_lost(store.blob_delete(&a, blob).await, lost);
    is_lost(store.blob_mount(&b, Some(&a), blob).await, lost);
    is_lost(store.upload_create(&a, Algorithm::Sha256).await, lost);
    is_lost(store.upload_stat(&a, upload).await, lost);
    is_lost(store.upload_append(&a, upload, 0, bytes("y")).await, lost);
    is_lost(store.upload_commit(&a, upload, blob).await, lost);
    is_lost(store.upload_cancel(&a, upload).await, lost);
    for reference in [Reference::from(tag.clone()), manifest.clone().into()] {
        is_lost(store.manifest_read(&a, &reference).await, lost);
    }
    is_lost(
        store
            .manifest_write(&a, image(), std::slice::from_ref(&tag), None)
            .await,
        lost,
    );
    is_lost(store.manifest_delete(&a, manifest).await, lost);
    is_lost(store.tag_read(&a, &tag).await, lost);
    is_lost(store.tag_write(&a, &tag, manifest).await, lost);
    is_lost(store.tag_delete(&a, &tag, None).await, lost);
    is_lost(store.tag_list(&a, None, 10).await, lost);
    is_lost(store.repository_list(None, 10).await, lost);
    let query = ReferrersQuery::default();
    is_lost(store.referrers_list(&a, manifest, &query).await, lost);
    is_lost(store.available(), lost);
}

/// The first operation after the move notices it, whichever operation it is.
async fn the_first_operation_notices(store: &FsStore, content: &Content, place: &MovableDirectory) {
    let a = name("a");
    let (tag, unknown) = (
        Tag::parse("1").unwrap(),
        Digest::of(Algorithm::Sha256, b"?"),
    );
    let back = || {
        fs::rename(place.aside(), place.data()).unwrap();
        store.data.root.check().unwrap();
    };
    for operation in 0..8 {
        fs::rename(place.data(), place.aside()).unwrap();
        let lost = match operation {
            0 => store.blob_stat(&a, &content.blob).await.map(drop),
            1 => store.blob_mount(&name("b"), None, &content.blob).await,
            2 => store.upload_create(&a, Algorithm::Sha256).await.map(drop),
            3 => store
                .upload_append(&a, &content.upload, 0, bytes("y"))
                .await
                .map(drop),
            4 => store
                .manifest_read(&a, &unknown.clone().into())
                .await
                .map(drop),
            5 => store.tag_write(&a, &tag, &content.manifest).await.map(drop),
            6 => store.repository_list(None, 10).await.map(drop),
            _ => {
                let query = ReferrersQuery::default();
                store.referrers_list(&a, &unknown, &query).await.map(drop)
            }
        };
        assert!(!place.data().exists(), "{operation} made it again");
        is_lost(lost, Lost::Gone);
        back();
    }
}

#[tokio::test]
async fn every_operation_fails_while_the_directory_is_gone() {
    let (store, place) = MovableDirectory::open();
    let content = fill(&store).await;
    the_first_operation_notices(&store, &content, &place).await;
    // Not even a cached value is served.
    store
        .tag_read(&name("a"), &Tag::parse("1").unwrap())
        .await
        .unwrap();
    fs::rename(place.data(), place.aside()).unwrap();
    store.data.root.check().unwrap_err();
    every_operation_fails(&store, &content, Lost::Gone).await;
    assert!(!place.data().exists());
    fs::rename(place.aside(), place.data()).unwrap();
    store.data.root.check().unwrap();
    assert_eq!(store.blob_stat(&name("a"), &content.blob).await.unwrap(), 1);
    store
        .upload_append(&name("a"), &content.upload, 0, bytes("y"))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_directory_in_its_place_is_neither_served_nor_written_to() {
    let (store, place) = MovableDirectory::open();
    let content = fill(&store).await;
    fs::rename(place.data(), place.aside()).unwrap();
    // An empty mount point, then the directory of another registry.
    fs::create_dir(place.data()).unwrap();
    store.data.root.check().unwrap_err();
    every_operation_fails(&store, &content, Lost::Another).await;
    assert_eq!(tree(&place.data()), BTreeSet::new());
    let other = open(&place.data());
    let before = tree(&place.data());
    every_operation_fails(&store, &content, Lost::Another).await;
    drop(other);
    store.data.root.check().unwrap_err();
    every_operation_fails(&store, &content, Lost::Another).await;
    assert_eq!(tree(&place.data()), before);
}

#[tokio::test]
async fn every_operation_fails_while_a_part_of_the_directory_is_gone() {
    for part in [
        "lock",
        "blobs",
        "manifests",
        "repositories",
        "uploads",
        "tmp",
        "maintenance",
        "quarantine",
    ] {
        let (store, place) = MovableDirectory::open();
        let content = fill(&store).await;
        let aside = place.aside();
        fs::rename(place.data().join(part), &aside).unwrap();
        store.data.root.check().unwrap_err();
        every_operation_fails(&store, &content, Lost::Another).await;
        fs::rename(&aside, place.data().join(part)).unwrap();
        store.data.root.check().unwrap();
        store.blob_stat(&name("a"), &content.blob).await.unwrap();
    }
}

#[tokio::test]
async fn a_directory_that_was_moved_stays_locked() {
    let (store, place) = MovableDirectory::open();
    fs::rename(place.data(), place.aside()).unwrap();
    let second = FsStore::open(&place.aside(), Durability::Full, Arc::new(()));
    assert!(matches!(second, Err(OpenError::InUse { .. })), "{second:?}");
    drop(store);
    open(&place.aside());
}

#[tokio::test]
async fn a_watcher_is_notified_when_the_directory_is_gone_and_when_it_is_back() {
    let (store, place) = MovableDirectory::open();
    let mut presence = store.presence();
    let watch = tokio::spawn(store.clone().watch());
    assert_eq!(presence.lost(), None);
    fs::rename(place.data(), place.aside()).unwrap();
    assert!(presence.changed().await);
    assert_eq!(presence.lost(), Some(Lost::Gone));
    fs::rename(place.aside(), place.data()).unwrap();
    presence.wait().await;
    assert_eq!(presence.lost(), None);
    watch.abort();
}

#[test]
fn only_its_owner_may_open_the_lock_file() {
    let directory = tempfile::tempdir().unwrap();
    let lock = directory.path().join("lock");
    let mode = || fs::metadata(&lock).unwrap().permissions().mode() & 0o777;
    drop(open(directory.path()));
    assert_eq!(mode(), 0o600);
    fs::set_permissions(&lock, fs::Permissions::from_mode(0o666)).unwrap();
    drop(open(directory.path()));
    assert_eq!(mode(), 0o600);
}
