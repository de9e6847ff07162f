//! The contract of [`Store`], one test for each clause, for every store and wrapper.
//!
//! `suite!(name, make)` makes a module of tests; `make` returns a store and what must outlive it.

use std::future::{pending, poll_fn};
use std::pin::Pin;
use std::task::Poll;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::{ErrorKind, Listing, NewManifest, Result, Store, StoreError, TagChanges, Upload};
use crate::oci::{Algorithm, ByteRange, Descriptor, Digest, Kind, MediaType, Name, Reference, Tag};

macro_rules! suite {
    ($module:ident, $make:expr) => {
        mod $module {
            $crate::store::suite::suite!(@tests $make;
                a_pushed_blob_is_read_back_whole
                a_large_blob_is_read_in_order
                an_empty_blob_is_a_blob
                a_range_is_read_and_told
                a_range_outside_the_blob_is_refused_with_its_size
                a_blob_belongs_only_to_the_repositories_it_came_to
                a_blob_is_mounted_from_a_repository_that_holds_it
                a_blob_is_mounted_from_anywhere_when_no_source_is_named
                a_deleted_blob_is_gone_here_and_stays_elsewhere
                chunks_continue_where_the_last_one_ended
                a_chunk_at_the_wrong_offset_is_refused_and_changes_nothing
                a_body_that_breaks_leaves_what_arrived
                an_append_that_is_given_up_leaves_a_whole_prefix
                a_wrong_digest_ends_the_session
                a_digest_may_use_another_algorithm_than_was_announced
                a_session_of_sha512_is_committed
                a_cancelled_session_is_unknown
                a_session_is_valid_in_its_repository_alone
                a_committed_session_is_unknown
                content_that_is_there_already_is_committed_again
                of_concurrent_appends_exactly_one_wins
                a_session_that_is_receiving_cannot_be_committed
                a_session_that_is_receiving_can_be_cancelled
                a_manifest_is_read_by_tag_and_digest_byte_for_byte
                a_manifest_pushed_again_takes_the_new_media_type
                a_manifest_with_unknown_references_is_refused_and_leaves_nothing
                an_index_needs_its_children_in_the_repository
                tags_are_created_moved_and_left_alone
                a_deleted_manifest_takes_its_tags_with_it
                a_tag_is_deleted_alone
                a_tag_needs_a_manifest
                what_is_unknown_cannot_be_deleted
                tags_are_listed_in_order_and_by_pages
                tags_of_no_repository_are_unknown
                repositories_are_listed_in_the_order_of_their_full_names
                repositories_are_listed_by_pages_of_any_size
                a_repository_exists_while_it_holds_a_blob_or_a_manifest
                names_may_hold_the_words_of_the_tree
                referrers_are_listed_in_order_with_or_without_their_subject
                a_deleted_referrer_is_no_longer_listed
                a_push_and_a_delete_at_once_leave_no_broken_manifest
            );
        }
    };
    (@tests $make:expr; $($clause:ident)+) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $clause() {
            let (store, _guard) = $make;
            $crate::store::suite::$clause(&store).await;
        }
    )+};
}
pub(crate) use suite;

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn tag(text: &str) -> Tag {
    Tag::parse(text).unwrap()
}

fn digest(bytes: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha256, bytes)
}

fn body(bytes: &[u8]) -> impl Stream {
    stream::iter([Ok(Bytes::copy_from_slice(bytes))])
}

trait Stream: futures_util::Stream<Item = Result<Bytes>> + Send + Unpin + 'static {}
impl<T: futures_util::Stream<Item = Result<Bytes>> + Send + Unpin + 'static> Stream for T {}

/// A body that yields `bytes` and then nothing more, ever.
fn stalled(bytes: &[u8]) -> impl Stream {
    body(bytes).chain(stream::once(Box::pin(pending())))
}

pub(super) async fn push(store: &impl Store, repository: &str, bytes: &[u8]) -> Digest {
    let (name, digest) = (name(repository), digest(bytes));
    let upload = store.upload_create(&name, Algorithm::Sha256).await.unwrap();
    store
        .upload_append(&name, &upload.id, 0, body(bytes))
        .await
        .unwrap();
    store
        .upload_commit(&name, &upload.id, &digest)
        .await
        .unwrap();
    digest
}

async fn pull(
    store: &impl Store,
    repository: &str,
    digest: &Digest,
    range: Option<ByteRange>,
) -> Result<Vec<u8>> {
    let read = store.blob_read(&name(repository), digest, range).await?;
    let chunks: Vec<Bytes> = read.reader.try_collect().await?;
    assert_eq!(
        chunks.iter().map(Bytes::len).sum::<usize>() as u64,
        read.span.length
    );
    Ok(chunks.concat())
}

pub(super) fn manifest(text: &str) -> NewManifest {
    let bytes = Bytes::copy_from_slice(text.as_bytes());
    NewManifest {
        digest: digest(&bytes),
        media_type: MediaType::OCI_MANIFEST,
        bytes,
        kind: Kind::Image,
        blobs: vec![],
        children: vec![],
        subject: None,
    }
}

pub(super) async fn put(store: &impl Store, repository: &str, text: &str, tags: &[&str]) -> Digest {
    let new = manifest(text);
    let digest = new.digest.clone();
    let tags: Vec<_> = tags.iter().map(|text| tag(text)).collect();
    store
        .manifest_write(&name(repository), new, &tags)
        .await
        .unwrap();
    digest
}

fn referrer(text: &str, subject: &Digest) -> NewManifest {
    let mut new = manifest(text);
    let size = new.bytes.len() as u64;
    let descriptor = Descriptor::new(new.media_type.clone(), new.digest.clone(), size);
    new.subject = Some((subject.clone(), descriptor));
    new
}

async fn all_tags(store: &impl Store, repository: &str) -> Vec<String> {
    let listing = store.tag_list(&name(repository), None, 1000).await.unwrap();
    assert!(!listing.more);
    listing.items.iter().map(ToString::to_string).collect()
}

async fn all_repositories(store: &impl Store) -> Vec<String> {
    let Listing { items, more } = store.repository_list(None, 1000).await.unwrap();
    assert!(!more);
    items.iter().map(ToString::to_string).collect()
}

pub(crate) async fn a_pushed_blob_is_read_back_whole(store: &impl Store) {
    let digest = push(store, "team/app", b"hello").await;
    assert_eq!(
        store.blob_stat(&name("team/app"), &digest).await.unwrap(),
        5
    );
    assert_eq!(
        pull(store, "team/app", &digest, None).await.unwrap(),
        b"hello"
    );
}

pub(crate) async fn a_large_blob_is_read_in_order(store: &impl Store) {
    let bytes: Vec<u8> = (0..3_000_001_u32)
        .flat_map(|n| (n % 65_521).to_le_bytes())
        .collect();
    let (name, digest) = (name("a"), digest(&bytes));
    let upload = store.upload_create(&name, Algorithm::Sha256).await.unwrap();
    let chunks: Vec<_> = bytes
        .chunks(70_001)
        .map(|c| Ok(Bytes::copy_from_slice(c)))
        .collect();
    store
        .upload_append(&name, &upload.id, 0, stream::iter(chunks))
        .await
        .unwrap();
    store
        .upload_commit(&name, &upload.id, &digest)
        .await
        .unwrap();
    assert!(pull(store, "a", &digest, None).await.unwrap() == bytes);
    let range = ByteRange::From(1_000_003);
    assert!(pull(store, "a", &digest, Some(range)).await.unwrap() == bytes[1_000_003..]);
}

pub(crate) async fn an_empty_blob_is_a_blob(store: &impl Store) {
    let (name, digest) = (name("a"), digest(b""));
    let upload = store.upload_create(&name, Algorithm::Sha256).await.unwrap();
    store
        .upload_commit(&name, &upload.id, &digest)
        .await
        .unwrap();
    assert_eq!(store.blob_stat(&name, &digest).await.unwrap(), 0);
    assert_eq!(pull(store, "a", &digest, None).await.unwrap(), b"");
}

pub(crate) async fn a_range_is_read_and_told(store: &impl Store) {
    let digest = push(store, "a", b"0123456789").await;
    let cases = [
        (ByteRange::FromTo(2, 4), &b"234"[..], 2),
        (ByteRange::FromTo(8, 100), b"89", 8),
        (ByteRange::From(9), b"9", 9),
        (ByteRange::Suffix(3), b"789", 7),
        (ByteRange::Suffix(100), b"0123456789", 0),
    ];
    for (range, expected, start) in cases {
        assert_eq!(
            pull(store, "a", &digest, Some(range)).await.unwrap(),
            expected,
            "{range:?}"
        );
        let read = store
            .blob_read(&name("a"), &digest, Some(range))
            .await
            .unwrap();
        assert_eq!((read.size, read.span.start), (10, start), "{range:?}");
    }
}

pub(crate) async fn a_range_outside_the_blob_is_refused_with_its_size(store: &impl Store) {
    let digest = push(store, "a", b"0123456789").await;
    for range in [
        ByteRange::From(10),
        ByteRange::FromTo(20, 30),
        ByteRange::Suffix(0),
    ] {
        let error = pull(store, "a", &digest, Some(range)).await.unwrap_err();
        assert!(
            matches!(error, StoreError::RangeUnsatisfiable { size: 10 }),
            "{error:?}"
        );
    }
}

pub(crate) async fn a_blob_belongs_only_to_the_repositories_it_came_to(store: &impl Store) {
    let digest = push(store, "team/app", b"x").await;
    for other in ["team", "team/app/web", "team/ap", "other"] {
        let error = store.blob_stat(&name(other), &digest).await.unwrap_err();
        assert!(matches!(error, StoreError::BlobUnknown), "{error:?}");
        let error = store
            .blob_read(&name(other), &digest, None)
            .await
            .map(drop)
            .unwrap_err();
        assert!(matches!(error, StoreError::BlobUnknown), "{error:?}");
    }
}

pub(crate) async fn a_blob_is_mounted_from_a_repository_that_holds_it(store: &impl Store) {
    let digest = push(store, "a", b"x").await;
    let error = store
        .blob_mount(&name("c"), Some(&name("b")), &digest)
        .await
        .unwrap_err();
    assert!(matches!(error, StoreError::BlobUnknown), "{error:?}");
    assert!(store.blob_stat(&name("c"), &digest).await.is_err());
    for _ in 0..2 {
        store
            .blob_mount(&name("b"), Some(&name("a")), &digest)
            .await
            .unwrap();
    }
    assert_eq!(pull(store, "b", &digest, None).await.unwrap(), b"x");
}

pub(crate) async fn a_blob_is_mounted_from_anywhere_when_no_source_is_named(store: &impl Store) {
    let digest = push(store, "a", b"x").await;
    store.blob_mount(&name("b"), None, &digest).await.unwrap();
    assert_eq!(pull(store, "b", &digest, None).await.unwrap(), b"x");
    let unknown = self::digest(b"y");
    let error = store
        .blob_mount(&name("b"), None, &unknown)
        .await
        .unwrap_err();
    assert!(matches!(error, StoreError::BlobUnknown), "{error:?}");
}

pub(crate) async fn a_deleted_blob_is_gone_here_and_stays_elsewhere(store: &impl Store) {
    let digest = push(store, "a", b"x").await;
    store
        .blob_mount(&name("b"), Some(&name("a")), &digest)
        .await
        .unwrap();
    store.blob_delete(&name("a"), &digest).await.unwrap();
    assert!(store.blob_stat(&name("a"), &digest).await.is_err());
    assert_eq!(pull(store, "b", &digest, None).await.unwrap(), b"x");
    push(store, "a", b"x").await;
    assert_eq!(pull(store, "a", &digest, None).await.unwrap(), b"x");
}

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

pub(crate) async fn a_body_that_breaks_leaves_what_arrived(store: &impl Store) {
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

pub(crate) async fn an_append_that_is_given_up_leaves_a_whole_prefix(store: &impl Store) {
    let name = name("a");
    let upload = store.upload_create(&name, Algorithm::Sha256).await.unwrap();
    give_up(store.upload_append(&name, &upload.id, 0, stalled(b"abc"))).await;
    // The session is free again once what had arrived is written.
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

/// Polls a future until it has done what it can for now, and drops it.
async fn give_up(future: impl Future) {
    still_pending(&mut Box::pin(future)).await;
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

pub(crate) async fn a_session_is_valid_in_its_repository_alone(store: &impl Store) {
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

pub(crate) async fn content_that_is_there_already_is_committed_again(store: &impl Store) {
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

pub(crate) async fn a_manifest_is_read_by_tag_and_digest_byte_for_byte(store: &impl Store) {
    let text = "{ \"schemaVersion\" : 2,\n\"x\": \"\\u00e4\" }\n";
    let digest = put(store, "a/b", text, &["1", "latest"]).await;
    for reference in ["1", "latest", digest.as_str()] {
        let reference = Reference::parse(reference).unwrap();
        let read = store.manifest_read(&name("a/b"), &reference).await.unwrap();
        assert_eq!(
            (&read.digest, &read.media_type),
            (&digest, &MediaType::OCI_MANIFEST)
        );
        assert_eq!(read.bytes, text.as_bytes());
        for other in ["a", "a/b/c"] {
            let error = store
                .manifest_read(&name(other), &reference)
                .await
                .unwrap_err();
            assert!(matches!(error, StoreError::ManifestUnknown), "{error:?}");
        }
    }
    assert_eq!(
        store.tag_read(&name("a/b"), &tag("1")).await.unwrap(),
        digest
    );
}

pub(crate) async fn a_manifest_pushed_again_takes_the_new_media_type(store: &impl Store) {
    let digest = put(store, "a", "{}", &["1"]).await;
    let new = NewManifest {
        media_type: MediaType::DOCKER_MANIFEST,
        ..manifest("{}")
    };
    let changes = store.manifest_write(&name("a"), new, &[]).await.unwrap();
    assert_eq!(changes, TagChanges::default());
    for reference in [Reference::Tag(tag("1")), Reference::Digest(digest)] {
        let read = store.manifest_read(&name("a"), &reference).await.unwrap();
        assert_eq!(read.media_type, MediaType::DOCKER_MANIFEST);
    }
}

pub(crate) async fn a_manifest_with_unknown_references_is_refused_and_leaves_nothing(
    store: &impl Store,
) {
    let known = push(store, "a", b"known").await;
    let elsewhere = push(store, "b", b"elsewhere").await;
    let (unknown, child) = (digest(b"unknown"), digest(b"child"));
    let mut new = manifest("{}");
    new.blobs = vec![elsewhere.clone(), known, unknown.clone()];
    new.children = vec![child.clone()];
    let reference = Reference::Digest(new.digest.clone());
    match store
        .manifest_write(&name("a"), new, &[tag("1")])
        .await
        .unwrap_err()
    {
        StoreError::ReferenceUnknown { digests } => {
            assert_eq!(digests, [elsewhere, unknown, child]);
        }
        error => panic!("{error:?}"),
    }
    assert!(store.manifest_read(&name("a"), &reference).await.is_err());
    assert_eq!(all_tags(store, "a").await, [""; 0]);
}

pub(crate) async fn an_index_needs_its_children_in_the_repository(store: &impl Store) {
    let child = put(store, "a", "{\"child\":1}", &[]).await;
    let index = NewManifest {
        children: vec![child.clone()],
        ..manifest("{\"index\":1}")
    };
    let error = store
        .manifest_write(&name("b"), index.clone(), &[])
        .await
        .unwrap_err();
    assert!(
        matches!(&error, StoreError::ReferenceUnknown { digests } if *digests == [child]),
        "{error:?}"
    );
    store.manifest_write(&name("a"), index, &[]).await.unwrap();
}

pub(crate) async fn tags_are_created_moved_and_left_alone(store: &impl Store) {
    let name = name("a");
    let tags = [tag("1"), tag("2")];
    let expect = |created, moved| TagChanges {
        created,
        moved,
        deleted: 0,
    };
    let one = store
        .manifest_write(&name, manifest("{\"n\":1}"), &tags[..1])
        .await
        .unwrap();
    assert_eq!(one, expect(1, 0));
    let again = store
        .manifest_write(&name, manifest("{\"n\":1}"), &tags)
        .await
        .unwrap();
    assert_eq!(again, expect(1, 0));
    let two = store
        .manifest_write(&name, manifest("{\"n\":2}"), &tags[..1])
        .await
        .unwrap();
    assert_eq!(two, expect(0, 1));
    let (first, second) = (manifest("{\"n\":1}").digest, manifest("{\"n\":2}").digest);
    assert_eq!(store.tag_read(&name, &tags[0]).await.unwrap(), second);
    assert_eq!(store.tag_read(&name, &tags[1]).await.unwrap(), first);
    assert_eq!(
        store.tag_write(&name, &tags[1], &second).await.unwrap(),
        expect(0, 1)
    );
    assert_eq!(
        store.tag_write(&name, &tags[1], &second).await.unwrap(),
        expect(0, 0)
    );
    assert_eq!(
        store.tag_write(&name, &tag("3"), &first).await.unwrap(),
        expect(1, 0)
    );
    assert_eq!(all_tags(store, "a").await, ["1", "2", "3"]);
}

pub(crate) async fn a_deleted_manifest_takes_its_tags_with_it(store: &impl Store) {
    let first = put(store, "a", "{\"n\":1}", &["1", "one"]).await;
    let second = put(store, "a", "{\"n\":2}", &["2"]).await;
    let changes = store.manifest_delete(&name("a"), &first).await.unwrap();
    assert_eq!(
        changes,
        TagChanges {
            deleted: 2,
            ..TagChanges::default()
        }
    );
    for gone in ["1", "one", first.as_str()] {
        let reference = Reference::parse(gone).unwrap();
        let error = store
            .manifest_read(&name("a"), &reference)
            .await
            .unwrap_err();
        assert!(matches!(error, StoreError::ManifestUnknown), "{error:?}");
    }
    assert_eq!(all_tags(store, "a").await, ["2"]);
    assert!(
        store
            .manifest_read(&name("a"), &Reference::Digest(second))
            .await
            .is_ok()
    );
    put(store, "a", "{\"n\":1}", &["1"]).await;
    assert_eq!(all_tags(store, "a").await, ["1", "2"]);
}

pub(crate) async fn a_tag_is_deleted_alone(store: &impl Store) {
    let digest = put(store, "a", "{}", &["1", "2"]).await;
    store.tag_delete(&name("a"), &tag("1")).await.unwrap();
    assert_eq!(all_tags(store, "a").await, ["2"]);
    store.tag_delete(&name("a"), &tag("2")).await.unwrap();
    assert_eq!(all_tags(store, "a").await, [""; 0]);
    assert!(
        store
            .manifest_read(&name("a"), &Reference::Digest(digest))
            .await
            .is_ok()
    );
}

pub(crate) async fn a_tag_needs_a_manifest(store: &impl Store) {
    let digest = put(store, "a", "{}", &[]).await;
    for (repository, digest) in [("b", digest), ("a", self::digest(b"other"))] {
        let result = store.tag_write(&name(repository), &tag("1"), &digest).await;
        assert!(
            matches!(result, Err(StoreError::ManifestUnknown)),
            "{result:?}"
        );
    }
    assert_eq!(all_tags(store, "a").await, [""; 0]);
}

pub(crate) async fn what_is_unknown_cannot_be_deleted(store: &impl Store) {
    put(store, "a", "{}", &["1"]).await;
    for repository in ["a", "b"] {
        let name = name(repository);
        let unknown = digest(b"unknown");
        let blob = store.blob_delete(&name, &unknown).await;
        assert!(matches!(blob, Err(StoreError::BlobUnknown)), "{blob:?}");
        let manifest = store.manifest_delete(&name, &unknown).await;
        assert!(
            matches!(manifest, Err(StoreError::ManifestUnknown)),
            "{manifest:?}"
        );
        let tag = store.tag_delete(&name, &tag("2")).await;
        assert!(matches!(tag, Err(StoreError::ManifestUnknown)), "{tag:?}");
    }
}

pub(crate) async fn tags_are_listed_in_order_and_by_pages(store: &impl Store) {
    let expected = ["1", "10", "2", "A", "Z", "_", "a", "a-b", "a.b", "aa"];
    let expected = {
        let mut sorted = expected;
        sorted.sort_unstable();
        sorted
    };
    let mut shuffled = expected;
    shuffled.reverse();
    put(store, "a", "{}", &shuffled).await;
    assert_eq!(all_tags(store, "a").await, expected);
    for limit in 1..=11 {
        let (mut seen, mut last) = (Vec::new(), None::<String>);
        loop {
            let page = store
                .tag_list(&name("a"), last.as_deref(), limit)
                .await
                .unwrap();
            assert!(page.items.len() == limit || !page.more);
            seen.extend(page.items.iter().map(ToString::to_string));
            last = seen.last().cloned();
            if !page.more {
                break;
            }
        }
        assert_eq!(seen, expected, "by {limit}");
    }
    // The last name of a page may be deleted, or never have been a tag, before the next one.
    let page = store.tag_list(&name("a"), Some("a-a"), 1).await.unwrap();
    assert_eq!((page.items, page.more), (vec![tag("a-b")], true));
    let page = store.tag_list(&name("a"), Some("zz"), 1).await.unwrap();
    assert_eq!((page.items, page.more), (vec![], false));
    let page = store.tag_list(&name("a"), None, 0).await.unwrap();
    assert_eq!((page.items, page.more), (vec![], true));
}

pub(crate) async fn tags_of_no_repository_are_unknown(store: &impl Store) {
    put(store, "team/app", "{}", &["1"]).await;
    for unknown in ["team", "team/app/web", "other"] {
        let error = store.tag_list(&name(unknown), None, 10).await.unwrap_err();
        assert!(matches!(error, StoreError::RepositoryUnknown), "{error:?}");
    }
}

pub(crate) async fn repositories_are_listed_in_the_order_of_their_full_names(store: &impl Store) {
    let mut expected = vec![
        "a", "a-b", "a.b", "a/b", "a/b/c", "a/b-c", "a0", "a_b/c", "b/a",
    ];
    for (n, repository) in expected.iter().enumerate() {
        if n % 2 == 0 {
            put(store, repository, "{}", &[]).await;
        } else {
            push(store, repository, b"x").await;
        }
    }
    expected.sort_unstable();
    assert_eq!(all_repositories(store).await, expected);
}

pub(crate) async fn repositories_are_listed_by_pages_of_any_size(store: &impl Store) {
    let mut expected = vec![
        "a", "a-b", "a/b", "a/b/c", "a/b-c", "a0", "b/a/c/d", "b/a-c", "c",
    ];
    for repository in &expected {
        put(store, repository, "{}", &[]).await;
    }
    expected.sort_unstable();
    for limit in 1..=10 {
        let (mut seen, mut last) = (Vec::new(), None::<String>);
        loop {
            let page = store.repository_list(last.as_deref(), limit).await.unwrap();
            assert!(page.items.len() == limit || !page.more);
            seen.extend(page.items.iter().map(ToString::to_string));
            last = seen.last().cloned();
            if !page.more {
                break;
            }
        }
        assert_eq!(seen, expected, "by {limit}");
    }
    let page = store.repository_list(Some("a/a/zz"), 1).await.unwrap();
    assert_eq!((page.items, page.more), (vec![name("a/b")], true));
}

pub(crate) async fn a_repository_exists_while_it_holds_a_blob_or_a_manifest(store: &impl Store) {
    let upload = store
        .upload_create(&name("a/b"), Algorithm::Sha256)
        .await
        .unwrap();
    store
        .upload_append(&name("a/b"), &upload.id, 0, body(b"x"))
        .await
        .unwrap();
    assert_eq!(all_repositories(store).await, [""; 0]);
    store
        .upload_commit(&name("a/b"), &upload.id, &digest(b"x"))
        .await
        .unwrap();
    assert_eq!(all_tags(store, "a/b").await, [""; 0]);
    let manifest = put(store, "a/b", "{}", &["1"]).await;
    store
        .blob_delete(&name("a/b"), &digest(b"x"))
        .await
        .unwrap();
    assert_eq!(all_repositories(store).await, ["a/b"]);
    store
        .manifest_delete(&name("a/b"), &manifest)
        .await
        .unwrap();
    assert_eq!(all_repositories(store).await, [""; 0]);
    assert!(store.tag_list(&name("a/b"), None, 10).await.is_err());
}

pub(crate) async fn names_may_hold_the_words_of_the_tree(store: &impl Store) {
    let mut names = vec![
        "blobs",
        "manifests/sha256",
        "tags/list",
        "tmp",
        "uploads",
        "a/blobs/b",
    ];
    names.push("repositories/repositories");
    for repository in &names {
        put(
            store,
            repository,
            "{}",
            &["blobs", "_tags", "session", "lock"],
        )
        .await;
        push(store, repository, b"x").await;
    }
    names.sort_unstable();
    assert_eq!(all_repositories(store).await, names);
    for repository in names {
        assert_eq!(
            all_tags(store, repository).await,
            ["_tags", "blobs", "lock", "session"]
        );
    }
}

pub(crate) async fn referrers_are_listed_in_order_with_or_without_their_subject(
    store: &impl Store,
) {
    let subject = manifest("{}").digest;
    let list = async |repository: &str| {
        store
            .referrers_list(&name(repository), &subject)
            .await
            .unwrap()
    };
    assert_eq!(list("a").await, []);
    let mut expected = Vec::new();
    for n in 0..5 {
        let new = referrer(&format!("{{\"n\":{n}}}"), &subject);
        expected.extend(new.subject.clone().map(|(_, descriptor)| descriptor));
        store.manifest_write(&name("a"), new, &[]).await.unwrap();
    }
    expected.sort_by(|a, b| a.digest.cmp(&b.digest));
    assert_eq!(list("a").await, expected);
    put(store, "a", "{}", &["1"]).await;
    assert_eq!(list("a").await, expected);
    assert_eq!(list("b").await, []);
    store.manifest_delete(&name("a"), &subject).await.unwrap();
    assert_eq!(list("a").await, expected);
}

pub(crate) async fn a_deleted_referrer_is_no_longer_listed(store: &impl Store) {
    let subject = put(store, "a", "{}", &[]).await;
    let (one, two) = (
        referrer("{\"n\":1}", &subject),
        referrer("{\"n\":2}", &subject),
    );
    for new in [&one, &two] {
        store
            .manifest_write(&name("a"), new.clone(), &[])
            .await
            .unwrap();
    }
    store
        .manifest_delete(&name("a"), &one.digest)
        .await
        .unwrap();
    let left = store.referrers_list(&name("a"), &subject).await.unwrap();
    assert_eq!(
        left.into_iter().map(|d| d.digest).collect::<Vec<_>>(),
        [two.digest]
    );
}

pub(crate) async fn a_push_and_a_delete_at_once_leave_no_broken_manifest(store: &impl Store) {
    let name = name("a");
    for round in 0..50 {
        let blob = push(store, "a", b"x").await;
        let mut new = manifest(&format!("{{\"round\":{round}}}"));
        new.blobs = vec![blob.clone()];
        let reference = Reference::Digest(new.digest.clone());
        let (written, deleted) = tokio::join!(
            store.manifest_write(&name, new, &[]),
            store.blob_delete(&name, &blob),
        );
        deleted.unwrap();
        // Either the push came first, and the delete is what its sender asked for; or the delete
        // did, and the push was told so.
        match written {
            Ok(_) => assert!(store.manifest_read(&name, &reference).await.is_ok()),
            Err(StoreError::ReferenceUnknown { digests }) => {
                assert_eq!(digests, [blob]);
                assert!(store.manifest_read(&name, &reference).await.is_err());
            }
            Err(error) => panic!("{error:?}"),
        }
    }
}
