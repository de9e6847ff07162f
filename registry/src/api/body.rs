//! Request bodies: streamed into the store, collected within a limit, or read away.

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
use hyper::body::Incoming;
use parking_lot::Mutex;
use tokio::time::{Instant, Sleep};

use super::error::ApiError;
use super::memory_budget::{Evicted, MemoryBudget, MemoryShare};
use crate::store::StoreError;

/// As much of a refused body is read away as a client has probably sent already; a connection with
/// more to come is closed instead.
const DRAIN_BYTES: u64 = 256 * 1024;

/// How long to wait for the rest of a refused body.
const DRAIN_TIME: Duration = Duration::from_secs(1);

/// Why a body ended before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum RequestBodyError {
    /// Fewer or more bytes than were announced, or chunks that can't be parsed.
    #[error("the body's length is not what was announced")]
    Length,
    /// No byte for too long.
    #[error("the body stalled")]
    Stalled,
    /// The connection or the stream was reset.
    #[error("the client went away")]
    Gone,
}

/// A request's body. Streams of it are made by reference, so that what the store left unread can
/// still be read away for the sake of the connection.
#[derive(Debug)]
pub(super) struct RequestBody {
    /// `None` if there is no body at all, as in most requests.
    shared: Option<Arc<Mutex<SharedBody>>>,
    declared: Option<u64>,
    stall: Duration,
}

#[derive(Debug)]
struct SharedBody {
    incoming: Incoming,
    received: u64,
    ended: bool,
    failure: Option<RequestBodyError>,
}

/// The bytes of a request's body, for the store. Fails when nothing comes for too long, or when
/// there are more or fewer bytes than expected.
#[derive(Debug)]
pub(super) struct BodyStream {
    shared: Option<Arc<Mutex<SharedBody>>>,
    expected: Option<u64>,
    received: u64,
    stall: StallTimer,
}

/// A timer that is armed only once something has to be waited for, and is not touched by every
/// chunk.
#[derive(Debug)]
struct StallTimer {
    limit: Duration,
    progress: Option<Instant>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl RequestBody {
    pub(super) fn new(incoming: Incoming, stall: Duration) -> Self {
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

    /// The length the client announced, if it did.
    pub(super) fn declared(&self) -> Option<u64> {
        self.declared
    }

    /// The bytes received so far.
    pub(super) fn received(&self) -> u64 {
        self.shared.as_ref().map_or(0, |body| body.lock().received)
    }

    /// What made a stream of this body fail.
    pub(super) fn failure(&self) -> Option<RequestBodyError> {
        self.shared.as_ref().and_then(|body| body.lock().failure)
    }

    /// The body as a stream, which must have `expected` bytes where that is known.
    pub(super) fn stream(&self, expected: Option<u64>) -> BodyStream {
        BodyStream {
            shared: self.shared.clone(),
            expected,
            received: 0,
            stall: StallTimer::new(self.stall),
        }
    }

    /// The whole body, of at most `limit` bytes, with its share of a budget. Fails where it has to
    /// give way to others.
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
            let pushed = tokio::time::timeout(self.stall, share.push(&chunk)).await;
            pushed.unwrap_or(Err(Evicted))?;
        }
    }

    /// Whether the body was read to its end, or never began.
    pub(super) fn is_read(&self) -> bool {
        self.shared.as_ref().is_none_or(|body| {
            let body = body.lock();
            body.ended || body.incoming.is_end_stream()
        })
    }

    /// Reads the rest away if that is little. Returns whether the connection can carry on.
    pub(super) async fn drain(&self) -> bool {
        if self.is_read() {
            return true;
        }
        let left = self
            .declared
            .map(|length| length - self.received().min(length));
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
                        continue; // Trailers, which mean nothing here.
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
            // The kind tells the store's metrics that time ran out.
            RequestBodyError::Stalled => Box::new(io::Error::from(io::ErrorKind::TimedOut)),
            RequestBodyError::Length | RequestBodyError::Gone => Box::new(failure),
        })
    }
}

impl RequestBodyError {
    /// Tells a body that broke its own framing from a connection that broke. hyper wraps both in
    /// one type; the I/O error it was made from tells them apart.
    fn of(error: &hyper::Error) -> Self {
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
        // While nothing was waited for yet, there is no timer to postpone.
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
            let Some(progress) = self.progress.take() else {
                return Poll::Ready(());
            };
            sleep.as_mut().reset(progress + limit);
        }
    }
}
