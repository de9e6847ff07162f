//! Idle connections to one address of an upstream.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use service::runtime::WorkerId;

use super::stream::UpstreamStream;

/// The most idle connections to one address.
const MAX_IDLE: usize = 512;

/// How many sweeps a connection is kept for: less time than any registry keeps it, because a POST on a
/// connection that the registry has just closed can't be sent again. Sweeps are counted because a clock
/// that is read for each request would cost more than the rest of this.
const KEPT: u64 = 30;

/// Idle connections of each worker, the last used on top: those that are not needed grow old at the
/// bottom.
pub(super) struct IdleConnections {
    of_workers: Box<[Mutex<Vec<IdleConnection>>]>,
    sweeps: AtomicU64,
}

struct IdleConnection {
    stream: UpstreamStream,
    /// The sweep before it was put here.
    since: u64,
}

impl IdleConnections {
    /// None yet.
    pub(super) fn new() -> IdleConnections {
        IdleConnections {
            of_workers: (0..WorkerId::count()).map(|_| Mutex::default()).collect(),
            sweeps: AtomicU64::new(0),
        }
    }

    /// The worker's connection that was used last and that the upstream has not closed. A worker that
    /// has none gets another one's.
    pub(super) fn take(&self, worker: WorkerId) -> Option<UpstreamStream> {
        let own = self.of(worker);
        if let Some(stream) = self.take_of(own) {
            return Some(stream);
        }
        let others = self
            .of_workers
            .iter()
            .filter(|other| !std::ptr::eq(*other, own));
        others
            .filter_map(|other| self.take_of(other))
            .find_map(UpstreamStream::moved_here)
    }

    pub(super) fn put(&self, stream: UpstreamStream, worker: WorkerId) {
        let idle = IdleConnection {
            stream,
            since: self.sweeps.load(Ordering::Relaxed),
        };
        let mut all = self.of(worker).lock();
        if all.len() < MAX_IDLE.div_ceil(self.of_workers.len()) {
            all.push(idle);
        }
    }

    /// Closes those that are too old, or that the upstream has closed. To be called every second.
    pub(super) fn sweep(&self) {
        let sweeps = self.sweeps.fetch_add(1, Ordering::Relaxed) + 1;
        for all in &self.of_workers {
            let closed: Vec<IdleConnection> = {
                let mut all = all.lock();
                // The order is kept: the last used stays on top.
                all.extract_if(.., |idle| !idle.is_usable(sweeps)).collect()
            };
            // After the lock is released.
            drop(closed);
        }
    }

    fn of(&self, worker: WorkerId) -> &Mutex<Vec<IdleConnection>> {
        &self.of_workers[worker.0 % self.of_workers.len()]
    }

    fn take_of(&self, all: &Mutex<Vec<IdleConnection>>) -> Option<UpstreamStream> {
        let sweeps = self.sweeps.load(Ordering::Relaxed);
        loop {
            // The lock is free again before the stream is looked at, or closed.
            let mut idle = all.lock().pop()?;
            if idle.is_usable(sweeps) {
                return Some(idle.stream);
            }
        }
    }
}

impl IdleConnection {
    fn is_usable(&mut self, sweeps: u64) -> bool {
        sweeps.saturating_sub(self.since) < KEPT && self.stream.is_idle()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::UnixStream;

    use super::*;

    const FIRST: WorkerId = WorkerId(0);

    /// A worker other than the first, where the machine has one.
    fn other() -> WorkerId {
        WorkerId(WorkerId::count() - 1)
    }

    fn connection() -> (UpstreamStream, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (UpstreamStream::Unix(ours), theirs)
    }

    #[tokio::test]
    async fn the_last_used_is_taken_first_and_each_once() {
        let idle = IdleConnections::new();
        let (first, mut to_first) = connection();
        let (second, _to_second) = connection();
        idle.put(first, FIRST);
        idle.put(second, FIRST);
        let mut second = idle.take(FIRST).unwrap();
        to_first.write_all(b"first").await.unwrap();
        tokio::task::yield_now().await;
        assert!(second.is_idle());
        assert!(idle.take(FIRST).is_none(), "the first is not idle");
    }

    #[tokio::test]
    async fn a_worker_that_has_none_gets_another_ones_unless_it_was_closed() {
        let idle = IdleConnections::new();
        let (open, _there) = connection();
        idle.put(open, FIRST);
        assert!(idle.take(other()).is_some());
        let (closed, there) = connection();
        idle.put(closed, FIRST);
        drop(there);
        assert!(idle.take(other()).is_none());
        assert!(idle.take(FIRST).is_none());
    }

    #[tokio::test]
    async fn a_connection_is_kept_for_so_many_sweeps() {
        let idle = IdleConnections::new();
        let (stream, _there) = connection();
        idle.put(stream, FIRST);
        for _ in 1..KEPT {
            idle.sweep();
        }
        let stream = idle.take(FIRST).unwrap();
        idle.put(stream, FIRST);
        for _ in 0..KEPT {
            idle.sweep();
        }
        assert!(idle.take(FIRST).is_none());
    }
}
