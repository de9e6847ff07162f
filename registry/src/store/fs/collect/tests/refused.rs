//! Each step of a collection refused by the system: what is needed stays, nothing that is there misses
//! anything, the report says what went, and the next collection does the rest.

use std::collections::HashMap;

use super::*;
use crate::store::fs::refuser::{FAILURES, Refuser};
use crate::store::fs::scratch;

/// A store of which some goes, and its repositories' manifests with the blobs and manifests that they need.
struct Fixture {
    store: FsStore,
    directory: TempDir,
    manifests: Vec<Needing>,
    /// The places in `manifests` of those that stay.
    kept: [usize; 3],
}

struct Needing {
    repository: &'static str,
    digest: Digest,
    blobs: Vec<Digest>,
    manifests: Vec<Digest>,
}

impl Fixture {
    async fn new() -> Self {
        let directory = scratch();
        let store = FsStore::open(directory.path(), Durability::Full, Arc::new(())).unwrap();
        let mut manifests = Vec::new();
        let mut add = |repository, digest: &Digest, blobs: &[&Digest], needed: &[&Digest]| {
            manifests.push(Needing {
                repository,
                digest: digest.clone(),
                blobs: blobs.iter().copied().cloned().collect(),
                manifests: needed.iter().copied().cloned().collect(),
            });
        };
        let shared = push(&store, "kept", b"shared").await;
        push(&store, "kept", b"unused").await;
        let tagged = put(&store, "kept", &image(&[&shared]), &["1"]).await;
        add("kept", &tagged, &[&shared], &[]);
        let signature = put(&store, "kept", &referrer(&tagged), &[]).await;
        add("kept", &signature, &[], &[]);
        push(&store, "some", b"shared").await;
        let other = put(&store, "some", &image(&[&shared]), &["2"]).await;
        add("some", &other, &[&shared], &[]);
        let blob = push(&store, "some", b"of the child").await;
        let child = put(&store, "some", &image(&[&blob]), &[]).await;
        add("some", &child, &[&blob], &[]);
        let parent = put(&store, "some", &index(&[&child]), &[]).await;
        add("some", &parent, &[], &[&child]);
        let of_child = put(&store, "some", &referrer(&child), &[]).await;
        add("some", &of_child, &[], &[]);
        push(&store, "all/of/it", b"alone").await;
        // What a crash leaves.
        let repositories = directory.path().join("repositories");
        let absent = Digest::of(Algorithm::Sha256, b"absent");
        let absent = absent.as_str().replace(':', "-");
        let of_absent = repositories.join("kept/_referrers").join(&absent);
        fs::create_dir(&of_absent).unwrap();
        fs::write(of_absent.join(&absent), "{}").unwrap();
        fs::create_dir_all(repositories.join("none/_tags")).unwrap();
        Self {
            store,
            directory,
            manifests,
            kept: [0, 1, 2],
        }
    }

    /// How many blobs and manifests repositories hold, and how much content of each there is.
    fn counts(&self) -> [u64; 4] {
        let tree = tree(self.directory.path());
        let root = self.directory.path().display().to_string();
        let below = |start: &str, part: &str| {
            let paths = tree
                .iter()
                .map(|path| path.trim_start_matches(&root))
                .filter(|path| path.starts_with(start) && path.contains(part));
            paths.count() as u64
        };
        // A shard is a directory of two digits, and a file has more.
        let content = |pool: &str| {
            let start = format!("/{pool}/sha256/");
            let paths = tree
                .iter()
                .filter_map(|path| path.trim_start_matches(&root).strip_prefix(&start))
                .filter(|rest| rest.contains('/'));
            paths.count() as u64
        };
        [
            below("/repositories/", "/_blobs/"),
            below("/repositories/", "/_manifests/"),
            content("blobs"),
            content("manifests"),
        ]
    }

    /// What is kept is there, and what is there is whole.
    async fn is_whole(&self, what: &str) {
        for (place, manifest) in self.manifests.iter().enumerate() {
            let at = manifest.repository;
            let is_there = has_manifest(&self.store, at, &manifest.digest).await;
            assert!(is_there || !self.kept.contains(&place), "{what}: {place}");
            if !is_there {
                continue;
            }
            for blob in &manifest.blobs {
                assert!(has_blob(&self.store, at, blob).await, "{what}: {blob}");
            }
            for needed in &manifest.manifests {
                let is_there = has_manifest(&self.store, at, needed).await;
                assert!(is_there, "{what}: {needed}");
            }
        }
    }
}

/// The numbers of the steps that are tried: all but those of the many shards that are not there, and few of
/// those that come again and again.
fn chosen(steps: &[String], is_there: impl Fn(&str) -> bool) -> Vec<usize> {
    let mut met: HashMap<_, u32> = HashMap::new();
    let chosen = steps.iter().enumerate().filter(|(_, step)| {
        let times = met.entry(step.as_str()).or_default();
        *times += 1;
        let path = step.split('"').nth(1).unwrap_or_default();
        let is_content = path.contains("/blobs/sha") || path.contains("/manifests/sha");
        *times <= 3 && (!is_content || is_there(path))
    });
    chosen.map(|(number, _)| number).collect()
}

#[tokio::test]
async fn a_collection_on_a_failing_disk_breaks_nothing_and_the_next_one_does_the_rest() {
    let fixture = Fixture::new().await;
    let was_there = tree(fixture.directory.path());
    let refuser = Refuser::of(fixture.directory.path());
    collect(&fixture.store, UNTAGGED);
    let steps = refuser.end();
    let after = fixture.counts();
    let root = |fixture: &Fixture| fixture.directory.path().display().to_string();
    let relative = |fixture: &Fixture| -> Vec<String> {
        let root = root(fixture);
        let tree = tree(fixture.directory.path());
        tree.iter().map(|path| path.replace(&root, "")).collect()
    };
    let after_tree = relative(&fixture);
    let numbers = chosen(&steps, |path| was_there.iter().any(|one| one == path));
    assert!(numbers.len() > 100, "{} of {}", numbers.len(), steps.len());
    for number in numbers {
        let step = &steps[number];
        for (errno, extent, kind) in FAILURES {
            let what = format!("{errno:?} for {extent:?} at {number}, {step}");
            let fixture = Fixture::new().await;
            let before = fixture.counts();
            let refuser = Refuser::of(fixture.directory.path());
            refuser.begin(Some((number, errno, extent)));
            let mut report = GcReport::default();
            let run = Run::new(Pace::Full);
            let ended = fixture.store.collect(UNTAGGED, &run, &mut report);
            refuser.end();
            match &ended {
                Ok(()) => {}
                Err(GcError::Store(error)) => assert_eq!(error.kind(), kind, "{what}: {error:?}"),
                Err(error) => panic!("{what}: {error:?}"),
            }
            let now = fixture.counts();
            let reported = [report.links, report.entries, report.blobs, report.manifests];
            for (place, reported) in reported.into_iter().enumerate() {
                assert_eq!(before[place] - now[place], reported, "{what}: {report:?}");
            }
            if ended.is_ok() && report.skipped == 0 {
                assert_eq!(now, after, "{what}: {report:?}");
            }
            fixture.is_whole(&what).await;
            drop(refuser);
            assert_eq!(collect(&fixture.store, UNTAGGED).skipped, 0, "{what}");
            fixture.is_whole(&what).await;
            assert_eq!(relative(&fixture), after_tree, "{what}");
        }
    }
}

#[tokio::test]
async fn deletions_of_before_are_on_disk_before_a_manifest_or_a_blob_goes() {
    let fixture = Fixture::new().await;
    let refuser = Refuser::of(fixture.directory.path());
    collect(&fixture.store, UNTAGGED);
    let steps = refuser.end();
    let first = |kind: &str, path: &str| {
        let of_kind = |step: &String| step.starts_with(kind) && step.contains(path);
        let found = steps.iter().position(of_kind);
        found.unwrap_or_else(|| panic!("no {kind} of {path}: {steps:#?}"))
    };
    let synced = first("SyncDirectory", "/some/_manifests\"");
    assert!(synced < first("RemoveFile", "/some/_manifests/"));
    let synced = first("SyncDirectory", "/some/_tags\"");
    assert!(synced < first("RemoveFile", "/some/_manifests/"));
    assert!(first("SyncDirectory", "/kept/_manifests\"") < first("RemoveFile", "/kept/_blobs/"));
    assert!(first("SyncFileSystem", "") < first("RemoveFile", "/blobs/sha256/"));
}

#[tokio::test]
async fn an_index_that_a_client_deletes_meanwhile_is_on_disk_before_its_image_goes() {
    let fixture = Fixture::new().await;
    let entries = fixture
        .directory
        .path()
        .join("repositories/some/_manifests");
    let entry = |place: usize| {
        let digest = fixture.manifests[place].digest.as_str();
        entries.join(digest.replace(':', "-"))
    };
    let (image, index) = (entry(3), entry(4));
    let refuser = Refuser::of(fixture.directory.path());
    let sync = format!("SyncDirectory(\"{}\")", entries.display());
    // A deletion that is not synced yet, after the collection has read the index.
    refuser.at(&sync, move || drop(fs::remove_file(&index)));
    collect(&fixture.store, UNTAGGED);
    let steps = refuser.end();
    let removed = format!("RemoveFile(\"{}\")", image.display());
    let removed = steps.iter().position(|step| *step == removed).unwrap();
    let syncs = steps[..removed].iter().filter(|step| **step == sync);
    assert!(syncs.count() >= 2, "{steps:#?}");
}
