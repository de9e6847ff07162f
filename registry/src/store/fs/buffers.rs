//! Buffers for the bytes of blobs, used again and again: to get and to clear a fresh one for each
//! chunk would cost about as much as moving the chunk does.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The size of one.
pub(super) const SIZE: usize = 256 * 1024;

/// How many are kept while nobody uses them; more go back to the allocator.
const KEPT: usize = 32;

/// The buffers of one store.
#[derive(Default)]
pub(super) struct Buffers {
    free: Mutex<Vec<Box<[u8]>>>,
}

/// A buffer in use. Dropped, it is free again.
pub(super) struct Buffer {
    // Never empty before the drop.
    bytes: Box<[u8]>,
    filled: usize,
    home: Arc<Buffers>,
    /// What it is one of.
    permit: Option<OwnedSemaphorePermit>,
}

impl Buffers {
    pub(super) fn take(self: &Arc<Self>) -> Buffer {
        let kept = self.free.lock().pop();
        Buffer {
            bytes: kept.unwrap_or_else(|| vec![0; SIZE].into()),
            filled: 0,
            home: Arc::clone(self),
            permit: None,
        }
    }

    /// One of as many as `limit` has permits; `None` while so many are in use.
    pub(super) fn take_one_of(self: &Arc<Self>, limit: &Arc<Semaphore>) -> Option<Buffer> {
        let permit = Arc::clone(limit).try_acquire_owned().ok()?;
        let mut buffer = self.take();
        buffer.permit = Some(permit);
        Some(buffer)
    }
}

impl Buffer {
    /// Copies as much as there is room for from the front of `bytes`, and returns how much that is.
    pub(super) fn append(&mut self, bytes: &[u8]) -> usize {
        let room = &mut self.bytes[self.filled..];
        let taken = bytes.len().min(room.len());
        room[..taken].copy_from_slice(&bytes[..taken]);
        self.filled += taken;
        taken
    }

    /// All of it, to be written to.
    pub(super) fn space(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// Its first `filled` bytes, which go home when the last of their clones is gone.
    pub(super) fn freeze(mut self, filled: usize) -> Bytes {
        self.filled = filled.min(self.bytes.len());
        Bytes::from_owner(self)
    }

    /// How many bytes were appended.
    pub(super) fn len(&self) -> usize {
        self.filled
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.filled]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        let mut free = self.home.free.lock();
        if free.len() < KEPT {
            free.push(bytes);
        }
    }
}

impl fmt::Debug for Buffers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffers").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn free(buffers: &Buffers) -> usize {
        buffers.free.lock().len()
    }

    #[test]
    fn a_buffer_comes_home_when_the_last_of_its_bytes_is_dropped() {
        let buffers = Arc::new(Buffers::default());
        let mut buffer = buffers.take();
        buffer.space()[..3].copy_from_slice(b"abc");
        let bytes = buffer.freeze(3);
        let tail = bytes.slice(1..);
        drop(bytes);
        assert_eq!((free(&buffers), &tail[..]), (0, &b"bc"[..]));
        drop(tail);
        assert_eq!(free(&buffers), 1);
        assert_eq!(buffers.take().space().len(), SIZE);
        assert_eq!(free(&buffers), 1);
    }

    #[test]
    fn no_more_are_in_use_than_may_be() {
        let (buffers, limit) = (Arc::new(Buffers::default()), Arc::new(Semaphore::new(2)));
        let first = buffers.take_one_of(&limit).unwrap().freeze(1);
        let _second = buffers.take_one_of(&limit).unwrap();
        assert!(buffers.take_one_of(&limit).is_none());
        drop(first);
        assert!(buffers.take_one_of(&limit).is_some());
    }

    #[test]
    fn only_so_many_are_kept() {
        let buffers = Arc::new(Buffers::default());
        drop((0..KEPT + 3).map(|_| buffers.take()).collect::<Vec<_>>());
        assert_eq!(free(&buffers), KEPT);
    }
}
