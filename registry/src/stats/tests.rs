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
use crate::store::fs::Durability;
use crate::store::{NewManifest, Store, UploadId};
use service::metrics::MetricsRegistry;

struct Fixture {
    folder: TempDir,
    store: FsStore,
    ledger: Arc<Ledger>,
    collector: Collector,
    registry: MetricsRegistry,
}

fn fixture() -> Fixture {
    in_folder(tempfile::tempdir().unwrap())
}

fn in_folder(folder: TempDir) -> Fixture {
    let ledger = Arc::new(Ledger::default());
    let changes = Arc::clone(&ledger);
    let store = FsStore::open(folder.path(), Durability::Relaxed, changes).unwrap();
    let registry = MetricsRegistry::new("octoserve_");
    let counted = Arc::clone(&ledger);
    let stats = Stats::new(&registry);
    let collector = Collector::new(store.clone(), counted, stats, Collector::EVERY);
    registry.before_gather(collector.page());
    Fixture {
        folder,
        store,
        ledger,
        collector,
        registry,
    }
}

impl Fixture {
    /// What a collector that has seen nothing of the past counts in the folder.
    async fn recount(&self) -> Ledger {
        let fresh = Arc::new(Ledger::default());
        let failures = reconcile::reconcile(self.store.clone(), Arc::clone(&fresh)).await;
        assert!(failures.is_empty(), "{failures:?}");
        Arc::into_inner(fresh).unwrap()
    }

    async fn assert_right(&self) {
        let fresh = self.recount().await;
        let told = self.ledger.totals().unwrap();
        let counted = fresh.totals().unwrap();
        // A folder that has grown is seen only by a full count.
        assert_eq!(
            Totals {
                allocated: 0,
                ..told
            },
            Totals {
                allocated: 0,
                ..counted
            }
        );
        assert_eq!(largest(&self.ledger), largest(&fresh));
        let walked = tree_walk::walk(self.folder.path());
        assert_eq!(
            Totals {
                allocated: 0,
                ..told
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

    /// The same folder, opened again by those who have seen nothing of its past.
    fn restarted(self) -> Self {
        let folder = self.folder;
        // All that keeps the folder locked.
        drop((self.store, self.collector, self.registry));
        in_folder(folder)
    }

    fn page(&self) -> String {
        let mut page = String::new();
        self.registry.gather().write_text(&mut page);
        page
    }
}

fn largest(ledger: &Ledger) -> (Vec<(String, i64)>, i64) {
    let mut told = (Vec::new(), 0);
    ledger.largest(200, |largest, other| {
        told.0 = largest
            .iter()
            .map(|&(name, size)| (name.to_owned(), size))
            .collect();
        told.1 = other;
    });
    told
}

/// What to do, and twice what with.
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

/// One random operation on upload sessions, of which `open` are.
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
        // The wrong digest, as a rule, which ends the session as well.
        7 => drop(store.upload_commit(&name, &id, &empty).await),
        _ => store.upload_cancel(&name, &id).await.unwrap(),
    }
    open.swap_remove(chosen);
}

/// One random operation, which may well be refused.
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
async fn the_figures_are_those_of_a_walk_after_random_operations() {
    let fixture = fixture();
    fixture.collector.count().await;
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
async fn the_figures_are_those_of_a_walk_after_a_restart_and_what_follows_it() {
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
        // What happens before the first count must not be counted twice.
        for operation in operations(seed + 50).take(30) {
            operate(&fixture.store, operation).await;
        }
        fixture.collector.count().await;
        fixture.assert_right().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_count_in_the_middle_of_changes_is_right() {
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
        fixture.collector.count().await;
    }
    for worker in workers {
        worker.await.unwrap();
    }
    fixture.assert_right().await;
}

#[tokio::test]
async fn what_was_there_before_the_start_is_counted() {
    let fixture = fixture();
    for operation in operations(1).take(200) {
        operate(&fixture.store, operation).await;
    }
    assert!(
        !fixture.page().contains("\noctoserve_repositories "),
        "not counted yet"
    );
    fixture.collector.count().await;
    fixture.assert_right().await;
    assert!(fixture.page().contains("\noctoserve_repositories "));
}

#[tokio::test]
async fn what_is_removed_by_hand_is_gone_after_a_full_count() {
    let fixture = fixture();
    fixture.collector.count().await;
    let digest = push_blob(&fixture.store, &name(0), 3).await;
    push_blob(&fixture.store, &name(3), 3).await;
    fs::remove_dir_all(fixture.folder.path().join("repositories/team")).unwrap();
    assert_eq!(fixture.ledger.totals().unwrap().repositories, 2);
    fixture.collector.count().await;
    assert_eq!(fixture.ledger.totals().unwrap().repositories, 1);
    fixture.assert_right().await;
    let shard = fixture
        .folder
        .path()
        .join("blobs/sha256")
        .join(&digest.hex()[..2]);
    fs::remove_dir_all(shard).unwrap();
    fixture.collector.count().await;
    assert_eq!(fixture.ledger.totals().unwrap().blobs, 0);
}

#[tokio::test]
async fn single_files_that_are_removed_by_hand_are_gone_after_a_full_count() {
    let fixture = fixture();
    fixture.collector.count().await;
    for seed in 0..3 {
        for operation in operations(seed).take(100) {
            operate(&fixture.store, operation).await;
        }
        let repositories = fixture.folder.path().join("repositories");
        for kind in ["_tags", "_blobs", "_manifests", "_referrers"] {
            remove_one_below(&repositories, kind);
        }
        fixture.collector.count().await;
        fixture.assert_right().await;
    }
}

/// Removes a file of one of the reserved folders, of whichever repository comes first.
fn remove_one_below(folder: &Path, kind: &str) -> bool {
    let mut entries: Vec<_> = fs::read_dir(folder)
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
async fn disk_usage_is_what_the_tree_takes_with_each_inode_once() {
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
    fixture.collector.count().await;
    fixture.collector.refresh().await;
    let expected = visit(fixture.folder.path(), &mut HashSet::new());
    let line = format!("\noctoserve_storage_disk_usage_bytes {expected}\n");
    let page = fixture.page();
    let told = page
        .lines()
        .find(|l| l.starts_with("octoserve_storage_disk_usage_bytes"));
    assert!(page.contains(&line), "{told:?} is not {expected}");
}

#[tokio::test]
async fn a_damaged_entry_is_an_error_and_the_old_figures_stay() {
    let fixture = fixture();
    fixture.collector.count().await;
    let new = manifest(0);
    fixture
        .store
        .manifest_write(&name(0), new.clone(), &[], None)
        .await
        .unwrap();
    let entry = fixture.folder.path().join("repositories/a/_manifests");
    let entry = entry.join(new.digest.as_str().replace(':', "-"));
    fs::write(entry, "{").unwrap();
    fixture.collector.count().await;
    assert_eq!(fixture.ledger.totals().unwrap().repositories, 1);
    assert!(
        fixture
            .page()
            .contains("\noctoserve_stats_errors_total 1\n")
    );
}

/// The value of a family without labels.
fn value(page: &str, family: &str) -> Option<f64> {
    let start = format!("octoserve_{family} ");
    let told = page.lines().find_map(|line| line.strip_prefix(&start))?;
    Some(told.parse().unwrap())
}

#[tokio::test]
async fn a_count_tells_when_it_ended_well_and_how_long_it_took_and_a_failed_one_only_the_latter() {
    let fixture = fixture();
    push_blob(&fixture.store, &name(0), 3).await;
    let success = "stats_last_success_timestamp_seconds";
    let page = fixture.page();
    assert_eq!(value(&page, success), None, "nothing is counted yet");
    let began = Instant::now();
    let before = seconds_since_epoch();
    fixture.collector.count().await;
    let page = fixture.page();
    let succeeded = value(&page, success).unwrap();
    assert!((before..=seconds_since_epoch()).contains(&succeeded));
    let took = value(&page, "stats_duration_seconds").unwrap();
    assert!(
        took > 0.0 && took <= began.elapsed().as_secs_f64(),
        "{took}"
    );
    assert_eq!(value(&page, "stats_errors_total"), Some(0.0));

    let (repository, new) = (name(0), manifest(0));
    let written = fixture
        .store
        .manifest_write(&repository, new.clone(), &[], None);
    written.await.unwrap();
    let entry = fixture.folder.path().join("repositories/a/_manifests");
    let entry = entry.join(new.digest.as_str().replace(':', "-"));
    fs::write(entry, "{").unwrap();
    fixture.collector.stats.families.duration.set((), 0.0);
    fixture.collector.count().await;
    let page = fixture.page();
    assert_eq!(value(&page, success), Some(succeeded), "it ages");
    assert!(value(&page, "stats_duration_seconds").unwrap() > 0.0);
    assert_eq!(value(&page, "stats_errors_total"), Some(1.0));
    assert_eq!(value(&page, "blobs"), Some(1.0), "the old figures stay");
}

#[tokio::test]
async fn the_file_systems_figures_are_those_that_the_system_gives() {
    let fixture = fixture();
    assert_eq!(
        value(&fixture.page(), "storage_filesystem_size_bytes"),
        None
    );
    fixture.collector.refresh().await;
    let page = fixture.page();
    let told = rustix::fs::statvfs(fixture.folder.path()).unwrap();
    let block = told.f_frsize as f64;
    let size = told.f_blocks as f64 * block;
    // Others use it meanwhile.
    for (family, expected, others) in [
        ("storage_filesystem_size_bytes", size, 0.0),
        (
            "storage_filesystem_avail_bytes",
            told.f_bavail as f64 * block,
            size / 100.0,
        ),
        (
            "storage_filesystem_files_free",
            told.f_ffree as f64,
            told.f_files as f64 / 100.0,
        ),
    ] {
        let seen = value(&page, family).unwrap();
        assert!(
            (seen - expected).abs() <= others,
            "{family}: {seen}, {expected}"
        );
    }
}

#[tokio::test]
async fn upload_sessions_are_read_from_the_store() {
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
    let page = fixture.page();
    assert!(
        page.contains("\noctoserve_registry_upload_sessions 2\n"),
        "{page}"
    );
    assert!(
        page.contains("\noctoserve_registry_upload_bytes 5\n"),
        "{page}"
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
    let page = fixture.page();
    assert!(
        page.contains("\noctoserve_registry_upload_sessions 0\n"),
        "{page}"
    );
    assert!(
        page.contains("\noctoserve_registry_upload_oldest_age_seconds 0\n"),
        "{page}"
    );
}

#[tokio::test]
async fn the_age_of_an_upload_survives_a_restart() {
    let fixture = fixture();
    for repository in [name(0), name(1)] {
        let created = fixture.store.upload_create(&repository, Algorithm::Sha256);
        created.await.unwrap();
    }
    let sessions = fs::read_dir(fixture.folder.path().join("uploads")).unwrap();
    let session = sessions.map(|entry| entry.unwrap().path()).next().unwrap();
    let session = fs::File::options()
        .write(true)
        .open(session.join("session"))
        .unwrap();
    session
        .set_modified(SystemTime::now() - Duration::from_hours(30))
        .unwrap();
    let fixture = fixture.restarted();
    let page = fixture.page();
    let age = page
        .lines()
        .find_map(|line| line.strip_prefix("octoserve_registry_upload_oldest_age_seconds "))
        .unwrap();
    let age: f64 = age.parse().unwrap();
    let hours = age / 3600.0;
    assert!((30.0..31.0).contains(&hours), "{hours}");
    assert!(page.contains("\noctoserve_registry_upload_sessions 2\n"));
}

#[tokio::test]
async fn a_repository_that_is_no_longer_among_the_largest_is_no_longer_shown() {
    let fixture = fixture();
    fixture.collector.count().await;
    let digest = push_blob(&fixture.store, &name(3), 3).await;
    let shown = "octoserve_repository_stored_bytes{repository=\"team/app/web\"} 3000\n";
    assert!(fixture.page().contains(shown));
    fixture.store.blob_delete(&name(3), &digest).await.unwrap();
    let page = fixture.page();
    assert!(!page.contains("team/app/web"), "{page}");
    assert!(page.contains("octoserve_repository_stored_bytes{repository=\"_other\"} 0\n"));
}

#[tokio::test]
async fn the_200_largest_repositories_are_shown_and_the_rest_together() {
    let fixture = fixture();
    let bytes = |n: usize| vec![7; 1000 + n];
    for n in 0..205 {
        let name = format!("r{n}");
        crate::store::suite::push(&fixture.store, &name, &bytes(n)).await;
    }
    fixture.collector.count().await;
    let page = fixture.page();
    let family = "octoserve_repository_stored_bytes{repository=";
    let shown: BTreeMap<_, _> = page
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
