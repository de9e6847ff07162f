//! What uploads may take: sessions, bytes in them, and space on the disk.
//!
//! The quota is asked before anything is written. Where it is exhausted, idle sessions are evicted
//! ([`sessions`](super::sessions) decides which), and the upload is refused only if that would not be
//! enough. A write that finds the disk full all the same, since other programs write there too, fails
//! as a whole, and [`retry_when_full`] evicts a session and runs it again.

use super::session::UploadSession;
use super::sessions::{SessionInUse, Shortage};
use crate::store::fs::data_directory::DataDirectory;
use crate::store::fs::space::Space;
use crate::store::{Result, StoreError};
use std::sync::Arc;

/// Enters a new session into the table. Fails unless there is a slot for it, and it may receive
/// something.
pub(in crate::store::fs) fn admit(
    data: &DataDirectory,
    session: &Arc<UploadSession>,
) -> Result<SessionInUse> {
    // Before the slot: a session that could receive nothing must not take one from another.
    evicting(data, || check_bytes_left(data))?;
    evicting(data, || data.sessions.enter(session))
}

/// Reserves bytes that a session is about to write. The caller releases them if the write fails.
pub(in crate::store::fs) fn reserve(data: &DataDirectory, bytes: u64) -> Result<()> {
    evicting(data, || {
        // Checked first: bytes that are reserved in the counter have to be released again.
        check_reserve(data, bytes)?;
        data.sessions.reserved.reserve(bytes, data.quota.max_bytes)
    })
}

/// Runs an operation, and runs it again after a session was evicted for as long as it finds the disk
/// full. To be called at an operation's outermost level, where it holds no lock: to remove a session's
/// files takes longer than others should wait.
pub(in crate::store::fs) fn retry_when_full<T>(
    data: &DataDirectory,
    mut operation: impl FnMut() -> Result<T>,
) -> Result<T> {
    loop {
        match operation() {
            // The system does not say how much is missing: one session after another goes.
            Err(error @ StoreError::NoSpace { .. }) => {
                if !data.sessions.evict(missing_on_disk(data), &data.layout) {
                    return Err(error);
                }
            }
            done => return done,
        }
    }
}

/// Asks for something, and asks again after idle sessions were evicted. Each round ends a session, so
/// that there are no more rounds than sessions.
fn evicting<T>(data: &DataDirectory, ask: impl Fn() -> Result<T>) -> Result<T> {
    loop {
        let refused = match ask() {
            Ok(granted) => return Ok(granted),
            Err(error) => error,
        };
        let missing = match &refused {
            StoreError::TooManySessions { .. } => Shortage::Slot,
            StoreError::TooManyBytes { missing, .. } | StoreError::Reserved { missing, .. } => {
                Shortage::Bytes(*missing)
            }
            StoreError::ReservedFiles { missing, .. } => Shortage::Files(*missing),
            _ => return Err(refused),
        };
        if !data.sessions.evict(missing, &data.layout) {
            return Err(refused);
        }
    }
}

/// A full disk reports the same error for bytes and for inodes: only the figures tell them apart.
fn missing_on_disk(data: &DataDirectory) -> Shortage {
    match Space::of(&data.root) {
        Ok(space) if space.files > 0 && space.files_available == 0 => Shortage::Files(1),
        _ => Shortage::Bytes(1),
    }
}

/// Fails unless a session that begins now could receive something.
fn check_bytes_left(data: &DataDirectory) -> Result<()> {
    let limit = data.quota.max_bytes;
    let held = data.sessions.reserved.bytes();
    if held >= limit {
        return Err(StoreError::TooManyBytes {
            limit,
            missing: (held - limit).saturating_add(1),
        });
    }
    check_reserve(data, 0)
}

/// Fails unless uploads may write `bytes` more and still leave the reserve.
fn check_reserve(data: &DataDirectory, bytes: u64) -> Result<()> {
    let reserve = data.quota.reserve;
    // Without a reserve the system call is saved: a full disk shows in the write itself.
    if reserve == 0 {
        return Ok(());
    }
    let space = Space::of(&data.root)?;
    let available = space.available;
    let missing = reserve.saturating_add(bytes).saturating_sub(available);
    if missing > 0 {
        return Err(StoreError::Reserved {
            available,
            reserve,
            missing,
        });
    }
    let (available, reserve) = (space.files_available, space.reserved_files(reserve));
    match reserve.saturating_sub(available) {
        0 => Ok(()),
        missing => Err(StoreError::ReservedFiles {
            available,
            reserve,
            missing,
        }),
    }
}

#[cfg(test)]
mod tests;
