//! Conditions of changes.

use futures_util::future::join_all;

use super::{all_tags, manifest, name, put, tag};
use crate::oci::{Digest, Reference};
use crate::store::{Condition, Store, StoreError, Versions};

/// That a tag leads to nothing.
fn absent(text: &str) -> Condition {
    Condition {
        reference: Reference::Tag(tag(text)),
        matches: None,
        differs: Some(Versions::Any),
    }
}

/// That a tag leads to a manifest.
fn at(text: &str, digest: &Digest) -> Condition {
    Condition {
        reference: Reference::Tag(tag(text)),
        matches: Some(Versions::Of(vec![digest.clone()])),
        differs: None,
    }
}

async fn write(
    store: &impl Store,
    text: &str,
    tags: &[&str],
    condition: &Condition,
) -> Result<Digest, StoreError> {
    let new = manifest(text);
    let digest = new.digest.clone();
    let tags: Vec<_> = tags.iter().map(|text| tag(text)).collect();
    let written = store
        .manifest_write(&name("a"), new, &tags, Some(condition))
        .await;
    written.map(|_| digest)
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, StoreError>, leads_to: Option<&Digest>) {
    match result {
        Err(StoreError::ConditionFailed { current }) => assert_eq!(current.as_ref(), leads_to),
        other => panic!("{other:?}"),
    }
}

pub(crate) async fn a_tag_that_is_written_only_if_absent_never_moves(store: &impl Store) {
    let first = write(store, "{\"n\":1}", &["1"], &absent("1"))
        .await
        .unwrap();
    for text in ["{\"n\":1}", "{\"n\":2}"] {
        let again = write(store, text, &["1", "latest"], &absent("1")).await;
        refused(again, Some(&first));
    }
    assert_eq!(all_tags(store, "a").await, ["1"]);
    let second = Reference::Digest(manifest("{\"n\":2}").digest);
    let read = store.manifest_read(&name("a"), &second).await;
    assert!(matches!(read, Err(StoreError::ManifestUnknown)));
    // The condition concerns the first tag only.
    let new = write(store, "{\"n\":2}", &["2", "1"], &absent("2")).await;
    assert_eq!(
        store.tag_read(&name("a"), &tag("1")).await.unwrap(),
        new.unwrap()
    );
}

pub(crate) async fn a_tag_moves_only_from_where_it_was_expected(store: &impl Store) {
    let unknown = manifest("{}").digest;
    refused(
        write(store, "{\"n\":1}", &["1"], &at("1", &unknown)).await,
        None,
    );
    let first = put(store, "a", "{\"n\":1}", &["1"]).await;
    let moved = write(store, "{\"n\":2}", &["1"], &at("1", &first)).await;
    let second = moved.unwrap();
    let late = write(store, "{\"n\":3}", &["1"], &at("1", &first)).await;
    refused(late, Some(&second));
    assert_eq!(store.tag_read(&name("a"), &tag("1")).await.unwrap(), second);
}

pub(crate) async fn a_condition_may_name_a_manifest_by_its_digest(store: &impl Store) {
    let digest = manifest("{}").digest;
    let absent = Condition {
        reference: Reference::Digest(digest.clone()),
        matches: None,
        differs: Some(Versions::Any),
    };
    write(store, "{}", &["1"], &absent).await.unwrap();
    refused(write(store, "{}", &["2"], &absent).await, Some(&digest));
    assert_eq!(all_tags(store, "a").await, ["1"]);
}

pub(crate) async fn of_concurrent_writes_of_an_absent_tag_exactly_one_wins(store: &impl Store) {
    for round in 0..10 {
        let tag_name = format!("of-round-{round}");
        let writes = (0..8).map(async |n| {
            let text = format!("{{\"round\":{round},\"n\":{n}}}");
            write(store, &text, &[&tag_name], &absent(&tag_name)).await
        });
        let mut written = join_all(writes).await;
        written.retain(Result::is_ok);
        let [Ok(winner)] = &written[..] else {
            panic!("{written:?}");
        };
        let found = store.tag_read(&name("a"), &tag(&tag_name)).await.unwrap();
        assert_eq!(found, *winner);
    }
}

pub(crate) async fn a_tag_is_deleted_only_where_it_leads_to_what_was_expected(store: &impl Store) {
    let (name, tag) = (name("a"), tag("1"));
    let first = put(store, "a", "{\"n\":1}", &[]).await;
    let unknown = store.tag_delete(&name, &tag, Some(&at("1", &first))).await;
    assert!(
        matches!(unknown, Err(StoreError::ManifestUnknown)),
        "{unknown:?}"
    );
    let second = put(store, "a", "{\"n\":2}", &["1"]).await;
    let moved = store.tag_delete(&name, &tag, Some(&at("1", &first))).await;
    refused(moved, Some(&second));
    let condition = at("1", &second);
    store
        .tag_delete(&name, &tag, Some(&condition))
        .await
        .unwrap();
    assert_eq!(all_tags(store, "a").await, [""; 0]);
}
