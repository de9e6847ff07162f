//! The memory of pulls on disk.
//!
//! ```text
//! "octoserve pulls 1\n"
//! key           16 bytes   of the fingerprints
//! saved          4 bytes   in minutes since 1970: it has all pulls until then
//! 64 shards, each:
//!   floor        4 bytes   in minutes since 1970
//!   length       4 bytes   how many items follow
//!   item        12 bytes   its fingerprint, and the minute of its last pull
//! sum           32 bytes   SHA-256 of all before
//! ```
//!
//! Numbers are little-endian. The file is written aside and renamed, so that a reader finds the old one or the
//! new one. One that is missing or damaged is a memory that begins now.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, BufReader, ErrorKind, Read};
use std::iter;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::fingerprint::{FingerprintKey, PullFingerprint};
use super::times::{MOST, Minute, PullTimes, SHARDS};
use crate::store::Result;
use crate::store::fs::data_directory::DataDirectory;
use crate::store::fs::disk;
use crate::store::fs::durable::Draft;
use crate::store::fs::file::allocated_at;
use crate::store::fs::layout::Layout;

const BEGINNING: &[u8; 18] = b"octoserve pulls 1\n";

const ITEM: usize = PullFingerprint::LENGTH + size_of::<u32>();

/// The largest file that is written, and more: none that is larger is read.
const LARGEST: u64 = (SHARDS * (MOST + 100) * ITEM) as u64;

/// Reads what an earlier run has remembered. Blocks.
pub(in crate::store::fs) fn load(layout: &Layout) -> PullTimes {
    let path = layout.pulls();
    match open(&path).and_then(|file| read(BufReader::new(file))) {
        Ok(times) => {
            if times.go_on(Minute::now()) {
                let path = path.display();
                tracing::warn!(%path, "the memory of pulls is more than a day old: all counts as pulled now");
            }
            times
        }
        Err(error) => {
            if error.kind() != ErrorKind::NotFound {
                let path = path.display();
                tracing::warn!(%path, %error, "the memory of pulls is lost, and begins now");
            }
            PullTimes::begin()
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    let file = disk::open(path)?;
    let found = file.metadata()?;
    if !found.is_file() || found.len() > LARGEST {
        return Err(damaged("it is no such file"));
    }
    Ok(file)
}

/// Writes what is remembered, if that has changed. Blocks.
pub(in crate::store::fs) fn save(data: &DataDirectory) -> Result<()> {
    let times = &data.pulls;
    let _alone = times.save_alone();
    let now = Minute::now();
    if times.go_on(now) {
        tracing::warn!("the clock has jumped by more than a day: all counts as pulled now");
    }
    if !times.take_unsaved(now) {
        return Ok(());
    }
    let saved = write(data, now);
    match saved {
        Ok(()) => times.note_saved(now),
        Err(_) => times.keep_unsaved(),
    }
    saved
}

fn write(data: &DataDirectory, now: Minute) -> Result<()> {
    let target = data.layout.pulls();
    let sum = RefCell::new(Sha256::new());
    let parts = parts(&data.pulls, now).inspect(|part| sum.borrow_mut().update(part));
    let end = iter::once_with(|| sum.borrow().clone().finalize().to_vec());
    let draft = Draft::write_parts(data, parts.chain(end))?.sync(data)?;
    let allocated = draft.allocated() - allocated_at(&target);
    draft.place(data, &target)?.with(()).sync(data)?;
    // A figure of the disk alone, like that of a directory.
    data.changes.directories(allocated);
    Ok(())
}

/// The bytes of a memory but for the sum. A shard is copied at a time: pulls wait for no more than that.
fn parts(times: &PullTimes, now: Minute) -> impl Iterator<Item = Vec<u8>> {
    let [first, second] = times.key().halves().map(u64::to_le_bytes);
    let saved = now.0.to_le_bytes();
    let beginning = [&BEGINNING[..], &first, &second, &saved].concat();
    let shards = times.shards().iter().map(|shard| {
        let shard = shard.read();
        let mut bytes = Vec::with_capacity(2 * size_of::<u32>() + shard.len() * ITEM);
        // No more than `MOST`.
        let length = u32::try_from(shard.len()).unwrap_or(u32::MAX);
        bytes.extend(shard.floor().0.to_le_bytes());
        bytes.extend(length.to_le_bytes());
        for (fingerprint, Minute(minute)) in shard.iter() {
            bytes.extend(fingerprint.to_bytes());
            bytes.extend(minute.to_le_bytes());
        }
        bytes
    });
    iter::once(beginning).chain(shards)
}

fn read(file: impl Read) -> io::Result<PullTimes> {
    let mut file = Summed {
        file,
        sum: Sha256::new(),
    };
    if file.bytes()? != *BEGINNING {
        return Err(damaged("it does not begin as such a file"));
    }
    let halves = [file.bytes()?, file.bytes()?].map(u64::from_le_bytes);
    let times = PullTimes::restore(FingerprintKey::from_halves(halves));
    times.is_complete_until(Minute(u32::from_le_bytes(file.bytes()?)));
    for shard in times.shards() {
        let mut shard = shard.write();
        shard.set_floor(Minute(u32::from_le_bytes(file.bytes()?)));
        // A length that is wrong leads to a sum that is wrong. What is read until then has the bound of a shard.
        for _ in 0..u32::from_le_bytes(file.bytes()?) {
            let fingerprint = PullFingerprint::from_bytes(file.bytes()?);
            shard.insert(fingerprint, Minute(u32::from_le_bytes(file.bytes()?)));
        }
    }
    let sum: [u8; 32] = file.sum.clone().finalize().into();
    if file.bytes()? != sum {
        return Err(damaged("its sum is wrong"));
    }
    Ok(times)
}

fn damaged(reason: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, reason)
}

/// A file whose bytes are summed up as they are read.
struct Summed<R> {
    file: R,
    sum: Sha256,
}

impl<R: Read> Summed<R> {
    /// The next bytes.
    fn bytes<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.file.read_exact(&mut bytes)?;
        self.sum.update(bytes);
        Ok(bytes)
    }
}

#[cfg(test)]
pub(in crate::store::fs) mod tests;
