//! Who may change a repository or a shard of content: one at a time.
//!
//! A turn is held for as long as names are looked at and changed, never while data is synced: what
//! has to be on disk first is written before, and folders are synced after. Stripes are shared by
//! several repositories, which costs a little waiting and no memory.

use std::hash::{BuildHasher, RandomState};

use parking_lot::{Mutex, MutexGuard};

use super::layout::Shard;
use crate::oci::Name;

const STRIPES: usize = 256;

/// The locks of all repositories and all shards.
pub(super) struct StripedLocks {
    hasher: RandomState,
    repositories: Box<[Mutex<Turn>]>,
    shards: Box<[Mutex<Turn>]>,
}

/// What happened in a stripe so far; whoever changes something counts it here.
///
/// It lets the long part of a piece of work (counting, looking for tags) go on without the lock:
/// when nothing has changed at its end, what was found still holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Turn {
    /// Changes of any sort.
    pub(super) changes: u64,
    /// Those that removed a blob or a manifest from a repository.
    pub(super) removals: u64,
}

impl StripedLocks {
    pub(super) fn new() -> Self {
        let stripes = || (0..STRIPES).map(|_| Mutex::default()).collect();
        Self {
            hasher: RandomState::new(),
            repositories: stripes(),
            shards: stripes(),
        }
    }

    /// Waits for the turn to change a repository.
    pub(super) fn repository(&self, name: &Name) -> MutexGuard<'_, Turn> {
        // The remainder is far below usize::MAX.
        #[expect(clippy::cast_possible_truncation, reason = "a remainder by STRIPES")]
        let stripe = (self.hasher.hash_one(name.as_str()) % STRIPES as u64) as usize;
        self.repositories[stripe].lock()
    }

    /// Waits for the turn to change a shard of content. Taken after a repository's, never before.
    pub(super) fn shard(&self, shard: Shard) -> MutexGuard<'_, Turn> {
        self.shards[usize::from(shard.prefix)].lock()
    }
}

/// Does `work`, which may be long, and hands its result to `finish` under the lock that `lock`
/// takes, at a moment at which it is still true. Under a storm of changes the work is done again
/// under the lock.
pub(super) fn settled<'a, T, R, E>(
    lock: impl Fn() -> MutexGuard<'a, Turn>,
    work: impl Fn() -> Result<T, E>,
    finish: impl FnOnce(&mut Turn, T) -> Result<R, E>,
) -> Result<R, E> {
    for _ in 0..2 {
        let before = lock().changes;
        let found = work()?;
        let mut turn = lock();
        if turn.changes == before {
            return finish(&mut turn, found);
        }
    }
    let mut turn = lock();
    let found = work()?;
    finish(&mut turn, found)
}
