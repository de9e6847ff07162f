//! Scrubs of stores with damaged content.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::TryStreamExt as _;
use rustix::io::Errno;
use tempfile::TempDir;

use super::super::disk::Step;
use super::super::disk::observer::{Observation, Observer, observe};
use super::super::{Durability, FsStore};
use super::{ScrubError, ScrubReport, ScrubSettings};
use crate::oci::{Algorithm, Digest, Name, Reference};
use crate::store::maintenance::{Pace, Run};
use crate::store::suite::{push, put};
use crate::store::{Store as _, StoreError};

const REPORTING: ScrubSettings = ScrubSettings {
    rate: None,
    quarantine: false,
};
const QUARANTINING: ScrubSettings = ScrubSettings {
    quarantine: true,
    ..REPORTING
};

fn new() -> (FsStore, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let store = FsStore::open(directory.path(), Durability::Full, Arc::new(())).unwrap();
    (store, directory)
}

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn content(root: &Path, pool: &str, digest: &Digest) -> PathBuf {
    let shard = root.join(pool).join(digest.algorithm().as_str());
    shard.join(&digest.hex()[..2]).join(digest.hex())
}

/// Changes a byte, and no length.
fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    bytes[0] ^= 1;
    fs::write(path, bytes).unwrap();
}

fn scrub(store: &FsStore, settings: ScrubSettings) -> ScrubReport {
    let mut report = ScrubReport::default();
    let run = Run::new(Pace::Full);
    store.scrub(settings, &run, &mut report).unwrap();
    report
}

fn failure(store: &FsStore, run: &Run) -> ScrubError {
    let mut report = ScrubReport::default();
    store.scrub(REPORTING, run, &mut report).unwrap_err()
}

async fn read(store: &FsStore, repository: &str, digest: &Digest) -> Result<Vec<u8>, StoreError> {
    let read = store.blob_read(&name(repository), digest, None).await?;
    let chunks: Vec<_> = read.reader.try_collect().await?;
    Ok(chunks.concat())
}

#[tokio::test]
async fn sound_content_is_checked_and_stays() {
    let (store, directory) = new();
    push(&store, "a", &vec![7; 300_000]).await;
    push(&store, "b", b"").await;
    put(&store, "a", "{}", &["1"]).await;
    for settings in [REPORTING, QUARANTINING] {
        let report = scrub(&store, settings);
        assert_eq!((report.checked, report.bytes), (3, 300_002));
        assert_eq!(
            (report.corrupt, report.unchecked, report.foreign),
            (0, 0, 0)
        );
    }
    let kept = fs::read_dir(directory.path().join("maintenance")).unwrap();
    assert_eq!(kept.count(), 0);
}

#[tokio::test]
async fn corrupt_content_is_only_reported_unless_it_is_to_be_quarantined() {
    let (store, directory) = new();
    let digest = push(&store, "a", b"content").await;
    store.blob_mount(&name("b/c"), None, &digest).await.unwrap();
    let path = content(directory.path(), "blobs", &digest);
    flip(&path);
    let report = scrub(&store, REPORTING);
    assert_eq!((report.corrupt, report.quarantined), (1, 0));
    let found = &report.found[0];
    assert_eq!((&*found.pool, &found.digest), ("blobs", &digest));
    let mut holders = found.holders.repositories.clone();
    holders.sort();
    assert_eq!(holders, [name("a"), name("b/c")]);
    assert!(path.exists());
    let report = scrub(&store, QUARANTINING);
    assert_eq!((report.corrupt, report.quarantined), (1, 1));
    assert!(!path.exists());
    let quarantined = format!("quarantine/blobs-sha256-{}", digest.hex());
    assert_eq!(
        fs::read(directory.path().join(quarantined)).unwrap(),
        b"bontent"
    );
    // Until it is pushed again.
    let report = scrub(&store, QUARANTINING);
    assert_eq!(
        (report.corrupt, report.missing, report.corrupt_now),
        (0, 1, 0)
    );
    assert!(report.absent[0].quarantined);
}

#[tokio::test]
async fn content_that_is_missing_is_reported_until_it_is_pushed_again() {
    let (store, directory) = new();
    let blob = push(&store, "a", b"content").await;
    for repository in ["b/c", "d"] {
        let repository = name(repository);
        store.blob_mount(&repository, None, &blob).await.unwrap();
    }
    let manifest = put(&store, "a", "{}", &["1"]).await;
    fs::remove_file(content(directory.path(), "blobs", &blob)).unwrap();
    fs::remove_file(content(directory.path(), "manifests", &manifest)).unwrap();
    let report = scrub(&store, REPORTING);
    assert_eq!((report.checked, report.corrupt, report.missing), (0, 0, 2));
    assert_eq!(report.corrupt_now, 2);
    let absent = |digest| report.absent.iter().find(|one| one.digest == digest);
    let of_blob = absent(blob.clone()).unwrap();
    assert_eq!((&*of_blob.pool, of_blob.quarantined), ("blobs", false));
    let mut holders = of_blob.holders.repositories.clone();
    holders.sort();
    assert_eq!(holders, ["a", "b/c", "d"].map(name));
    let of_manifest = absent(manifest.clone()).unwrap();
    assert_eq!(of_manifest.holders.repositories, [name("a")]);

    push(&store, "d", b"content").await;
    put(&store, "a", "{}", &["1"]).await;
    let report = scrub(&store, REPORTING);
    assert_eq!((report.checked, report.missing), (2, 0));
}

#[tokio::test]
async fn more_than_a_report_lists_is_counted() {
    let (store, directory) = new();
    for n in 0..150_u8 {
        let digest = push(&store, "a", &[n]).await;
        push(&store, "b", &[n]).await;
        fs::remove_file(content(directory.path(), "blobs", &digest)).unwrap();
    }
    let report = scrub(&store, REPORTING);
    assert_eq!((report.missing, report.absent.len()), (150, 100));
}

#[tokio::test]
async fn what_is_quarantined_is_not_served_and_a_push_repairs_it_for_all_repositories() {
    let (store, directory) = new();
    let long = vec![7; 600_000];
    for algorithm in Algorithm::ALL {
        let digest = Digest::of(algorithm, &long);
        upload(&store, "a", &long, &digest).await;
        store.blob_mount(&name("b"), None, &digest).await.unwrap();
        flip(&content(directory.path(), "blobs", &digest));
        assert_eq!(scrub(&store, QUARANTINING).quarantined, 1);
        for repository in ["a", "b"] {
            let error = read(&store, repository, &digest).await.unwrap_err();
            assert!(matches!(error, StoreError::BlobUnknown), "{error:?}");
            let error = store.blob_stat(&name(repository), &digest).await;
            assert!(matches!(error, Err(StoreError::BlobUnknown)));
        }
        upload(&store, "b", &long, &digest).await;
        for repository in ["a", "b"] {
            assert_eq!(read(&store, repository, &digest).await.unwrap(), long);
        }
        assert_eq!(scrub(&store, QUARANTINING).corrupt, 0);
    }
}

async fn upload(store: &FsStore, repository: &str, bytes: &[u8], digest: &Digest) {
    let repository = name(repository);
    let algorithm = digest.algorithm();
    let upload = store.upload_create(&repository, algorithm).await.unwrap();
    let body = futures_util::stream::iter([Ok(bytes.to_vec().into())]);
    store
        .upload_append(&repository, &upload.id, 0, body)
        .await
        .unwrap();
    store
        .upload_commit(&repository, &upload.id, digest)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_quarantined_manifest_is_forgotten_by_the_cache_and_repaired_by_a_push() {
    let (store, directory) = new();
    let text = "{\"n\":1}";
    let digest = put(&store, "a", text, &["1"]).await;
    let references = [
        Reference::from(digest.clone()),
        Reference::from(crate::oci::Tag::parse("1").unwrap()),
    ];
    for reference in &references {
        // From now on it is in the cache.
        store.manifest_read(&name("a"), reference).await.unwrap();
    }
    flip(&content(directory.path(), "manifests", &digest));
    let report = scrub(&store, QUARANTINING);
    assert_eq!(report.found[0].holders.repositories, [name("a")]);
    for reference in &references {
        let error = store
            .manifest_read(&name("a"), reference)
            .await
            .unwrap_err();
        assert!(matches!(error, StoreError::ManifestUnknown), "{error:?}");
    }
    put(&store, "b", text, &[]).await;
    for reference in &references {
        let read = store.manifest_read(&name("a"), reference).await.unwrap();
        assert_eq!(read.bytes(), text.as_bytes());
    }
}

#[tokio::test]
async fn a_run_that_was_stopped_is_continued() {
    let (store, directory) = new();
    for number in 0..40_u32 {
        push(&store, "a", &number.to_le_bytes()).await;
    }
    let run = Run::new(Pace::Full);
    run.stop();
    let error = failure(&store, &run);
    assert!(matches!(error, ScrubError::Interrupted(_)), "{error:?}");
    let cursor = directory.path().join("maintenance/scrub");
    // As a run leaves it that was stopped in the middle of a directory.
    let digests = digests(directory.path());
    let stopped = &digests[9];
    let part = usize::from(u8::from_str_radix(&stopped[..2], 16).unwrap()) * 4;
    let text = format!(
        r#"{{"quarantine":false,"at":{{"part":{part},"after":"{stopped}"}},"report":{{"continued":false,
        "checked":10,"bytes":40,"corrupt":0,"quarantined":0,"unchecked":0,"foreign":0,"found":[]}}}}"#
    );
    fs::write(&cursor, &text).unwrap();
    // What the cursor has passed is not read again; the rest is.
    let of = |index: usize| {
        let digest = Digest::parse(&format!("sha256:{}", digests[index])).unwrap();
        content(directory.path(), "blobs", &digest)
    };
    flip(&of(3));
    flip(&of(12));
    let report = scrub(&store, REPORTING);
    assert!(report.continued);
    assert_eq!((report.checked, report.corrupt, report.bytes), (39, 1, 160));
    assert!(!cursor.exists());
    // One that quarantines does not rely on one that only reported, nor any on an odd file.
    for odd in [
        &*text,
        &text[..40],
        "",
        "{}",
        "\0\0",
        &text.replace(&format!(":{part},"), ":5000,"),
    ] {
        fs::write(&cursor, odd).unwrap();
        let report = scrub(&store, QUARANTINING);
        assert!(!report.continued, "{odd}");
        assert_eq!(report.checked, 38, "{odd}");
    }
}

/// The names of all blobs, in order.
fn digests(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for shard in fs::read_dir(root.join("blobs/sha256")).unwrap() {
        for file in fs::read_dir(shard.unwrap().path()).unwrap() {
            found.push(file.unwrap().file_name().into_string().unwrap());
        }
    }
    found.sort();
    found
}

#[tokio::test]
async fn what_the_store_has_not_made_is_left_alone() {
    let (store, directory) = new();
    let digest = push(&store, "a", b"content").await;
    let path = content(directory.path(), "blobs", &digest);
    let shard = path.parent().unwrap();
    let hex = |last: char| format!("{}{last}", &digest.hex()[..63]);
    let last = digest.hex().chars().last().unwrap();
    let mut free = "0123456789".chars().filter(|&digit| digit != last);
    let mut odd = || shard.join(hex(free.next().unwrap()));
    symlink("/dev/zero", odd()).unwrap();
    symlink("/does/not/exist", odd()).unwrap();
    let _socket = UnixListener::bind(shard.join("s")).unwrap();
    let socket = odd();
    fs::rename(shard.join("s"), &socket).unwrap();
    let fifo = odd();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    fs::create_dir(odd()).unwrap();
    fs::write(shard.join("notes.txt"), "").unwrap();
    let before = fs::read_dir(shard).unwrap().count();
    let report = scrub(&store, QUARANTINING);
    assert_eq!(
        (report.checked, report.corrupt, report.unchecked),
        (1, 0, 0)
    );
    assert_eq!(report.foreign, 6);
    assert_eq!(fs::read_dir(shard).unwrap().count(), before);
}

#[tokio::test]
async fn content_that_was_replaced_meanwhile_is_not_moved() {
    let (store, directory) = new();
    let digest = push(&store, "a", b"content").await;
    let path = content(directory.path(), "blobs", &digest);
    let run = Run::new(Pace::Full);
    let mut pacing = super::pacing::Pacing::new(&run, None);
    let item = super::hashing::Content {
        path: path.clone(),
        pool: super::super::Pool::Blobs,
        digest: digest.clone(),
    };
    flip(&path);
    let verdict = super::hashing::verify(&item, &mut pacing).unwrap();
    let super::hashing::ScrubFinding::Wrong { file, .. } = verdict else {
        panic!("{verdict:?}");
    };
    fs::remove_file(&path).unwrap();
    let moved = super::quarantine::quarantine(&store.data, &item, &file).unwrap();
    assert!(!moved);
    push(&store, "b", b"content").await;
    let moved = super::quarantine::quarantine(&store.data, &item, &file).unwrap();
    assert!(!moved);
    assert_eq!(read(&store, "a", &digest).await.unwrap(), b"content");
}

#[tokio::test]
async fn a_lost_directory_is_an_error_and_not_an_empty_store() {
    let (store, directory) = new();
    push(&store, "a", b"content").await;
    let away = directory.path().with_extension("away");
    fs::rename(directory.path(), &away).unwrap();
    let error = failure(&store, &Run::new(Pace::Full));
    fs::rename(&away, directory.path()).unwrap();
    assert!(
        matches!(error, ScrubError::Store(StoreError::Lost { .. })),
        "{error:?}"
    );
    assert_eq!(scrub(&store, QUARANTINING).checked, 1);
}

/// Fails to open some files.
struct FailingDisk {
    error: Errno,
    fails: Box<dyn Fn(&Path) -> bool + Send + Sync>,
}

impl Observer for FailingDisk {
    fn around(&self, step: &Step<'_>, call: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()> {
        match step {
            Step::Open(path) if (self.fails)(path) => Err(self.error.into()),
            _ => call(),
        }
    }
}

fn failing(
    directory: &TempDir,
    error: Errno,
    fails: impl Fn(&Path) -> bool + Send + Sync + 'static,
) -> Observation {
    let fails = Box::new(fails);
    observe(directory.path(), Arc::new(FailingDisk { error, fails }))
}

#[tokio::test]
async fn what_the_disk_cannot_return_is_corrupt_and_what_is_denied_is_not() {
    for (error, corrupt, unchecked) in [(Errno::IO, 1, 0), (Errno::ACCESS, 0, 1)] {
        let (store, directory) = new();
        for number in 0..20_u32 {
            push(&store, "a", &number.to_le_bytes()).await;
        }
        let digest = push(&store, "a", b"lost").await;
        let path = content(directory.path(), "blobs", &digest);
        let lost = path.clone();
        let failing = failing(&directory, error, move |path| path == lost);
        let report = scrub(&store, QUARANTINING);
        assert_eq!((report.corrupt, report.quarantined), (corrupt, corrupt));
        assert_eq!((report.checked, report.unchecked), (20, unchecked));
        assert_eq!(path.exists(), unchecked == 1);
        drop(failing);
        push(&store, "a", b"lost").await;
        assert_eq!(read(&store, "a", &digest).await.unwrap(), b"lost");
    }
}

#[tokio::test]
async fn a_disk_that_fails_as_a_whole_has_nothing_moved() {
    for (blobs, fails) in [(3, false), (40, true)] {
        let (store, directory) = new();
        for number in 0..blobs {
            push(&store, "a", &u64::to_le_bytes(number)).await;
        }
        let before = digests(directory.path());
        let root = directory.path().join("blobs");
        let observation = failing(&directory, Errno::IO, move |path| path.starts_with(&root));
        let (run, mut report) = (Run::new(Pace::Full), ScrubReport::default());
        let ended = store.scrub(QUARANTINING, &run, &mut report);
        assert_eq!(matches!(ended, Err(ScrubError::Failing { .. })), fails);
        assert_eq!(report.quarantined, 0);
        assert_eq!(report.corrupt, if fails { 0 } else { blobs });
        drop(observation);
        assert_eq!(digests(directory.path()), before);
        // What could not be read is read now.
        assert_eq!(scrub(&store, QUARANTINING).checked, blobs);
    }
}
