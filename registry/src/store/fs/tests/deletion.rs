//! Deletions of manifests with many tags, or in a repository with damaged tags.

use super::*;
use crate::store::TagChanges;

/// So many that they are removed under several holds of the lock.
const TAGS: usize = 2000;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_deletion_removes_all_tags_of_a_manifest_while_they_move() {
    let (store, _directory) = relaxed();
    let repository = name("a");
    let tags: Vec<_> = (0..TAGS).map(|n| format!("t{n}")).collect();
    let tags: Vec<_> = tags.iter().map(String::as_str).collect();
    let going = put(&store, "a", "{\"n\":1}", &tags).await;
    let staying = put(&store, "a", "{\"n\":2}", &["stays"]).await;
    // One task moves tags away from it, another adds new ones for as long as it exists.
    let away = tokio::spawn({
        let (store, repository, staying) = (store.clone(), repository.clone(), staying.clone());
        async move {
            let mut moved = Vec::new();
            for n in (0..TAGS).step_by(7) {
                let tag = Tag::parse(&format!("t{n}")).unwrap();
                let changes = store.tag_write(&repository, &tag, &staying).await.unwrap();
                moved.push((tag, changes.moved));
            }
            moved
        }
    });
    let new = tokio::spawn({
        let (store, repository, going) = (store.clone(), repository.clone(), going.clone());
        async move {
            for n in 0.. {
                let tag = Tag::parse(&format!("new-{n}")).unwrap();
                match store.tag_write(&repository, &tag, &going).await {
                    Ok(changes) => assert_eq!(changes.created, 1),
                    Err(StoreError::ManifestUnknown) => return n,
                    Err(error) => panic!("{error:?}"),
                }
            }
            unreachable!("the manifest goes before")
        }
    });
    let deleted = store.manifest_delete(&repository, &going).await.unwrap();
    let (moved, added) = (away.await.unwrap(), new.await.unwrap());

    let reference = Reference::from(going);
    let gone = store.manifest_read(&repository, &reference).await;
    assert!(matches!(gone, Err(StoreError::ManifestUnknown)), "{gone:?}");
    let left = store.tag_list(&repository, None, 3 * TAGS).await.unwrap();
    for tag in &left.items {
        let at = store.tag_read(&repository, tag).await.unwrap();
        assert_eq!(at, staying, "{tag}");
    }
    for (tag, _) in &moved {
        assert!(left.items.contains(tag), "{tag}");
    }
    assert_eq!(left.items.len(), moved.len() + 1);
    // Each tag that pointed at it was either moved away or removed.
    let gone: u64 = moved.iter().map(|(_, moved)| moved).sum();
    assert_eq!(deleted.deleted + gone, TAGS as u64 + added);
}

#[tokio::test]
async fn a_damaged_tag_stays_and_does_not_keep_its_manifest_from_being_deleted() {
    let (store, directory) = new();
    let digest = put(&store, "a", "{}", &["1", "2", "3", "4", "5"]).await;
    let at = |tag: &str| directory.path().join("repositories/a/_tags").join(tag);
    fs::write(at("2"), "sha256:").unwrap();
    fs::write(at("3"), b"\xff\xfe").unwrap();
    fs::remove_file(at("4")).unwrap();
    fs::create_dir(at("4")).unwrap();
    let changes = store.manifest_delete(&name("a"), &digest).await.unwrap();
    let expected = TagChanges {
        deleted: 2,
        damaged: 3,
        ..TagChanges::default()
    };
    assert_eq!(changes, expected);
    for (tag, there) in [("1", false), ("2", true), ("3", true), ("4", true)] {
        assert_eq!(at(tag).exists(), there, "{tag}");
    }
}
