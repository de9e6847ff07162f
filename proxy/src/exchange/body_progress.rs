//! How much of a body has passed through the proxy.

/// How much of a request's or a response's body has passed.
#[derive(Default)]
pub(super) struct BodyProgress {
    /// Bytes of a response that were handed to the client's connection.
    pub(super) seen: u64,
    /// Bytes that were received from the client, or sent to it.
    pub(super) moved: u64,
    /// Whether the end of the body was seen.
    pub(super) ended: bool,
}

impl BodyProgress {
    /// Whether the whole body was received or sent.
    pub(super) fn is_whole(&self) -> bool {
        self.ended && self.moved >= self.seen
    }
}
