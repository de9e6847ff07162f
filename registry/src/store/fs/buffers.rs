//! A pool of buffers for the bytes of blobs. To allocate and clear a new buffer for each chunk would cost
//! about as much as copying the chunk.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The size of a buffer.
pub(super) const SIZE: usize = 256 * 1024;

/// How many unused buffers are kept. More of them return to the allocator.
const KEPT: usize = 32;

/// The buffers of one store.
#[derive(Default)]
pub(super) struct Buffers {
    free: Mutex<Vec<Box<[u8]>>>,
}

/// A buffer in use. Dropped, it returns to the pool.
pub(super) struct Buffer {
    // Empty only in `drop`, which takes it out.
    bytes: Box<[u8]>,
    filled: usize,
    pool: Arc<Buffers>,
    /// The permit of a buffer from a limited number.
    permit: Option<OwnedSemaphorePermit>,
}

impl Buffers {
    pub(super) fn take(self: &Arc<Self>) -> Buffer {
        let kept = self.free.lock().pop();
        Buffer {
            bytes: kept.unwrap_or_else(|| vec![0; SIZE].into()),
            filled: 0,
            pool: Arc::clone(self),
            permit: None,
        }
    }

    /// Takes a buffer and a permit of `limit`; `None` while there is no permit.
    pub(super) fn take_limited(self: &Arc<Self>, limit: &Arc<Semaphore>) -> Option<Buffer> {
        // Not awaited: an upload without a large buffer continues with small ones.
        let permit = Arc::clone(limit).try_acquire_owned().ok()?;
        let mut buffer = self.take();
        buffer.permit = Some(permit);
        Some(buffer)
    }
}

impl Buffer {
    /// Copies bytes from the front of `bytes` until the buffer is full, and returns their number.
    pub(super) fn append(&mut self, bytes: &[u8]) -> usize {
        let free = &mut self.bytes[self.filled..];
        let taken = bytes.len().min(free.len());
        free[..taken].copy_from_slice(&bytes[..taken]);
        self.filled += taken;
        taken
    }

    /// The whole buffer, to be written to.
    pub(super) fn space(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// Its first `filled` bytes. The buffer returns to the pool when the last of their clones is dropped.
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
        // Not cleared: the next user reads only what it has written.
        let bytes = std::mem::take(&mut self.bytes);
        let mut free = self.pool.free.lock();
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
    fn a_buffer_returns_to_the_pool_when_the_last_of_its_bytes_is_dropped() {
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
    fn no_more_buffers_are_in_use_than_the_limit_permits() {
        let (buffers, limit) = (Arc::new(Buffers::default()), Arc::new(Semaphore::new(2)));
        let first = buffers.take_limited(&limit).unwrap().freeze(1);
        let _second = buffers.take_limited(&limit).unwrap();
        assert!(buffers.take_limited(&limit).is_none());
        drop(first);
        assert!(buffers.take_limited(&limit).is_some());
    }

    #[test]
    fn the_pool_keeps_a_bounded_number_of_buffers() {
        let buffers = Arc::new(Buffers::default());
        drop((0..KEPT + 3).map(|_| buffers.take()).collect::<Vec<_>>());
        assert_eq!(free(&buffers), KEPT);
    }
}
