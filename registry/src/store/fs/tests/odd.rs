//! Pipes, sockets and links in the place of files and directories, and beside them.

use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use tokio::time::timeout;

use super::*;
use crate::store::Result;

/// Puts something odd at a path, in the place of what is there.
type Plant = fn(&Path);

const PLANTS: [(&str, Plant); 5] = [
    ("pipe", |path| {
        let mode = Mode::from_raw_mode(0o600);
        mknodat(CWD, path, FileType::Fifo, mode, 0).unwrap();
    }),
    ("socket", |path| drop(UnixListener::bind(path).unwrap())),
    // To a file of the right length.
    ("link", |path| symlink(secret(path), path).unwrap()),
    // The link itself is of the right length.
    ("short link", |path| symlink("y", path).unwrap()),
    ("loop", |path| symlink(path, path).unwrap()),
];

/// A file outside of the store, next to its root.
fn secret(path: &Path) -> PathBuf {
    let root = path.ancestors().find(|path| path.ends_with("data"));
    root.unwrap().with_file_name("secret")
}

struct Fixture {
    directory: TempDir,
    blob: Digest,
    manifest: Digest,
}

impl Fixture {
    /// A store with one of each.
    async fn new() -> (FsStore, Self) {
        // A short path, as sockets have to have.
        let directory = scratch();
        fs::write(directory.path().join("secret"), "y").unwrap();
        let store = open(&directory.path().join("data"));
        let blob = push(&store, "a", b"x").await;
        let manifest = put(&store, "a", "{}", &["1"]).await;
        let fixture = Self {
            directory,
            blob,
            manifest,
        };
        (store, fixture)
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// A file of the store, in whose place `plant` puts something.
    fn plant(&self, file: &str, plant: Plant) {
        let path = self.data().join(file);
        fs::remove_file(&path).unwrap();
        // Sockets have short paths only: made elsewhere and moved.
        let aside = self.data().join("odd");
        plant(&aside);
        fs::rename(aside, path).unwrap();
    }

    fn is_untouched(&self) {
        let secret = self.directory.path().join("secret");
        assert_eq!(fs::read_to_string(secret).unwrap(), "y");
    }
}

async fn read(store: &FsStore, digest: &Digest) -> Result<Vec<u8>> {
    let read = store.blob_read(&name("a"), digest, None).await?;
    let chunks: Vec<Bytes> = read.reader.try_collect().await?;
    Ok(chunks.concat())
}

/// Nothing waits for a pipe.
async fn in_time<T>(work: impl Future<Output = T>) -> T {
    timeout(Duration::from_mins(1), work)
        .await
        .expect("it hangs")
}

#[tokio::test]
async fn odd_files_in_the_place_of_content_are_refused_and_replaced_by_a_push() {
    for (odd, plant) in PLANTS {
        let (store, fixture) = Fixture::new().await;
        let hex = fixture.blob.hex();
        fixture.plant(&format!("blobs/sha256/{}/{hex}", &hex[..2]), plant);
        let found = in_time(read(&store, &fixture.blob)).await;
        assert!(
            matches!(found, Err(StoreError::Corrupt { .. })),
            "{odd}: {found:?}"
        );
        let stat = store.blob_stat(&name("a"), &fixture.blob).await;
        assert!(
            matches!(stat, Err(StoreError::Corrupt { .. })),
            "{odd}: {stat:?}"
        );
        in_time(push(&store, "a", b"x")).await;
        assert_eq!(
            in_time(read(&store, &fixture.blob)).await.unwrap(),
            b"x",
            "{odd}"
        );

        let hex = fixture.manifest.hex();
        fixture.plant(&format!("manifests/sha256/{}/{hex}", &hex[..2]), plant);
        drop(store);
        let store = open(&fixture.data());
        let reference = Reference::from(Tag::parse("1").unwrap());
        let found = in_time(store.manifest_read(&name("a"), &reference)).await;
        assert!(
            matches!(found, Err(StoreError::Corrupt { .. })),
            "{odd}: {found:?}"
        );
        in_time(put(&store, "a", "{}", &["1"])).await;
        in_time(store.manifest_read(&name("a"), &reference))
            .await
            .unwrap();
        fixture.is_untouched();
    }
}

#[tokio::test]
async fn odd_files_in_the_place_of_small_files_are_refused_and_replaced_by_a_push() {
    for (odd, plant) in PLANTS {
        let (store, fixture) = Fixture::new().await;
        let (hex, blob) = (fixture.manifest.hex(), fixture.blob.hex());
        drop(store);
        fixture.plant(&format!("repositories/a/_manifests/sha256-{hex}"), plant);
        fixture.plant("repositories/a/_tags/1", plant);
        fixture.plant(&format!("repositories/a/_blobs/sha256-{blob}"), plant);
        let store = open(&fixture.data());
        // The name of the link says that the blob is there.
        assert_eq!(
            in_time(read(&store, &fixture.blob)).await.unwrap(),
            b"x",
            "{odd}"
        );
        in_time(push(&store, "a", b"x")).await;
        let references = [
            Reference::from(Tag::parse("1").unwrap()),
            Reference::from(fixture.manifest.clone()),
        ];
        for reference in &references {
            let found = in_time(store.manifest_read(&name("a"), reference)).await;
            assert!(
                matches!(found, Err(StoreError::Corrupt { .. })),
                "{odd}: {found:?}"
            );
        }
        in_time(put(&store, "a", "{}", &["1"])).await;
        for reference in &references {
            in_time(store.manifest_read(&name("a"), reference))
                .await
                .unwrap();
        }
        fixture.is_untouched();
    }
}

#[tokio::test]
async fn odd_files_in_every_directory_hinder_no_start() {
    for (odd, plant) in PLANTS {
        let (store, fixture) = Fixture::new().await;
        let created = store.upload_create(&name("a"), Algorithm::Sha256).await;
        let id = created.unwrap().id;
        drop(store);
        let session = format!("uploads/{}", id.as_str());
        for directory in [
            "",
            "tmp",
            "uploads",
            "repositories",
            "repositories/a",
            "blobs",
            &session,
        ] {
            // Two: `plant` needs a short path, and a name like that of an upload is one more.
            let named = fixture
                .data()
                .join(directory)
                .join(crate::store::UploadId::random().as_str());
            let aside = fixture.data().join("odd");
            plant(&aside);
            fs::rename(aside, named).unwrap();
        }
        fixture.plant(&format!("{session}/session"), plant);
        fs::create_dir_all(fixture.data().join("tmp/directory/deep")).unwrap();
        let store = open(&fixture.data());
        let uploads = fs::read_dir(fixture.data().join("uploads")).unwrap();
        assert_eq!(uploads.count(), 0, "{odd}");
        let left = fs::read_dir(fixture.data().join("tmp")).unwrap();
        assert_eq!(left.count(), 0, "{odd}");
        in_time(push(&store, "a", b"z")).await;
        let listing = in_time(store.repository_list(None, 10)).await.unwrap();
        assert_eq!(listing.items, [name("a")], "{odd}");
        fixture.is_untouched();
    }
}

#[tokio::test]
async fn odd_files_in_the_place_of_the_bytes_of_an_upload_end_it() {
    for (odd, plant) in PLANTS {
        let (store, fixture) = Fixture::new().await;
        let created = store.upload_create(&name("a"), Algorithm::Sha256).await;
        let id = created.unwrap().id;
        let appended = store.upload_append(&name("a"), &id, 0, bytes("y")).await;
        appended.unwrap();
        fixture.plant(&format!("uploads/{}/data", id.as_str()), plant);
        let a = name("a");
        let more = store.upload_append(&a, &id, 1, bytes("more"));
        in_time(more).await.unwrap_err();
        let digest = Digest::of(Algorithm::Sha256, b"y");
        let committed = in_time(store.upload_commit(&name("a"), &id, &digest)).await;
        committed.unwrap_err();
        assert!(read(&store, &digest).await.is_err(), "{odd}");
        fixture.is_untouched();
    }
}

#[tokio::test]
async fn an_odd_lock_file_or_directory_is_an_error_that_names_it() {
    for (odd, plant) in PLANTS {
        for place in ["lock", "blobs", "uploads"] {
            let directory = scratch();
            let data = directory.path().join("data");
            fs::create_dir(&data).unwrap();
            fs::write(directory.path().join("secret"), "y").unwrap();
            plant(&data.join(place));
            let opened = FsStore::open(&data, Durability::Full, Arc::new(()));
            let error = opened.unwrap_err().to_string();
            assert!(error.contains(place), "{odd}: {error}");
            if place == "lock" {
                crate::store::fs::inspect(&data).unwrap_err();
            }
        }
    }
}
