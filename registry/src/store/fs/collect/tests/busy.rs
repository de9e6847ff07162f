//! Repositories that are written to while their untagged manifests are removed.

use tokio::runtime::Handle;
use tokio::task::spawn_blocking;

use super::*;
use crate::store::fs::StayingManifests;

/// More than are removed under one hold of the lock.
const IMAGES: usize = 100;

#[tokio::test(flavor = "multi_thread")]
async fn untagged_manifests_go_while_others_are_pushed() {
    let (store, _directory) = new();
    let mut images = Vec::new();
    let mut signatures = Vec::new();
    for n in 0..IMAGES {
        let image = put(&store, "a", &manifest(&format!("[{n}]")), &[]).await;
        signatures.push(put(&store, "a", &referrer(&image), &[]).await);
        images.push(image);
    }

    let beside = store.clone();
    let runtime = Handle::current();
    let all = images.clone();
    let (staying, gone, kept) = spawn_blocking(move || {
        let run = Run::new(Pace::Full);
        let late = SystemTime::now() + Duration::from_hours(1);
        let mut gone = Vec::new();
        let mut kept = Vec::new();
        let mut write = |digest: &Digest, _: SystemTime| {
            runtime.block_on(async {
                if kept.is_empty() {
                    // The first ones are gone. Two of the others are needed from now on.
                    for (n, image) in all.iter().enumerate() {
                        if has_manifest(&beside, "a", image).await {
                            kept.push(n);
                        }
                    }
                    kept.truncate(2);
                    put(&beside, "a", &index(&[&all[kept[0]]]), &[]).await;
                    let again = manifest(&format!("[{}]", kept[1]));
                    put(&beside, "a", &again, &["kept"]).await;
                }
                // And something is written all the time.
                let new = manifest(&format!("{{\"new\":{}}}", gone.len()));
                put(&beside, "a", &new, &["new"]).await;
            });
            gone.push(digest.clone());
        };
        let items = beside.aged_items();
        let staying = items.remove_untagged(&name("a"), late, false, &run, &mut write);
        (staying.unwrap(), gone, kept)
    })
    .await
    .unwrap();

    let kept: Vec<_> = kept
        .iter()
        .flat_map(|&n| [&images[n], &signatures[n]])
        .collect();
    assert_eq!(kept.len(), 4);
    let staying_now = StayingManifests {
        needed: 4,
        ..StayingManifests::default()
    };
    assert_eq!(staying, Some(staying_now));
    assert_eq!(gone.len(), 2 * IMAGES - 4);
    for digest in kept {
        assert!(has_manifest(&store, "a", digest).await);
    }
    for digest in gone {
        assert!(!has_manifest(&store, "a", &digest).await);
    }
}

/// A referrer that mentions its subject elsewhere, too: each leads to the other.
fn mentioning_referrer(subject: &Digest, n: usize) -> NewManifest {
    let text = serde_json::json!({
        "subject": {"digest": subject.as_str()},
        "annotations": {"of": subject.as_str(), "n": n.to_string()},
    });
    let mut new = manifest(&text.to_string());
    let descriptor = Descriptor::new(new.media_type.clone(), new.digest.clone(), 1);
    new.subject = Some((subject.clone(), descriptor));
    new
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_is_pushed_meanwhile_has_all_that_it_leads_to() {
    for referrers in [1, IMAGES] {
        let (store, _directory) = new();
        let mut images = Vec::new();
        for n in 0..IMAGES {
            images.push(put(&store, "a", &manifest(&format!("[{n}]")), &[]).await);
        }
        let inner = index(&images.iter().collect::<Vec<_>>());
        let inner = put(&store, "a", &inner, &[]).await;
        for n in 0..referrers {
            put(&store, "a", &mentioning_referrer(&inner, n), &[]).await;
        }
        let outer = index(&[&inner]);
        let beside = store.clone();
        let runtime = Handle::current();
        let outcomes = spawn_blocking(move || {
            let run = Run::new(Pace::Full);
            let late = SystemTime::now() + Duration::from_hours(1);
            let mut outcomes = Vec::new();
            let mut write = |_: &Digest, _: SystemTime| {
                let name = name("a");
                let written = beside.manifest_write(&name, outer.clone(), &[], None);
                outcomes.push(runtime.block_on(written).is_ok());
            };
            let items = beside.aged_items();
            let staying = items.remove_untagged(&name("a"), late, false, &run, &mut write);
            assert!(staying.unwrap().is_some());
            outcomes
        })
        .await
        .unwrap();

        // A few referrers may be gone by then, if there are very many. What the index mentions is not.
        let is_there = outcomes.contains(&true);
        assert_eq!(has_manifest(&store, "a", &inner).await, is_there);
        for image in &images {
            assert_eq!(has_manifest(&store, "a", image).await, is_there);
        }
        assert_eq!(is_there, referrers == IMAGES);
    }
}
