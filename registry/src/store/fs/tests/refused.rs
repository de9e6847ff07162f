//! Each step of each operation refused by the system: the operation fails with the system's error, or
//! the step did not matter; nothing is half there; what was there stays; and the operation succeeds
//! when it is repeated.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::refuser::{FAILURES, Refuser};
use super::*;
use crate::oci::Descriptor;
use crate::store::{ErrorKind, NewManifest, ReferrersQuery, Result, UploadId};

/// A store with a little of everything.
struct Fixture {
    store: FsStore,
    refuser: Refuser,
    directory: TempDir,
    /// A session with the bytes "half".
    upload: UploadId,
    /// A blob, a manifest with the tag "1", and its referrer.
    blob: Digest,
    manifest: Digest,
    referrer: NewManifest,
}

impl Fixture {
    async fn new() -> Self {
        let directory = scratch();
        let store = open(directory.path());
        let blob = push(&store, "a", b"blob").await;
        push(&store, "b", b"other").await;
        let manifest = put(&store, "a", "{\"n\":1}", &["1"]).await;
        put(&store, "a", "{\"n\":2}", &["2"]).await;
        let referrer = referring("{\"n\":3}", &manifest);
        let (a, tags) = (name("a"), [tag("s")]);
        let written = store.manifest_write(&a, referrer.clone(), &tags, None);
        written.await.unwrap();
        let created = store.upload_create(&name("a"), Algorithm::Sha256).await;
        let upload = created.unwrap().id;
        let appended = store
            .upload_append(&name("a"), &upload, 0, bytes("half"))
            .await;
        appended.unwrap();
        let refuser = Refuser::of(directory.path());
        Self {
            store,
            refuser,
            directory,
            upload,
            blob,
            manifest,
            referrer,
        }
    }

    /// All that a client sees, by what it asks for.
    async fn seen(&self, store: &FsStore) -> BTreeMap<String, String> {
        let mut seen = BTreeMap::new();
        for repository in ["a", "b", "new"] {
            let at = name(repository);
            for text in ["blob", "other", "half", "new"] {
                let digest = Digest::of(Algorithm::Sha256, text.as_bytes());
                let blob = read(store, &at, &digest).await;
                seen.insert(format!("{repository} {text}"), outcome(blob));
            }
            for text in [
                "{\"n\":1}",
                "{\"n\":2}",
                "{\"n\":3}",
                "{\"n\":4}",
                "{\"n\":5}",
            ] {
                let digest = Digest::of(Algorithm::Sha256, text.as_bytes());
                let found = store.manifest_read(&at, &digest.into()).await;
                let found = found.map(|read| read.bytes().clone());
                seen.insert(format!("{repository} {text}"), outcome(found));
            }
            for text in ["1", "2", "3", "s"] {
                let found = store.manifest_read(&at, &tag(text).into()).await;
                let found = found.map(|read| read.bytes().clone());
                seen.insert(format!("{repository}:{text}"), outcome(found));
                let found = store.tag_read(&at, &tag(text)).await;
                seen.insert(format!("tag {repository}:{text}"), outcome(found));
            }
            for subject in [&self.manifest, &self.blob] {
                let query = ReferrersQuery {
                    artifact_type: None,
                    last: None,
                    bytes: 1 << 20,
                };
                let found = store.referrers_list(&at, subject, &query).await;
                let found = found.map(|page| page.items);
                seen.insert(format!("{repository} referrers {subject}"), outcome(found));
            }
        }
        seen
    }

    fn temporaries(&self) -> usize {
        let entries = fs::read_dir(self.directory.path().join("tmp")).unwrap();
        entries.count()
    }
}

fn outcome<T: std::fmt::Debug>(found: Result<T>) -> String {
    match found {
        Ok(found) => format!("{found:?}"),
        Err(error) if error.kind() == ErrorKind::NotFound => "absent".to_owned(),
        Err(error) => panic!("{error:?}"),
    }
}

async fn read(store: &FsStore, at: &Name, digest: &Digest) -> Result<Bytes> {
    let read = store.blob_read(at, digest, None).await?;
    let chunks: Vec<Bytes> = read.reader.try_collect().await?;
    Ok(chunks.concat().into())
}

fn tag(text: &str) -> Tag {
    Tag::parse(text).unwrap()
}

fn referring(text: &str, subject: &Digest) -> NewManifest {
    let new = manifest(text);
    let size = new.bytes.len() as u64;
    let descriptor = Descriptor::new(new.media_type.clone(), new.digest.clone(), size);
    NewManifest {
        subject: Some((subject.clone(), descriptor)),
        ..new
    }
}

/// The operations of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    BlobStat,
    BlobRead,
    BlobDelete,
    BlobMount,
    MountOfTheSame,
    UploadCreate,
    UploadAppend,
    UploadCommit,
    CommitOfTheSame,
    UploadCancel,
    ManifestRead,
    ManifestWrite,
    WriteOfTheSame,
    WriteInNewRepository,
    ManifestDelete,
    ReferrerDelete,
    TagRead,
    TagWrite,
    TagMove,
    TagDelete,
    TagList,
    RepositoryList,
    ReferrersList,
    Expire,
}

const OPERATIONS: [Operation; 24] = [
    Operation::BlobStat,
    Operation::BlobRead,
    Operation::BlobDelete,
    Operation::BlobMount,
    Operation::MountOfTheSame,
    Operation::UploadCreate,
    Operation::UploadAppend,
    Operation::UploadCommit,
    Operation::CommitOfTheSame,
    Operation::UploadCancel,
    Operation::ManifestRead,
    Operation::ManifestWrite,
    Operation::WriteOfTheSame,
    Operation::WriteInNewRepository,
    Operation::ManifestDelete,
    Operation::ReferrerDelete,
    Operation::TagRead,
    Operation::TagWrite,
    Operation::TagMove,
    Operation::TagDelete,
    Operation::TagList,
    Operation::RepositoryList,
    Operation::ReferrersList,
    Operation::Expire,
];

impl Operation {
    async fn run(self, fixture: &Fixture) -> Result<()> {
        let Fixture {
            store,
            upload,
            blob,
            manifest: found,
            referrer,
            ..
        } = fixture;
        let (a, b, new) = (name("a"), name("b"), name("new"));
        let half = Digest::of(Algorithm::Sha256, b"half");
        match self {
            Self::BlobStat => store.blob_stat(&a, blob).await.map(drop),
            Self::BlobRead => read(store, &a, blob).await.map(drop),
            Self::BlobDelete => store.blob_delete(&a, blob).await,
            Self::BlobMount => store.blob_mount(&new, Some(&a), blob).await,
            Self::MountOfTheSame => store.blob_mount(&a, None, blob).await,
            Self::UploadCreate => {
                let created = store.upload_create(&b, Algorithm::Sha256).await?;
                store.upload_cancel(&b, &created.id).await
            }
            Self::UploadAppend => {
                let offset = store.upload_stat(&a, upload).await?.offset;
                let rest = &"half and half"[usize::try_from(offset).unwrap()..];
                store.upload_append(&a, upload, offset, bytes(rest)).await?;
                Ok(())
            }
            Self::UploadCommit => store.upload_commit(&a, upload, &half).await,
            Self::CommitOfTheSame => {
                let created = store.upload_create(&b, Algorithm::Sha256).await?;
                let body = bytes("blob");
                store.upload_append(&b, &created.id, 0, body).await?;
                store.upload_commit(&b, &created.id, blob).await
            }
            Self::UploadCancel => store.upload_cancel(&a, upload).await,
            Self::ManifestRead => {
                // A tag and a manifest that are not in the cache.
                store.data.manifests.forget_tag(&a, &tag("1"));
                store.data.manifests.forget_manifest(&a, found);
                let read = store.manifest_read(&a, &tag("1").into()).await;
                read.map(drop)
            }
            Self::ManifestWrite => {
                let mut new = referring("{\"n\":4}", found);
                new.blobs = vec![blob.clone()];
                new.children = vec![found.clone()];
                let tags = [tag("1"), tag("3")];
                let written = store.manifest_write(&a, new, &tags, None).await;
                written.map(drop)
            }
            Self::WriteOfTheSame => {
                let tags = [tag("s")];
                let written = store.manifest_write(&a, referrer.clone(), &tags, None);
                written.await.map(drop)
            }
            Self::WriteInNewRepository => {
                let tags = [tag("3")];
                let written = store.manifest_write(&new, manifest("{\"n\":5}"), &tags, None);
                written.await.map(drop)
            }
            Self::ManifestDelete => store.manifest_delete(&a, found).await.map(drop),
            Self::ReferrerDelete => {
                let deleted = store.manifest_delete(&a, &referrer.digest).await;
                deleted.map(drop)
            }
            Self::TagRead => {
                store.data.manifests.forget_tag(&a, &tag("1"));
                store.tag_read(&a, &tag("1")).await.map(drop)
            }
            Self::TagWrite => store.tag_write(&a, &tag("3"), found).await.map(drop),
            Self::TagMove => store.tag_write(&a, &tag("2"), found).await.map(drop),
            Self::TagDelete => store.tag_delete(&a, &tag("1"), None).await,
            Self::TagList => store.tag_list(&a, None, 10).await.map(drop),
            Self::RepositoryList => store.repository_list(None, 10).await.map(drop),
            Self::ReferrersList => {
                let query = ReferrersQuery {
                    artifact_type: None,
                    last: None,
                    bytes: 1 << 20,
                };
                let listed = store.referrers_list(&a, found, &query).await;
                listed.map(drop)
            }
            Self::Expire => {
                let idle = Duration::ZERO;
                let expired = store.expire_uploads(idle).await?;
                expired.failures.into_iter().next().map_or(Ok(()), Err)
            }
        }
    }

    /// Whether what it removes may be gone already when it is repeated.
    fn removes(self) -> bool {
        matches!(
            self,
            Self::BlobDelete
                | Self::UploadCancel
                | Self::ManifestDelete
                | Self::ReferrerDelete
                | Self::TagDelete
        )
    }
}

/// Refuses each step of an operation in each way.
async fn refuse(operation: Operation) {
    let fixture = Fixture::new().await;
    let before = fixture.seen(&fixture.store).await;
    fixture.refuser.begin(None);
    operation.run(&fixture).await.unwrap();
    let steps = fixture.refuser.end();
    let after = fixture.seen(&fixture.store).await;
    for (number, step) in steps.iter().enumerate() {
        for (errno, extent, kind) in FAILURES {
            let what = format!("{operation:?}, {errno:?} for {extent:?} at {step}");
            let fixture = Fixture::new().await;
            fixture.refuser.begin(Some((number, errno, extent)));
            let refused = operation.run(&fixture).await;
            let seen_steps = fixture.refuser.end();
            if let Err(error) = &refused {
                let context = format!("{what}: {error:?}, steps {seen_steps:#?}");
                assert_eq!(error.kind(), kind, "{context}");
            }
            is_whole(&fixture, &fixture.store, &before, &after, &what).await;
            if refused.is_ok() {
                assert_eq!(fixture.seen(&fixture.store).await, after, "{what}");
            }
            let again = operation.run(&fixture).await;
            match again {
                Ok(()) => {}
                Err(error) if operation.removes() && error.kind() == ErrorKind::NotFound => {}
                Err(error) if refused.is_ok() && error.kind() == ErrorKind::NotFound => {}
                Err(error) => panic!("{what}: repeated, it fails with {error:?}"),
            }
            assert_eq!(fixture.seen(&fixture.store).await, after, "{what}");
            restart(fixture, &after, &what).await;
        }
    }
}

/// Each item is as it was before the operation, or as it is after it.
async fn is_whole(
    fixture: &Fixture,
    store: &FsStore,
    before: &BTreeMap<String, String>,
    after: &BTreeMap<String, String>,
    what: &str,
) {
    for (item, found) in fixture.seen(store).await {
        let known = [&before[&item], &after[&item]];
        assert!(
            known.contains(&&found),
            "{what}: {item} is {found}, not {known:?}"
        );
    }
}

/// The next start finds the same, and removes what was left over.
async fn restart(fixture: Fixture, after: &BTreeMap<String, String>, what: &str) {
    let Fixture {
        store, directory, ..
    } = fixture;
    drop(store);
    let fixture = Fixture {
        store: open(directory.path()),
        refuser: fixture.refuser,
        directory,
        upload: fixture.upload,
        blob: fixture.blob,
        manifest: fixture.manifest,
        referrer: fixture.referrer,
    };
    assert_eq!(fixture.temporaries(), 0, "{what}");
    assert_eq!(fixture.seen(&fixture.store).await, *after, "{what}");
    let sessions = fs::read_dir(fixture.directory.path().join("uploads")).unwrap();
    let open = fixture.store.uploads().totals().sessions;
    assert_eq!(sessions.count() as u64, open, "{what}");
}

/// Refuses the steps of these operations, of all that there are.
async fn refuse_all(chosen: impl Fn(Operation) -> bool) {
    for operation in OPERATIONS.into_iter().filter(|&one| chosen(one)) {
        refuse(operation).await;
    }
}

fn is_of_uploads(operation: Operation) -> bool {
    let name = format!("{operation:?}");
    name.starts_with("Upload") || name.starts_with("Commit") || name == "Expire"
}

fn is_of_manifests(operation: Operation) -> bool {
    let name = format!("{operation:?}");
    ["Manifest", "Referrer", "Write"]
        .iter()
        .any(|start| name.starts_with(start))
}

#[tokio::test]
async fn uploads_on_a_failing_disk_are_all_or_nothing() {
    refuse_all(is_of_uploads).await;
}

#[tokio::test]
async fn manifests_on_a_failing_disk_are_all_or_nothing() {
    refuse_all(is_of_manifests).await;
}

#[tokio::test]
async fn blobs_tags_and_lists_on_a_failing_disk_are_all_or_nothing() {
    refuse_all(|operation| !is_of_uploads(operation) && !is_of_manifests(operation)).await;
}

#[tokio::test]
async fn a_start_on_a_failing_disk_fails_and_the_next_one_succeeds() {
    let prepare = || {
        let directory = scratch();
        let data = directory.path().join("data");
        drop(open(&data));
        fs::write(data.join("tmp/left"), "x").unwrap();
        fs::create_dir(data.join("uploads/no-session")).unwrap();
        (directory, data)
    };
    let new = || {
        let directory = scratch();
        let data = directory.path().join("data");
        (directory, data)
    };
    for make in [&prepare as &dyn Fn() -> _, &new] {
        let (directory, data): (TempDir, PathBuf) = make();
        let refuser = Refuser::of(directory.path());
        drop(open(&data));
        let steps = refuser.end();
        assert!(steps.len() > 10, "{steps:?}");
        for (number, step) in steps.iter().enumerate() {
            for (errno, extent, _) in FAILURES {
                let (directory, data) = make();
                let refuser = Refuser::of(directory.path());
                refuser.begin(Some((number, errno, extent)));
                // Some steps do not matter.
                let opened = FsStore::open(&data, Durability::Full, Arc::new(()));
                if let Err(error) = &opened {
                    let error = with_sources(error);
                    let is_named = error.contains(&data.display().to_string());
                    assert!(is_named, "{errno:?} at {step}: {error}");
                }
                drop(opened);
                drop(refuser);
                let store = open(&data);
                push(&store, "a", b"x").await;
                assert_eq!(fs::read_dir(data.join("tmp")).unwrap().count(), 0);
            }
        }
    }
}

/// An error with its sources, as the program prints it.
fn with_sources(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", with_sources(source)),
        None => error.to_string(),
    }
}
