//! A body on its way through the proxy.

/// A body on its way.
#[derive(Default)]
pub(super) struct BodyProgress {
    /// Bytes that reached the proxy or, of a response, were handed to the client's connection.
    pub(super) seen: u64,
    /// Bytes that moved between the client and the proxy.
    pub(super) moved: u64,
    /// Its end was seen.
    pub(super) last: bool,
}

impl BodyProgress {
    /// Whether all there is of it moved.
    pub(super) fn is_whole(&self) -> bool {
        self.last && self.moved >= self.seen
    }
}
