//! The body of a request that may have to be sent again.

/// The most bytes of a body that are kept, so that the request can be sent again.
const MAX_HELD: usize = 64 << 10;

/// The bytes of a request's body that were sent over a connection that may be stale.
#[derive(Debug, Default)]
pub(super) struct Held {
    bytes: Vec<u8>,
    /// How many of them were sent again.
    replayed: usize,
    /// All that was taken from the client is here, and what will be is kept, too.
    is_kept: bool,
}

impl Held {
    /// Nothing was taken from the client yet. `is_kept` says whether it is worth keeping.
    pub(super) fn new(is_kept: bool) -> Held {
        Held {
            is_kept,
            ..Held::default()
        }
    }

    /// These bytes were sent.
    pub(super) fn push(&mut self, piece: &[u8]) {
        if !self.is_kept {
            return;
        }
        self.is_kept = self.bytes.len() + piece.len() <= MAX_HELD;
        if self.is_kept {
            self.bytes.extend_from_slice(piece);
        } else {
            self.bytes = Vec::new();
        }
        self.replayed = self.bytes.len();
    }

    /// Something was sent of which there is no copy.
    pub(super) fn forget(&mut self) {
        *self = Held::default();
    }

    /// Lets all of it be sent again; `false` if it is not all there.
    pub(super) fn rewind(&mut self) -> bool {
        self.replayed = 0;
        self.is_kept
    }

    /// The connection is new, and so not stale: what is taken from now on is not sent again.
    pub(super) fn keep_no_more(&mut self) {
        self.is_kept = false;
    }

    /// So many more bytes were sent again.
    pub(super) fn replayed(&mut self, bytes: usize) {
        self.replayed += bytes;
    }

    /// What is still to be sent again.
    pub(super) fn left(&self) -> &[u8] {
        &self.bytes[self.replayed..]
    }
}
