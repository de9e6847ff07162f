//! Locks under which the names of a repository, or of a shard of content, are changed one at a time.
//!
//! A lock is held for as long as names are read and changed: for some system calls. The bytes of files are
//! synced before it is taken, and directories after it is released ([`durable`](super::durable) has types for
//! that order); only a conditional write, and one that was undone again and again, sync a directory under it.
//! No upload session is evicted under a lock: an operation that finds the disk full releases it first.
//!
//! The locks are striped: several repositories share one, which costs a little waiting, and bounds the
//! memory however many repositories there are.

use std::hash::{BuildHasher, RandomState};

use parking_lot::{Mutex, MutexGuard};

use super::layout::Shard;
use crate::oci::Name;

/// Enough that two busy repositories rarely share a lock. Shards have one for each first byte.
const STRIPES: usize = 256;

/// The locks of all repositories and all shards.
pub(super) struct StripedLocks {
    hasher: RandomState,
    repositories: Box<[Mutex<StripeChanges>]>,
    shards: Box<[Mutex<StripeChanges>]>,
}

/// How often something was changed under a lock so far. The holder that makes a change counts it.
///
/// The counts let the long part of an operation (counting, looking for tags) run without the lock:
/// if they are the same afterwards, what it found is still true.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct StripeChanges {
    /// Changes of any sort.
    pub(super) changes: u64,
    /// Removals of a blob or a manifest from a repository.
    pub(super) removals: u64,
}

impl StripedLocks {
    pub(super) fn new() -> Self {
        let stripes = || (0..STRIPES).map(|_| Mutex::default()).collect();
        Self {
            // Seeded at random: a client that chooses names cannot aim at one stripe.
            hasher: RandomState::new(),
            repositories: stripes(),
            shards: stripes(),
        }
    }

    /// Waits for the lock of a repository.
    pub(super) fn repository(&self, name: &Name) -> MutexGuard<'_, StripeChanges> {
        #[expect(clippy::cast_possible_truncation, reason = "a remainder by STRIPES")]
        let stripe = (self.hasher.hash_one(name.as_str()) % STRIPES as u64) as usize;
        self.repositories[stripe].lock()
    }

    /// Waits until everybody who holds the lock of a repository now has released it.
    pub(super) fn pass_all_repositories(&self) {
        for stripe in &self.repositories {
            drop(stripe.lock());
        }
    }

    /// Counts a change of every repository: of each that is read or counted now, it is done again or not
    /// kept. Waits for each lock in turn, and for none with another one.
    pub(super) fn change_all_repositories(&self) {
        for stripe in &self.repositories {
            stripe.lock().changes += 1;
        }
    }

    /// Waits for the lock of a shard of content. It is taken after a repository's and never before:
    /// two operations that took them in different orders would wait for each other forever.
    pub(super) fn shard(&self, shard: Shard) -> MutexGuard<'_, StripeChanges> {
        self.shards[usize::from(shard.prefix)].lock()
    }
}

/// Does `work`, which may be long, without a lock, and hands its result to `finish` under the lock
/// that `lock` takes, if nothing has changed meanwhile.
pub(super) fn settled<'a, T, R, E>(
    lock: impl Fn() -> MutexGuard<'a, StripeChanges>,
    work: impl Fn() -> Result<T, E>,
    finish: impl FnOnce(&mut StripeChanges, T) -> Result<R, E>,
) -> Result<R, E> {
    for _ in 0..2 {
        let before = lock().changes;
        let found = work()?;
        let mut held = lock();
        if held.changes == before {
            return finish(&mut held, found);
        }
    }
    // Changes keep coming: the work is done under the lock, so that it ends at all.
    let mut held = lock();
    let found = work()?;
    finish(&mut held, found)
}
