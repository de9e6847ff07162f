//! What bounds all connections together.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How much more than at first the clients of all HTTP/2 connections together may send ahead of the
/// upstream, in bytes.
const WINDOW_GROWTH: u64 = 256 << 20;

/// What all HTTP/2 connections share: one connection may have many requests in flight.
pub(super) struct Http2Bounds {
    streams: Arc<Semaphore>,
    /// How many requests may be in flight at a time.
    limit: AtomicUsize,
    window_growth: Arc<AtomicU64>,
}

impl Http2Bounds {
    /// At most so many requests at a time.
    pub(super) fn new(streams: usize) -> Http2Bounds {
        Http2Bounds {
            // As many permits as there can be: the limit may be raised.
            streams: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)),
            limit: AtomicUsize::new(streams),
            window_growth: Arc::default(),
        }
    }

    /// Room for one more request, if there is any.
    pub(super) fn stream(&self) -> Option<OwnedSemaphorePermit> {
        let permit = Arc::clone(&self.streams).try_acquire_owned().ok()?;
        let in_flight = Semaphore::MAX_PERMITS - self.streams.available_permits();
        (in_flight <= self.limit.load(Ordering::Relaxed)).then_some(permit)
    }

    /// At most so many requests at a time from now on. More than that stay until they end.
    pub(super) fn set_streams(&self, streams: usize) {
        self.limit.store(streams, Ordering::Relaxed);
    }

    /// The growth of the window of a new connection.
    pub(super) fn window_growth(&self) -> WindowGrowth {
        WindowGrowth {
            all: Arc::clone(&self.window_growth),
            own: 0,
        }
    }
}

/// By how much the window of one HTTP/2 connection has grown.
pub(super) struct WindowGrowth {
    all: Arc<AtomicU64>,
    own: u64,
}

impl WindowGrowth {
    /// Grows by so many bytes, if all connections together may.
    pub(super) fn grow_by(&mut self, bytes: u32) -> bool {
        let bytes = u64::from(bytes);
        let before = self.all.fetch_add(bytes, Ordering::Relaxed);
        let may_grow = before + bytes <= WINDOW_GROWTH;
        if may_grow {
            self.own += bytes;
        } else {
            self.all.fetch_sub(bytes, Ordering::Relaxed);
        }
        may_grow
    }
}

impl Drop for WindowGrowth {
    fn drop(&mut self) {
        self.all.fetch_sub(self.own, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_grow_up_to_a_bound_in_all_and_give_back_what_they_had() {
        let bounds = Http2Bounds::new(1);
        let step = u32::try_from(WINDOW_GROWTH / 2).unwrap();
        let (mut first, mut second) = (bounds.window_growth(), bounds.window_growth());
        assert!(first.grow_by(step));
        assert!(second.grow_by(step));
        assert!(!second.grow_by(1));
        drop(first);
        assert!(second.grow_by(step));
        assert!(!second.grow_by(1));
    }

    #[test]
    fn streams_are_bounded_in_all() {
        let bounds = Http2Bounds::new(1);
        let only = bounds.stream();
        assert!(only.is_some() && bounds.stream().is_none());
        drop(only);
        let only = bounds.stream();
        assert!(only.is_some());
        bounds.set_streams(2);
        assert!(bounds.stream().is_some());
        bounds.set_streams(0);
        drop(only);
        assert!(bounds.stream().is_none());
    }
}
