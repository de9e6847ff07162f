//! Blobs: what is read, and where a blob is.

use bytes::Bytes;
use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::{digest, name, pull, push};
use crate::oci::{Algorithm, ByteRange, ByteRanges, Span, Spans};
use crate::store::{Store, StoreError};

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

pub(crate) async fn a_range_is_read_and_its_position_returned(store: &impl Store) {
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
            .blob_read(&name("a"), &digest, Some(range.into()))
            .await
            .unwrap();
        let length = expected.len() as u64;
        let span = Spans::One(Span { start, length });
        assert_eq!((read.size, read.spans), (10, span), "{range:?}");
    }
}

fn ranges(header: &str) -> ByteRanges {
    ByteRanges::parse(Some(header)).unwrap().unwrap()
}

pub(crate) async fn several_ranges_are_read_in_the_order_asked_for(store: &impl Store) {
    let bytes: Vec<u8> = (0..700_000_u32).map(|n| (n % 251) as u8).collect();
    let digest = push(store, "a", &bytes).await;
    // Within a chunk and over several, backwards, repeated, and one that no byte satisfies.
    let ranges = ranges("bytes=600000-600003,0-3,900000-,10-400000,7-7,7-7,-2");
    let parts = [
        (600_000, 4),
        (0, 4),
        (10, 399_991),
        (7, 1),
        (7, 1),
        (699_998, 2),
    ];
    let mut read = store
        .blob_read(&name("a"), &digest, Some(ranges))
        .await
        .unwrap();
    let parts = parts.map(|(start, length)| Span { start, length });
    assert_eq!(read.size, 700_000);
    assert_eq!(read.spans, Spans::Several(parts.into()));
    for Span { start, length } in parts {
        let mut part = Vec::new();
        while (part.len() as u64) < length {
            part.extend_from_slice(&read.reader.next().await.unwrap().unwrap());
        }
        // No chunk has bytes of two spans.
        let start = usize::try_from(start).unwrap();
        assert!(part == bytes[start..][..usize::try_from(length).unwrap()]);
    }
    assert!(read.reader.next().await.is_none());
}

pub(crate) async fn ranges_larger_than_the_blob_become_the_whole_blob(store: &impl Store) {
    let digest = push(store, "a", b"0123456789").await;
    let ranges = ranges("bytes=0-9,3-3");
    let read = store
        .blob_read(&name("a"), &digest, Some(ranges))
        .await
        .unwrap();
    assert_eq!((read.size, read.spans), (10, Spans::Whole));
    let chunks: Vec<Bytes> = read.reader.try_collect().await.unwrap();
    assert_eq!(chunks.concat(), b"0123456789");
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

pub(crate) async fn a_blob_belongs_only_to_the_repositories_it_was_added_to(store: &impl Store) {
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

pub(crate) async fn a_blob_that_is_deleted_while_it_is_read_is_read_to_its_end(store: &impl Store) {
    let bytes = vec![7; 3_000_000];
    let digest = push(store, "a", &bytes).await;
    let mut read = store.blob_read(&name("a"), &digest, None).await.unwrap();
    let first = read.reader.next().await.unwrap().unwrap();
    assert!(first.len() < bytes.len(), "it comes in pieces");
    store.blob_delete(&name("a"), &digest).await.unwrap();
    let rest: Vec<Bytes> = read.reader.try_collect().await.unwrap();
    assert!([&first[..], &rest.concat()].concat() == bytes);
    assert!(store.blob_stat(&name("a"), &digest).await.is_err());
}
