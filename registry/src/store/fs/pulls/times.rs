//! The table of last pulls.
//!
//! It is bounded: where a shard of it is full, its oldest quarter is forgotten, and what is not in it counts
//! as pulled at the time of the latest item that was forgotten, its floor. At first the floor is the minute
//! at which the memory began.
//!
//! It also knows until when it is complete. After a gap, as when a backup was restored, or another version ran
//! that remembers no pulls, everything counts as pulled at the end of the gap.

use std::cell::Cell;
use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::{Mutex, MutexGuard, RwLock};

use super::fingerprint::{FingerprintKey, PullFingerprint};
use crate::oci::{Digest, Name, Reference, Tag};

/// Requests rarely wait for each other, and a shard is written to disk with little memory.
pub(super) const SHARDS: usize = 64;

/// What a shard remembers at most: as much as a table of 16384 places holds. All shards together remember
/// 917,504 items in some 14 MB.
pub(super) const MOST: usize = 14_336;

/// A registry that does not run serves no pulls, and so a shorter gap is none. Whatever was pulled in a longer
/// one stays too long rather than too short.
const LONGEST_GAP: u32 = 24 * 60;

/// What has not changed is saved again after so many minutes, so that the file says until when it is complete.
const SAVED_AGAIN: u32 = 60;

/// A time as minutes since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Minute(pub(super) u32);

impl Minute {
    const SECONDS: u64 = 60;

    /// This minute.
    pub(super) fn now() -> Self {
        // Two comparisons are cheaper than a subtraction and a division for each pull.
        thread_local! {
            static LAST: Cell<(SystemTime, SystemTime, Minute)> =
                const { Cell::new((UNIX_EPOCH, UNIX_EPOCH, Minute(0))) };
        }
        let now = SystemTime::now();
        let (begin, end, last) = LAST.get();
        if begin <= now && now < end {
            return last;
        }
        let minute = Self::of(now);
        LAST.set((minute.begin(), minute.end(), minute));
        minute
    }

    /// The minute of a time.
    fn of(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH);
        let seconds = since.unwrap_or_default().as_secs();
        Self(u32::try_from(seconds / Self::SECONDS).unwrap_or(u32::MAX))
    }

    fn begin(self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(u64::from(self.0) * Self::SECONDS)
    }

    /// Its last moment: what happened in it happened no later.
    fn end(self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs((u64::from(self.0) + 1) * Self::SECONDS)
    }
}

/// When something was last pulled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastPull {
    /// No pull was later than this.
    pub at: SystemTime,
    /// Whether there was a pull in the minute before `at`. Otherwise nobody knows of one, and from `at` on
    /// there was none.
    pub is_known: bool,
}

/// When the tags and manifests of one data directory were last pulled.
pub struct PullTimes {
    key: FingerprintKey,
    shards: Box<[RwLock<PullShard>]>,
    /// Whether something was remembered that is not on disk.
    unsaved: AtomicBool,
    /// The minute until which all pulls are remembered.
    complete_until: AtomicU32,
    /// The minute of the last save.
    saved: AtomicU32,
    saving: Mutex<()>,
}

/// A part of the table.
#[derive(Default)]
pub(super) struct PullShard {
    times: HashMap<PullKey, AtomicU32, BuildHasherDefault<FingerprintHasher>>,
    floor: Minute,
}

/// A fingerprint as two numbers: aligned to four bytes, an entry takes 12 bytes instead of 16.
#[derive(Clone, Copy, PartialEq, Eq)]
struct PullKey([u32; 2]);

impl PullTimes {
    /// A memory that begins now.
    pub(super) fn begin() -> Self {
        Self::since(Minute::now())
    }

    fn since(floor: Minute) -> Self {
        let times = Self::restore(FingerprintKey::random());
        for shard in &times.shards {
            shard.write().set_floor(floor);
        }
        // That it began has to be remembered, too.
        times.unsaved.store(true, Ordering::Relaxed);
        times
    }

    /// A memory with the key of an earlier one, whose floors and items are to follow.
    pub(super) fn restore(key: FingerprintKey) -> Self {
        Self {
            key,
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
            unsaved: AtomicBool::new(false),
            complete_until: AtomicU32::new(Minute::now().0),
            saved: AtomicU32::new(0),
            saving: Mutex::default(),
        }
    }

    /// Remembers that a manifest was pulled by a tag or by its digest. Allocates only for an item that is new.
    ///
    /// A HEAD of a tag is a pull, since clients resolve tags so and pull by digest. A HEAD of a digest only
    /// asks whether a manifest is there.
    pub fn record(&self, name: &Name, reference: &Reference, is_head: bool) {
        let fingerprint = match reference {
            Reference::Tag(tag) => self.key.tag(name, tag),
            Reference::Digest(_) if is_head => return,
            Reference::Digest(digest) => self.key.manifest(name, digest),
        };
        self.insert(fingerprint, Minute::now());
    }

    /// When a tag that points at a manifest was last pulled, by its name or by the manifest's digest.
    pub fn last(&self, name: &Name, tag: &Tag, digest: &Digest) -> LastPull {
        let tag = self.find(self.key.tag(name, tag));
        let manifest = self.find(self.key.manifest(name, digest));
        // Of a known and an unknown time in the same minute the known one: it says more.
        let (minute, is_known) = tag.max(manifest);
        LastPull {
            at: minute.end(),
            is_known,
        }
    }

    /// The latest minute of an item, and whether it is remembered.
    fn find(&self, fingerprint: PullFingerprint) -> (Minute, bool) {
        let shard = self.shard(fingerprint).read();
        let minute = shard.times.get(&PullKey::of(fingerprint));
        match minute.map(|minute| Minute(minute.load(Ordering::Relaxed))) {
            Some(minute) if minute > shard.floor => (minute, true),
            _ => (shard.floor, false),
        }
    }

    /// Remembers a pull, unless a later one is remembered.
    pub(super) fn insert(&self, fingerprint: PullFingerprint, minute: Minute) {
        let key = PullKey::of(fingerprint);
        let shard = self.shard(fingerprint);
        // As a rule the item is there: then its shard is only read, and once a minute a number is written.
        {
            let shard = shard.read();
            if let Some(last) = shard.times.get(&key) {
                if last.load(Ordering::Relaxed) < minute.0 {
                    last.fetch_max(minute.0, Ordering::Relaxed);
                    self.unsaved.store(true, Ordering::Release);
                }
                return;
            }
            // It counts as pulled then anyway.
            if minute <= shard.floor {
                return;
            }
        }
        shard.write().insert(fingerprint, minute);
        self.unsaved.store(true, Ordering::Release);
    }

    fn shard(&self, fingerprint: PullFingerprint) -> &RwLock<PullShard> {
        // Not the bits by which the shard's own table finds its places, the lowest and the highest ones.
        &self.shards[(fingerprint.number() >> 32) as usize % SHARDS]
    }

    pub(super) fn key(&self) -> FingerprintKey {
        self.key
    }

    pub(super) fn shards(&self) -> &[RwLock<PullShard>] {
        &self.shards
    }

    /// All pulls until `saved` are remembered, says a file.
    pub(super) fn is_complete_until(&self, saved: Minute) {
        self.complete_until.store(saved.0, Ordering::Relaxed);
    }

    /// Notes that all pulls are remembered until now. After a gap everything counts as pulled now: the clock may
    /// have been set, too. Returns whether there was one.
    pub(super) fn go_on(&self, now: Minute) -> bool {
        let before = self.complete_until.swap(now.0, Ordering::Relaxed);
        let is_gap = now.0.saturating_sub(before) > LONGEST_GAP;
        if is_gap {
            for shard in &self.shards {
                let mut shard = shard.write();
                shard.floor = shard.floor.max(now);
            }
            self.keep_unsaved();
        }
        is_gap
    }

    /// Whether something is to be saved, which then counts as saved.
    pub(super) fn take_unsaved(&self, now: Minute) -> bool {
        let since = now.0.saturating_sub(self.saved.load(Ordering::Relaxed));
        self.unsaved.swap(false, Ordering::Acquire) || since >= SAVED_AGAIN
    }

    /// It was saved.
    pub(super) fn note_saved(&self, now: Minute) {
        self.saved.store(now.0, Ordering::Relaxed);
    }

    /// It was not saved after all.
    pub(super) fn keep_unsaved(&self) {
        self.unsaved.store(true, Ordering::Release);
    }

    /// Waits for the right to save: of two at once, the older state could replace the newer one.
    pub(super) fn save_alone(&self) -> MutexGuard<'_, ()> {
        self.saving.lock()
    }
}

impl PullShard {
    pub(super) fn floor(&self) -> Minute {
        self.floor
    }

    pub(super) fn len(&self) -> usize {
        self.times.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (PullFingerprint, Minute)> {
        self.times
            .iter()
            .map(|(key, minute)| (key.fingerprint(), Minute(minute.load(Ordering::Relaxed))))
    }

    pub(super) fn set_floor(&mut self, floor: Minute) {
        self.floor = floor;
    }

    pub(super) fn insert(&mut self, fingerprint: PullFingerprint, minute: Minute) {
        let key = PullKey::of(fingerprint);
        if self.times.len() >= MOST && !self.times.contains_key(&key) {
            self.forget_oldest();
        }
        if minute > self.floor {
            let last = self.times.entry(key).or_default();
            *last.get_mut() = (*last.get_mut()).max(minute.0);
        }
    }

    /// Forgets the oldest quarter, and what is as old.
    fn forget_oldest(&mut self) {
        let mut minutes: Vec<u32> = self.iter().map(|(_, minute)| minute.0).collect();
        let (_, &mut floor, _) = minutes.select_nth_unstable(MOST / 4);
        self.floor = self.floor.max(Minute(floor));
        // A new table: one from which items were removed grows before all of its places are used again.
        let mut kept = HashMap::with_capacity_and_hasher(MOST, BuildHasherDefault::default());
        let all = self.times.drain();
        kept.extend(all.filter(|(_, minute)| minute.load(Ordering::Relaxed) > floor));
        self.times = kept;
    }
}

impl PullKey {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the lower half of the number"
    )]
    fn of(fingerprint: PullFingerprint) -> Self {
        let number = fingerprint.number();
        Self([number as u32, (number >> 32) as u32])
    }

    fn number(self) -> u64 {
        u64::from(self.0[1]) << 32 | u64::from(self.0[0])
    }

    fn fingerprint(self) -> PullFingerprint {
        PullFingerprint::from_bytes(self.number().to_le_bytes())
    }
}

impl Hash for PullKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.number());
    }
}

/// Takes a fingerprint as its own hash.
#[derive(Default)]
struct FingerprintHasher(u64);

impl Hasher for FingerprintHasher {
    fn write(&mut self, bytes: &[u8]) {
        // Not reached: a `PullKey` is one number.
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl fmt::Debug for PullTimes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PullTimes").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
