mod busy;
mod exploration;
mod model;
mod refused;
mod together;
mod untagged_model;

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, SystemTime};

use tempfile::TempDir;

use super::*;
use crate::oci::{Algorithm, Descriptor, Digest, Reference, Tag};
use crate::store::fs::refuser::Refuser;
use crate::store::fs::{Durability, FsStore, StoreOptions};
use crate::store::maintenance::Pace;
use crate::store::suite::{manifest, push};
use crate::store::{NewManifest, Store};

/// Keeps nothing for a time, but for untagged manifests.
const AT_ONCE: GcSettings = GcSettings {
    grace: Duration::ZERO,
    untagged: None,
    dry_run: false,
};

/// And those neither.
const UNTAGGED: GcSettings = GcSettings {
    untagged: Some(Duration::ZERO),
    ..AT_ONCE
};

/// What a registry does by default.
const DAY: GcSettings = GcSettings {
    grace: StoreOptions::GRACE,
    ..AT_ONCE
};

fn new() -> (FsStore, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    (open(directory.path()), directory)
}

fn open(directory: &Path) -> FsStore {
    FsStore::open(directory, Durability::Relaxed, Arc::new(())).unwrap()
}

fn collect(store: &FsStore, settings: GcSettings) -> GcReport {
    let mut report = GcReport::default();
    let run = Run::new(Pace::Full);
    store.collect(settings, &run, &mut report).unwrap();
    report
}

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn tag(text: &str) -> Tag {
    Tag::parse(text).unwrap()
}

/// An image, whose bytes mention its blobs.
fn image(blobs: &[&Digest]) -> NewManifest {
    let layers: Vec<_> = blobs
        .iter()
        .map(|blob| serde_json::json!({"digest": blob.as_str()}))
        .collect();
    let mut new = manifest(&serde_json::json!({ "layers": layers }).to_string());
    new.blobs = blobs.iter().copied().cloned().collect();
    new
}

fn index(children: &[&Digest]) -> NewManifest {
    let mut new = image(children);
    new.children = std::mem::take(&mut new.blobs);
    new
}

fn referrer(subject: &Digest) -> NewManifest {
    let text = serde_json::json!({"subject": {"digest": subject.as_str()}}).to_string();
    let mut new = manifest(&text);
    let descriptor = Descriptor::new(
        new.media_type.clone(),
        new.digest.clone(),
        text.len() as u64,
    );
    new.subject = Some((subject.clone(), descriptor));
    new
}

async fn put(store: &FsStore, repository: &str, new: &NewManifest, tags: &[&str]) -> Digest {
    let tags: Vec<_> = tags.iter().map(|text| tag(text)).collect();
    let name = name(repository);
    let written = store.manifest_write(&name, new.clone(), &tags, None);
    written.await.unwrap();
    new.digest.clone()
}

async fn has_blob(store: &FsStore, repository: &str, digest: &Digest) -> bool {
    store
        .blob_read(&name(repository), digest, None)
        .await
        .is_ok()
}

async fn has_manifest(store: &FsStore, repository: &str, digest: &Digest) -> bool {
    let reference = Reference::Digest(digest.clone());
    store
        .manifest_read(&name(repository), &reference)
        .await
        .is_ok()
}

/// Every file and directory below one.
fn tree(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut next = vec![directory.to_owned()];
    while let Some(directory) = next.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let entry = entry.unwrap();
            found.push(entry.path().display().to_string());
            if entry.file_type().unwrap().is_dir() {
                next.push(entry.path());
            }
        }
    }
    found.sort();
    found
}

/// Makes all files below a directory so old.
fn age(directory: &Path, by: Duration) {
    for path in tree(directory) {
        let metadata = fs::symlink_metadata(&path).unwrap();
        if metadata.is_file() {
            let time = SystemTime::now() - by;
            File::open(&path).unwrap().set_modified(time).unwrap();
        }
    }
}

#[tokio::test]
async fn a_registry_from_which_all_was_deleted_is_as_small_as_a_new_one() {
    let (store, directory) = new();
    let before = tree(directory.path());
    let blob = push(&store, "team/app/web", b"x").await;
    let image = put(&store, "team/app/web", &image(&[&blob]), &["1"]).await;
    put(&store, "team/app/web", &referrer(&image), &[]).await;
    put(&store, "other", &index(&[]), &["latest"]).await;
    for (repository, tag_name) in [("team/app/web", "1"), ("other", "latest")] {
        let tag = tag(tag_name);
        store
            .tag_delete(&name(repository), &tag, None)
            .await
            .unwrap();
    }
    let report = collect(&store, UNTAGGED);
    assert_eq!((report.links, report.entries), (1, 3));
    assert_eq!((report.blobs, report.manifests, report.skipped), (1, 3, 0));
    assert!(report.freed > 0);
    assert_eq!(tree(directory.path()), before);
}

#[tokio::test]
async fn what_a_crash_has_left_of_a_repository_goes() {
    let (store, directory) = new();
    let before = tree(directory.path());
    let subject = put(&store, "team/app", &manifest("{}"), &["1"]).await;
    let kept = put(&store, "team/app", &referrer(&subject), &[]).await;
    let with_one = tree(directory.path());
    let repositories = directory.path().join("repositories");
    let hyphened = |digest: &Digest| digest.as_str().replace(':', "-");
    let of_subject = repositories
        .join("team/app/_referrers")
        .join(hyphened(&subject));
    for n in 0..100 {
        let absent = hyphened(&Digest::of(Algorithm::Sha256, &[n]));
        fs::write(of_subject.join(&absent), "{}").unwrap();
        let of_absent = repositories.join("team/app/_referrers").join(&absent);
        fs::create_dir(&of_absent).unwrap();
        fs::write(of_absent.join(&absent), "{}").unwrap();
    }
    fs::create_dir_all(repositories.join("team/gone/_tags")).unwrap();
    fs::create_dir_all(repositories.join("other/gone")).unwrap();
    // What the store did not make stays.
    let foreign = of_subject.join("foreign");
    fs::write(&foreign, "").unwrap();
    let report = collect(&store, AT_ONCE);
    assert_eq!((report.repositories, report.skipped), (1, 0));
    fs::remove_file(&foreign).unwrap();
    assert_eq!(tree(directory.path()), with_one);
    assert!(has_manifest(&store, "team/app", &kept).await);

    let (app, tag) = (name("team/app"), tag("1"));
    store.tag_delete(&app, &tag, None).await.unwrap();
    // A damaged manifest does not say whose referrer it is: its descriptor stays until now.
    let entry = repositories
        .join("team/app/_manifests")
        .join(hyphened(&kept));
    fs::write(entry, "damaged").unwrap();
    store.manifest_delete(&app, &kept).await.unwrap();
    collect(&store, UNTAGGED);
    assert_eq!(tree(directory.path()), before);
}

#[tokio::test]
async fn what_an_image_needs_stays_and_what_none_needs_goes() {
    let (store, directory) = new();
    let (needed, loose) = (
        push(&store, "a", b"needed").await,
        push(&store, "a", b"loose").await,
    );
    put(&store, "a", &image(&[&needed]), &["1"]).await;
    // Another repository holds the same bytes, and has no image.
    store.blob_mount(&name("b"), None, &needed).await.unwrap();
    let report = collect(&store, DAY);
    assert_eq!(
        report,
        GcReport {
            repositories: 2,
            ..GcReport::default()
        }
    );
    let report = collect(&store, AT_ONCE);
    assert_eq!((report.links, report.blobs), (2, 1));
    assert!(has_blob(&store, "a", &needed).await);
    assert!(!has_blob(&store, "a", &loose).await);
    assert!(!has_blob(&store, "b", &needed).await);
    assert!(!directory.path().join("repositories/b").exists());
}

#[tokio::test]
async fn a_dry_run_says_what_goes_and_leaves_all_of_it() {
    let (store, directory) = new();
    for repository in ["a", "b/c"] {
        let (one, two) = (
            push(&store, repository, b"1").await,
            push(&store, "a", b"2").await,
        );
        let child = put(&store, repository, &image(&[&one]), &[]).await;
        put(&store, repository, &index(&[&child]), &[]).await;
        put(&store, repository, &referrer(&child), &[]).await;
        put(&store, "a", &image(&[&two]), &["kept"]).await;
    }
    let before = tree(directory.path());
    let dry = collect(
        &store,
        GcSettings {
            dry_run: true,
            ..UNTAGGED
        },
    );
    assert_eq!(tree(directory.path()), before);
    assert!(
        dry.blobs == 1 && dry.links == 2 && dry.entries == 6 && dry.manifests == 3,
        "{dry:?}"
    );
    assert_eq!(collect(&store, UNTAGGED), dry);
}

#[tokio::test]
async fn what_a_client_was_told_of_stays_for_the_grace() {
    let hours = Duration::from_hours;
    let (store, directory) = new();
    let [head, get, mounted, pushed] = ["head", "get", "mounted", "pushed"];
    let mut blobs = Vec::new();
    for text in [head, get, mounted, pushed] {
        blobs.push(push(&store, "a", text.as_bytes()).await);
    }
    store.blob_mount(&name("a"), None, &blobs[2]).await.unwrap();
    age(directory.path(), hours(100));
    store.blob_stat(&name("a"), &blobs[0]).await.unwrap();
    assert!(has_blob(&store, "a", &blobs[1]).await);
    store
        .blob_mount(&name("a"), Some(&name("a")), &blobs[2])
        .await
        .unwrap();
    push(&store, "a", pushed.as_bytes()).await;
    collect(&store, DAY);
    let mut kept = Vec::new();
    for blob in &blobs {
        kept.push(has_blob(&store, "a", blob).await);
    }
    // A GET is no promise: who has the bytes can push them.
    assert_eq!(kept, [true, false, true, true]);
    // A time that is not written with each request may be older than what the client was told.
    age(directory.path(), hours(24) + Duration::from_mins(15));
    collect(&store, DAY);
    assert!(has_blob(&store, "a", &blobs[0]).await);
    age(directory.path(), hours(25));
    collect(&store, DAY);
    assert!(!has_blob(&store, "a", &blobs[0]).await);
}

#[tokio::test]
async fn an_untagged_manifest_stays_for_its_time_from_when_its_tag_left() {
    let (store, directory) = new();
    let first = put(&store, "a", &image(&[]), &["latest", "also"]).await;
    age(directory.path(), Duration::from_hours(100));
    let second = put(&store, "a", &index(&[&first]), &[]).await;
    store
        .tag_write(&name("a"), &tag("latest"), &second)
        .await
        .unwrap();
    store.manifest_delete(&name("a"), &second).await.unwrap();
    store
        .tag_delete(&name("a"), &tag("also"), None)
        .await
        .unwrap();
    let settings = GcSettings {
        untagged: Some(Duration::from_hours(48)),
        ..DAY
    };
    collect(&store, settings);
    assert!(has_manifest(&store, "a", &first).await);
    age(directory.path(), Duration::from_hours(100));
    // It was told of above, when it was read.
    collect(&store, settings);
    assert!(!has_manifest(&store, "a", &first).await);
}

#[tokio::test]
async fn untagged_manifests_stay_where_they_are_not_asked_for_or_something_leads_to_them() {
    let (store, _directory) = new();
    let blob = push(&store, "a", b"x").await;
    let image = put(&store, "a", &image(&[&blob]), &[]).await;
    let inner = put(&store, "a", &index(&[&image]), &[]).await;
    let outer = put(&store, "a", &index(&[&inner]), &["1"]).await;
    let signature = put(&store, "a", &referrer(&image), &[]).await;
    let of_none = put(&store, "a", &referrer(&blob), &[]).await;
    collect(&store, AT_ONCE);
    assert!(has_manifest(&store, "a", &of_none).await);
    collect(&store, UNTAGGED);
    assert!(!has_manifest(&store, "a", &of_none).await);
    for digest in [&image, &inner, &outer, &signature] {
        assert!(has_manifest(&store, "a", digest).await);
    }
    assert!(has_blob(&store, "a", &blob).await);
    // A deleted subject takes its referrers with it, and an index its manifests.
    store.manifest_delete(&name("a"), &outer).await.unwrap();
    let report = collect(&store, UNTAGGED);
    assert_eq!(
        (report.entries, report.links, report.manifests, report.blobs),
        (3, 1, 4, 1)
    );
}

#[tokio::test]
async fn a_sparse_manifest_keeps_the_blobs_that_it_mentions() {
    let (store, _directory) = new();
    let blob = push(&store, "a", b"x").await;
    let mut sparse = image(&[&blob, &Digest::of(Algorithm::Sha256, b"elsewhere")]);
    sparse.blobs.clear();
    put(&store, "a", &sparse, &["1"]).await;
    assert_eq!(collect(&store, AT_ONCE).links, 0);
    assert!(has_blob(&store, "a", &blob).await);
}

#[tokio::test]
async fn what_cannot_be_read_needs_everything() {
    let (store, directory) = new();
    let blob = push(&store, "a", b"x").await;
    let image = put(&store, "a", &image(&[]), &["1"]).await;
    let loose = push(&store, "b", b"y").await;
    let hex = image.hex();
    let content = directory
        .path()
        .join(format!("manifests/sha256/{}/{hex}", &hex[..2]));
    let whole = fs::read(&content).unwrap();
    for damaged in [&b"{}"[..], b"", b"{"] {
        fs::write(&content, damaged).unwrap();
        assert_eq!(collect(&store, AT_ONCE).skipped, 1);
        assert!(has_blob(&store, "a", &blob).await);
    }
    fs::remove_file(&content).unwrap();
    assert_eq!(collect(&store, AT_ONCE).skipped, 1);
    assert!(has_blob(&store, "a", &blob).await);
    // Other repositories were collected all the same.
    assert!(!has_blob(&store, "b", &loose).await);
    fs::create_dir_all(content.parent().unwrap()).unwrap();
    fs::write(&content, whole).unwrap();
    let tag = directory.path().join("repositories/a/_tags/1");
    fs::write(&tag, "nonsense").unwrap();
    assert_eq!(collect(&store, UNTAGGED).skipped, 1);
    assert!(has_manifest(&store, "a", &image).await);
}

#[tokio::test]
async fn repositories_behind_a_symbolic_link_keep_all_content() {
    let (store, directory) = new();
    let blob = push(&store, "a", b"x").await;
    put(&store, "a", &image(&[&blob]), &["1"]).await;
    let loose = push(&store, "b", b"y").await;
    let elsewhere = tempfile::tempdir().unwrap();
    let (place, moved) = (
        directory.path().join("repositories/a"),
        elsewhere.path().join("a"),
    );
    fs::rename(&place, &moved).unwrap();
    symlink(&moved, &place).unwrap();
    let report = collect(&store, AT_ONCE);
    assert_eq!((report.skipped, report.blobs, report.links), (1, 0, 1));
    assert!(has_blob(&store, "a", &blob).await);
    assert!(!has_blob(&store, "b", &loose).await);
    fs::remove_file(&place).unwrap();
    fs::rename(&moved, &place).unwrap();
    assert_eq!(collect(&store, AT_ONCE).blobs, 1);
    assert!(has_blob(&store, "a", &blob).await);
}

#[tokio::test]
async fn what_the_store_did_not_make_stays() {
    let (store, directory) = new();
    push(&store, "a", b"x").await;
    let digest = Digest::of(Algorithm::Sha256, b"z");
    let (hex, shard) = (digest.hex(), directory.path().join("blobs/sha256"));
    let shard = shard.join(&hex[..2]);
    fs::create_dir_all(shard.join(hex)).unwrap();
    for stranger in ["README", &hex[1..], "0000"] {
        fs::write(shard.join(stranger), "mine").unwrap();
    }
    let repository = directory.path().join("repositories/a");
    fs::write(repository.join("_blobs/notes"), "mine").unwrap();
    assert_eq!(collect(&store, UNTAGGED).blobs, 1);
    assert_eq!(fs::read_dir(&shard).unwrap().count(), 4);
    assert!(repository.join("_blobs/notes").exists());
}

#[tokio::test]
async fn a_second_collection_says_that_one_runs_and_nothing_goes_without_the_directory() {
    let (store, directory) = new();
    push(&store, "a", b"x").await;
    let running = store.data.reliance.watch(&store.data.locks);
    let refused = store.collect(AT_ONCE, &Run::new(Pace::Full), &mut GcReport::default());
    assert!(matches!(refused, Err(GcError::Running)));
    drop(running);
    let repositories = directory.path().join("repositories");
    let aside = directory.path().join("aside");
    fs::rename(&repositories, &aside).unwrap();
    let run = Run::new(Pace::Full);
    let failed = store.collect(AT_ONCE, &run, &mut GcReport::default());
    assert!(matches!(
        failed,
        Err(GcError::Store(StoreError::Lost { .. }))
    ));
    fs::rename(&aside, &repositories).unwrap();
    assert_eq!(collect(&store, AT_ONCE).blobs, 1);
}

#[tokio::test]
async fn one_that_goes_on_at_a_repository_that_is_gone_frees_as_much() {
    let (store, directory) = new();
    let unused = push(&store, "a", b"unused").await;
    fs::write(directory.path().join("maintenance/gc"), "b\n").unwrap();
    let report = collect(&store, AT_ONCE);
    assert_eq!((report.links, report.blobs), (1, 1));
    assert!(!has_blob(&store, "a", &unused).await);
}

#[tokio::test]
async fn an_interrupted_collection_goes_on_where_it_ended() {
    let (store, directory) = new();
    for n in 0..20 {
        push(&store, &format!("r{n}"), &[n]).await;
    }
    let place = directory.path().join("maintenance/gc");
    // The walk is in the same order each time: half of it is done.
    let mut walk = store.walk_repositories();
    let half = walk.nth(9).unwrap().unwrap();
    fs::write(&place, format!("{half}\n")).unwrap();
    let report = collect(&store, AT_ONCE);
    assert_eq!(
        (report.repositories, report.links, report.blobs),
        (10, 10, 10)
    );
    assert!(!place.exists());
    // Of a repository that is gone, or of no repository: from the start.
    for text in ["gone\n", "\0\0\n", "r1", ""] {
        fs::write(&place, text).unwrap();
        assert_eq!(collect(&store, DAY).repositories, 10, "{text:?}");
    }
    let run = Run::new(Pace::Full);
    run.stop();
    let mut report = GcReport::default();
    let stopped = store.collect(AT_ONCE, &run, &mut report);
    assert!(matches!(stopped, Err(GcError::Interrupted(_))));
    assert_eq!(report.links, 0);
    assert_eq!(collect(&store, AT_ONCE).blobs, 10);
}

#[tokio::test]
async fn one_that_is_stopped_within_a_repository_goes_on_at_the_same() {
    for step in ["ReadDirectory", "RemoveFile"] {
        let (store, directory) = new();
        for n in 0..20 {
            push(&store, &format!("r{n}"), &[n]).await;
        }
        let order: Vec<_> = store.walk_repositories().map(Result::unwrap).collect();
        let disk = Refuser::of(directory.path());
        let run = Arc::new(Run::new(Pace::Full));
        let stopped = Arc::clone(&run);
        let path = directory
            .path()
            .join(format!("repositories/{}/_blobs", order[9]));
        let step = format!("{step}(\"{}", path.display());
        disk.at(&step, move || stopped.stop());
        let mut report = GcReport::default();
        let ended = store.collect(AT_ONCE, &run, &mut report);
        assert!(matches!(ended, Err(GcError::Interrupted(_))), "{ended:?}");
        let before = report.links;
        assert!(before == 9 || before == 10, "{step}: {report:?}");
        let kept = fs::read_to_string(directory.path().join("maintenance/gc")).unwrap();
        let last = usize::try_from(before).unwrap() - 1;
        assert_eq!(kept, format!("{}\n", order[last]));
        drop(disk);
        let report = collect(&store, AT_ONCE);
        assert_eq!(report.repositories, 20 - before, "{step}");
        assert_eq!((report.links, report.blobs), (20 - before, 20));
    }
}
