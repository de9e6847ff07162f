use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use rustix::fs::{CWD, FileType, Mode};

use super::*;
use crate::oci::{Algorithm, Digest, Name, Reference, Tag};
use crate::store::fs::options::Durability;
use crate::store::fs::{FsStore, LastPull};

fn open(directory: &Path) -> FsStore {
    FsStore::open(directory, Durability::Full, Arc::new(())).unwrap()
}

fn last(store: &FsStore, tag: &str) -> LastPull {
    let digest = Digest::of(Algorithm::Sha256, b"");
    let name = Name::parse("a").unwrap();
    store
        .pulls()
        .last(&name, &Tag::parse(tag).unwrap(), &digest)
}

/// A memory, as bytes of a file, that began in 1970 and has one item for each minute.
fn memory(minutes: &[u32]) -> Vec<u8> {
    let times = PullTimes::restore(FingerprintKey::from_halves([1, 2]));
    for (n, &minute) in minutes.iter().enumerate() {
        times.insert(fingerprint(&times, n), Minute(minute));
    }
    bytes(&times)
}

/// All bytes of a file that is written now.
fn bytes(times: &PullTimes) -> Vec<u8> {
    bytes_at(times, Minute::now())
}

fn bytes_at(times: &PullTimes, now: Minute) -> Vec<u8> {
    let mut bytes: Vec<u8> = parts(times, now).flatten().collect();
    let sum = Sha256::digest(&bytes);
    bytes.extend(sum);
    bytes
}

fn fingerprint(times: &PullTimes, n: usize) -> PullFingerprint {
    let tag = Tag::parse(&n.to_string()).unwrap();
    times.key().tag(&Name::parse("a").unwrap(), &tag)
}

fn items(times: &PullTimes) -> Vec<(PullFingerprint, Minute)> {
    let shards = times.shards().iter();
    let mut items: Vec<_> = shards
        .flat_map(|shard| shard.read().iter().collect::<Vec<_>>())
        .collect();
    items.sort_unstable();
    items
}

#[tokio::test]
async fn pulls_are_remembered_by_the_next_run() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("maintenance/pulls");
    let store = open(directory.path());
    store.save_pulls().await.unwrap();
    let begun = fs::read(&path).unwrap();
    let name = Name::parse("a").unwrap();
    let one = Tag::parse("1").unwrap();
    // In its first minute every item counts as pulled: so as if this were long ago.
    drop(store);
    write_memory_since_1970(directory.path());
    let store = open(directory.path());
    assert!(!last(&store, "1").is_known);
    store.pulls().record(&name, &Reference::Tag(one), true);
    let pulled = last(&store, "1");
    assert!(pulled.is_known);
    store.save_pulls().await.unwrap();
    assert!(
        fs::read_dir(directory.path().join("tmp"))
            .unwrap()
            .next()
            .is_none()
    );
    drop(store);
    let store = open(directory.path());
    assert_eq!(last(&store, "1"), pulled);
    assert!(!last(&store, "2").is_known);
    assert_eq!(begun.len(), memory(&[]).len());
}

#[tokio::test]
async fn a_memory_that_was_not_written_for_more_than_a_day_forgets_what_it_knows() {
    let directory = tempfile::tempdir().unwrap();
    drop(open(directory.path()));
    let path = directory.path().join("maintenance/pulls");
    let now = Minute::now().0;
    for (age, is_known) in [(24 * 60 - 5, true), (24 * 60 + 5, false)] {
        let times = PullTimes::restore(FingerprintKey::from_halves([1, 2]));
        times.insert(fingerprint(&times, 7), Minute(now - 3 * 24 * 60));
        fs::write(&path, bytes_at(&times, Minute(now - age))).unwrap();
        let last = last(&open(directory.path()), "7");
        assert_eq!(last.is_known, is_known);
        let since = SystemTime::now().duration_since(last.at);
        assert_eq!(
            since.is_ok_and(|time| time > Duration::from_hours(1)),
            is_known
        );
    }
}

#[tokio::test]
async fn nothing_is_written_where_nothing_has_changed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("maintenance/pulls");
    let store = open(directory.path());
    store.save_pulls().await.unwrap();
    fs::remove_file(&path).unwrap();
    store.save_pulls().await.unwrap();
    assert!(!path.exists());
}

#[tokio::test]
async fn what_could_not_be_written_is_written_later() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("maintenance/pulls");
    let store = open(directory.path());
    // A directory in its place, which no file can replace.
    fs::create_dir(&path).unwrap();
    store.save_pulls().await.unwrap_err();
    fs::remove_dir(&path).unwrap();
    store.save_pulls().await.unwrap();
    assert!(path.exists());
}

#[test]
fn a_file_that_is_missing_or_damaged_is_a_memory_that_begins_now() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("maintenance/pulls");
    drop(open(directory.path()));
    let now = Minute::now();
    let good = memory(&[7; 100]);
    let mut cases = vec![None, Some(Vec::new()), Some(b"{}".to_vec())];
    for length in [10, 18, 20, 40, good.len() - 1] {
        cases.push(Some(good[..length].to_vec()));
    }
    for at in [0, 20, 36, 50, good.len() / 2, good.len() - 1] {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        cases.push(Some(bytes));
    }
    for bytes in cases {
        match &bytes {
            None => assert!(!path.exists()),
            Some(bytes) => fs::write(&path, bytes).unwrap(),
        }
        let store = open(directory.path());
        assert!(items(&store.pulls()).is_empty());
        assert!(store.pulls().shards()[0].read().floor() >= now);
    }
    // What a person may put there.
    for odd in ["directory", "pipe", "large"] {
        fs::remove_file(&path).unwrap();
        match odd {
            "directory" => fs::create_dir(&path).unwrap(),
            "pipe" => rustix::fs::mknodat(CWD, &path, FileType::Fifo, Mode::RUSR, 0).unwrap(),
            _ => File::create(&path).unwrap().set_len(1 << 40).unwrap(),
        }
        assert!(items(&open(directory.path()).pulls()).is_empty(), "{odd}");
        if odd == "directory" {
            fs::remove_dir(&path).unwrap();
            fs::write(&path, "").unwrap();
        }
    }
    fs::write(&path, &good).unwrap();
    assert_eq!(items(&open(directory.path()).pulls()).len(), 100);
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(minutes in proptest::collection::vec(1_u32.., 0..300)) {
        let times = read(&memory(&minutes)[..]).unwrap();
        let mut expected: Vec<_> = minutes
            .iter()
            .enumerate()
            .map(|(n, &minute)| (fingerprint(&times, n), Minute(minute)))
            .collect();
        expected.sort_unstable();
        prop_assert_eq!(items(&times), expected);
    }

    #[test]
    fn no_bytes_are_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), length in 0..700_usize) {
        prop_assert!(read(&bytes[..]).is_err());
        let mut good = memory(&[7; 3]);
        good.truncate(length);
        good.extend(&bytes);
        let _ = read(&good[..]);
    }
}

/// Writes a memory that began in 1970 and in which nothing was pulled, for tests of what is long ago.
pub(crate) fn write_memory_since_1970(root: &Path) {
    let times = PullTimes::restore(FingerprintKey::from_halves([1, 2]));
    fs::create_dir_all(root.join("maintenance")).unwrap();
    fs::write(root.join("maintenance/pulls"), bytes(&times)).unwrap();
}
