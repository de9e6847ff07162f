//! Requests' bodies: over a connection, or from within this process.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use parking_lot::Mutex;

/// A request's body, wherever it comes from.
#[derive(Debug)]
pub enum IncomingBody {
    /// Over a connection.
    Connection(Incoming),
    /// From within this process.
    InProcess(InProcessBody),
}

/// Why a request's body can't be read.
#[derive(Debug, thiserror::Error)]
pub enum IncomingError {
    /// The connection failed.
    #[error(transparent)]
    Connection(#[from] hyper::Error),
    /// The caller is gone.
    #[error("the caller has ended the request")]
    Cut,
}

/// A request's body, as the caller in this process sends it.
pub struct BodySender(Arc<Mutex<BodySlot>>);

/// A request's body from within this process, as the registry reads it.
pub struct InProcessBody(Arc<Mutex<BodySlot>>);

/// What is between the two: at most one piece.
#[derive(Default)]
struct BodySlot {
    piece: Option<Bytes>,
    end: Option<BodyEnd>,
    /// The registry has asked for the body.
    is_wanted: bool,
    /// The registry reads no more.
    is_closed: bool,
    left: SizeHint,
    /// Who waits for a piece, and who for room.
    waker: Option<Waker>,
    sender: Option<Waker>,
}

/// How a body ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum BodyEnd {
    Whole,
    /// The caller is gone before the end.
    Cut,
}

impl BodySlot {
    fn wake(slot: &Mutex<Self>, change: impl FnOnce(&mut Self)) {
        let waker = {
            let mut slot = slot.lock();
            change(&mut slot);
            slot.waker.take()
        };
        // A waker may run any code, and must not run while the lock is held.
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// The two ends of a body of this length, as far as it is known.
pub fn in_process(length: SizeHint) -> (BodySender, InProcessBody) {
    let slot = Arc::new(Mutex::new(BodySlot {
        end: (length.exact() == Some(0)).then_some(BodyEnd::Whole),
        left: length,
        ..BodySlot::default()
    }));
    (BodySender(Arc::clone(&slot)), InProcessBody(slot))
}

impl BodySender {
    /// Takes a copy of the piece if there is room for one. `None` if the registry takes no more.
    pub fn poll_offer(&self, context: &mut Context<'_>, piece: &[u8]) -> Poll<Option<usize>> {
        {
            let mut slot = self.0.lock();
            if slot.is_closed {
                return Poll::Ready(None);
            }
            if slot.piece.is_some() {
                // The body may be read by another task.
                slot.sender = Some(context.waker().clone());
                return Poll::Pending;
            }
        }
        let copy = Bytes::copy_from_slice(piece);
        BodySlot::wake(&self.0, |slot| slot.piece = Some(copy));
        Poll::Ready(Some(piece.len()))
    }

    /// The body has ended.
    pub fn end(&self) {
        BodySlot::wake(&self.0, |slot| slot.end = Some(BodyEnd::Whole));
    }

    /// Whether the registry has asked for the body: what `100 Continue` says.
    pub fn is_wanted(&self) -> bool {
        self.0.lock().is_wanted
    }

    /// The registry is done with the request, and takes no more.
    pub fn close(&self) {
        self.0.lock().is_closed = true;
    }
}

/// A reader that is left, such as a task of the store, finds the body cut.
impl Drop for BodySender {
    fn drop(&mut self) {
        BodySlot::wake(&self.0, |slot| {
            slot.end.get_or_insert(BodyEnd::Cut);
        });
    }
}

impl Body for InProcessBody {
    type Data = Bytes;
    type Error = IncomingError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, IncomingError>>> {
        let mut slot = self.0.lock();
        slot.is_wanted = true;
        if let Some(piece) = slot.piece.take() {
            if let Some(left) = slot.left.exact() {
                slot.left = SizeHint::with_exact(left.saturating_sub(piece.len() as u64));
            }
            let sender = slot.sender.take();
            drop(slot);
            if let Some(sender) = sender {
                sender.wake();
            }
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        match slot.end {
            Some(BodyEnd::Whole) => return Poll::Ready(None),
            Some(BodyEnd::Cut) => return Poll::Ready(Some(Err(IncomingError::Cut))),
            None => {}
        }
        slot.waker = Some(context.waker().clone());
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        let slot = self.0.lock();
        slot.end == Some(BodyEnd::Whole) && slot.piece.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.lock().left
    }
}

impl Drop for InProcessBody {
    fn drop(&mut self) {
        self.0.lock().is_closed = true;
    }
}

impl fmt::Debug for InProcessBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InProcessBody").finish_non_exhaustive()
    }
}

impl Body for IncomingBody {
    type Data = Bytes;
    type Error = IncomingError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, IncomingError>>> {
        match self.get_mut() {
            Self::Connection(body) => {
                let frame = Pin::new(body).poll_frame(context);
                frame.map(|frame| frame.map(|frame| frame.map_err(IncomingError::from)))
            }
            Self::InProcess(body) => Pin::new(body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Connection(body) => body.is_end_stream(),
            Self::InProcess(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Connection(body) => body.size_hint(),
            Self::InProcess(body) => body.size_hint(),
        }
    }
}

impl From<Incoming> for IncomingBody {
    fn from(body: Incoming) -> Self {
        Self::Connection(body)
    }
}
