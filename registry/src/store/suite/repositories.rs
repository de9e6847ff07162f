//! The listing of repositories.

use super::{all_repositories, all_tags, body, digest, manifest, name, push, put, tag};
use crate::oci::Algorithm;
use crate::store::Store;

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
    let page = store.repository_list(None, 0).await.unwrap();
    assert_eq!((page.items, page.more), (vec![], true));
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

pub(crate) async fn a_refused_operation_makes_no_repository(store: &impl Store) {
    let (name, unknown) = (name("a/b"), digest(b"unknown"));
    let mut new = manifest("{}");
    new.blobs = vec![unknown.clone()];
    let upload = store.upload_create(&name, Algorithm::Sha256).await.unwrap();
    let refused = [
        store
            .manifest_write(&name, new, &[tag("1")], None)
            .await
            .map(drop),
        store.tag_write(&name, &tag("1"), &unknown).await.map(drop),
        store.blob_mount(&name, None, &unknown).await,
        store.upload_commit(&name, &upload.id, &unknown).await,
        store.blob_delete(&name, &unknown).await,
        store.manifest_delete(&name, &unknown).await.map(drop),
        store.tag_delete(&name, &tag("1"), None).await,
    ];
    for result in refused {
        result.unwrap_err();
    }
    assert_eq!(all_repositories(store).await, [""; 0]);
    assert!(store.tag_list(&name, None, 10).await.is_err());
}

pub(crate) async fn names_may_contain_the_words_of_the_layout(store: &impl Store) {
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
