mod tree_walk;

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tempfile::TempDir;

use super::*;
use crate::oci::{Algorithm, Descriptor, Digest, MediaType, Name, Tag};
use crate::store::fs::{Durability, ScrubReport, ScrubSettings};
use crate::store::maintenance::{Pace, Run};
use crate::store::{NewManifest, Store, UploadId};
use service::metrics::MetricsRegistry;

struct Fixture {
    directory: TempDir,
    store: FsStore,
    ledger: Arc<Ledger>,
    collector: Collector,
    registry: MetricsRegistry,
}

fn fixture() -> Fixture {
    in_directory(tempfile::tempdir().unwrap())
}

fn in_directory(directory: TempDir) -> Fixture {
    let ledger = Arc::new(Ledger::default());
    let changes = Arc::clone(&ledger);
    let store = FsStore::open(directory.path(), Durability::Relaxed, changes).unwrap();
    let registry = MetricsRegistry::new("octoserve_");
    let counted = Arc::clone(&ledger);
    let stats = Stats::new(&registry);
    let collector = Collector::new(store.clone(), counted, stats, Collector::EVERY);
    registry.before_gather(collector.gauge_updater());
    Fixture {
        directory,
        store,
        ledger,
        collector,
        registry,
    }
}

impl Fixture {
    /// The ledger of a new reconcile of the same directory.
    async fn recount(&self) -> Ledger {
        let fresh = Arc::new(Ledger::default());
        let failures = reconcile::reconcile(self.store.clone(), Arc::clone(&fresh)).await;
        assert!(failures.is_empty(), "{failures:?}");
        Arc::into_inner(fresh).unwrap()
    }

    async fn assert_right(&self) {
        let fresh = self.recount().await;
        let figures = self.ledger.totals().unwrap();
        let counted = fresh.totals().unwrap();
        // Only a reconcile sees that a directory has grown.
        assert_eq!(
            Totals {
                allocated: 0,
                ..figures
            },
            Totals {
                allocated: 0,
                ..counted
            }
        );
        assert_eq!(largest(&self.ledger), largest(&fresh));
        let walked = tree_walk::walk(self.directory.path());
        assert_eq!(
            Totals {
                allocated: 0,
                ..figures
            },
            walked.totals
        );
        let stored = largest(&self.ledger).0.into_iter();
        assert_eq!(stored.collect::<BTreeMap<_, _>>(), walked.stored);
        let uploads = self.store.uploads().totals();
        assert_eq!(
            (uploads.sessions, uploads.bytes),
            (walked.sessions, walked.received)
        );
    }

    /// The same directory, opened again by a new store with a new ledger.
    fn restarted(self) -> Self {
        let directory = self.directory;
        // All three keep the directory locked.
        drop((self.store, self.collector, self.registry));
        in_directory(directory)
    }

    fn exposition(&self) -> String {
        let mut exposition = String::new();
        self.registry.gather().write_text(&mut exposition);
        exposition
    }
}

fn largest(ledger: &Ledger) -> (Vec<(String, i64)>, i64) {
    let mut figures = (Vec::new(), 0);
    ledger.largest(200, |largest, other| {
        figures.0 = largest
            .iter()
            .map(|&(name, size)| (name.to_owned(), size))
            .collect();
        figures.1 = other;
    });
    figures
}

/// An operation, and two arguments.
type Random = (u32, u32, u32);

fn name(n: u32) -> Name {
    Name::parse(["a", "a/b", "a-b", "team/app/web", "team"][n as usize % 5]).unwrap()
}

async fn push_blob(store: &FsStore, name: &Name, n: u32) -> Digest {
    let bytes = Bytes::from(vec![u8::try_from(n % 7).unwrap(); 1000 * (n as usize % 7)]);
    let digest = Digest::of(Algorithm::Sha256, &bytes);
    let upload = store.upload_create(name, Algorithm::Sha256).await.unwrap();
    let body = stream::iter([Ok(bytes)]);
    store
        .upload_append(name, &upload.id, 0, body)
        .await
        .unwrap();
    store
        .upload_commit(name, &upload.id, &digest)
        .await
        .unwrap();
    digest
}

fn manifest(n: u32) -> NewManifest {
    let text = format!("{{\"n\":{}}}", n % 10);
    let digest = Digest::of(Algorithm::Sha256, text.as_bytes());
    let media_type = match n % 3 {
        0 => MediaType::OCI_MANIFEST,
        _ => MediaType::OCI_INDEX,
    };
    let descriptor = Descriptor::new(media_type.clone(), digest.clone(), text.len() as u64);
    let subject = n
        .is_multiple_of(4)
        .then(|| (Digest::of(Algorithm::Sha256, b"s"), descriptor));
    NewManifest {
        digest,
        media_type,
        bytes: text.into(),
        kind: Kind::ALL[n as usize % Kind::ALL.len()],
        blobs: vec![],
        children: vec![],
        subject,
    }
}

/// One random operation on upload sessions; `open` are the open ones.
async fn upload(store: &FsStore, open: &mut Vec<(Name, UploadId)>, (operation, a, b): Random) {
    if operation < 3 || open.is_empty() {
        let upload = store.upload_create(&name(a), Algorithm::Sha256).await;
        open.push((name(a), upload.unwrap().id));
        return;
    }
    let chosen = b as usize % open.len();
    let (name, id) = open[chosen].clone();
    let empty = Digest::of(Algorithm::Sha256, b"");
    match operation {
        3..7 => {
            let offset = store.upload_stat(&name, &id).await.unwrap().offset;
            let body = stream::iter([Ok(Bytes::from(vec![1; 100 * b as usize]))]);
            let appended = store.upload_append(&name, &id, offset, body).await;
            appended.unwrap();
            return;
        }
        // The digest is usually wrong, which ends the session as well.
        7 => drop(store.upload_commit(&name, &id, &empty).await),
        _ => store.upload_cancel(&name, &id).await.unwrap(),
    }
    open.swap_remove(chosen);
}

/// One random operation, which may fail.
async fn operate(store: &FsStore, (operation, a, b): Random) {
    let (repository, other) = (name(a), name(b));
    let tag = Tag::parse(["1", "2", "latest"][b as usize % 3]).unwrap();
    let blob = Digest::of(
        Algorithm::Sha256,
        &vec![u8::try_from(b % 7).unwrap(); 1000 * (b as usize % 7)],
    );
    match operation {
        0 | 1 => drop(push_blob(store, &repository, b).await),
        2 => drop(store.blob_mount(&repository, Some(&other), &blob).await),
        3 => drop(store.blob_mount(&repository, None, &blob).await),
        4 => drop(store.blob_delete(&repository, &blob).await),
        5 | 6 => drop(
            store
                .manifest_write(&repository, manifest(b), &[tag], None)
                .await,
        ),
        7 => drop(
            store
                .manifest_delete(&repository, &manifest(b).digest)
                .await,
        ),
        8 => drop(
            store
                .tag_write(&repository, &tag, &manifest(b).digest)
                .await,
        ),
        _ => drop(store.tag_delete(&repository, &tag, None).await),
    }
}

fn operations(seed: u64) -> impl Iterator<Item = Random> {
    let mut random = StdRng::seed_from_u64(seed);
    std::iter::repeat_with(move || {
        (
            random.random_range(0..10),
            random.random_range(0..5),
            random.random_range(0..100),
        )
    })
}

#[tokio::test]
async fn the_figures_match_a_walk_after_random_operations() {
    let fixture = fixture();
    fixture.collector.reconcile().await;
    let mut open = Vec::new();
    for seed in 0..10 {
        for operation in operations(seed).take(60) {
            operate(&fixture.store, operation).await;
        }
        for operation in operations(seed + 100).take(20) {
            upload(&fixture.store, &mut open, operation).await;
        }
        fixture.assert_right().await;
    }
}

#[tokio::test]
async fn the_figures_match_a_walk_after_a_restart_and_further_operations() {
    let mut fixture = fixture();
    let mut open = Vec::new();
    for seed in 0..4 {
        for operation in operations(seed).take(60) {
            operate(&fixture.store, operation).await;
        }
        for operation in operations(seed + 100).take(20) {
            upload(&fixture.store, &mut open, operation).await;
        }
        fixture = fixture.restarted();
        assert_eq!(fixture.ledger.totals(), None, "nothing is counted yet");
        // Changes before the first reconcile must not be counted twice.
        for operation in operations(seed + 50).take(30) {
            operate(&fixture.store, operation).await;
        }
        fixture.collector.reconcile().await;
        fixture.assert_right().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reconcile_during_changes_is_right() {
    let fixture = fixture();
    let workers: Vec<_> = (0..4)
        .map(|seed| {
            let store = fixture.store.clone();
            tokio::spawn(async move {
                for operation in operations(seed).take(400) {
                    operate(&store, operation).await;
                }
            })
        })
        .collect();
    while !workers.iter().all(tokio::task::JoinHandle::is_finished) {
        fixture.collector.reconcile().await;
    }
    for worker in workers {
        worker.await.unwrap();
    }
    fixture.assert_right().await;
}

#[tokio::test]
async fn content_from_before_the_start_is_counted() {
    let fixture = fixture();
    for operation in operations(1).take(200) {
        operate(&fixture.store, operation).await;
    }
    assert!(
        !fixture.exposition().contains("\noctoserve_repositories "),
        "not counted yet"
    );
    fixture.collector.reconcile().await;
    fixture.assert_right().await;
    assert!(fixture.exposition().contains("\noctoserve_repositories "));
}

#[tokio::test]
async fn directories_deleted_by_hand_are_gone_after_a_reconcile() {
    let fixture = fixture();
    fixture.collector.reconcile().await;
    let digest = push_blob(&fixture.store, &name(0), 3).await;
    push_blob(&fixture.store, &name(3), 3).await;
    fs::remove_dir_all(fixture.directory.path().join("repositories/team")).unwrap();
    assert_eq!(fixture.ledger.totals().unwrap().repositories, 2);
    fixture.collector.reconcile().await;
    assert_eq!(fixture.ledger.totals().unwrap().repositories, 1);
    fixture.assert_right().await;
    let shard = fixture
        .directory
        .path()
        .join("blobs/sha256")
        .join(&digest.hex()[..2]);
    fs::remove_dir_all(shard).unwrap();
    fixture.collector.reconcile().await;
    assert_eq!(fixture.ledger.totals().unwrap().blobs, 0);
}

#[tokio::test]
async fn single_files_deleted_by_hand_are_gone_after_a_reconcile() {
    let fixture = fixture();
    fixture.collector.reconcile().await;
    for seed in 0..3 {
        for operation in operations(seed).take(100) {
            operate(&fixture.store, operation).await;
        }
        let repositories = fixture.directory.path().join("repositories");
        for kind in ["_tags", "_blobs", "_manifests", "_referrers"] {
            remove_one_below(&repositories, kind);
        }
        fixture.collector.reconcile().await;
        fixture.assert_right().await;
    }
}

/// Removes a file from a reserved directory of the first repository that has one.
fn remove_one_below(directory: &Path, kind: &str) -> bool {
    let mut entries: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    entries.sort();
    for entry in entries {
        if entry.is_file() {
            if entry.components().any(|part| part.as_os_str() == kind) {
                fs::remove_file(entry).unwrap();
                return true;
            }
        } else if remove_one_below(&entry, kind) {
            return true;
        }
    }
    false
}

#[tokio::test]
async fn disk_usage_counts_each_inode_of_the_tree_once() {
    fn visit(path: &Path, seen: &mut HashSet<u64>) -> u64 {
        let metadata = fs::symlink_metadata(path).unwrap();
        if !seen.insert(metadata.ino()) {
            return 0;
        }
        let inside = match fs::read_dir(path) {
            Ok(entries) => entries
                .map(|entry| visit(&entry.unwrap().path(), seen))
                .sum(),
            Err(_) => 0,
        };
        metadata.blocks() * 512 + inside
    }
    let fixture = fixture();
    for operation in operations(2).take(200) {
        operate(&fixture.store, operation).await;
    }
    let upload = fixture
        .store
        .upload_create(&name(0), Algorithm::Sha256)
        .await
        .unwrap();
    let body = stream::iter([Ok(Bytes::from(vec![7; 100_000]))]);
    fixture
        .store
        .upload_append(&name(0), &upload.id, 0, body)
        .await
        .unwrap();
    fixture.collector.reconcile().await;
    fixture.collector.refresh().await;
    let expected = visit(fixture.directory.path(), &mut HashSet::new());
    let line = format!("\noctoserve_storage_disk_usage_bytes {expected}\n");
    let exposition = fixture.exposition();
    let figures = exposition
        .lines()
        .find(|l| l.starts_with("octoserve_storage_disk_usage_bytes"));
    assert!(exposition.contains(&line), "{figures:?} is not {expected}");
}

#[tokio::test]
async fn a_damaged_entry_is_an_error_and_keeps_the_old_figures() {
    let fixture = fixture();
    fixture.collector.reconcile().await;
    let new = manifest(0);
    fixture
        .store
        .manifest_write(&name(0), new.clone(), &[], None)
        .await
        .unwrap();
    let entry = fixture.directory.path().join("repositories/a/_manifests");
    let entry = entry.join(new.digest.as_str().replace(':', "-"));
    fs::write(entry, "{").unwrap();
    fixture.collector.reconcile().await;
    assert_eq!(fixture.ledger.totals().unwrap().repositories, 1);
    assert!(
        fixture
            .exposition()
            .contains("\noctoserve_stats_errors_total 1\n")
    );
}

/// The value of a family without labels.
fn value(exposition: &str, family: &str) -> Option<f64> {
    let start = format!("octoserve_{family} ");
    let figures = exposition
        .lines()
        .find_map(|line| line.strip_prefix(&start))?;
    Some(figures.parse().unwrap())
}

#[tokio::test]
async fn a_failed_reconcile_sets_its_duration_but_not_the_time_of_the_last_success() {
    let fixture = fixture();
    push_blob(&fixture.store, &name(0), 3).await;
    let success = "stats_last_success_timestamp_seconds";
    let exposition = fixture.exposition();
    assert_eq!(value(&exposition, success), None, "nothing is counted yet");
    let began = Instant::now();
    let before = seconds_since_epoch();
    fixture.collector.reconcile().await;
    let exposition = fixture.exposition();
    let succeeded = value(&exposition, success).unwrap();
    assert!((before..=seconds_since_epoch()).contains(&succeeded));
    let took = value(&exposition, "stats_duration_seconds").unwrap();
    assert!(
        took > 0.0 && took <= began.elapsed().as_secs_f64(),
        "{took}"
    );
    assert_eq!(value(&exposition, "stats_errors_total"), Some(0.0));

    let (repository, new) = (name(0), manifest(0));
    let written = fixture
        .store
        .manifest_write(&repository, new.clone(), &[], None);
    written.await.unwrap();
    let entry = fixture.directory.path().join("repositories/a/_manifests");
    let entry = entry.join(new.digest.as_str().replace(':', "-"));
    fs::write(entry, "{").unwrap();
    fixture.collector.stats.families.duration.set((), 0.0);
    fixture.collector.reconcile().await;
    let exposition = fixture.exposition();
    assert_eq!(value(&exposition, success), Some(succeeded), "it ages");
    assert!(value(&exposition, "stats_duration_seconds").unwrap() > 0.0);
    assert_eq!(value(&exposition, "stats_errors_total"), Some(1.0));
    assert_eq!(
        value(&exposition, "blobs"),
        Some(1.0),
        "the old figures stay"
    );
}

#[tokio::test]
async fn the_file_systems_figures_match_statvfs() {
    let fixture = fixture();
    assert_eq!(
        value(&fixture.exposition(), "storage_filesystem_size_bytes"),
        None
    );
    fixture.collector.refresh().await;
    let exposition = fixture.exposition();
    let figures = rustix::fs::statvfs(fixture.directory.path()).unwrap();
    let block = figures.f_frsize as f64;
    let size = figures.f_blocks as f64 * block;
    // Other programs use the file system meanwhile.
    for (family, expected, others) in [
        ("storage_filesystem_size_bytes", size, 0.0),
        (
            "storage_filesystem_avail_bytes",
            figures.f_bavail as f64 * block,
            size / 100.0,
        ),
        (
            "storage_filesystem_files_free",
            figures.f_ffree as f64,
            figures.f_files as f64 / 100.0,
        ),
    ] {
        let seen = value(&exposition, family).unwrap();
        assert!(
            (seen - expected).abs() <= others,
            "{family}: {seen}, {expected}"
        );
    }
}

#[tokio::test]
async fn the_gauges_of_upload_sessions_are_read_from_the_store() {
    let fixture = fixture();
    let first = fixture
        .store
        .upload_create(&name(0), Algorithm::Sha256)
        .await
        .unwrap();
    let second = fixture
        .store
        .upload_create(&name(1), Algorithm::Sha256)
        .await
        .unwrap();
    let body = stream::iter([Ok(Bytes::from_static(b"12345"))]);
    fixture
        .store
        .upload_append(&name(0), &first.id, 0, body)
        .await
        .unwrap();
    let exposition = fixture.exposition();
    assert!(
        exposition.contains("\noctoserve_registry_upload_sessions 2\n"),
        "{exposition}"
    );
    assert!(
        exposition.contains("\noctoserve_registry_upload_bytes 5\n"),
        "{exposition}"
    );
    fixture
        .store
        .upload_cancel(&name(0), &first.id)
        .await
        .unwrap();
    let wrong = Digest::of(Algorithm::Sha256, b"other");
    fixture
        .store
        .upload_commit(&name(1), &second.id, &wrong)
        .await
        .unwrap_err();
    let exposition = fixture.exposition();
    assert!(
        exposition.contains("\noctoserve_registry_upload_sessions 0\n"),
        "{exposition}"
    );
    assert!(
        exposition.contains("\noctoserve_registry_upload_oldest_age_seconds 0\n"),
        "{exposition}"
    );
}

#[tokio::test]
async fn the_age_of_an_upload_survives_a_restart() {
    let fixture = fixture();
    for repository in [name(0), name(1)] {
        let created = fixture.store.upload_create(&repository, Algorithm::Sha256);
        created.await.unwrap();
    }
    let sessions = fs::read_dir(fixture.directory.path().join("uploads")).unwrap();
    let session = sessions.map(|entry| entry.unwrap().path()).next().unwrap();
    let session = fs::File::options()
        .write(true)
        .open(session.join("session"))
        .unwrap();
    session
        .set_modified(SystemTime::now() - Duration::from_hours(30))
        .unwrap();
    let fixture = fixture.restarted();
    let exposition = fixture.exposition();
    let age = exposition
        .lines()
        .find_map(|line| line.strip_prefix("octoserve_registry_upload_oldest_age_seconds "))
        .unwrap();
    let age: f64 = age.parse().unwrap();
    let hours = age / 3600.0;
    assert!((30.0..31.0).contains(&hours), "{hours}");
    assert!(exposition.contains("\noctoserve_registry_upload_sessions 2\n"));
}

#[tokio::test]
async fn a_repository_that_is_no_longer_among_the_largest_is_no_longer_shown() {
    let fixture = fixture();
    fixture.collector.reconcile().await;
    let digest = push_blob(&fixture.store, &name(3), 3).await;
    let shown = "octoserve_repository_stored_bytes{repository=\"team/app/web\"} 3000\n";
    assert!(fixture.exposition().contains(shown));
    fixture.store.blob_delete(&name(3), &digest).await.unwrap();
    let exposition = fixture.exposition();
    assert!(!exposition.contains("team/app/web"), "{exposition}");
    assert!(exposition.contains("octoserve_repository_stored_bytes{repository=\"_other\"} 0\n"));
}

#[tokio::test]
async fn the_200_largest_repositories_are_shown_and_the_rest_together() {
    let fixture = fixture();
    let bytes = |n: usize| vec![7; 1000 + n];
    for n in 0..205 {
        let name = format!("r{n}");
        crate::store::suite::push(&fixture.store, &name, &bytes(n)).await;
    }
    fixture.collector.reconcile().await;
    let exposition = fixture.exposition();
    let family = "octoserve_repository_stored_bytes{repository=";
    let shown: BTreeMap<_, _> = exposition
        .lines()
        .filter_map(|line| line.strip_prefix(family)?.split_once("} "))
        .collect();
    let mut expected = BTreeMap::from([("\"_other\"".to_owned(), "5010".to_owned())]);
    expected.extend((5..205).map(|n| (format!("\"r{n}\""), bytes(n).len().to_string())));
    let expected: BTreeMap<_, _> = expected
        .iter()
        .map(|(name, bytes)| (name.as_str(), bytes.as_str()))
        .collect();
    assert_eq!(shown, expected);
}

#[tokio::test]
async fn the_figures_follow_a_quarantine_and_a_repair() {
    let fixture = fixture();
    let digest = push_blob(&fixture.store, &name(0), 3).await;
    push_blob(&fixture.store, &name(1), 3).await;
    fixture.collector.reconcile().await;
    let shard = fixture.directory.path().join("blobs/sha256");
    let path = shard.join(&digest.hex()[..2]).join(digest.hex());
    fs::write(path, vec![9; 3000]).unwrap();
    let settings = ScrubSettings {
        rate: None,
        quarantine: true,
    };
    let (run, mut report) = (Run::new(Pace::Full), ScrubReport::default());
    fixture.store.scrub(settings, &run, &mut report).unwrap();
    assert_eq!(report.quarantined, 1);
    let fresh = fixture.recount().await;
    assert_eq!(fixture.ledger.totals(), fresh.totals());
    assert_eq!(fresh.totals().unwrap().blobs, 0);
    assert_eq!(largest(&fixture.ledger), largest(&fresh));
    push_blob(&fixture.store, &name(1), 3).await;
    fixture.assert_right().await;
    fixture.store.blob_delete(&name(0), &digest).await.unwrap();
    fixture.assert_right().await;
}
