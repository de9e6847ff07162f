//! Tags and their listing.

use super::{all_tags, digest, manifest, name, put, tag};
use crate::oci::Reference;
use crate::store::{Store, StoreError, TagChanges};

pub(crate) async fn a_tag_is_created_moved_or_left_unchanged(store: &impl Store) {
    let name = name("a");
    let tags = [tag("1"), tag("2")];
    let expect = |created, moved| TagChanges {
        created,
        moved,
        ..TagChanges::default()
    };
    let one = store
        .manifest_write(&name, manifest("{\"n\":1}"), &tags[..1], None)
        .await
        .unwrap();
    assert_eq!(one, expect(1, 0));
    let again = store
        .manifest_write(&name, manifest("{\"n\":1}"), &tags, None)
        .await
        .unwrap();
    assert_eq!(again, expect(1, 0));
    let two = store
        .manifest_write(&name, manifest("{\"n\":2}"), &tags[..1], None)
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

pub(crate) async fn a_deleted_tag_leaves_its_manifest(store: &impl Store) {
    let digest = put(store, "a", "{}", &["1", "2"]).await;
    store.tag_delete(&name("a"), &tag("1"), None).await.unwrap();
    assert_eq!(all_tags(store, "a").await, ["2"]);
    store.tag_delete(&name("a"), &tag("2"), None).await.unwrap();
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

pub(crate) async fn an_unknown_tag_is_an_unknown_manifest(store: &impl Store) {
    put(store, "a", "{}", &["1"]).await;
    for (repository, unknown) in [("a", "2"), ("b", "1")] {
        let (name, tag) = (name(repository), tag(unknown));
        let read = store.tag_read(&name, &tag).await;
        assert!(matches!(read, Err(StoreError::ManifestUnknown)), "{read:?}");
        let read = store.manifest_read(&name, &Reference::Tag(tag)).await;
        assert!(matches!(read, Err(StoreError::ManifestUnknown)));
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

pub(crate) async fn listing_the_tags_of_an_unknown_repository_fails(store: &impl Store) {
    put(store, "team/app", "{}", &["1"]).await;
    for unknown in ["team", "team/app/web", "other"] {
        let error = store.tag_list(&name(unknown), None, 10).await.unwrap_err();
        assert!(matches!(error, StoreError::RepositoryUnknown), "{error:?}");
    }
}
