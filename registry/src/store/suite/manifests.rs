//! Manifests, and what they refer to.

use bytes::Bytes;
use futures_util::TryStreamExt;

use super::{all_tags, digest, manifest, name, poll_and_drop, push, put, tag};
use crate::oci::{MediaType, Reference};
use crate::store::{ManifestContent, NewManifest, Store, StoreError, TagChanges};

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
        assert_eq!(read.bytes(), text.as_bytes());
        for other in ["a", "a/b/c"] {
            let error = store.manifest_read(&name(other), &reference).await.err();
            assert!(
                matches!(error, Some(StoreError::ManifestUnknown)),
                "{error:?}"
            );
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
    let changes = store
        .manifest_write(&name("a"), new, &[], None)
        .await
        .unwrap();
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
        .manifest_write(&name("a"), new, &[tag("1")], None)
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
        .manifest_write(&name("b"), index.clone(), &[], None)
        .await
        .unwrap_err();
    assert!(
        matches!(&error, StoreError::ReferenceUnknown { digests } if *digests == [child]),
        "{error:?}"
    );
    store
        .manifest_write(&name("a"), index, &[], None)
        .await
        .unwrap();
}

pub(crate) async fn a_deleted_manifest_removes_its_tags(store: &impl Store) {
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
        let error = store.manifest_read(&name("a"), &reference).await.err();
        assert!(
            matches!(error, Some(StoreError::ManifestUnknown)),
            "{error:?}"
        );
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

pub(crate) async fn an_unknown_item_cannot_be_deleted(store: &impl Store) {
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
        let tag = store.tag_delete(&name, &tag("2"), None).await;
        assert!(matches!(tag, Err(StoreError::ManifestUnknown)), "{tag:?}");
    }
}

pub(crate) async fn a_simultaneous_push_and_delete_leave_no_broken_manifest(store: &impl Store) {
    let name = name("a");
    for round in 0..50 {
        let blob = push(store, "a", b"x").await;
        let mut new = manifest(&format!("{{\"round\":{round}}}"));
        new.blobs = vec![blob.clone()];
        let reference = Reference::Digest(new.digest.clone());
        let (written, deleted) = tokio::join!(
            store.manifest_write(&name, new, &[], None),
            store.blob_delete(&name, &blob),
        );
        deleted.unwrap();
        // Either the push came first, and the delete removed the blob after it; or the delete came first,
        // and the push failed.
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

pub(crate) async fn an_aborted_push_happens_whole_or_not_at_all(store: &impl Store) {
    let name = name("a");
    for round in 0..20 {
        let text = format!("{{\"round\":{round}}}");
        let (new, tag) = (manifest(&text), tag(&format!("of-round-{round}")));
        let reference = Reference::Tag(tag.clone());
        let tags = [tag];
        poll_and_drop(
            store.manifest_write(&name, new.clone(), &tags, None),
            round % 4,
        )
        .await;
        match store.manifest_read(&name, &reference).await {
            Ok(read) => assert_eq!(read.bytes(), text.as_bytes()),
            Err(error) => assert!(matches!(error, StoreError::ManifestUnknown), "{error:?}"),
        }
        store.manifest_write(&name, new, &tags, None).await.unwrap();
        let read = store.manifest_read(&name, &reference).await.unwrap();
        assert_eq!(read.bytes(), text.as_bytes());
    }
}

pub(crate) async fn a_large_manifest_is_read_whole_or_in_order(store: &impl Store) {
    let text = format!("{{\"long\":\"{}\"}}", "0123456789".repeat(300_000));
    let digest = put(store, "a", &text, &["1"]).await;
    for reference in [Reference::Tag(tag("1")), Reference::Digest(digest.clone())] {
        let read = store.manifest_read(&name("a"), &reference).await.unwrap();
        assert_eq!((&read.digest, read.size), (&digest, text.len() as u64));
        let bytes = match read.content {
            ManifestContent::Whole(bytes) => bytes,
            ManifestContent::Stream(reader) => {
                let pieces: Vec<Bytes> = reader.try_collect().await.unwrap();
                pieces.concat().into()
            }
        };
        assert!(bytes == text.as_bytes(), "{} bytes", bytes.len());
    }
}
