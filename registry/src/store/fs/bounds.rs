//! What uploads may take: sessions, bytes in them, and room on the disk.
//!
//! An upload that is refused for want of room gives back what the refused request brought. What it
//! was told to have before stays, so that it can go on when there is room; but only until somebody
//! else needs it, for most clients begin anew and never come back to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Durability, Inner, session};
use crate::store::{ErrorKind, Result, StoreError};

/// What uploads may take, all together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The most sessions open at a time.
    pub max_sessions: u64,
    /// The most bytes that open sessions hold.
    pub max_bytes: u64,
    /// The bytes of the disk that uploads leave free for everything else: manifests, tags, and
    /// whoever else writes there.
    pub reserve: u64,
}

/// How a folder is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// What an acknowledgement promises.
    pub durability: Durability,
    /// What uploads may take.
    pub bounds: Bounds,
}

/// The bytes that all open sessions hold, and those that are being written right now.
#[derive(Clone, Debug, Default)]
pub(super) struct Held(Arc<AtomicU64>);

/// What an upload, or whatever else writes, finds no room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// One more session.
    Session,
    /// Bytes.
    Bytes,
}

impl Bounds {
    /// No bounds at all.
    pub const NONE: Self = Self {
        max_sessions: u64::MAX,
        max_bytes: u64::MAX,
        reserve: 0,
    };
}

impl From<Durability> for Options {
    /// Without bounds.
    fn from(durability: Durability) -> Self {
        Self {
            durability,
            bounds: Bounds::NONE,
        }
    }
}

impl Held {
    /// Takes `bytes` more, unless that would be more than `limit` together.
    pub(super) fn take(&self, bytes: u64, limit: u64) -> Result<()> {
        let (set, fetch) = (Ordering::AcqRel, Ordering::Acquire);
        let more = |held: u64| held.checked_add(bytes).filter(|&held| held <= limit);
        match self.0.fetch_update(set, fetch, more) {
            Ok(_) => Ok(()),
            Err(_) => Err(StoreError::TooManyBytes { limit }),
        }
    }

    /// The bytes that are held at this moment.
    pub(super) fn bytes(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// Gives back what was taken.
    pub(super) fn give_back(&self, bytes: u64) {
        self.0.fetch_sub(bytes, Ordering::AcqRel);
    }
}

impl Inner {
    /// Does a step that needs room. While it finds none, a session that was itself refused for want
    /// of it is ended, the one first that has been idle for longest, and the step is done again.
    pub(super) fn in_room<T>(&self, step: impl Fn() -> Result<T>) -> Result<T> {
        loop {
            let done = step();
            let wanted = match &done {
                Err(StoreError::TooManySessions { .. }) => Wanted::Session,
                Err(e) if e.kind() == ErrorKind::NoSpace => Wanted::Bytes,
                _ => return done,
            };
            if !session::end_refused(self, wanted) {
                return done;
            }
        }
    }

    /// Fails unless another session may receive something.
    pub(super) fn room_to_begin(&self) -> Result<()> {
        let limit = self.sessions.bounds.max_bytes;
        if self.sessions.held.bytes() >= limit {
            return Err(StoreError::TooManyBytes { limit });
        }
        self.leave_reserve(0)
    }

    /// Takes room for `bytes` that a session is about to write.
    pub(super) fn take_room(&self, bytes: u64) -> Result<()> {
        self.leave_reserve(bytes)?;
        self.sessions
            .held
            .take(bytes, self.sessions.bounds.max_bytes)
    }

    /// Fails unless uploads may write `bytes` more and still leave the reserve.
    fn leave_reserve(&self, bytes: u64) -> Result<()> {
        let reserve = self.sessions.bounds.reserve;
        if reserve == 0 {
            return Ok(());
        }
        let available = self.space()?.available;
        if available < reserve.saturating_add(bytes) {
            return Err(StoreError::Reserved { available, reserve });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
