use futures_util::{FutureExt, StreamExt, TryStreamExt, stream};

use super::*;
use crate::store::MemoryStore;
use crate::store::suite::{manifest, push, put, suite};
use service::metrics::Label;

suite!(transparent, super::new());

const KINDS: [ErrorKind; 8] = [
    ErrorKind::NotFound,
    ErrorKind::DigestMismatch,
    ErrorKind::Invalid,
    ErrorKind::NoSpace,
    ErrorKind::Permission,
    ErrorKind::Io,
    ErrorKind::Timeout,
    ErrorKind::Other,
];

fn new() -> (Faulty<MemoryStore>, Plan) {
    let plan = Plan::default();
    (Faulty::new(MemoryStore::default(), plan.clone()), plan)
}

fn name() -> Name {
    Name::parse("a").unwrap()
}

/// An operation on a store that has the blob `x`, the manifest `{}` with the tag `1`, and a
/// session.
async fn call(store: &impl Store, operation: Operation, session: &UploadId) -> Result<()> {
    let (name, blob) = (name(), Digest::of(Algorithm::Sha256, b"x"));
    let (new, tag) = (manifest("{}"), Tag::parse("1").unwrap());
    let digest = new.digest.clone();
    match operation {
        Operation::BlobStat => store.blob_stat(&name, &blob).await.map(drop),
        Operation::BlobRead => store.blob_read(&name, &blob, None).await.map(drop),
        Operation::BlobDelete => store.blob_delete(&name, &blob).await,
        Operation::BlobMount => store.blob_mount(&name, None, &blob).await,
        Operation::UploadCreate => {
            let created = store.upload_create(&name, Algorithm::Sha256).await;
            created.map(drop)
        }
        Operation::UploadAppend => {
            let body = stream::iter([Ok(Bytes::from_static(b"y"))]);
            let appended = store.upload_append(&name, session, 0, body).await;
            appended.map(drop)
        }
        Operation::UploadCommit => {
            let empty = Digest::of(Algorithm::Sha256, b"");
            store.upload_commit(&name, session, &empty).await
        }
        Operation::UploadCancel => store.upload_cancel(&name, session).await,
        Operation::UploadStat => store.upload_stat(&name, session).await.map(drop),
        Operation::ManifestRead => {
            let read = store.manifest_read(&name, &Reference::Tag(tag)).await;
            read.map(drop)
        }
        Operation::ManifestWrite => store
            .manifest_write(&name, new, &[tag], None)
            .await
            .map(drop),
        Operation::ManifestDelete => store.manifest_delete(&name, &digest).await.map(drop),
        Operation::TagRead => store.tag_read(&name, &tag).await.map(drop),
        Operation::TagWrite => store.tag_write(&name, &tag, &digest).await.map(drop),
        Operation::TagDelete => store.tag_delete(&name, &tag, None).await,
        Operation::TagList => store.tag_list(&name, None, 1).await.map(drop),
        Operation::RepositoryList => store.repository_list(None, 1).await.map(drop),
        Operation::ReferrersList => {
            let page = ReferrersQuery::default();
            store.referrers_list(&name, &digest, &page).await.map(drop)
        }
    }
}

#[tokio::test]
async fn every_operation_fails_with_every_kind_as_planned_and_only_then() {
    for &operation in Operation::ALL {
        let (store, plan) = new();
        push(&store, "a", b"x").await;
        put(&store, "a", "{}", &["1"]).await;
        let created = store.upload_create(&name(), Algorithm::Sha256).await;
        let session = created.unwrap().id;
        for kind in KINDS {
            plan.set(operation, 0, Fault::Fail(kind));
            let failed = call(&store, operation, &session).await.unwrap_err();
            assert_eq!(failed.kind(), kind, "{operation:?}");
        }
        plan.set(operation, 0, Fault::Hang);
        let hangs = call(&store, operation, &session).now_or_never();
        assert!(hangs.is_none(), "{operation:?}");
        // None of these operations was done.
        plan.clear();
        call(&store, operation, &session).await.unwrap();
    }
}

#[tokio::test]
async fn planned_calls_succeed_first_and_a_lost_acknowledgement_does_not_undo_the_operation() {
    let (store, plan) = new();
    let fault = Fault::FailAfter(ErrorKind::Timeout);
    plan.set(Operation::UploadCommit, 1, fault);
    push(&store, "a", b"x").await;
    let upload = store.upload_create(&name(), Algorithm::Sha256).await;
    let digest = Digest::of(Algorithm::Sha256, b"");
    let id = upload.unwrap().id;
    let committed = store.upload_commit(&name(), &id, &digest).await;
    assert_eq!(committed.unwrap_err().kind(), ErrorKind::Timeout);
    assert_eq!(store.blob_stat(&name(), &digest).await.unwrap(), 0);
}

#[tokio::test]
async fn streams_fail_and_stall_after_the_planned_bytes_in_both_directions() {
    let (store, plan) = new();
    let digest = push(&store, "a", b"0123456789").await;
    let read = async || {
        store
            .blob_read(&name(), &digest, None)
            .await
            .unwrap()
            .reader
    };
    plan.set(Operation::BlobRead, 0, Fault::Break(4, ErrorKind::Io));
    let mut reader = read().await;
    assert_eq!(reader.next().await.unwrap().unwrap(), &b"0123"[..]);
    assert_eq!(
        reader.next().await.unwrap().unwrap_err().kind(),
        ErrorKind::Io
    );
    plan.set(Operation::BlobRead, 0, Fault::Stall(9));
    let mut reader = read().await;
    assert_eq!(reader.next().await.unwrap().unwrap().len(), 9);
    assert!(reader.next().now_or_never().is_none());
    plan.set(Operation::BlobRead, 0, Fault::Break(11, ErrorKind::Io));
    assert_eq!(read().await.try_collect::<Vec<_>>().await.unwrap().len(), 1);

    let upload = store
        .upload_create(&name(), Algorithm::Sha256)
        .await
        .unwrap();
    let offset = async || store.upload_stat(&name(), &upload.id).await.unwrap().offset;
    let body = || stream::iter([Ok(Bytes::from_static(b"0123456789"))]);
    plan.set(
        Operation::UploadAppend,
        0,
        Fault::Break(3, ErrorKind::NoSpace),
    );
    let failed = store.upload_append(&name(), &upload.id, 0, body()).await;
    assert_eq!(failed.unwrap_err().kind(), ErrorKind::NoSpace);
    assert_eq!(offset().await, 3);
    plan.set(Operation::UploadAppend, 0, Fault::Stall(2));
    let name = name();
    let append = store.upload_append(&name, &upload.id, 3, body());
    assert!(append.now_or_never().is_none());
    assert_eq!(offset().await, 5);
}
