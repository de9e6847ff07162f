//! Reading a response's body from a store.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::Stream;

use crate::store::StoreError;

/// Why a response's body ended early. hyper then closes the connection or resets the stream: once the
/// headers are sent, nothing else tells the client.
#[derive(Debug, thiserror::Error)]
pub enum ResponseBodyError {
    /// The store's reader failed, or ended early.
    #[error("the response body could not be read from the store")]
    Read(#[source] Option<StoreError>),
    /// The body was evicted from the memory budget while its client read nothing.
    #[error("the response body was evicted from memory because the client read too slowly")]
    Evicted,
}

/// The next bytes of a reader that has `remaining` bytes to give. More bytes, or an early end, is a failure,
/// after which `remaining` is 0. `Content-Length` is sent already: a wrong length would break the framing.
pub(super) fn poll_reader<R>(
    reader: Pin<&mut R>,
    remaining: &mut u64,
    cx: &mut Context<'_>,
) -> Poll<Result<Bytes, ResponseBodyError>>
where
    R: Stream<Item = Result<Bytes, StoreError>>,
{
    match ready!(reader.poll_next(cx)) {
        Some(Ok(bytes)) if bytes.len() as u64 <= *remaining => {
            *remaining -= bytes.len() as u64;
            Poll::Ready(Ok(bytes))
        }
        failed => {
            let error = failed.and_then(Result::err);
            tracing::error!(
                error = error.as_ref().map(tracing::field::debug),
                missing = *remaining,
                "blob read failed"
            );
            // The body counts as ended, so that a reader that has failed is not polled again.
            *remaining = 0;
            Poll::Ready(Err(ResponseBodyError::Read(error)))
        }
    }
}
