//! A crash at any moment: what was acknowledged before it is there afterwards, and nothing by half.
//!
//! Histories of operations run on a store whose every step on disk is recorded. For each prefix of a
//! recording, [`model`] builds what a crash of the machine may leave: bytes that were not synced are
//! there, or not, or half of them, or zeros; and of the changes of names that no sync of their
//! directory covers, any may be there. All of them, none, each one alone, and all but each one are
//! tried, and some drawn at random. [`check`] opens each of these trees.

mod check;
mod history;
mod model;
mod promises;
mod recording;

use std::collections::HashSet;

use self::history::{History, referring, with};
use self::model::{Disk, Fate, Pending, Tree};
use self::promises::{Item, Promises};
use self::recording::{Event, Inode};
use super::*;

/// How many states drawn at random follow each event. `make soak` asks for more.
fn draws() -> u64 {
    let asked = std::env::var("OCTOSERVE_CRASH_DRAWS").ok();
    asked.and_then(|text| text.parse().ok()).unwrap_or(4)
}

/// Runs a history and tries each crash.
async fn prove(work: impl AsyncFnOnce(History)) {
    let (events, promises) = recorded(Durability::Full, work).await;
    let tried = crashes(&events, promises, states).await;
    assert!(tried > 100, "only {tried} states");
}

async fn recorded(
    durability: Durability,
    work: impl AsyncFnOnce(History),
) -> (Vec<Event>, Promises) {
    let directory = scratch();
    let history = History::begin(directory.path(), durability);
    work(history.clone()).await;
    history.end()
}

/// A tree that a crash may leave, and whether it is that of a program that was killed.
type Crash = (String, Tree, bool);

/// Tries the crashes after each event. Returns how many different ones there were.
async fn crashes(
    events: &[Event],
    mut promises: Promises,
    states: impl Fn(&Disk, u64) -> Vec<Crash>,
) -> usize {
    let mut disk = Disk::new();
    let mut tried = HashSet::new();
    let mut last_change = 0;
    for (number, event) in events.iter().enumerate() {
        disk.apply(event);
        if promises.apply(event) {
            last_change = number;
        }
        let items: Vec<_> = promises.items().into_iter().cloned().collect();
        let allowed: Vec<_> = items
            .iter()
            .map(|item| (item, promises.allowed(item)))
            .collect();
        for (crash, tree, is_kill) in states(&disk, number as u64) {
            if !tried.insert((last_change, tree.fingerprint(), is_kill)) {
                continue;
            }
            let directory = scratch();
            tree.write(directory.path());
            let data = directory.path().join("data");
            if let Err(error) = check::check(&data, &promises, &allowed, is_kill).await {
                let last = events[..=number].iter().rev().take(30);
                let last: Vec<_> = last.map(|event| format!("{event:?}")).collect();
                panic!(
                    "{error}\nafter event {number}, {crash}\n{}\nthe last events:\n{}",
                    tree.draw(),
                    last.join("\n"),
                );
            }
        }
    }
    tried.len()
}

/// What a crash of the machine may leave.
fn states(disk: &Disk, seed: u64) -> Vec<Crash> {
    let pending = disk.pending();
    let all = |_: Pending| true;
    let none = |_: Pending| false;
    let mut found = killed(disk, seed);
    for fate in [Fate::Dropped, Fate::Half, Fate::Zeros] {
        let tree = disk.crash(all, |_| fate);
        found.push((format!("all names, bytes {fate:?}"), tree, false));
    }
    let tree = disk.crash(none, |_| Fate::Dropped);
    found.push(("no names".to_owned(), tree, false));
    for one in pending {
        let fate = fates(mix(seed ^ one.1 as u64));
        let tree = disk.crash(|name| name != one, &fate);
        found.push((format!("without the name {one:?}"), tree, false));
        let tree = disk.crash(|name| name == one, &fate);
        found.push((format!("with the name {one:?} alone"), tree, false));
    }
    for draw in 0..draws() {
        let seed = mix(seed << 16 | draw);
        let keeps = |(inode, event): Pending| {
            mix(seed ^ mix(inode as u64) ^ event as u64).is_multiple_of(2)
        };
        let tree = disk.crash(keeps, fates(seed));
        found.push((format!("names and bytes by {seed}"), tree, false));
    }
    found
}

/// What a kill of the program leaves: everything.
fn killed(disk: &Disk, _: u64) -> Vec<Crash> {
    let tree = disk.crash(|_| true, |_| Fate::Kept);
    vec![("everything".to_owned(), tree, true)]
}

/// A fate for each file.
fn fates(seed: u64) -> impl Fn(Inode) -> Fate {
    move |inode| match mix(seed ^ inode as u64) % 4 {
        0 => Fate::Kept,
        1 => Fate::Dropped,
        2 => Fate::Half,
        _ => Fate::Zeros,
    }
}

/// A number that looks random (splitmix64).
fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

fn tag(text: &str) -> Tag {
    Tag::parse(text).unwrap()
}

#[tokio::test]
async fn pushes_and_mounts_survive() {
    prove(async |history| {
        let (a, b) = (name("a"), name("b/c"));
        let one = history.push(&a, &[b"one"]).await.unwrap();
        let two = history
            .push(&b, &[b"tw", b"o and ", b"more"])
            .await
            .unwrap();
        history.push(&b, &[b"one"]).await.unwrap();
        history.mount(&a, Some(&b), &two).await.unwrap();
        history.mount(&name("d"), None, &one).await.unwrap();
        history.push(&a, &[b"one"]).await.unwrap();
        history.push(&a, &[]).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn deletions_of_blobs_survive() {
    prove(async |history| {
        let (a, b) = (name("a"), name("a/b"));
        let one = history.push(&a, &[b"one"]).await.unwrap();
        history.mount(&b, Some(&a), &one).await.unwrap();
        history.delete_blob(&a, &one).await.unwrap();
        history.delete_blob(&b, &one).await.unwrap();
        history.delete_blob(&b, &one).await.unwrap_err();
        history.push(&b, &[b"one"]).await.unwrap();
        history.mount(&a, None, &one).await.unwrap();
        history.delete_blob(&a, &one).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn uploads_end_or_go_on() {
    prove(async |history| {
        let a = name("a");
        let left = history.upload(&a, &[b"left", b" behind"]).await.unwrap();
        let cancelled = history.upload(&a, &[b"cancelled"]).await.unwrap();
        let wrong = history.upload(&a, &[b"right"]).await.unwrap();
        history.commit(wrong, b"wrong").await.unwrap_err();
        let done = history.upload(&a, &[b"do", b"ne"]).await.unwrap();
        history.cancel(cancelled).await.unwrap();
        history.commit(done, b"done").await.unwrap();
        history.upload(&a, &[b"expired"]).await.unwrap();
        history.commit(left, b"left behind").await.unwrap();
        history.expire().await.unwrap();
        history.upload(&a, &[]).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn manifests_and_tags_survive() {
    prove(async |history| {
        let (a, latest, v1) = (name("a/b"), tag("latest"), tag("v1"));
        let blob = history.push(&a, &[b"layer"]).await.unwrap();
        let one = with("{\"n\":1}", &[&blob], &[]);
        let one = history.write(&a, one, &[&latest, &v1]).await.unwrap();
        let two = with("{\"n\":2}", &[], &[]);
        let two = history.write(&a, two, &[&latest]).await.unwrap();
        history.tag(&a, &v1, &two).await.unwrap();
        history.tag(&a, &v1, &one).await.unwrap();
        let index = with("{\"n\":3}", &[], &[&one, &two]);
        history.write(&a, index, &[&tag("all")]).await.unwrap();
        let signed = referring("{\"n\":4}", &one);
        history.write(&a, signed, &[]).await.unwrap();
        history
            .write(&a, with("{\"n\":2}", &[], &[]), &[&v1])
            .await
            .unwrap();
    })
    .await;
}

#[tokio::test]
async fn deletions_of_tags_and_manifests_survive() {
    prove(async |history| {
        let (a, latest, v1) = (name("a"), tag("latest"), tag("v1"));
        let one = with("{\"n\":1}", &[], &[]);
        let digest = history
            .write(&a, one.clone(), &[&latest, &v1])
            .await
            .unwrap();
        let signed = referring("{\"n\":2}", &digest);
        let signed = history.write(&a, signed, &[&tag("s")]).await.unwrap();
        history.delete_tag(&a, &v1).await.unwrap();
        history.delete_manifest(&a, &signed).await.unwrap();
        history.delete_manifest(&a, &digest).await.unwrap();
        history.write(&a, one, &[&v1]).await.unwrap();
        history.delete_tag(&a, &v1).await.unwrap();
        history.delete_manifest(&a, &digest).await.unwrap();
    })
    .await;
}

/// The text of a manifest that mentions a blob.
fn mentioning(blob: &Digest, number: u64) -> String {
    format!("{{\"n\":{number},\"layers\":[{{\"digest\":\"{blob}\"}}]}}")
}

fn blob_of(name: &Name, blob: &Digest) -> Item {
    Item::Blob(name.clone(), blob.clone())
}

#[tokio::test]
async fn collections_take_nothing_that_is_needed() {
    prove(async |history| {
        let (a, b) = (name("a"), name("b"));
        let kept = history.push(&a, &[b"kept"]).await.unwrap();
        let new = with(&mentioning(&kept, 1), &[&kept], &[]);
        let image = history.write(&a, new.clone(), &[&tag("1")]).await.unwrap();
        let left = history.push(&b, &[b"left"]).await.unwrap();
        history.mount(&b, Some(&a), &kept).await.unwrap();
        let takes = vec![blob_of(&b, &left), blob_of(&b, &kept)];
        history.collect(takes).await.unwrap();
        history.push(&b, &[b"left"]).await.unwrap();
        history.delete_manifest(&a, &image).await.unwrap();
        let takes = vec![blob_of(&b, &left), blob_of(&a, &kept)];
        history.collect(takes).await.unwrap();
        history.push(&a, &[b"kept"]).await.unwrap();
        history.write(&a, new, &[]).await.unwrap();
    })
    .await;
}

/// Pushes images of two blobs that others push, too, and deletes them.
async fn images(history: History, seed: u64) {
    let repositories = [name("a"), name("a/b")];
    for step in 0..3 {
        let draw = mix(seed << 8 | step);
        let repository = &repositories[usize::from(draw.is_multiple_of(2))];
        let text = ["x", "y"][usize::from(draw % 4 < 2)];
        let blob = history.push(repository, &[text.as_bytes()]).await.unwrap();
        let new = with(&mentioning(&blob, draw % 3), &[&blob], &[]);
        let written = history.write(repository, new, &[&tag("1")]).await;
        let done = match (written, draw % 8) {
            (Ok(digest), 0..5) => history.delete_manifest(repository, &digest).await,
            (written, _) => written.map(drop),
        };
        match done {
            // It keeps nothing for a time.
            Ok(()) | Err(StoreError::ManifestUnknown | StoreError::ReferenceUnknown { .. }) => {}
            Err(error) => panic!("{error:?}"),
        }
    }
}

#[tokio::test]
async fn collections_take_an_index_before_its_manifests() {
    prove(async |history| {
        let a = name("a");
        let manifest_of = |digest: &Digest| Item::Manifest(a.clone(), digest.clone());
        for _ in 0..2 {
            let layer = history.push(&a, &[b"layer"]).await.unwrap();
            let image = with(&mentioning(&layer, 1), &[&layer], &[]);
            let image = history.write(&a, image, &[]).await.unwrap();
            let inner = with(&mentioning(&image, 2), &[], &[&image]);
            let inner = history.write(&a, inner, &[]).await.unwrap();
            let outer = with(&mentioning(&inner, 3), &[], &[&inner]);
            let outer = history.write(&a, outer, &[&tag("1")]).await.unwrap();
            history.keeps_children(&inner, &[&image]);
            history.keeps_children(&outer, &[&inner]);
            // It mentions its subject, too: each leads to the other.
            let signature = referring(&mentioning(&inner, 4), &inner);
            let signature = history.write(&a, signature, &[]).await.unwrap();
            history.collect_untagged(Vec::new()).await.unwrap();
            history.delete_tag(&a, &tag("1")).await.unwrap();
            let mut takes = vec![blob_of(&a, &layer)];
            takes.extend([&outer, &inner, &image, &signature].map(manifest_of));
            history.collect_untagged(takes).await.unwrap();
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn collections_and_pushes_at_the_same_time_survive() {
    for seed in 20..20 + draws() {
        prove(async |history| {
            let tasks = (0..3).map(|task| tokio::spawn(images(history.clone(), mix(seed) ^ task)));
            let tasks: Vec<_> = tasks.collect();
            let repositories = [name("a"), name("a/b")];
            let blobs = ["x", "y"].map(|text| Digest::of(Algorithm::Sha256, text.as_bytes()));
            for _ in 0..3 {
                let takes = repositories
                    .iter()
                    .flat_map(|name| blobs.iter().map(|blob| blob_of(name, blob)));
                history.collect(takes.collect()).await.unwrap();
            }
            for task in tasks {
                task.await.unwrap();
            }
        })
        .await;
    }
}

/// Operations on few items, drawn at random, which meet each other.
async fn wander(history: History, seed: u64) {
    let repositories = [name("a"), name("a/b")];
    let tags = [tag("1"), tag("2")];
    for step in 0..6 {
        let draw = mix(seed << 8 | step);
        let pick = |shift: u32, of: u64| usize::try_from((draw >> shift) % of).unwrap();
        let (repository, tag) = (&repositories[pick(8, 2)], &tags[pick(16, 2)]);
        let text = ["x", "y"][pick(24, 2)];
        let blob = Digest::of(Algorithm::Sha256, text.as_bytes());
        let new = with(&format!("{{\"n\":\"{text}\"}}"), &[], &[]);
        let manifest = new.digest.clone();
        let done = match pick(32, 8) {
            0 => history.push(repository, &[text.as_bytes()]).await.map(drop),
            1 => history.mount(repository, None, &blob).await,
            2 => history.delete_blob(repository, &blob).await,
            3 | 4 => history.write(repository, new, &[tag]).await.map(drop),
            5 => history.tag(repository, tag, &manifest).await,
            6 => history.delete_tag(repository, tag).await,
            _ => history.delete_manifest(repository, &manifest).await,
        };
        match done {
            Ok(()) | Err(StoreError::BlobUnknown | StoreError::ManifestUnknown) => {}
            Err(error) => panic!("{error:?}"),
        }
    }
}

async fn together(history: History, seed: u64) {
    let tasks = (0..4).map(|task| tokio::spawn(wander(history.clone(), mix(seed) ^ task)));
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn operations_at_the_same_time_survive() {
    for seed in 0..draws() {
        prove(async |history| together(history, seed).await).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn without_syncs_a_kill_of_the_program_loses_nothing() {
    for seed in 10..14 {
        let work = async |history| together(history, seed).await;
        let (events, promises) = recorded(Durability::Relaxed, work).await;
        crashes(&events, promises, killed).await;
    }
}
