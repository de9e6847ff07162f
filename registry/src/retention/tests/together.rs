//! Runs while clients push.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::store::StoreError;

const ROUNDS: usize = 150;

/// What no client has used for long goes; what one pushes stays.
fn hours() -> RetentionSettings {
    let keep = Keep {
        pushed_within: Some(Duration::from_hours(1)),
        ..Keep::default()
    };
    settings(Some(keep), Some(Duration::from_hours(1)))
}

/// Runs again and again until the work is done. Returns how much the runs deleted.
async fn beside<T>(fixture: &Arc<Fixture>, work: impl Future<Output = T>) -> u64 {
    let ended = Arc::new(AtomicBool::new(false));
    let runs = tokio::task::spawn_blocking({
        let (fixture, ended) = (Arc::clone(fixture), Arc::clone(&ended));
        move || {
            let mut deleted = 0;
            loop {
                let is_last = ended.load(Ordering::Relaxed);
                let total = fixture.run(&hours()).total;
                deleted += total.tags_deleted + total.manifests_deleted;
                if is_last {
                    return deleted;
                }
            }
        }
    });
    work.await;
    ended.store(true, Ordering::Relaxed);
    runs.await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_tag_that_was_pushed_while_old_tags_go_is_there_and_points_at_what_was_pushed() {
    let fixture = Arc::new(Fixture::new());
    let clients = (0..3).map(|client| {
        let fixture = Arc::clone(&fixture);
        tokio::spawn(async move {
            let tag = tag(&format!("t{client}"));
            for round in 0..ROUNDS {
                // As if nobody had used either for long: a run may be about to delete them.
                fixture.age(&format!("a/_tags/{tag}"), 9);
                let new = image(client * 10 + round / 2 % 3);
                fixture.age(&entry("a", &new.digest), 9);
                fixture.push_now("a", &new, &[tag.as_str()]).await;
                let reference = Reference::Tag(tag.clone());
                let read = fixture.store.manifest_read(&name("a"), &reference).await;
                assert_eq!(read.unwrap().digest, new.digest, "{tag} {round}");
            }
        })
    });
    let clients: Vec<_> = clients.collect();
    let deleted = beside(&fixture, async {
        for client in clients {
            client.await.unwrap();
        }
    });
    deleted.await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_index_that_was_pushed_while_old_manifests_go_has_its_manifests() {
    let fixture = Arc::new(Fixture::new());
    let work = async {
        for round in 0..ROUNDS {
            let child = image(round % 2);
            fixture.push(&child, &[], 9).await;
            let index = index(&[&child.digest]);
            let tags = [tag(&format!("i{}", round % 5))];
            let written = fixture
                .store
                .manifest_write(&name("a"), index, &tags, None)
                .await;
            match written {
                Ok(_) => assert!(fixture.has(&child.digest).await, "{round}"),
                // It went before, and the client is told so.
                Err(StoreError::ReferenceUnknown { .. }) => {}
                Err(error) => panic!("{error}"),
            }
            fixture
                .store
                .tag_delete(&name("a"), &tags[0], None)
                .await
                .ok();
        }
    };
    beside(&fixture, work).await;
}
