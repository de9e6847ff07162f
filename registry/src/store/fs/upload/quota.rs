//! What uploads may take: sessions, bytes in them, and space on the disk.
//!
//! Where a bound is reached, idle sessions give way ([`sessions`]). What is needed is known before
//! anything is written, but for a disk that is really full. An upload that is refused for want of
//! space gives back what the refused request brought. What it was told to have before stays, until
//! something else needs it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::session::Session;
use super::sessions;
use crate::store::fs::count::Space;
use crate::store::fs::{Durability, Inner};
use crate::store::{ErrorKind, Result, StoreError};

/// What uploads may take, all together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The most sessions open at a time.
    pub max_sessions: u64,
    /// The most bytes that open sessions hold.
    pub max_bytes: u64,
    /// The bytes of the disk that uploads leave free for everything else: manifests, tags, and
    /// whoever else writes there. They leave the same share of its inodes.
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
pub(in crate::store::fs) struct Held(Arc<AtomicU64>);

/// What is missing for an upload, or for whatever else writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store::fs) enum Wanted {
    /// A slot for one more session.
    Slot,
    /// So many bytes.
    Bytes(u64),
    /// So many inodes.
    Files(u64),
}

impl Wanted {
    /// How much it is.
    pub(in crate::store::fs) fn amount(self) -> u64 {
        match self {
            Self::Slot => 1,
            Self::Bytes(amount) | Self::Files(amount) => amount,
        }
    }

    /// How much of it there is when a session has ended.
    pub(in crate::store::fs) fn freed_by(self, session: &Session) -> u64 {
        match self {
            Self::Slot => 1,
            Self::Bytes(_) => session.offset(),
            // A directory, and the file `session` in it.
            Self::Files(_) => 2,
        }
    }
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
    pub(in crate::store::fs) fn take(&self, bytes: u64, limit: u64) -> Result<()> {
        let (set, fetch) = (Ordering::AcqRel, Ordering::Acquire);
        let more = |held: u64| held.checked_add(bytes).filter(|&held| held <= limit);
        match self.0.fetch_update(set, fetch, more) {
            Ok(_) => Ok(()),
            Err(held) => Err(StoreError::TooManyBytes {
                limit,
                missing: held.saturating_add(bytes).saturating_sub(limit),
            }),
        }
    }

    /// The bytes that are held at this moment.
    pub(in crate::store::fs) fn bytes(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// Gives back what was taken.
    pub(in crate::store::fs) fn give_back(&self, bytes: u64) {
        self.0.fetch_sub(bytes, Ordering::AcqRel);
    }
}

impl Inner {
    /// Does a step that needs space. While it finds none, idle sessions give way, and the step is done
    /// again: each round ends a session, so that there are no more rounds than sessions.
    pub(in crate::store::fs) fn in_room<T>(&self, step: impl Fn() -> Result<T>) -> Result<T> {
        loop {
            let done = step();
            let wanted = match &done {
                Ok(_) => None,
                Err(error) => self.wanted(error),
            };
            match wanted {
                Some(wanted) if sessions::give_way(self, wanted) => {}
                _ => return done,
            }
        }
    }

    /// What a step that failed was missing.
    fn wanted(&self, error: &StoreError) -> Option<Wanted> {
        match error {
            StoreError::TooManySessions { .. } => Some(Wanted::Slot),
            StoreError::TooManyBytes { missing, .. } | StoreError::Reserved { missing, .. } => {
                Some(Wanted::Bytes(*missing))
            }
            StoreError::ReservedFiles { missing, .. } => Some(Wanted::Files(*missing)),
            // How much is missing the system does not say, and only by the figures what.
            error if error.kind() == ErrorKind::NoSpace => Some(match self.space() {
                Ok(space) if space.files > 0 && space.files_available == 0 => Wanted::Files(1),
                _ => Wanted::Bytes(1),
            }),
            _ => None,
        }
    }

    /// Fails unless another session may receive something.
    pub(in crate::store::fs) fn room_to_begin(&self) -> Result<()> {
        let Bounds { max_bytes, .. } = self.sessions.bounds;
        let held = self.sessions.held.bytes();
        if held >= max_bytes {
            return Err(StoreError::TooManyBytes {
                limit: max_bytes,
                missing: (held - max_bytes).saturating_add(1),
            });
        }
        self.leave_reserve(0)
    }

    /// Takes room for `bytes` that a session is about to write.
    pub(in crate::store::fs) fn take_room(&self, bytes: u64) -> Result<()> {
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
        let space = self.space()?;
        let available = space.available;
        let missing = reserve.saturating_add(bytes).saturating_sub(available);
        if missing > 0 {
            return Err(StoreError::Reserved {
                available,
                reserve,
                missing,
            });
        }
        let (available, reserve) = (space.files_available, files_of(reserve, &space));
        match reserve.saturating_sub(available) {
            0 => Ok(()),
            missing => Err(StoreError::ReservedFiles {
                available,
                reserve,
                missing,
            }),
        }
    }
}

/// The inodes that uploads leave free: of all there are the share that the reserve is of the bytes.
/// None where the file system makes them as it needs them, and says that there are none.
fn files_of(reserve: u64, space: &Space) -> u64 {
    let size = u128::from(space.size.max(1));
    let share = u128::from(reserve.min(space.size)) * u128::from(space.files) / size;
    u64::try_from(share).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
