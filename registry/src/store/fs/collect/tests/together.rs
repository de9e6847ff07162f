//! Collections while other tasks push, mount and delete.

use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::try_join_all;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

const TASKS: u64 = 4;
const ROUNDS: usize = 150;

fn content(n: usize) -> Vec<u8> {
    vec![b'x'; 1 + n]
}

/// Pushes images of a few blobs that all tasks share, deletes them, and returns those that are left. A
/// push of an image may fail, because a blob is gone again; one that was acknowledged has all it needs.
async fn push_and_delete(store: FsStore, task: u64) -> Vec<(Name, NewManifest)> {
    let mut random = StdRng::seed_from_u64(task);
    let mut left: Vec<(Name, NewManifest)> = Vec::new();
    for round in 0..ROUNDS {
        let repository = name(&format!("r{}", random.random_range(0..3)));
        let own = name(&format!("own/{task}"));
        let repository = if random.random_bool(0.5) {
            own
        } else {
            repository
        };
        let mut blobs = Vec::new();
        for _ in 0..2 {
            let bytes = content(random.random_range(0..4));
            let digest = Digest::of(Algorithm::Sha256, &bytes);
            let is_mounted = random.random_bool(0.5)
                && store.blob_mount(&repository, None, &digest).await.is_ok();
            if !is_mounted {
                push(&store, repository.as_str(), &bytes).await;
            }
            blobs.push(digest);
        }
        blobs.push(
            push(
                &store,
                repository.as_str(),
                format!("{task} {round}").as_bytes(),
            )
            .await,
        );
        let new = image(&[&blobs[0], &blobs[1], &blobs[2]]);
        let tag = tag(&format!("{task}-{round}"));
        match store
            .manifest_write(&repository, new.clone(), &[tag], None)
            .await
        {
            Ok(_) => left.push((repository, new)),
            Err(StoreError::ReferenceUnknown { .. }) => {}
            Err(error) => panic!("{error:?}"),
        }
        if left.len() > 3 {
            let (repository, gone) = left.remove(random.random_range(0..left.len()));
            store
                .manifest_delete(&repository, &gone.digest)
                .await
                .unwrap();
        }
        for (repository, new) in &left {
            assert_whole(&store, repository, new).await;
        }
    }
    left
}

async fn assert_whole(store: &FsStore, repository: &Name, new: &NewManifest) {
    assert!(has_manifest(store, repository.as_str(), &new.digest).await);
    for blob in &new.blobs {
        assert!(
            has_blob(store, repository.as_str(), blob).await,
            "{repository} misses {blob}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_ever_misses_a_blob() {
    let (store, directory) = new();
    let is_done = Arc::new(AtomicBool::new(false));
    let collector = {
        let (store, is_done) = (store.clone(), Arc::clone(&is_done));
        std::thread::spawn(move || {
            let mut reports = Vec::new();
            while !is_done.load(Ordering::Relaxed) {
                reports.push(collect(&store, UNTAGGED));
            }
            reports
        })
    };
    let tasks = (0..TASKS).map(|task| tokio::spawn(push_and_delete(store.clone(), task)));
    let left = try_join_all(tasks).await.unwrap().concat();
    is_done.store(true, Ordering::Relaxed);
    let reports = collector.join().unwrap();
    let sum = |what: fn(&GcReport) -> u64| reports.iter().map(what).sum::<u64>();
    assert!(
        sum(|report| report.links) > 0 && sum(|report| report.blobs) > 0,
        "{reports:?}"
    );
    assert_eq!(sum(|report| report.skipped), 0);
    assert!(!left.is_empty());
    for (repository, new) in &left {
        assert_whole(&store, repository, new).await;
    }
    // The same holds without anything in memory, and nothing else is left.
    drop(store);
    let store = open(directory.path());
    collect(&store, UNTAGGED);
    for (repository, new) in &left {
        assert_whole(&store, repository, new).await;
        store
            .manifest_delete(repository, &new.digest)
            .await
            .unwrap();
    }
    collect(&store, UNTAGGED);
    for pool in ["blobs", "manifests", "repositories"] {
        assert_eq!(
            fs::read_dir(directory.path().join(pool)).unwrap().count(),
            0,
            "{pool}"
        );
    }
}
