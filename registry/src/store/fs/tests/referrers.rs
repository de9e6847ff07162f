//! Listings of referrers whose files are many or large.

use super::*;
use crate::oci::{Descriptor, MediaType};
use crate::store::suite::all_referrers;
use crate::store::{NewManifest, ReferrersQuery};

/// A page of an API.
const PAGE: usize = 4 << 20;

fn referrer(n: usize, subject: &Digest) -> NewManifest {
    let mut new = manifest(&format!("{{\"n\":{n}}}"));
    let size = new.bytes.len() as u64;
    let mut descriptor = Descriptor::new(new.media_type.clone(), new.digest.clone(), size);
    descriptor.artifact_type = MediaType::parse("a/x").ok();
    new.subject = Some((subject.clone(), descriptor));
    new
}

/// Writes a referrer as an older version did, whose descriptors repeat all annotations.
async fn write_old(store: &FsStore, root: &Path, n: usize, subject: &Digest, length: usize) {
    let new = referrer(n, subject);
    let file = format!(
        "repositories/a/_referrers/sha256-{}/sha256-{}",
        subject.hex(),
        new.digest.hex()
    );
    let (_, mut descriptor) = new.subject.clone().unwrap();
    store
        .manifest_write(&name("a"), new, &[], None)
        .await
        .unwrap();
    let annotation = ("long".to_owned(), "x".repeat(length));
    descriptor.annotations.extend([annotation]);
    fs::write(root.join(file), serde_json::to_vec(&descriptor).unwrap()).unwrap();
}

#[tokio::test]
async fn a_large_descriptor_of_an_older_version_is_listed_without_its_annotations() {
    let (store, directory) = relaxed();
    let subject = manifest("{}").digest;
    write_old(&store, directory.path(), 1, &subject, 4 << 20).await;
    write_old(&store, directory.path(), 2, &subject, 100).await;
    for filter in [None, Some("a/x")] {
        let listed = all_referrers(&store, "a", &subject, filter, PAGE).await;
        let mut annotated: Vec<_> = listed.iter().map(|it| it.annotations.len()).collect();
        annotated.sort_unstable();
        assert_eq!(annotated, [0, 1]);
    }
    assert_eq!(
        all_referrers(&store, "a", &subject, Some("a/y"), PAGE).await,
        []
    );
}

#[tokio::test]
async fn a_page_reads_a_bounded_number_of_bytes_and_the_next_one_continues_there() {
    let (store, directory) = relaxed();
    let subject = manifest("{}").digest;
    for n in 0..10 {
        write_old(&store, directory.path(), n, &subject, 4 << 20).await;
    }
    let query = ReferrersQuery {
        artifact_type: Some("a/y".to_owned()),
        last: None,
        bytes: PAGE,
    };
    let page = store.referrers_list(&name("a"), &subject, &query).await;
    let page = page.unwrap();
    assert_eq!(page.items, []);
    assert!(page.next.is_some(), "40 MiB are not read for one page");
    let all = all_referrers(&store, "a", &subject, Some("a/x"), PAGE).await;
    assert_eq!(all.len(), 10);
}
