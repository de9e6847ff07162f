//! Many tasks that work on the same few repositories at once, and each on one of its own.

use std::collections::BTreeMap;

use futures_util::future::try_join_all;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::store::suite::all_referrers;
use crate::store::{NewManifest, ReferrersQuery};

/// Tasks, and the operations of each.
const TASKS: u64 = 8;
const OPERATIONS: usize = 250;

/// What was acknowledged to one task, in a repository that no other task changes.
#[derive(Default)]
struct Acknowledged {
    blobs: BTreeMap<Digest, Vec<u8>>,
    manifests: BTreeMap<Digest, Bytes>,
    tags: BTreeMap<Tag, Digest>,
}

fn content(n: usize) -> Vec<u8> {
    vec![u8::try_from(n).unwrap(); 1 + n * 40_000]
}

fn digest(bytes: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha256, bytes)
}

/// A manifest that names a blob, and refers to another manifest.
fn image(n: usize) -> NewManifest {
    let mut new = manifest(&format!("{{\"n\":{n}}}"));
    new.blobs = vec![digest(&content(n % 4))];
    let size = new.bytes.len() as u64;
    let descriptor = crate::oci::Descriptor::new(new.media_type.clone(), new.digest.clone(), size);
    new.subject = Some((manifest("{}").digest, descriptor));
    new
}

/// A result that may also be an unknown item: another task may have been faster. Any other error is a
/// failure.
fn unless_gone<T>(result: crate::store::Result<T>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(
            StoreError::BlobUnknown
            | StoreError::ManifestUnknown
            | StoreError::RepositoryUnknown
            | StoreError::ReferenceUnknown { .. },
        ) => None,
        Err(error) => panic!("{error:?}"),
    }
}

/// Checks that a blob, if it is there, is complete.
async fn read_blob(store: &FsStore, name: &Name, bytes: &[u8]) -> bool {
    let read = store.blob_read(name, &digest(bytes), None).await;
    let Some(read) = unless_gone(read) else {
        return false;
    };
    let chunks: Vec<Bytes> = read.reader.try_collect().await.unwrap();
    assert!(chunks.concat() == bytes);
    true
}

/// Checks that a manifest, if it is there, matches its digest.
async fn read_manifest(store: &FsStore, name: &Name, reference: Reference) -> Option<Bytes> {
    let read = unless_gone(store.manifest_read(name, &reference).await)?;
    assert_eq!(read.digest, digest(read.bytes()));
    if let Reference::Digest(asked) = reference {
        assert_eq!(read.digest, asked);
    }
    Some(read.bytes().clone())
}

/// Runs one operation on the shared repositories.
async fn share(store: &FsStore, random: &mut StdRng) {
    let repositories = ["a", "a/b", "c"];
    let shared = name(repositories[random.random_range(0..3)]);
    let other = name(repositories[random.random_range(0..3)]);
    let tag = Tag::parse(["1", "latest"][random.random_range(0..2)]).unwrap();
    let (n, blob) = (random.random_range(0..6), random.random_range(0..4));
    let (new, bytes) = (image(n), content(blob));
    match random.random_range(0..14) {
        0 | 1 => drop(push(store, shared.as_str(), &bytes).await),
        2 => drop(unless_gone(
            store
                .blob_mount(&shared, Some(&other), &digest(&bytes))
                .await,
        )),
        3 => drop(unless_gone(
            store.blob_mount(&shared, None, &digest(&bytes)).await,
        )),
        4 => drop(unless_gone(
            store.blob_delete(&shared, &digest(&bytes)).await,
        )),
        5 => drop(read_blob(store, &shared, &bytes).await),
        6 | 7 => drop(unless_gone(
            store.manifest_write(&shared, new, &[tag], None).await,
        )),
        8 => drop(unless_gone(
            store.manifest_delete(&shared, &new.digest).await,
        )),
        9 => drop(read_manifest(store, &shared, Reference::Tag(tag)).await),
        10 => drop(read_manifest(store, &shared, Reference::Digest(new.digest)).await),
        11 => drop(unless_gone(
            store.tag_write(&shared, &tag, &new.digest).await,
        )),
        12 => drop(unless_gone(store.tag_delete(&shared, &tag, None).await)),
        _ => {
            drop(unless_gone(store.tag_list(&shared, None, 10).await));
            store.repository_list(None, 10).await.unwrap();
            let subject = manifest("{}").digest;
            let page = ReferrersQuery {
                bytes: 1 << 20,
                ..ReferrersQuery::default()
            };
            store
                .referrers_list(&shared, &subject, &page)
                .await
                .unwrap();
        }
    }
}

/// Runs one operation on the task's own repository, whose content is shared all the same.
async fn own(store: &FsStore, own: &Name, random: &mut StdRng, known: &mut Acknowledged) {
    let (n, blob) = (random.random_range(0..6), random.random_range(0..4));
    let bytes = content(blob);
    match random.random_range(0..5) {
        0 => {
            push(store, own.as_str(), &bytes).await;
            known.blobs.insert(digest(&bytes), bytes);
        }
        1 => {
            let mounted = store.blob_mount(own, None, &digest(&bytes)).await;
            if unless_gone(mounted).is_some() {
                known.blobs.insert(digest(&bytes), bytes);
            }
        }
        2 => {
            let (new, tag) = (image(n), Tag::parse(&format!("v{}", n % 2)).unwrap());
            let written = store.manifest_write(own, new.clone(), std::slice::from_ref(&tag), None);
            let written = unless_gone(written.await).is_some();
            // No other task removes a blob from this repository.
            assert_eq!(written, known.blobs.contains_key(&new.blobs[0]));
            if written {
                known.tags.insert(tag, new.digest.clone());
                known.manifests.insert(new.digest, new.bytes);
            }
        }
        3 => assert_manifests(store, own, known).await,
        _ => {
            let gone = image(n).digest;
            let deleted = unless_gone(store.manifest_delete(own, &gone).await);
            let tags = known.tags.len();
            known.tags.retain(|_, target| *target != gone);
            let expected = known.manifests.remove(&gone);
            let expected = expected.map(|_| (tags - known.tags.len()) as u64);
            assert_eq!(deleted.map(|changes| changes.deleted), expected);
            assert_manifests(store, own, known).await;
        }
    }
}

/// Checks that acknowledged manifests and tags are there, and deleted ones are not.
async fn assert_manifests(store: &FsStore, own: &Name, known: &Acknowledged) {
    for n in 0..6 {
        let digest = image(n).digest;
        let read = read_manifest(store, own, Reference::Digest(digest.clone())).await;
        assert_eq!(read.as_ref(), known.manifests.get(&digest));
    }
    for tag in ["v0", "v1"].map(|tag| Tag::parse(tag).unwrap()) {
        let target = known.tags.get(&tag);
        let read = read_manifest(store, own, Reference::Tag(tag)).await;
        assert_eq!(read.map(|bytes| digest(&bytes)).as_ref(), target);
    }
}

async fn assert_there(store: &FsStore, own: &Name, known: &Acknowledged) {
    for bytes in known.blobs.values() {
        assert!(read_blob(store, own, bytes).await);
    }
    assert_manifests(store, own, known).await;
    for (tag, digest) in &known.tags {
        assert_eq!(&store.tag_read(own, tag).await.unwrap(), digest);
    }
    let listed = unless_gone(store.tag_list(own, None, 100).await);
    let listed = listed.map_or(vec![], |listing| listing.items);
    assert_eq!(listed, known.tags.keys().cloned().collect::<Vec<_>>());
    let subject = manifest("{}").digest;
    let referrers = all_referrers(store, own.as_str(), &subject, None, 1 << 20).await;
    let referrers = referrers.into_iter().map(|it| it.digest);
    assert!(referrers.eq(known.manifests.keys().cloned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_changes_are_there_whatever_other_tasks_do() {
    let (store, directory) = relaxed();
    let tasks = (0..TASKS).map(|task| {
        let store = store.clone();
        tokio::spawn(async move {
            let mut random = StdRng::seed_from_u64(task);
            let (name, mut known) = (name(&format!("own/{task}")), Acknowledged::default());
            for _ in 0..OPERATIONS {
                share(&store, &mut random).await;
                own(&store, &name, &mut random, &mut known).await;
            }
            (name, known)
        })
    });
    let known = try_join_all(tasks).await.unwrap();
    assert!(known.iter().any(|(_, known)| !known.tags.is_empty()));
    for (own, known) in &known {
        assert_there(&store, own, known).await;
    }
    for repository in ["a", "a/b", "c"] {
        let tags = unless_gone(store.tag_list(&name(repository), None, 10).await);
        for tag in tags.map_or(vec![], |listing| listing.items) {
            let read = read_manifest(&store, &name(repository), Reference::Tag(tag)).await;
            assert!(read.is_some(), "a tag points at nothing");
        }
    }
    let left = |directory_name: &str| {
        fs::read_dir(directory.path().join(directory_name))
            .unwrap()
            .count()
    };
    assert_eq!((left("tmp"), left("uploads")), (0, 0));
    // The same holds without anything in memory.
    drop(store);
    let store = open(directory.path());
    for (own, known) in &known {
        assert_there(&store, own, known).await;
    }
}
