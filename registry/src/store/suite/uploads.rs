//! Upload sessions.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};

use super::{body, digest, name, poll_and_drop, pull, push, stalled};
use crate::oci::{Algorithm, Digest};
use crate::store::{ErrorKind, Store, StoreError, Upload};

pub(crate) async fn chunks_continue_where_the_last_one_ended(store: &impl Store) {
    let name = name("a");
    let upload = store.upload_create(&name, Algorithm::Sha256).await.unwrap();
    assert_eq!(upload.offset, 0);
    let mut offset = 0;
    for chunk in [&b"one"[..], b"", b"two", b"three"] {
        let after = store
            .upload_append(&name, &upload.id, offset, body(chunk))
            .await
            .unwrap();
        offset += chunk.len() as u64;
        assert_eq!(
            after,
            Upload {
                id: upload.id.clone(),
                offset
            }
        );
        assert_eq!(store.upload_stat(&name, &upload.id).await.unwrap(), after);
    }
    let digest = digest(b"onetwothree");
    store
        .upload_commit(&name, &upload.id, &digest)
        .await
        .unwrap();
    assert_eq!(
        pull(store, "a", &digest, None).await.unwrap(),
        b"onetwothree"
    );
}

pub(crate) async fn a_chunk_at_the_wrong_offset_is_refused_and_changes_nothing(store: &impl Store) {
    let name = name("a");
    let upload = store.upload_create(&name, Algorithm::Sha256).await.unwrap();
    store
        .upload_append(&name, &upload.id, 0, body(b"abc"))
        .await
        .unwrap();
    for offset in [0, 2, 4, u64::MAX] {
        let result = store
            .upload_append(&name, &upload.id, offset, body(b"x"))
            .await;
        assert!(
            matches!(result, Err(StoreError::UploadOffset { expected: 3 })),
            "{result:?}"
        );
    }
    store
        .upload_commit(&name, &upload.id, &digest(b"abc"))
        .await
        .unwrap();
}

pub(crate) async fn a_body_that_fails_leaves_the_bytes_that_arrived(store: &impl Store) {
    let name = name("a");
    let upload = store.upload_create(&name, Algorithm::Sha256).await.unwrap();
    let broken = StoreError::Body("the client left".into());
    let body = stream::iter([Ok(Bytes::from_static(b"abc")), Err(broken)]);
    let error = store
        .upload_append(&name, &upload.id, 0, body)
        .await
        .unwrap_err();
    assert!(matches!(error, StoreError::Body(_)), "{error:?}");
    assert_eq!(
        store.upload_stat(&name, &upload.id).await.unwrap().offset,
        3
    );
    store
        .upload_append(&name, &upload.id, 3, self::body(b"def"))
        .await
        .unwrap();
    store
        .upload_commit(&name, &upload.id, &digest(b"abcdef"))
        .await
        .unwrap();
}

pub(crate) async fn an_aborted_append_leaves_a_whole_prefix(store: &impl Store) {
    let name = name("a");
    let upload = store.upload_create(&name, Algorithm::Sha256).await.unwrap();
    let mut append = Box::pin(store.upload_append(&name, &upload.id, 0, stalled(b"abc")));
    still_pending(&mut append).await;
    drop(append);
    // The session is free again when the bytes that arrived are written.
    let after = store
        .upload_append(&name, &upload.id, 3, body(b"def"))
        .await
        .unwrap();
    assert_eq!(after.offset, 6);
    store
        .upload_commit(&name, &upload.id, &digest(b"abcdef"))
        .await
        .unwrap();
}

async fn still_pending<F: Future>(future: &mut Pin<Box<F>>) {
    poll_fn(|context| {
        assert!(future.as_mut().poll(context).is_pending());
        Poll::Ready(())
    })
    .await;
}

pub(crate) async fn a_wrong_digest_ends_the_session(store: &impl Store) {
    let name = name("a");
    let (right, wrong) = (digest(b"abc"), digest(b"abd"));
    let upload = store.upload_create(&name, Algorithm::Sha256).await.unwrap();
    store
        .upload_append(&name, &upload.id, 0, body(b"abc"))
        .await
        .unwrap();
    match store
        .upload_commit(&name, &upload.id, &wrong)
        .await
        .unwrap_err()
    {
        StoreError::DigestMismatch { expected, actual } => {
            assert_eq!((expected, actual), (wrong.clone(), right.clone()));
        }
        error => panic!("{error:?}"),
    }
    let error = store.upload_stat(&name, &upload.id).await.unwrap_err();
    assert!(matches!(error, StoreError::UploadUnknown), "{error:?}");
    for digest in [&right, &wrong] {
        assert!(store.blob_stat(&name, digest).await.is_err());
    }
}

pub(crate) async fn a_digest_may_use_another_algorithm_than_was_announced(store: &impl Store) {
    let name = name("a");
    let upload = store.upload_create(&name, Algorithm::Sha256).await.unwrap();
    store
        .upload_append(&name, &upload.id, 0, body(b"abc"))
        .await
        .unwrap();
    let digest = Digest::of(Algorithm::Sha512, b"abc");
    store
        .upload_commit(&name, &upload.id, &digest)
        .await
        .unwrap();
    assert_eq!(pull(store, "a", &digest, None).await.unwrap(), b"abc");
}

pub(crate) async fn a_session_of_sha512_is_committed(store: &impl Store) {
    let name = name("a");
    let upload = store.upload_create(&name, Algorithm::Sha512).await.unwrap();
    store
        .upload_append(&name, &upload.id, 0, body(b"ab"))
        .await
        .unwrap();
    store
        .upload_append(&name, &upload.id, 2, body(b"c"))
        .await
        .unwrap();
    let digest = Digest::of(Algorithm::Sha512, b"abc");
    store
        .upload_commit(&name, &upload.id, &digest)
        .await
        .unwrap();
    assert_eq!(store.blob_stat(&name, &digest).await.unwrap(), 3);
}

pub(crate) async fn a_cancelled_session_is_unknown(store: &impl Store) {
    let name = name("a");
    let upload = store.upload_create(&name, Algorithm::Sha256).await.unwrap();
    store
        .upload_append(&name, &upload.id, 0, body(b"abc"))
        .await
        .unwrap();
    store.upload_cancel(&name, &upload.id).await.unwrap();
    let results = [
        store.upload_stat(&name, &upload.id).await.map(drop),
        store
            .upload_append(&name, &upload.id, 3, body(b"d"))
            .await
            .map(drop),
        store
            .upload_commit(&name, &upload.id, &digest(b"abc"))
            .await,
        store.upload_cancel(&name, &upload.id).await,
    ];
    for result in results {
        assert!(
            matches!(result, Err(StoreError::UploadUnknown)),
            "{result:?}"
        );
    }
}

pub(crate) async fn a_session_is_valid_only_in_its_repository(store: &impl Store) {
    let upload = store
        .upload_create(&name("a"), Algorithm::Sha256)
        .await
        .unwrap();
    let other = name("b");
    let results = [
        store.upload_stat(&other, &upload.id).await.map(drop),
        store
            .upload_append(&other, &upload.id, 0, body(b"d"))
            .await
            .map(drop),
        store.upload_commit(&other, &upload.id, &digest(b"")).await,
        store.upload_cancel(&other, &upload.id).await,
    ];
    for result in results {
        assert!(
            matches!(result, Err(StoreError::UploadUnknown)),
            "{result:?}"
        );
    }
    assert!(store.upload_stat(&name("a"), &upload.id).await.is_ok());
}

pub(crate) async fn a_committed_session_is_unknown(store: &impl Store) {
    let name = name("a");
    let upload = store.upload_create(&name, Algorithm::Sha256).await.unwrap();
    store
        .upload_commit(&name, &upload.id, &digest(b""))
        .await
        .unwrap();
    let again = store.upload_commit(&name, &upload.id, &digest(b"")).await;
    assert!(matches!(again, Err(StoreError::UploadUnknown)), "{again:?}");
}

pub(crate) async fn content_that_exists_already_is_committed_again(store: &impl Store) {
    let digest = push(store, "a", b"x").await;
    for repository in ["a", "b"] {
        push(store, repository, b"x").await;
        assert_eq!(pull(store, repository, &digest, None).await.unwrap(), b"x");
    }
}

pub(crate) async fn of_concurrent_appends_exactly_one_wins(store: &impl Store) {
    let name = name("a");
    let upload = store.upload_create(&name, Algorithm::Sha256).await.unwrap();
    let bodies = [b'a', b'b', b'c', b'd'].map(|letter| vec![letter; 700_000]);
    let appends = bodies.iter().map(|bytes| {
        let chunks: Vec<_> = bytes
            .chunks(9_000)
            .map(|c| Ok(Bytes::copy_from_slice(c)))
            .collect();
        store.upload_append(&name, &upload.id, 0, stream::iter(chunks))
    });
    let results = futures_util::future::join_all(appends).await;
    let winners: Vec<_> = (0..4).filter(|&n| results[n].is_ok()).collect();
    assert_eq!(winners.len(), 1, "{results:?}");
    for error in results.iter().filter_map(|result| result.as_ref().err()) {
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error:?}");
    }
    let digest = digest(&bodies[winners[0]]);
    store
        .upload_commit(&name, &upload.id, &digest)
        .await
        .unwrap();
}

pub(crate) async fn of_concurrent_commits_exactly_one_wins(store: &impl Store) {
    let name = name("a");
    let upload = store.upload_create(&name, Algorithm::Sha256).await.unwrap();
    store
        .upload_append(&name, &upload.id, 0, body(b"abc"))
        .await
        .unwrap();
    let digest = digest(b"abc");
    let commits = (0..4).map(|_| store.upload_commit(&name, &upload.id, &digest));
    let results = futures_util::future::join_all(commits).await;
    let won = results.iter().filter(|result| result.is_ok()).count();
    assert_eq!(won, 1, "{results:?}");
    for error in results.iter().filter_map(|result| result.as_ref().err()) {
        let is_expected = matches!(error, StoreError::UploadBusy | StoreError::UploadUnknown);
        assert!(is_expected, "{error:?}");
    }
    assert_eq!(pull(store, "a", &digest, None).await.unwrap(), b"abc");
}

pub(crate) async fn a_session_that_is_receiving_cannot_be_committed(store: &impl Store) {
    let name = name("a");
    let upload = store.upload_create(&name, Algorithm::Sha256).await.unwrap();
    let mut append = Box::pin(store.upload_append(&name, &upload.id, 0, stalled(b"abc")));
    still_pending(&mut append).await;
    let commit = store.upload_commit(&name, &upload.id, &digest(b"")).await;
    assert!(matches!(commit, Err(StoreError::UploadBusy)), "{commit:?}");
    let second = store.upload_append(&name, &upload.id, 0, body(b"x")).await;
    assert!(matches!(second, Err(StoreError::UploadBusy)), "{second:?}");
}

pub(crate) async fn a_session_that_is_receiving_can_be_cancelled(store: &impl Store) {
    let name = name("a");
    let upload = store.upload_create(&name, Algorithm::Sha256).await.unwrap();
    let (cancelled, wait) = tokio::sync::oneshot::channel();
    let rest = stream::once(Box::pin(async move {
        wait.await.unwrap();
        Ok(Bytes::from_static(b"def"))
    }));
    let append = store.upload_append(&name, &upload.id, 0, body(b"abc").chain(rest));
    let cancel = async {
        let result = store.upload_cancel(&name, &upload.id).await;
        cancelled.send(()).unwrap();
        result
    };
    let (appended, cancelled) = tokio::join!(append, cancel);
    cancelled.unwrap();
    assert!(
        matches!(appended, Err(StoreError::UploadUnknown)),
        "{appended:?}"
    );
}

pub(crate) async fn an_aborted_commit_happens_whole_or_not_at_all(store: &impl Store) {
    let name = name("a");
    for round in 0..20 {
        let content = format!("round {round}");
        let digest = digest(content.as_bytes());
        let upload = store.upload_create(&name, Algorithm::Sha256).await.unwrap();
        let whole = body(content.as_bytes());
        let appended = store.upload_append(&name, &upload.id, 0, whole).await;
        appended.unwrap();
        let commit = store.upload_commit(&name, &upload.id, &digest);
        poll_and_drop(commit, round % 4).await;
        // A commit that has begun runs to its end: then the blob is there, or the session still is.
        match store.upload_commit(&name, &upload.id, &digest).await {
            Ok(()) | Err(StoreError::UploadUnknown) => {}
            Err(error) => panic!("{error:?}"),
        }
        let read = pull(store, "a", &digest, None).await.unwrap();
        assert_eq!(read, content.as_bytes());
    }
}
