mod crash;
mod damage;
mod deletion;
mod durability;
mod lost;
mod odd;
mod referrers;
mod refused;
pub(crate) mod refuser;
mod steps;
mod together;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, TryStreamExt};
use tempfile::TempDir;

use super::{Durability, FsStore, OpenError, StoreOptions, UploadQuota};
use crate::oci::{Algorithm, Digest, Name, Reference, Tag};
use crate::store::suite::{manifest, push, put, suite};
use crate::store::{Store, StoreError};

fn open(directory: &Path) -> FsStore {
    FsStore::open(directory, Durability::Full, Arc::new(())).unwrap()
}

/// An empty directory in memory, where there is one.
pub(crate) fn scratch() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        tempfile::tempdir_in(memory).unwrap()
    } else {
        tempfile::tempdir().unwrap()
    }
}

fn new() -> (FsStore, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    (open(directory.path()), directory)
}

fn relaxed() -> (FsStore, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let store = FsStore::open(directory.path(), Durability::Relaxed, Arc::new(())).unwrap();
    (store, directory)
}

suite!(durable, super::new());
suite!(relaxed, super::relaxed());
suite!(bounded, bounded super::bounded());

fn bounded() -> (FsStore, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let options = StoreOptions {
        durability: Durability::Relaxed,
        quota: UploadQuota {
            max_sessions: 3,
            ..UploadQuota::UNLIMITED
        },
        grace: StoreOptions::GRACE,
    };
    let store = FsStore::open(directory.path(), options, Arc::new(())).unwrap();
    (store, directory)
}

/// Every file below a directory, by its path from there.
fn tree(root: &Path) -> BTreeSet<String> {
    fn visit(root: &Path, directory: &Path, found: &mut BTreeSet<String>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                visit(root, &path, found);
            } else {
                found.insert(
                    path.strip_prefix(root)
                        .unwrap()
                        .to_str()
                        .unwrap()
                        .to_owned(),
                );
            }
        }
    }
    let mut found = BTreeSet::new();
    visit(root, root, &mut found);
    found
}

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn bytes(text: &'static str) -> stream::Iter<std::vec::IntoIter<crate::store::Result<Bytes>>> {
    stream::iter(vec![Ok(Bytes::from_static(text.as_bytes()))])
}

#[tokio::test]
async fn the_tree_matches_its_drawing_and_holds_nothing_else() {
    let (store, directory) = new();
    let blob = push(&store, "team/app/web", b"x").await;
    store.blob_mount(&name("other"), None, &blob).await.unwrap();
    let subject = put(&store, "team/app/web", "{}", &["1"]).await;
    let tag =
        fs::read_to_string(directory.path().join("repositories/team/app/web/_tags/1")).unwrap();
    assert_eq!(tag, format!("{subject}\n"));
    let entry = directory
        .path()
        .join("repositories/team/app/web/_manifests");
    let entry = fs::read_to_string(entry.join(subject.as_str().replace(':', "-"))).unwrap();
    insta::assert_snapshot!(
        entry,
        @r#"{"mediaType":"application/vnd.oci.image.manifest.v1+json","kind":"image","size":2}"#
    );
    let (b, s) = (blob.hex(), subject.hex());
    let expected = [
        "lock".to_owned(),
        format!("blobs/sha256/{}/{b}", &b[..2]),
        format!("manifests/sha256/{}/{s}", &s[..2]),
        format!("repositories/other/_blobs/sha256-{b}"),
        format!("repositories/team/app/web/_blobs/sha256-{b}"),
        format!("repositories/team/app/web/_manifests/sha256-{s}"),
        "repositories/team/app/web/_tags/1".to_owned(),
    ];
    assert_eq!(tree(directory.path()), expected.into());
    for repository in ["other", "team/app/web"] {
        let link = format!("repositories/{repository}/_blobs/sha256-{b}");
        let link = fs::read_to_string(directory.path().join(link)).unwrap();
        assert_eq!(link, "1\n", "{repository}");
    }
}

#[tokio::test]
async fn a_refused_operation_leaves_the_tree_as_it_was() {
    let (store, directory) = new();
    push(&store, "a", b"x").await;
    let before = tree(directory.path());
    let unknown = Digest::of(Algorithm::Sha256, b"unknown");
    let mut new = manifest("{}");
    new.blobs = vec![unknown.clone()];
    let tag = Tag::parse("1").unwrap();
    store
        .manifest_write(&name("b"), new, std::slice::from_ref(&tag), None)
        .await
        .unwrap_err();
    store
        .blob_mount(&name("b"), None, &unknown)
        .await
        .unwrap_err();
    store
        .tag_write(&name("b"), &tag, &unknown)
        .await
        .unwrap_err();
    let upload = store
        .upload_create(&name("b"), Algorithm::Sha256)
        .await
        .unwrap();
    store
        .upload_append(&name("b"), &upload.id, 0, bytes("y"))
        .await
        .unwrap();
    store
        .upload_commit(&name("b"), &upload.id, &unknown)
        .await
        .unwrap_err();
    assert_eq!(tree(directory.path()), before);
    assert!(!directory.path().join("repositories/b").exists());
}

#[tokio::test]
async fn directories_are_removed_with_their_last_entry() {
    let (store, directory) = new();
    let blob = push(&store, "a/b/c", b"x").await;
    let subject = put(&store, "a/b/c", "{}", &["1"]).await;
    let mut referrer = manifest("{\"n\":1}");
    let size = referrer.bytes.len() as u64;
    let media_type = referrer.media_type.clone();
    let descriptor = crate::oci::Descriptor::new(media_type, referrer.digest.clone(), size);
    referrer.subject = Some((subject.clone(), descriptor));
    let referring = referrer.digest.clone();
    store
        .manifest_write(&name("a/b/c"), referrer, &[], None)
        .await
        .unwrap();
    store
        .manifest_delete(&name("a/b/c"), &referring)
        .await
        .unwrap();
    store
        .manifest_delete(&name("a/b/c"), &subject)
        .await
        .unwrap();
    store.blob_delete(&name("a/b/c"), &blob).await.unwrap();
    assert_eq!(
        fs::read_dir(directory.path().join("repositories"))
            .unwrap()
            .count(),
        0
    );
}

#[tokio::test]
async fn an_upload_is_resumed_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let name = name("a");
    for algorithm in Algorithm::ALL {
        let store = open(directory.path());
        let upload = store.upload_create(&name, algorithm).await.unwrap();
        store
            .upload_append(&name, &upload.id, 0, bytes("abc"))
            .await
            .unwrap();
        drop(store);
        let store = open(directory.path());
        assert_eq!(
            store.upload_stat(&name, &upload.id).await.unwrap().offset,
            3
        );
        assert_eq!(
            (
                store.uploads().totals().sessions,
                store.uploads().totals().bytes
            ),
            (1, 3)
        );
        store
            .upload_append(&name, &upload.id, 3, bytes("def"))
            .await
            .unwrap();
        drop(store);
        let store = open(directory.path());
        let digest = Digest::of(algorithm, b"abcdef");
        store
            .upload_commit(&name, &upload.id, &digest)
            .await
            .unwrap();
        assert_eq!(store.blob_stat(&name, &digest).await.unwrap(), 6);
        assert_eq!(store.uploads().totals().sessions, 0);
    }
}

#[tokio::test]
async fn a_commit_that_was_killed_half_way_is_repeated() {
    let directory = tempfile::tempdir().unwrap();
    let (name, digest) = (name("a"), Digest::of(Algorithm::Sha256, b"abc"));
    let store = open(directory.path());
    let upload = store.upload_create(&name, Algorithm::Sha256).await.unwrap();
    store
        .upload_append(&name, &upload.id, 0, bytes("abc"))
        .await
        .unwrap();
    drop(store);
    // The content has its name already, the repository's link and the session's end are missing.
    let shard = directory
        .path()
        .join("blobs/sha256")
        .join(&digest.hex()[..2]);
    fs::create_dir_all(&shard).unwrap();
    let data = directory
        .path()
        .join("uploads")
        .join(upload.id.as_str())
        .join("data");
    fs::hard_link(data, shard.join(digest.hex())).unwrap();
    let store = open(directory.path());
    assert!(matches!(
        store.blob_stat(&name, &digest).await,
        Err(StoreError::BlobUnknown)
    ));
    store
        .upload_commit(&name, &upload.id, &digest)
        .await
        .unwrap();
    assert_eq!(store.blob_stat(&name, &digest).await.unwrap(), 3);
}

#[tokio::test]
async fn two_stores_cannot_share_a_directory() {
    let (store, directory) = new();
    let second = FsStore::open(directory.path(), Durability::Full, Arc::new(()));
    assert!(matches!(second, Err(OpenError::InUse { .. })), "{second:?}");
    drop(store);
    open(directory.path());
}

#[test]
fn another_layout_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("lock"), "octoserve 2\n").unwrap();
    let opened = FsStore::open(directory.path(), Durability::Full, Arc::new(()));
    let error = opened.unwrap_err();
    assert!(matches!(error, OpenError::Layout { .. }), "{error:?}");
}

#[test]
fn a_directory_that_cannot_be_made_is_a_clear_error() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let opened = FsStore::open(&file.path().join("data"), Durability::Full, Arc::new(()));
    let error = opened.unwrap_err();
    assert!(matches!(error, OpenError::Io { .. }), "{error:?}");
    assert!(error.to_string().contains("data"), "{error}");
}

#[test]
fn the_leftovers_of_an_interrupted_run_are_removed_at_the_start() {
    let (store, directory) = new();
    drop(store);
    let at = |path: &str| directory.path().join(path);
    fs::write(at("tmp/0123"), "half").unwrap();
    for (id, session) in [
        ("0", ""),
        ("1", "a\n"),
        ("2", "A\nsha256\n"),
        ("3", "a\nmd5\n"),
    ] {
        let upload = at("uploads").join(id.repeat(32));
        fs::create_dir(&upload).unwrap();
        fs::write(upload.join("session"), session).unwrap();
        fs::write(upload.join("data"), "x").unwrap();
    }
    fs::create_dir(at("uploads").join("4".repeat(32))).unwrap();
    let store = open(directory.path());
    assert_eq!(store.uploads().totals().sessions, 0);
    assert_eq!(tree(directory.path()), ["lock".to_owned()].into());
}

#[tokio::test]
async fn a_damaged_tag_is_an_error_until_it_is_written_again() {
    let (store, directory) = new();
    let digest = put(&store, "a", "{}", &["1"]).await;
    fs::write(directory.path().join("repositories/a/_tags/1"), "sha256:").unwrap();
    let tag = Tag::parse("1").unwrap();
    let error = store.tag_read(&name("a"), &tag).await.unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error:?}");
    let changes = store.tag_write(&name("a"), &tag, &digest).await.unwrap();
    assert_eq!(changes.moved, 1);
    assert!(
        store
            .manifest_read(&name("a"), &Reference::Tag(tag))
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn reading_a_blob_that_was_cut_on_disk_fails_instead_of_ending_early() {
    let (store, directory) = new();
    let long = vec![7; 600_000];
    let digest = push(&store, "a", &long).await;
    let read = store.blob_read(&name("a"), &digest, None).await.unwrap();
    let content = directory
        .path()
        .join("blobs/sha256")
        .join(&digest.hex()[..2])
        .join(digest.hex());
    fs::OpenOptions::new()
        .write(true)
        .open(content)
        .unwrap()
        .set_len(300_000)
        .unwrap();
    let error = read.reader.try_collect::<Vec<_>>().await.unwrap_err();
    assert!(matches!(error, StoreError::Io { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tag_is_readable_while_it_moves_and_its_old_manifest_is_deleted() {
    let (store, _directory) = relaxed();
    let tag = Tag::parse("latest").unwrap();
    put(&store, "a", "{\"n\":0}", &["latest"]).await;
    let mover = tokio::spawn({
        let store = store.clone();
        async move {
            let mut last = manifest("{\"n\":0}").digest;
            for n in 1..200 {
                let next = put(&store, "a", &format!("{{\"n\":{n}}}"), &["latest"]).await;
                store.manifest_delete(&name("a"), &last).await.unwrap();
                last = next;
            }
        }
    });
    while !mover.is_finished() {
        let reference = Reference::Tag(tag.clone());
        store.manifest_read(&name("a"), &reference).await.unwrap();
    }
    mover.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neighbouring_repositories_are_created_and_removed_at_the_same_time() {
    let (store, directory) = relaxed();
    let digest = push(&store, "keep", b"x").await;
    let tasks: Vec<_> = (0..4)
        .map(|n| {
            let (store, digest) = (store.clone(), digest.clone());
            tokio::spawn(async move {
                // They share the directories above them, which are removed and made again.
                let name = name(&format!("a/b/{n}"));
                for _ in 0..100 {
                    store.blob_mount(&name, None, &digest).await.unwrap();
                    store.blob_delete(&name, &digest).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert!(!directory.path().join("repositories/a").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_cache_is_never_older_than_what_was_acknowledged() {
    let (store, _directory) = relaxed();
    let (repository, tag) = (name("a"), Tag::parse("1").unwrap());
    let reference = Reference::from(tag.clone());
    let digests = [
        put(&store, "a", "{}", &["1"]).await,
        put(&store, "a", "[]", &[]).await,
    ];
    // They keep the cache filled at any moment.
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let (store, repository) = (store.clone(), repository.clone());
            let reference = reference.clone();
            tokio::spawn(async move {
                loop {
                    let _ = store.manifest_read(&repository, &reference).await;
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    for round in 0..300 {
        let digest = &digests[(round + 1) % 2];
        store.tag_write(&repository, &tag, digest).await.unwrap();
        let found = store.manifest_read(&repository, &reference).await.unwrap();
        assert_eq!((&found.digest, round), (digest, round));
        assert_eq!(store.tag_read(&repository, &tag).await.unwrap(), *digest);
    }
    let mut again = manifest("[]");
    again.media_type = crate::oci::MediaType::parse("application/other").unwrap();
    store
        .manifest_write(&repository, again, std::slice::from_ref(&tag), None)
        .await
        .unwrap();
    let found = store.manifest_read(&repository, &reference).await.unwrap();
    assert_eq!(found.media_type.as_str(), "application/other");
    store
        .manifest_delete(&repository, &digests[1])
        .await
        .unwrap();
    for gone in [reference, digests[1].clone().into()] {
        let error = store.manifest_read(&repository, &gone).await.unwrap_err();
        assert!(matches!(error, StoreError::ManifestUnknown), "{gone}");
    }
    for reader in readers {
        reader.abort();
    }
}

#[tokio::test]
async fn a_listing_in_progress_shows_created_and_deleted_tags() {
    let (store, directory) = relaxed();
    let digest = put(&store, "a", "{}", &["a", "b", "c", "d", "e"]).await;
    let page = async |last: &str| {
        let listing = store.tag_list(&name("a"), Some(last), 2).await.unwrap();
        let tags: Vec<_> = listing.items.iter().map(ToString::to_string).collect();
        (tags.join(" "), listing.more)
    };
    assert_eq!(page("0").await, ("a b".to_owned(), true));
    // Now from the cache: a file that the store did not make is not listed yet.
    fs::write(directory.path().join("repositories/a/_tags/bb"), "").unwrap();
    assert_eq!(page("b").await, ("c d".to_owned(), true));
    let (new, gone) = (Tag::parse("ba").unwrap(), Tag::parse("d").unwrap());
    store.tag_write(&name("a"), &new, &digest).await.unwrap();
    assert_eq!(page("b").await, ("ba bb".to_owned(), true));
    store.tag_delete(&name("a"), &gone, None).await.unwrap();
    assert_eq!(page("bb").await, ("c e".to_owned(), false));
}
