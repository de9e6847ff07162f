//! The steps of an operation on disk, as an observer sees them.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::*;
use crate::store::fs::disk::Step;
use crate::store::fs::disk::observer::{Observer, observe};

/// Notes the steps that change anything, and refuses to sync a directory while it is told so.
struct Notes {
    root: PathBuf,
    refuse: AtomicBool,
    steps: Mutex<Vec<String>>,
}

impl Observer for Notes {
    fn around(&self, step: &Step<'_>, call: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()> {
        let is_read = matches!(
            step,
            Step::Open(_) | Step::ReadDirectory(_) | Step::Metadata(_)
        );
        if is_read {
            return call();
        }
        let is_refused =
            matches!(step, Step::SyncDirectory(_)) && self.refuse.load(Ordering::SeqCst);
        let done = if is_refused {
            Err(io::Error::other("refused"))
        } else {
            call()
        };
        let parts: Vec<_> = step
            .path()
            .strip_prefix(&self.root)
            .unwrap()
            .iter()
            .collect();
        // Names that are digests or drawn at random are long.
        let parts = parts.iter().map(|part| match part.len() {
            0..=8 => part.to_str().unwrap(),
            _ => "…",
        });
        let text = format!("{step:?}");
        let kind = text.split('(').next().unwrap();
        let outcome = done.as_ref().map_or(" failed", |()| "");
        let path = parts.collect::<Vec<_>>().join("/");
        self.steps.lock().push(format!("{kind} {path}{outcome}"));
        done
    }
}

#[tokio::test]
async fn an_observer_sees_each_change_of_a_push_in_its_order_and_can_refuse_it() {
    let (store, directory) = new();
    let notes = Arc::new(Notes {
        root: directory.path().to_owned(),
        refuse: true.into(),
        steps: Mutex::default(),
    });
    let observation = observe(directory.path(), Arc::clone(&notes) as Arc<dyn Observer>);
    let a = name("a");
    let id = store.upload_create(&a, Algorithm::Sha256).await.unwrap().id;
    let digest = Digest::of(Algorithm::Sha256, b"x");
    store.blob_mount(&a, None, &digest).await.unwrap_err();
    store.upload_append(&a, &id, 0, bytes("x")).await.unwrap();
    let refused = store.upload_commit(&a, &id, &digest).await;
    assert!(matches!(refused, Err(StoreError::Io { .. })), "{refused:?}");
    notes.refuse.store(false, Ordering::SeqCst);
    store.upload_commit(&a, &id, &digest).await.unwrap();
    drop(observation);
    push(&store, "a", b"y").await;
    insta::assert_snapshot!(notes.steps.lock().join("\n"));
}
