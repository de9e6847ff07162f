//! What operations rely on while a collection decides what to remove.
//!
//! A collection first reads which content the repositories hold, and then removes the rest. Meanwhile an
//! operation may begin to rely on content that no repository held when it was read: a mount, or a push of
//! bytes that are there already. It says so here, under the lock of the content's shard and before it looks
//! whether the content is there. The collection looks here under the same lock, and removes nothing that
//! was said. So either the operation finds the content and it stays, or it is gone and the operation brings
//! it itself. No clock takes part in this.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::layout::Shard;
use super::locks::StripedLocks;
use crate::oci::Digest;

/// How many digests are remembered: some 16 MB. A collection during which more are pushed removes no content.
const MOST: usize = 1 << 20;

/// The digests that were relied on since a collection began.
pub(super) struct Reliance {
    is_watched: AtomicBool,
    /// By the first byte of the digest, as the locks of shards are.
    shards: Box<[Mutex<HashSet<u64>>]>,
    said: AtomicUsize,
}

/// A collection watches, until this is dropped.
pub(super) struct RelianceWatch<'a>(&'a Reliance);

impl Reliance {
    pub(super) fn new() -> Self {
        Self {
            is_watched: AtomicBool::new(false),
            shards: (0..=u8::MAX).map(|_| Mutex::default()).collect(),
            said: AtomicUsize::new(0),
        }
    }

    /// Says that an operation relies on content. The caller holds the lock of its shard, and that of the
    /// repository that it adds the content to.
    pub(super) fn say(&self, shard: Shard, digest: &Digest) {
        // Relaxed: `watch` has taken the repository's lock since it set this.
        if !self.is_watched.load(Ordering::Relaxed) || self.is_too_much() {
            return;
        }
        let mut said = self.shards[usize::from(shard.prefix)].lock();
        if said.insert(fingerprint(digest)) {
            self.said.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Begins to watch. `None` if somebody does.
    ///
    /// An operation that saw that nobody watches has added its content to its repository when this returns:
    /// it held the repository's lock for as long.
    pub(super) fn watch(&self, locks: &StripedLocks) -> Option<RelianceWatch<'_>> {
        if self.is_watched.swap(true, Ordering::Relaxed) {
            return None;
        }
        locks.pass_all_repositories();
        Some(RelianceWatch(self))
    }

    fn is_too_much(&self) -> bool {
        self.said.load(Ordering::Relaxed) >= MOST
    }
}

impl RelianceWatch<'_> {
    /// Whether content may be relied on. The caller holds the lock of its shard.
    pub(super) fn may_rely_on(&self, shard: Shard, digest: &Digest) -> bool {
        let said = self.0.shards[usize::from(shard.prefix)].lock();
        self.0.is_too_much() || said.contains(&fingerprint(digest))
    }

    /// Whether more was said than is remembered: then all content may be relied on.
    pub(super) fn has_lost_track(&self) -> bool {
        self.0.is_too_much()
    }
}

impl Drop for RelianceWatch<'_> {
    fn drop(&mut self) {
        // In this order: what is said from here on belongs to the next watch, which begins empty.
        for shard in &self.0.shards {
            *shard.lock() = HashSet::new();
        }
        self.0.said.store(0, Ordering::Relaxed);
        self.0.is_watched.store(false, Ordering::Relaxed);
    }
}

/// The first 64 bits of a digest. Two digests may share them: then content is kept that could go.
pub(super) fn fingerprint(digest: &Digest) -> u64 {
    let digits = digest.hex().get(..16).unwrap_or_default();
    u64::from_str_radix(digits, 16).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Algorithm;
    use crate::store::fs::layout::Pool;

    #[test]
    fn what_is_said_counts_for_one_watch_and_no_other() {
        let (reliance, locks) = (Reliance::new(), StripedLocks::new());
        let digest = |text: &str| Digest::of(Algorithm::Sha256, text.as_bytes());
        let shard = |digest| Shard::of(Pool::Blobs, digest);
        let (a, b) = (digest("a"), digest("b"));
        reliance.say(shard(&a), &a);
        let watch = reliance.watch(&locks).unwrap();
        assert!(reliance.watch(&locks).is_none());
        assert!(!watch.may_rely_on(shard(&a), &a));
        reliance.say(shard(&b), &b);
        assert!(watch.may_rely_on(shard(&b), &b));
        drop(watch);
        let watch = reliance.watch(&locks).unwrap();
        assert!(!watch.may_rely_on(shard(&b), &b));
    }

    #[test]
    fn a_watch_that_has_lost_track_keeps_everything() {
        let (reliance, locks) = (Reliance::new(), StripedLocks::new());
        let watch = reliance.watch(&locks).unwrap();
        let digest = Digest::of(Algorithm::Sha256, b"x");
        let shard = Shard::of(Pool::Blobs, &digest);
        assert!(!watch.has_lost_track());
        reliance.said.store(MOST, Ordering::Relaxed);
        assert!(watch.has_lost_track() && watch.may_rely_on(shard, &digest));
    }

    #[test]
    fn a_fingerprint_is_the_start_of_the_digest() {
        let digest = Digest::of(Algorithm::Sha256, b"");
        assert_eq!(fingerprint(&digest), 0xe3b0_c442_98fc_1c14);
    }
}
