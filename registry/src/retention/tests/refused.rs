//! Each step of a run refused by the system: what is kept stays, the report says what went, and the next run
//! does the rest.

use super::*;
use crate::store::fs::refuser::{FAILURES, Refuser};
use crate::store::fs::scratch;
use crate::store::{ErrorKind, StoreError};

/// A repository of which the newest tag, its image, and the referrer stay; and the rules for it.
async fn prepared() -> (Fixture, RetentionSettings, Digest) {
    let directory = scratch();
    write_memory_since_1970(directory.path());
    let store = FsStore::open(directory.path(), Durability::Full, Arc::new(())).unwrap();
    let fixture = Fixture { store, directory };
    let kept = fixture.push(&image(0), &["new"], 1).await;
    fixture.push(&referrer(&kept), &[], 100).await;
    for (n, tag) in [(1, "old"), (2, "older"), (3, "oldest")] {
        fixture.push(&image(n), &[tag], 100).await;
    }
    let child = fixture.push(&image(4), &[], 100).await;
    fixture.push(&index(&[&child]), &[], 100).await;
    (fixture, newest(1, Some(DAY)), kept)
}

impl Fixture {
    fn files(&self, of: &str) -> usize {
        let path = self.directory.path().join("repositories/a").join(of);
        std::fs::read_dir(path).map_or(0, Iterator::count)
    }

    fn run_once(&self, settings: &RetentionSettings) -> (RetentionReport, Option<StoreError>) {
        let mut report = RetentionReport::default();
        let run_at = Run::new(Pace::Full);
        let error = match run(&self.store, settings, false, &run_at, &mut report) {
            Ok(()) => None,
            Err(RetentionError::Store(error)) => Some(error),
            Err(RetentionError::Interrupted(_)) => panic!("nobody stopped it"),
        };
        (report, error)
    }
}

#[tokio::test]
async fn a_run_on_a_failing_disk_tells_of_all_that_went_and_the_next_one_does_the_rest() {
    let (fixture, settings, _) = prepared().await;
    let refuser = Refuser::of(fixture.directory.path());
    fixture.run_once(&settings);
    let steps = refuser.end();
    drop(refuser);
    let after = (fixture.files("_tags"), fixture.files("_manifests"));
    // The tags' images are kept for their time from when the tags left.
    assert_eq!(after, (1, 5));
    for (number, step) in steps.iter().enumerate() {
        for (errno, extent, kind) in FAILURES {
            let what = format!("{errno:?} for {extent:?} at {number}, {step}");
            let (fixture, settings, kept) = prepared().await;
            let before = (fixture.files("_tags"), fixture.files("_manifests"));
            let refuser = Refuser::of(fixture.directory.path());
            refuser.begin(Some((number, errno, extent)));
            let (report, error) = fixture.run_once(&settings);
            drop(refuser);
            let is_done = error.is_none();
            // The directory itself: nothing else ends a run.
            if let Some(error) = error {
                assert!(
                    matches!(error, StoreError::Lost { .. }),
                    "{what}: {error:?}"
                );
                assert!([ErrorKind::Io, kind].contains(&error.kind()), "{what}");
            }
            let now = (fixture.files("_tags"), fixture.files("_manifests"));
            let tags = report.total.tags_deleted;
            let manifests = report.total.manifests_deleted;
            assert_eq!(before.0 - now.0, usize::try_from(tags).unwrap(), "{what}");
            let gone = before.1 - now.1;
            assert_eq!(gone, usize::try_from(manifests).unwrap(), "{what}");
            assert_eq!(report.deletions.len(), before.0 - now.0 + gone, "{what}");
            if report.failures == 0 && is_done {
                assert_eq!(now, after, "{what}: {report:?}");
            }
            assert!(
                fixture.tags("a").await.contains(&"new".to_owned()),
                "{what}"
            );
            assert!(fixture.has(&kept).await, "{what}");
            fixture.run(&settings);
            let now = (fixture.files("_tags"), fixture.files("_manifests"));
            assert_eq!(now, after, "{what}");
        }
    }
}
