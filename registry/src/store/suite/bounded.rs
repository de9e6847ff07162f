//! A store that has three upload sessions at most.

use bytes::Bytes;
use futures_util::future::FutureExt;
use futures_util::stream;

use super::{body, name};
use crate::oci::Algorithm;
use crate::store::{Store, StoreError, UploadId};

async fn begin(store: &impl Store) -> UploadId {
    let upload = store.upload_create(&name("a"), Algorithm::Sha256).await;
    upload.unwrap().id
}

/// Which of these sessions are open.
async fn open(store: &impl Store, ids: &[UploadId]) -> Vec<bool> {
    let mut open = Vec::new();
    for id in ids {
        open.push(match store.upload_stat(&name("a"), id).await {
            Ok(_) => true,
            Err(StoreError::UploadUnknown) => false,
            Err(error) => panic!("{error:?}"),
        });
    }
    open
}

pub(crate) async fn the_longest_idle_session_is_evicted(store: &impl Store) {
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(begin(store).await);
    }
    // A request makes it the last one to be evicted, even if it brings no bytes.
    let name = name("a");
    store
        .upload_append(&name, &ids[0], 0, body(b""))
        .await
        .unwrap();
    ids.push(begin(store).await);
    assert_eq!(open(store, &ids).await, [true, false, true, true]);
    ids.push(begin(store).await);
    assert_eq!(open(store, &ids).await, [true, false, false, true, true]);
    let gone = store.upload_append(&name, &ids[1], 0, body(b"x")).await;
    assert!(matches!(gone, Err(StoreError::UploadUnknown)), "{gone:?}");
}

pub(crate) async fn a_session_without_bytes_is_evicted_before_one_with_bytes(store: &impl Store) {
    let mut ids = Vec::new();
    for bytes in [&b"x"[..], b"x", b""] {
        let id = begin(store).await;
        store
            .upload_append(&name("a"), &id, 0, body(bytes))
            .await
            .unwrap();
        ids.push(id);
    }
    for _ in 0..5 {
        ids.push(begin(store).await);
    }
    let left = open(store, &ids).await;
    assert_eq!(left, [true, true, false, false, false, false, false, true]);
}

pub(crate) async fn a_session_that_is_receiving_is_not_evicted(store: &impl Store) {
    let (name, mut ids) = (name("a"), Vec::new());
    for _ in 0..3 {
        ids.push(begin(store).await);
    }
    let (mut senders, mut appends) = (Vec::new(), Vec::new());
    for id in &ids {
        let (sender, receiver) = tokio::sync::oneshot::channel::<()>();
        let rest = stream::once(Box::pin(async move {
            receiver.await.unwrap();
            Ok(Bytes::from_static(b"rest"))
        }));
        let mut append = Box::pin(store.upload_append(&name, id, 0, rest));
        assert!(append.as_mut().now_or_never().is_none());
        senders.push(sender);
        appends.push(append);
    }
    let refused = store.upload_create(&name, Algorithm::Sha256).await;
    let limit = matches!(refused, Err(StoreError::TooManySessions { limit: 3 }));
    assert!(limit, "{refused:?}");
    assert_eq!(open(store, &ids).await, [true, true, true]);
    for sender in senders {
        sender.send(()).unwrap();
    }
    for append in appends {
        assert_eq!(append.await.unwrap().offset, 4);
    }
}
