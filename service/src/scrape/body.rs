//! Finished expositions on their way to scrapers, in bounded memory.
//!
//! An exposition can be large, and a scraper that does not read it holds it for as long as its
//! connection lives. So all of them together have a budget: where a new one does not fit beside
//! those that are being sent, the oldest is dropped, and the responses that send it are aborted. A
//! scraper that reads has its exposition long before.
//!
//! For that, a response never holds a part of the exposition itself: each piece is copied when the
//! connection can take it.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;

/// What all expositions may take while they are sent, unless two of them are larger.
const BUDGET: usize = 64 << 20;

/// What a response copies at once.
const PIECE: usize = 64 << 10;

/// The expositions that are being sent.
#[derive(Debug)]
pub struct EncodedExpositions {
    budget: usize,
    sending: Mutex<VecDeque<Weak<EncodedExposition>>>,
}

/// A finished exposition. It lives while a response sends it, unless the budget is needed for newer
/// ones.
#[derive(Debug)]
pub struct EncodedExposition {
    /// `None` once it has been dropped for a newer one.
    bytes: Mutex<Option<Bytes>>,
    length: usize,
}

/// The body of a response: a short text, or an exposition.
#[derive(Debug)]
pub struct ExpositionBody(BodyContent);

#[derive(Debug)]
enum BodyContent {
    Text(Bytes),
    Exposition {
        exposition: Arc<EncodedExposition>,
        sent: usize,
    },
}

/// The exposition was dropped before it was sent whole: newer ones needed its memory.
#[derive(Debug, thiserror::Error)]
#[error("the exposition was read too slowly")]
pub struct ReadTooSlowly;

impl Default for EncodedExpositions {
    fn default() -> Self {
        Self::within(BUDGET)
    }
}

impl EncodedExpositions {
    /// None yet, and no more at a time than fit into `budget` bytes; the two newest always may.
    pub fn within(budget: usize) -> Self {
        Self {
            budget,
            sending: Mutex::default(),
        }
    }

    /// Adds a finished exposition, for which the oldest ones are dropped if need be.
    pub fn add(&self, bytes: Bytes) -> Arc<EncodedExposition> {
        let length = bytes.len();
        let exposition = Arc::new(EncodedExposition {
            bytes: Mutex::new(Some(bytes)),
            length,
        });
        let mut sending = self.sending.lock();
        // What has been sent is freed already, and must not count.
        sending.retain(|other| other.strong_count() > 0);
        let budget = self.budget.max(length.saturating_mul(2));
        let held =
            |other: &Weak<EncodedExposition>| other.upgrade().map_or(0, |other| other.length);
        let mut all = sending.iter().map(held).sum::<usize>() + length;
        // The oldest first: its scraper has had the most time. Its bytes are freed at once, though
        // its responses still exist.
        while all > budget
            && let Some(oldest) = sending.pop_front()
        {
            all -= oldest.upgrade().map_or(0, |oldest| {
                oldest.bytes.lock().take();
                oldest.length
            });
        }
        // Weak: the last response that sends an exposition frees it.
        sending.push_back(Arc::downgrade(&exposition));
        exposition
    }
}

impl EncodedExposition {
    /// How many bytes it has.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }
}

impl ExpositionBody {
    /// A body that sends the exposition.
    pub fn new(exposition: Arc<EncodedExposition>) -> Self {
        let sent = 0;
        Self(BodyContent::Exposition { exposition, sent })
    }
}

impl Default for ExpositionBody {
    fn default() -> Self {
        Bytes::new().into()
    }
}

impl From<Bytes> for ExpositionBody {
    fn from(text: Bytes) -> Self {
        Self(BodyContent::Text(text))
    }
}

impl Body for ExpositionBody {
    type Data = Bytes;
    type Error = ReadTooSlowly;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ReadTooSlowly>>> {
        let this = self.get_mut();
        if this.is_end_stream() {
            return Poll::Ready(None);
        }
        let piece = match &mut this.0 {
            BodyContent::Text(text) => std::mem::take(text),
            BodyContent::Exposition { exposition, sent } => {
                let bytes = exposition.bytes.lock();
                let rest = bytes.as_ref().and_then(|bytes| bytes.get(*sent..));
                let Some(rest) = rest else {
                    return Poll::Ready(Some(Err(ReadTooSlowly)));
                };
                let piece = Bytes::copy_from_slice(&rest[..rest.len().min(PIECE)]);
                *sent += piece.len();
                piece
            }
        };
        if this.is_end_stream() {
            // Sent whole: release it now, not when the connection drops the body.
            *this = Self::default();
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.size_hint().exact() == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        let left = match &self.0 {
            BodyContent::Text(text) => text.len(),
            BodyContent::Exposition { exposition, sent } => exposition.length - sent,
        };
        SizeHint::with_exact(left as u64)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    fn content(length: usize) -> Bytes {
        (0_u8..251).cycle().take(length).collect()
    }

    #[tokio::test]
    async fn an_exposition_is_sent_whole_to_everybody() {
        let all = EncodedExpositions::default();
        for length in [0, 1, PIECE, 3 * PIECE + 1] {
            let exposition = all.add(content(length));
            for _ in 0..2 {
                let body = ExpositionBody::new(Arc::clone(&exposition));
                assert_eq!(body.size_hint().exact(), Some(length as u64));
                let sent = body.collect().await.unwrap().to_bytes();
                assert_eq!(sent, content(length));
            }
        }
    }

    #[tokio::test]
    async fn the_oldest_is_dropped_where_a_new_one_does_not_fit() {
        let all = EncodedExpositions::within(10 * PIECE);
        let mut bodies: Vec<_> = (0..5)
            .map(|_| ExpositionBody::new(all.add(content(4 * PIECE))))
            .collect();
        for body in &mut bodies[..3] {
            assert!(body.frame().await.unwrap().is_err());
        }
        for body in bodies.split_off(3) {
            assert_eq!(body.collect().await.unwrap().to_bytes().len(), 4 * PIECE);
        }
    }

    #[tokio::test]
    async fn the_two_newest_are_sent_however_large_they_are() {
        let all = EncodedExpositions::within(0);
        let first = ExpositionBody::new(all.add(content(PIECE)));
        let second = ExpositionBody::new(all.add(content(PIECE)));
        assert!(first.collect().await.is_ok());
        assert!(second.collect().await.is_ok());
    }

    #[test]
    fn an_exposition_that_is_not_being_sent_uses_no_budget() {
        let all = EncodedExpositions::within(10);
        for _ in 0..100 {
            let exposition = all.add(content(10));
            assert!(exposition.bytes.lock().is_some());
        }
        let kept = all.add(content(10));
        drop(all.add(content(10)));
        assert!(kept.bytes.lock().is_some());
        assert!(all.sending.lock().len() <= 2);
    }
}
