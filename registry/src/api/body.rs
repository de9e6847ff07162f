//! Request bodies: streamed into the store, collected up to a limit, or discarded.

use std::error::Error;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use http_body::Body;
use parking_lot::Mutex;
use tokio::time::{Instant, Sleep};

use super::error::ApiError;
use super::incoming::{IncomingBody, IncomingError};
use super::memory_budget::{Evicted, MemoryBudget, MemoryShare};
use super::request_body_error::RequestBodyError;
use crate::store::StoreError;

/// How much of a refused body is read and discarded. A client has probably sent that much already; if
/// more is to come, closing the connection is cheaper.
const DRAIN_BYTES: u64 = 256 * 1024;

/// How long to wait for the rest of a refused body.
const DRAIN_TIME: Duration = Duration::from_secs(1);

/// A request's body. Its streams share it, so that what the store leaves unread can still be discarded
/// and the connection be kept.
#[derive(Debug)]
pub(super) struct RequestBody {
    /// `None` if the request has no body, as most have none: they pay for no allocation.
    shared: Option<Arc<Mutex<SharedBody>>>,
    declared: Option<u64>,
    stall: Duration,
}

#[derive(Debug)]
struct SharedBody {
    incoming: IncomingBody,
    received: u64,
    ended: bool,
    failure: Option<RequestBodyError>,
}

/// The bytes of a request's body, for the store. Fails if none arrives for too long, or if there are more
/// or fewer than expected.
#[derive(Debug)]
pub(super) struct BodyStream {
    shared: Option<Arc<Mutex<SharedBody>>>,
    expected: Option<u64>,
    received: u64,
    stall: StallTimer,
}

/// A timer for the pauses of a body. It is created at the first pause, and a chunk only stores its time:
/// most bodies never pause, and each chunk would otherwise pay for the timer.
#[derive(Debug)]
struct StallTimer {
    limit: Duration,
    /// When the last chunk arrived since the timer was set.
    progress: Option<Instant>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl RequestBody {
    pub(super) fn new(incoming: IncomingBody, stall: Duration) -> Self {
        let declared = incoming.size_hint().exact();
        let shared = (!incoming.is_end_stream()).then(|| {
            Arc::new(Mutex::new(SharedBody {
                incoming,
                received: 0,
                ended: false,
                failure: None,
            }))
        });
        Self {
            shared,
            declared,
            stall,
        }
    }

    /// Whether there is nothing to read.
    pub(super) fn is_empty(&self) -> bool {
        self.shared.is_none()
    }

    /// The length that the client declared, if any.
    pub(super) fn declared(&self) -> Option<u64> {
        self.declared
    }

    /// How many bytes have been received so far.
    pub(super) fn received(&self) -> u64 {
        self.shared.as_ref().map_or(0, |body| body.lock().received)
    }

    /// Why a stream of this body failed, if one did.
    pub(super) fn failure(&self) -> Option<RequestBodyError> {
        self.shared.as_ref().and_then(|body| body.lock().failure)
    }

    /// A stream of the body. It fails unless it has `expected` bytes, if that is given.
    pub(super) fn stream(&self, expected: Option<u64>) -> BodyStream {
        BodyStream {
            shared: self.shared.clone(),
            expected,
            received: 0,
            stall: StallTimer::new(self.stall),
        }
    }

    /// Collects the whole body, of at most `limit` bytes, into a share of the memory budget. Fails if the
    /// share is evicted.
    pub(super) async fn collect(
        &self,
        limit: u64,
        budget: &Arc<MemoryBudget>,
    ) -> Result<MemoryShare, ApiError> {
        let too_large = || ApiError::ManifestTooLarge { limit };
        if self.declared.is_some_and(|length| length > limit) {
            return Err(too_large());
        }
        let mut stream = self.stream(None);
        let mut share = budget.share();
        loop {
            // A client that stalls must notice the eviction at once, not with its next byte.
            let chunk = tokio::select! {
                chunk = stream.next() => chunk,
                () = share.evicted() => return Err(Evicted.into()),
            };
            let Some(chunk) = chunk else {
                share.seal()?;
                return Ok(share);
            };
            let chunk = chunk.map_err(|_| self.failure().unwrap_or(RequestBodyError::Gone))?;
            if stream.received > limit {
                return Err(too_large());
            }
            // The wait for memory counts as a pause of the body, and is bounded like one.
            let pushed = tokio::time::timeout(self.stall, share.push(&chunk)).await;
            pushed.unwrap_or(Err(Evicted))?;
        }
    }

    /// Whether nothing of the body is left to read.
    pub(super) fn is_read(&self) -> bool {
        self.shared.as_ref().is_none_or(|body| {
            let body = body.lock();
            body.ended || body.incoming.is_end_stream()
        })
    }

    /// Discards the rest of the body if it is small. Returns whether the connection can be reused.
    pub(super) async fn drain(&self) -> bool {
        if self.is_read() {
            return true;
        }
        let left = self
            .declared
            .map(|length| length - self.received().min(length));
        // After a failure the framing or the client is lost: no further request can follow.
        if self.failure().is_some() || left.is_some_and(|left| left > DRAIN_BYTES) {
            return false;
        }
        let mut stream = self.stream(None);
        let read = async {
            while let Some(Ok(_)) = stream.next().await {
                if stream.received > DRAIN_BYTES {
                    break;
                }
            }
        };
        // A client that sends a byte now and then never stalls, and would hold the connection.
        let _ = tokio::time::timeout(DRAIN_TIME, read).await;
        self.is_read()
    }
}

impl Stream for BodyStream {
    type Item = Result<Bytes, StoreError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let Some(shared) = &this.shared else {
            return Poll::Ready(None);
        };
        // Never contended: a request has one stream at a time. The lock only makes the body shareable
        // between the handler and the store's task.
        let mut shared = shared.lock();
        if shared.ended || shared.failure.is_some() {
            return Poll::Ready(None);
        }
        loop {
            let frame = match Pin::new(&mut shared.incoming).poll_frame(cx) {
                Poll::Ready(frame) => frame,
                Poll::Pending => {
                    ready!(this.stall.poll_elapsed(cx));
                    return Poll::Ready(Some(Err(shared.fail(RequestBodyError::Stalled))));
                }
            };
            this.stall.progress();
            match frame {
                Some(Ok(frame)) => {
                    let Ok(bytes) = frame.into_data() else {
                        // Trailers: the specification gives them no meaning.
                        continue;
                    };
                    let length = bytes.len() as u64;
                    shared.received += length;
                    this.received += length;
                    if this
                        .expected
                        .is_some_and(|expected| this.received > expected)
                    {
                        return Poll::Ready(Some(Err(shared.fail(RequestBodyError::Length))));
                    }
                    return Poll::Ready(Some(Ok(bytes)));
                }
                Some(Err(error)) => {
                    let failure = RequestBodyError::of(&error);
                    return Poll::Ready(Some(Err(shared.fail(failure))));
                }
                None => {
                    shared.ended = true;
                    if this
                        .expected
                        .is_some_and(|expected| this.received < expected)
                    {
                        return Poll::Ready(Some(Err(shared.fail(RequestBodyError::Length))));
                    }
                    return Poll::Ready(None);
                }
            }
        }
    }
}

impl SharedBody {
    fn fail(&mut self, failure: RequestBodyError) -> StoreError {
        self.failure = Some(failure);
        StoreError::Body(match failure {
            // The store's metrics read the kind, and count a timeout apart from other failures.
            RequestBodyError::Stalled => Box::new(io::Error::from(io::ErrorKind::TimedOut)),
            RequestBodyError::Length | RequestBodyError::Gone => Box::new(failure),
        })
    }
}

impl RequestBodyError {
    /// Distinguishes a body with invalid framing, which is the client's mistake, from a connection that
    /// broke. hyper has one type for both; the kind of the I/O error beneath it differs.
    fn of(error: &IncomingError) -> Self {
        let IncomingError::Connection(error) = error else {
            return Self::Gone;
        };
        if error.is_incomplete_message() || error.is_parse() {
            return Self::Length;
        }
        let mut source = error.source();
        while let Some(error) = source {
            if let Some(error) = error.downcast_ref::<io::Error>() {
                return match error.kind() {
                    io::ErrorKind::UnexpectedEof
                    | io::ErrorKind::InvalidData
                    | io::ErrorKind::InvalidInput => Self::Length,
                    _ => Self::Gone,
                };
            }
            source = error.source();
        }
        Self::Gone
    }
}

impl StallTimer {
    fn new(limit: Duration) -> Self {
        Self {
            limit,
            progress: None,
            sleep: None,
        }
    }

    fn progress(&mut self) {
        // Before the first pause there is no timer, and reading the clock for each chunk has a cost.
        if self.sleep.is_some() {
            self.progress = Some(Instant::now());
        }
    }

    fn poll_elapsed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let limit = self.limit;
        let sleep = self
            .sleep
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        loop {
            ready!(sleep.as_mut().poll(cx));
            // A chunk arrived since the timer was set: the pause began with that chunk.
            let Some(progress) = self.progress.take() else {
                return Poll::Ready(());
            };
            sleep.as_mut().reset(progress + limit);
        }
    }
}
