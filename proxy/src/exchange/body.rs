//! A body on its way through the proxy.

use std::time::Duration;

/// A body on its way.
#[derive(Default)]
pub(super) struct Body {
    /// Bytes that reached the proxy or, of a response, were handed to the client's connection.
    pub(super) seen: u64,
    /// Bytes that moved between the client and the proxy.
    pub(super) moved: u64,
    /// Its end was seen.
    pub(super) last: bool,
    /// When its first bytes came and when its last, since the request's headers.
    pub(super) timed: Option<(Duration, Duration)>,
}

impl Body {
    /// A piece of it came, so long after the request's headers.
    pub(super) fn touch(&mut self, after: Duration) {
        let first = self.timed.map_or(after, |(first, _)| first);
        self.timed = Some((first, after));
    }

    /// Whether all there is of it moved.
    pub(super) fn is_whole(&self) -> bool {
        self.last && self.moved >= self.seen
    }
}
