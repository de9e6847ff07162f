use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::{FutureExt, StreamExt, stream};
use tempfile::TempDir;

use super::*;
use crate::oci::{Algorithm, Digest, Name};
use crate::store::fs::{Durability, FsStore, StoreOptions, UploadQuota};
use crate::store::suite::{push, put};
use crate::store::{Result, Store, StoreError, UploadId};

const DAY: Duration = Duration::from_hours(24);

fn open(directory: &Path, quota: UploadQuota) -> FsStore {
    let durability = Durability::Relaxed;
    let options = StoreOptions {
        quota,
        ..durability.into()
    };
    FsStore::open(directory, options, Arc::new(())).unwrap()
}

fn new(quota: UploadQuota) -> (FsStore, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    (open(directory.path(), quota), directory)
}

fn name() -> Name {
    Name::parse("a").unwrap()
}

async fn begin(store: &FsStore) -> Result<UploadId> {
    let upload = store.upload_create(&name(), Algorithm::Sha256).await;
    upload.map(|upload| upload.id)
}

async fn append(store: &FsStore, id: &UploadId, length: usize) -> Result<u64> {
    let offset = store.upload_stat(&name(), id).await?.offset;
    let body = stream::iter([Ok(Bytes::from(vec![7; length]))]);
    let upload = store.upload_append(&name(), id, offset, body).await;
    upload.map(|upload| upload.offset)
}

fn held(store: &FsStore) -> u64 {
    store.data.sessions.reserved.bytes()
}

/// Makes a file look as if it was last written that long ago.
fn age(file: &Path, age: Duration) {
    let file = File::options().write(true).open(file).unwrap();
    file.set_modified(SystemTime::now() - age).unwrap();
}

async fn is_open(store: &FsStore, id: &UploadId) -> bool {
    match store.upload_stat(&name(), id).await {
        Ok(_) => true,
        Err(StoreError::UploadUnknown) => false,
        Err(error) => panic!("{error:?}"),
    }
}

/// The names of the sessions' directories.
fn on_disk(directory: &TempDir) -> Vec<String> {
    let entries = fs::read_dir(directory.path().join("uploads")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.collect()
}

#[tokio::test]
async fn no_more_sessions_are_open_than_the_quota_allows() {
    let max_sessions = 3;
    let (store, directory) = new(UploadQuota {
        max_sessions,
        ..UploadQuota::UNLIMITED
    });
    let begun = join_all((0..50).map(|_| begin(&store))).await;
    let last = begin(&store).await.unwrap();
    assert_eq!(store.uploads().totals().sessions, 3);
    assert_eq!(on_disk(&directory).len(), 3);
    assert!(is_open(&store, &last).await);
    for refused in begun.into_iter().filter_map(Result::err) {
        // All other sessions were just being opened.
        assert!(matches!(refused, StoreError::TooManySessions { limit: 3 }));
    }
}

#[tokio::test]
async fn a_session_that_several_requests_use_is_idle_after_the_last_of_them() {
    let (store, _directory) = new(UploadQuota {
        max_sessions: 1,
        ..UploadQuota::UNLIMITED
    });
    let id = begin(&store).await.unwrap();
    let sessions = &store.data.sessions;
    let first = sessions.acquire(&name(), &id).unwrap();
    let second = sessions.acquire(&name(), &id).unwrap();
    begin(&store).await.unwrap_err();
    drop(first);
    begin(&store).await.unwrap_err();
    drop(second);
    begin(&store).await.unwrap();
    assert!(!is_open(&store, &id).await);
}

#[tokio::test]
async fn a_session_that_was_idle_before_a_restart_is_evicted_after_it() {
    let (store, directory) = new(UploadQuota::UNLIMITED);
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(begin(&store).await.unwrap());
    }
    append(&store, &ids[3], 10).await.unwrap();
    drop(store);
    let uploads = directory.path().join("uploads");
    for (id, days) in ids.iter().zip([2, 3, 1, 9]) {
        age(&uploads.join(id.as_str()).join("session"), DAY * days);
    }
    age(&uploads.join(ids[3].as_str()).join("data"), DAY * 9);
    let store = open(
        directory.path(),
        UploadQuota {
            max_sessions: 4,
            ..UploadQuota::UNLIMITED
        },
    );
    for (round, gone) in [1, 0, 2].into_iter().enumerate() {
        assert!(is_open(&store, &ids[gone]).await, "{round}");
        let new = begin(&store).await.unwrap();
        append(&store, &new, 1).await.unwrap();
        assert!(!is_open(&store, &ids[gone]).await, "{round}");
    }
    // None is empty any more, and only one has been idle for longer than a moment.
    assert!(is_open(&store, &ids[3]).await);
    begin(&store).await.unwrap();
    assert!(!is_open(&store, &ids[3]).await);
}

#[tokio::test]
async fn idle_sessions_are_evicted_for_their_bytes() {
    let (store, directory) = new(UploadQuota::UNLIMITED);
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(begin(&store).await.unwrap());
        append(&store, ids.last().unwrap(), 300).await.unwrap();
    }
    drop(store);
    for (id, days) in ids.iter().zip([2, 4, 3, 0]) {
        for file in ["session", "data"] {
            let session = directory.path().join("uploads").join(id.as_str());
            age(&session.join(file), DAY * days);
        }
    }
    let store = open(
        directory.path(),
        UploadQuota {
            max_bytes: 1200,
            ..UploadQuota::UNLIMITED
        },
    );
    let new = begin(&store).await.unwrap();
    // A request uses the last one.
    let _in_use = store.data.sessions.acquire(&name(), &ids[3]).unwrap();
    // It would not fit even if all idle sessions were evicted, so that none is.
    append(&store, &new, 1201).await.unwrap_err();
    assert_eq!(held(&store), 900);
    append(&store, &new, 400).await.unwrap();
    let mut left = Vec::new();
    for id in &ids {
        left.push(is_open(&store, id).await);
    }
    assert_eq!(left, [true, false, false, true]);
    assert_eq!(held(&store), 1000);
    // The bytes of the other one are enough.
    append(&store, &new, 500).await.unwrap();
    assert!(!is_open(&store, &ids[0]).await);
    append(&store, &new, 1).await.unwrap_err();
    assert!(is_open(&store, &ids[3]).await);
}

#[test]
fn uploads_leave_the_share_of_inodes_that_the_reserve_is_of_the_bytes() {
    let reserved_files = |reserve, size, files| {
        let space = Space {
            size,
            available: 0,
            files_free: 0,
            files,
            files_available: 0,
        };
        space.reserved_files(reserve)
    };
    assert_eq!(reserved_files(1 << 30, 100 << 30, 6_553_600), 65_536);
    assert_eq!(reserved_files(0, 100, 1000), 0);
    assert_eq!(reserved_files(10, 0, 1000), 0);
    assert_eq!(reserved_files(1000, 100, 70), 70);
    assert_eq!(reserved_files(u64::MAX, u64::MAX, u64::MAX), u64::MAX);
    // A file system without inodes of its own.
    assert_eq!(reserved_files(1 << 30, 100 << 30, 0), 0);
}

#[tokio::test]
async fn open_uploads_hold_no_more_bytes_than_the_quota_allows() {
    let (store, directory) = new(UploadQuota {
        max_bytes: 300_000,
        ..UploadQuota::UNLIMITED
    });
    let (first, second) = (begin(&store).await.unwrap(), begin(&store).await.unwrap());
    assert_eq!(append(&store, &first, 180_000).await.unwrap(), 180_000);
    let error = append(&store, &second, 180_000).await.unwrap_err();
    assert!(
        matches!(error, StoreError::TooManyBytes { limit: 300_000, .. }),
        "{error:?}"
    );
    assert_eq!(append(&store, &second, 120_000).await.unwrap(), 120_000);
    // A session that could not receive a byte is not opened.
    let error = begin(&store).await.unwrap_err();
    assert!(
        matches!(error, StoreError::TooManyBytes { .. }),
        "{error:?}"
    );
    let digest = Digest::of(Algorithm::Sha256, &vec![7; 180_000]);
    let committed = store.upload_commit(&name(), &first, &digest).await;
    committed.unwrap();
    assert_eq!(append(&store, &second, 180_000).await.unwrap(), 300_000);
    drop(store);
    // The bytes of before a restart count, even if the quota is smaller now.
    let store = open(
        directory.path(),
        UploadQuota {
            max_bytes: 10,
            ..UploadQuota::UNLIMITED
        },
    );
    assert_eq!(held(&store), 300_000);
    append(&store, &second, 1).await.unwrap_err();
    store.upload_cancel(&name(), &second).await.unwrap();
    begin(&store).await.unwrap();
}

#[tokio::test]
async fn the_bytes_of_a_refused_request_are_released_and_earlier_bytes_stay() {
    let (store, directory) = new(UploadQuota {
        max_bytes: 1_000_000,
        ..UploadQuota::UNLIMITED
    });
    let id = begin(&store).await.unwrap();
    append(&store, &id, 300_000).await.unwrap();
    // The first batches of it fit.
    let body = stream::iter((0..20).map(|_| Ok(Bytes::from(vec![8; 100_000]))));
    let error = store.upload_append(&name(), &id, 300_000, body).await;
    assert!(
        matches!(error, Err(StoreError::TooManyBytes { .. })),
        "{error:?}"
    );
    assert_eq!(held(&store), 300_000);
    let data = directory
        .path()
        .join("uploads")
        .join(id.as_str())
        .join("data");
    assert_eq!(fs::metadata(data).unwrap().len(), 300_000);
    assert_eq!(append(&store, &id, 500_000).await.unwrap(), 800_000);
    let digest = Digest::of(Algorithm::Sha256, &vec![7; 800_000]);
    store.upload_commit(&name(), &id, &digest).await.unwrap();
    assert_eq!(held(&store), 0);
}

#[tokio::test]
async fn a_refused_upload_is_evicted_when_another_needs_its_bytes() {
    let (store, directory) = new(UploadQuota {
        max_bytes: 1_000_000,
        ..UploadQuota::UNLIMITED
    });
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(begin(&store).await.unwrap());
    }
    let [refused, older, waiting, new] = &ids[..] else {
        unreachable!("there are four")
    };
    append(&store, older, 200_000).await.unwrap();
    append(&store, refused, 200_000).await.unwrap();
    append(&store, waiting, 200_000).await.unwrap();
    append(&store, older, 700_000).await.unwrap_err();
    // It is resumed, and is no longer evicted before others.
    append(&store, older, 200_000).await.unwrap();
    append(&store, refused, 700_000).await.unwrap_err();
    append(&store, new, 300_000).await.unwrap();
    for (id, offset) in [(older, 400_000), (waiting, 200_000), (new, 300_000)] {
        assert_eq!(store.upload_stat(&name(), id).await.unwrap().offset, offset);
    }
    let gone = store.upload_stat(&name(), refused).await;
    assert!(matches!(gone, Err(StoreError::UploadUnknown)), "{gone:?}");
    assert!(
        !directory
            .path()
            .join("uploads")
            .join(refused.as_str())
            .exists()
    );
    assert_eq!(held(&store), 900_000);
    // Sessions that were not refused stay.
    append(&store, new, 200_000).await.unwrap_err();
    assert_eq!(held(&store), 900_000);
}

#[tokio::test]
async fn refused_uploads_are_evicted_when_there_are_too_many() {
    let (store, _directory) = new(UploadQuota {
        max_sessions: 3,
        max_bytes: 1000,
        ..UploadQuota::UNLIMITED
    });
    let mut ids = Vec::new();
    for _ in 0..3 {
        let id = begin(&store).await.unwrap();
        append(&store, &id, 100).await.unwrap();
        ids.push(id);
    }
    begin(&store).await.unwrap_err();
    append(&store, &ids[1], 2000).await.unwrap_err();
    let empty = begin(&store).await.unwrap();
    assert!(!is_open(&store, &ids[1]).await);
    begin(&store).await.unwrap();
    assert!(!is_open(&store, &empty).await);
}

#[tokio::test]
async fn the_bytes_of_an_upload_are_released_however_it_ends() {
    let (store, _directory) = new(UploadQuota::UNLIMITED);
    let digest = Digest::of(Algorithm::Sha256, &[7; 1000]);
    let wrong = Digest::of(Algorithm::Sha256, b"wrong");
    for ending in 0..4 {
        let id = begin(&store).await.unwrap();
        append(&store, &id, 1000).await.unwrap();
        assert_eq!(held(&store), 1000);
        match ending {
            0 => store.upload_commit(&name(), &id, &digest).await.unwrap(),
            1 => drop(store.upload_commit(&name(), &id, &wrong).await.unwrap_err()),
            2 => store.upload_cancel(&name(), &id).await.unwrap(),
            _ => drop(store.expire_uploads(Duration::ZERO).await.unwrap()),
        }
        assert_eq!(held(&store), 0, "{ending}");
        assert!(store.upload_stat(&name(), &id).await.is_err());
    }
}

#[tokio::test]
async fn below_the_reserve_uploads_are_refused_and_other_operations_succeed() {
    let (store, directory) = new(UploadQuota::UNLIMITED);
    let (begun, whole) = (begin(&store).await.unwrap(), begin(&store).await.unwrap());
    append(&store, &whole, 10).await.unwrap();
    let blob = push(&store, "a", b"x").await;
    let available = store.space().unwrap().available;
    drop(store);
    let reserve = u64::MAX / 2;
    let store = open(
        directory.path(),
        UploadQuota {
            reserve,
            ..UploadQuota::UNLIMITED
        },
    );
    assert!(available < reserve);
    for refused in [
        begin(&store).await.map(drop),
        append(&store, &begun, 1).await.map(drop),
    ] {
        let error = refused.unwrap_err();
        assert!(matches!(error, StoreError::Reserved { .. }), "{error:?}");
    }
    assert_eq!(store.upload_stat(&name(), &begun).await.unwrap().offset, 0);
    // Bytes that are there already take no more space.
    let digest = Digest::of(Algorithm::Sha256, &[7; 10]);
    let committed = store.upload_commit(&name(), &whole, &digest).await;
    committed.unwrap();
    store.blob_read(&name(), &blob, None).await.unwrap();
    let other = Name::parse("b").unwrap();
    store.blob_mount(&other, None, &blob).await.unwrap();
    let manifest = put(&store, "a", "{}", &["1"]).await;
    store.manifest_delete(&name(), &manifest).await.unwrap();
    store.blob_delete(&name(), &blob).await.unwrap();
    store.upload_cancel(&name(), &begun).await.unwrap();
}

#[tokio::test]
async fn a_session_expires_unless_a_body_is_arriving() {
    let (store, directory) = new(UploadQuota::UNLIMITED);
    let (idle, busy) = (begin(&store).await.unwrap(), begin(&store).await.unwrap());
    append(&store, &idle, 1000).await.unwrap();
    let young = store.expire_uploads(DAY).await.unwrap();
    assert_eq!(young.sessions, 0);
    let (sender, receiver) = tokio::sync::oneshot::channel::<()>();
    let rest = stream::once(Box::pin(async move {
        receiver.await.unwrap();
        Ok(Bytes::from_static(b"def"))
    }));
    let body = stream::iter([Ok(Bytes::from_static(b"abc"))]).chain(rest);
    let name = name();
    let mut arriving = Box::pin(store.upload_append(&name, &busy, 0, body));
    assert!(arriving.as_mut().now_or_never().is_none());
    let expired = store.expire_uploads(Duration::ZERO).await.unwrap();
    assert_eq!((expired.sessions, expired.bytes), (1, 1000));
    assert!(expired.failures.is_empty(), "{:?}", expired.failures);
    let gone = append(&store, &idle, 1).await;
    assert!(matches!(gone, Err(StoreError::UploadUnknown)), "{gone:?}");
    assert!(
        !directory
            .path()
            .join("uploads")
            .join(idle.as_str())
            .exists()
    );
    sender.send(()).unwrap();
    assert_eq!(arriving.await.unwrap().offset, 6);
    let young = store.expire_uploads(DAY).await.unwrap();
    assert_eq!(young.sessions, 0, "the end of a body is activity");
    let expired = store.expire_uploads(Duration::ZERO).await.unwrap();
    assert_eq!((expired.sessions, expired.bytes), (1, 6));
}

#[tokio::test]
async fn a_restart_makes_no_session_younger() {
    let (store, directory) = new(UploadQuota::UNLIMITED);
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(begin(&store).await.unwrap());
    }
    for id in &ids[..2] {
        append(&store, id, 10).await.unwrap();
    }
    drop(store);
    let at = |id: &UploadId, file: &str| {
        let uploads = directory.path().join("uploads");
        uploads.join(id.as_str()).join(file)
    };
    // All but the last were opened long ago; the second has received bytes since.
    for id in &ids[..3] {
        age(&at(id, "session"), DAY * 2);
    }
    age(&at(&ids[0], "data"), DAY * 2);
    let store = open(directory.path(), UploadQuota::UNLIMITED);
    let expired = store.expire_uploads(DAY).await.unwrap();
    assert_eq!((expired.sessions, expired.bytes), (2, 10));
    let left = fs::read_dir(directory.path().join("uploads"))
        .unwrap()
        .count();
    assert_eq!(left, 2);
    for id in [&ids[1], &ids[3]] {
        append(&store, id, 1).await.unwrap();
    }
}

#[tokio::test]
async fn on_a_full_disk_an_operation_runs_again_for_as_long_as_sessions_can_be_evicted() {
    let (store, _directory) = new(UploadQuota::UNLIMITED);
    let digest = Digest::of(Algorithm::Sha256, b"other");
    let mut refused = Vec::new();
    for _ in 0..3 {
        let id = begin(&store).await.unwrap();
        append(&store, &id, 10).await.unwrap();
        refused.push(id);
    }
    for id in &refused {
        store.data.sessions.get(&name(), id).unwrap().refuse(10);
        // A request makes it idle anew, with its new rank.
        drop(store.data.sessions.acquire(&name(), id).unwrap());
    }
    let full = || StoreError::io("/x", std::io::ErrorKind::StorageFull.into());
    let mut attempts = 0;
    retry_when_full(&store.data, || {
        attempts += 1;
        if attempts < 3 { Err(full()) } else { Ok(()) }
    })
    .unwrap();
    let mut open = Vec::new();
    for id in &refused {
        open.push(is_open(&store, id).await);
    }
    assert_eq!((attempts, open), (3, vec![false, false, true]));

    // The last session is evicted, too; then there is nothing left to free.
    let error = retry_when_full(&store.data, || Err::<(), _>(full())).unwrap_err();
    assert!(matches!(error, StoreError::NoSpace { .. }), "{error:?}");
    assert!(!is_open(&store, &refused[2]).await);
    let other = retry_when_full(&store.data, || {
        Err::<(), _>(StoreError::DigestMismatch {
            expected: digest.clone(),
            actual: digest.clone(),
        })
    });
    assert!(matches!(other, Err(StoreError::DigestMismatch { .. })));
}
