//! Referrers.

use super::{all_referrers, manifest, name, put, referrer};
use crate::oci::MediaType;
use crate::store::{ReferrersQuery, Store};

/// More than all descriptors of a test have.
const ALL: usize = 1 << 20;

pub(crate) async fn referrers_are_listed_in_order_with_or_without_their_subject(
    store: &impl Store,
) {
    let subject = manifest("{}").digest;
    let list = async |repository: &str| all_referrers(store, repository, &subject, None, ALL).await;
    assert_eq!(list("a").await, []);
    let mut expected = Vec::new();
    for n in 0..5 {
        let new = referrer(&format!("{{\"n\":{n}}}"), &subject);
        expected.extend(new.subject.clone().map(|(_, descriptor)| descriptor));
        store
            .manifest_write(&name("a"), new, &[], None)
            .await
            .unwrap();
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
            .manifest_write(&name("a"), new.clone(), &[], None)
            .await
            .unwrap();
    }
    store
        .manifest_delete(&name("a"), &one.digest)
        .await
        .unwrap();
    let left = all_referrers(store, "a", &subject, None, ALL).await;
    assert_eq!(
        left.into_iter().map(|d| d.digest).collect::<Vec<_>>(),
        [two.digest]
    );
}

pub(crate) async fn referrers_are_filtered_and_listed_by_pages(store: &impl Store) {
    let subject = manifest("{}").digest;
    let kinds = ["a/x", "a/x; version=1", "a/y"];
    let mut expected = Vec::new();
    for n in 0..9 {
        let mut new = referrer(&format!("{{\"n\":{n}}}"), &subject);
        let (_, descriptor) = new.subject.as_mut().unwrap();
        descriptor.artifact_type = MediaType::parse(kinds[n % 3]).ok();
        expected.push(descriptor.clone());
        store
            .manifest_write(&name("a"), new, &[], None)
            .await
            .unwrap();
    }
    expected.sort_by(|a, b| a.digest.cmp(&b.digest));
    let one = serde_json::to_vec(&expected[0]).unwrap().len();
    for bytes in [0, one, 2 * one + 100, ALL] {
        let all = all_referrers(store, "a", &subject, None, bytes).await;
        assert_eq!(all, expected, "by {bytes}");
        for kind in [kinds[0], "a/y", "a", "A/X"] {
            let found = all_referrers(store, "a", &subject, Some(kind), bytes).await;
            let mut of_kind = expected.clone();
            of_kind.retain(|descriptor| {
                let found = descriptor.artifact_type.as_ref();
                found.is_some_and(|found| found.as_str() == kind)
            });
            assert_eq!(found, of_kind, "{kind} by {bytes}");
        }
    }
    // The end of the last page may have been deleted, or be no digest at all.
    for (last, left) in [("sha256:", 9), ("sha257", 0), ("", 9)] {
        let query = ReferrersQuery {
            artifact_type: None,
            last: Some(last.to_owned()),
            bytes: ALL,
        };
        let page = store.referrers_list(&name("a"), &subject, &query).await;
        let page = page.unwrap();
        assert_eq!((page.items.len(), page.next), (left, None), "{last}");
    }
}
