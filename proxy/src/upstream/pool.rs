//! Idle connections to one address of an upstream.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::stream::UpstreamStream;

/// The most idle connections to one address.
const MAX_IDLE: usize = 512;

/// How long a connection is kept: less than any registry keeps it, because a POST on a connection that
/// the registry has just closed can't be sent again.
const KEPT: Duration = Duration::from_secs(30);

/// Idle connections, the last used on top: those that are not needed grow old at the bottom.
#[derive(Default)]
pub(super) struct IdleConnections(Mutex<Vec<IdleConnection>>);

struct IdleConnection {
    stream: UpstreamStream,
    since: Instant,
}

impl IdleConnections {
    /// The connection that was used last and that the upstream has not closed.
    pub(super) fn take(&self) -> Option<UpstreamStream> {
        loop {
            // The lock is free again before the stream is looked at, or closed.
            let idle = self.0.lock().pop()?;
            if idle.is_usable() {
                return Some(idle.stream);
            }
        }
    }

    pub(super) fn put(&self, stream: UpstreamStream) {
        let idle = IdleConnection {
            stream,
            since: Instant::now(),
        };
        let mut all = self.0.lock();
        if all.len() < MAX_IDLE {
            all.push(idle);
        }
    }

    /// Closes those that are too old, or that the upstream has closed.
    pub(super) fn sweep(&self) {
        let closed: Vec<IdleConnection> = {
            let mut all = self.0.lock();
            // The order is kept: the last used stays on top.
            all.extract_if(.., |idle| !idle.is_usable()).collect()
        };
        // After the lock is released.
        drop(closed);
    }
}

impl IdleConnection {
    fn is_usable(&self) -> bool {
        self.since.elapsed() < KEPT && self.stream.is_idle()
    }
}
