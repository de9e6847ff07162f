//! Referrers.

use super::{manifest, name, put, referrer};
use crate::store::Store;

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
