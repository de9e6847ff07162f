//! Buffers that connections give back between requests, for the next request of their thread.
//!
//! An idle connection holds no buffer, and a request would make four. Those of its thread are there
//! already, and in its cache.

use std::cell::RefCell;

use bytes::BytesMut;

/// How much is read at a time of a head, and of a body that may be short.
pub(super) const SMALL: usize = 8 << 10;

/// How many buffers a thread keeps.
const KEPT: usize = 64;

thread_local! {
    static SPARE: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
}

/// An empty buffer, with room if one was given back.
pub(super) fn take() -> BytesMut {
    SPARE.with_borrow_mut(Vec::pop).unwrap_or_default()
}

/// Gives a buffer back, whose bytes no one needs any more.
pub(super) fn give(mut buffer: BytesMut) {
    buffer.clear();
    // What shares its memory may still be used; and one that has grown is not worth keeping.
    if buffer.try_reclaim(SMALL) && buffer.capacity() < 2 * SMALL {
        // A thread that ends has none any more.
        let _ = SPARE.try_with(|spare| {
            let mut spare = spare.borrow_mut();
            if spare.len() < KEPT {
                spare.push(buffer);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spare() -> usize {
        SPARE.with_borrow(Vec::len)
    }

    #[test]
    fn a_buffer_that_no_one_uses_is_taken_again() {
        let mut buffer = BytesMut::with_capacity(SMALL);
        buffer.extend_from_slice(b"head body");
        let head = buffer.split_to(5).freeze();
        let address = head.as_ptr();
        drop(head);
        give(buffer);
        assert_eq!(spare(), 1);
        let buffer = take();
        assert!(buffer.is_empty() && buffer.capacity() >= SMALL);
        assert_eq!(buffer.as_ptr(), address);
        assert_eq!(spare(), 0);
    }

    #[test]
    fn a_buffer_that_is_shared_or_large_or_one_too_many_is_not_kept() {
        let mut shared = BytesMut::with_capacity(SMALL);
        shared.extend_from_slice(b"head body");
        let head = shared.split_to(5).freeze();
        give(shared);
        assert_eq!((spare(), &head[..]), (0, &b"head "[..]));
        give(BytesMut::with_capacity(2 * SMALL));
        give(BytesMut::new());
        assert_eq!(spare(), 0);
        for _ in 0..=KEPT {
            give(BytesMut::with_capacity(SMALL));
        }
        assert_eq!(spare(), KEPT);
    }
}
