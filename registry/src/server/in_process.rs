//! The registry reached from within its own process, without a socket.
//!
//! The task that holds an [`InProcessStream`] drives the registry's end, too: a read that finds
//! nothing runs the registry until there is something, in the same task and on the same thread. So a
//! request costs no system call, no task of its own and no wake-up of another thread.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::io;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use futures_util::FutureExt;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::api::Api;
use crate::store::Store;
use service::connection::READ_BUFFER;

/// The most bytes that are buffered in one direction.
const CAPACITY: usize = 64 * 1024;

/// Runs the registry's end; done when the connection is.
type Serving = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Opens connections to the registry in this process.
#[derive(Clone)]
pub struct Dialer {
    serve: Arc<dyn Fn(ServerEnd) -> Serving + Send + Sync>,
}

impl Dialer {
    pub(super) fn new<S: Store>(api: Arc<Api<S>>) -> Self {
        let serve = move |end| -> Serving {
            let api = Arc::clone(&api);
            let service = service_fn(move |request| {
                let api = Arc::clone(&api);
                async move { Ok::<_, Infallible>(api.handle(request).await) }
            });
            let connection = http1::Builder::new()
                // A new connection costs less than finding out whether this one can be reused.
                .keep_alive(false)
                .max_buf_size(READ_BUFFER)
                .serve_connection(end, service);
            Box::pin(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "connection failed");
                }
            })
        };
        Self {
            serve: Arc::new(serve),
        }
    }

    /// A connection for one request over HTTP/1.1. The registry closes it after the response.
    pub fn dial(&self) -> InProcessStream {
        let pipes = Arc::new(Mutex::new(Pipes::default()));
        let serving = (self.serve)(ServerEnd(Arc::clone(&pipes)));
        InProcessStream {
            pipes,
            serving: Mutex::new(Some(serving)),
            reader: None,
            writer: None,
        }
    }
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialer").finish_non_exhaustive()
    }
}

/// Both directions of a connection.
#[derive(Default)]
struct Pipes {
    to_server: Pipe,
    to_client: Pipe,
}

/// One direction: the bytes that were written and not read yet.
#[derive(Default)]
struct Pipe {
    bytes: Vec<u8>,
    read: usize,
    closed: bool,
}

impl Pipe {
    fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Buffers as many of the bytes as fit. There is space again once all has been read: few large
    /// steps cost less than many small ones.
    fn write(&mut self, bytes: &[u8]) -> usize {
        let taken = bytes.len().min(CAPACITY - self.bytes.len());
        self.bytes.extend_from_slice(&bytes[..taken]);
        taken
    }

    /// Gives up to `wanted` bytes to `sink`.
    fn read(&mut self, wanted: usize, sink: impl FnOnce(&[u8])) {
        let unread = &self.bytes[self.read..];
        let given = unread.len().min(wanted);
        sink(&unread[..given]);
        self.read += given;
        if self.read == self.bytes.len() {
            // `clear` keeps the allocation, and the next write fills it again.
            self.bytes.clear();
            self.read = 0;
        }
    }
}

/// The registry's end. It keeps no waker: the task that drives the other end polls again.
struct ServerEnd(Arc<Mutex<Pipes>>);

impl Read for ServerEnd {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let pipe = &mut self.0.lock().to_server;
        if pipe.is_empty() && !pipe.closed {
            return Poll::Pending;
        }
        pipe.read(buffer.remaining(), |bytes| buffer.put_slice(bytes));
        Poll::Ready(Ok(()))
    }
}

impl Write for ServerEnd {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let pipe = &mut self.0.lock().to_client;
        let mut written = 0;
        for slice in slices {
            written += pipe.write(slice);
        }
        // hyper takes `Ready(0)` for bytes that were not empty as a broken connection.
        if written == 0 && slices.iter().any(|slice| !slice.is_empty()) {
            return Poll::Pending;
        }
        Poll::Ready(Ok(written))
    }

    // With `true`, hyper writes a body from where it is, and does not copy it behind the headers.
    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.lock().to_client.closed = true;
        Poll::Ready(Ok(()))
    }
}

/// The client's end of a connection to the registry in this process.
///
/// Both of its halves belong to one task: the registry's future wakes the task that polled either half
/// last. Dropping the stream drops that future, as the end of any connection does.
pub struct InProcessStream {
    pipes: Arc<Mutex<Pipes>>,
    /// `None` once the registry is done. The mutex is never locked: it makes the stream `Sync`.
    serving: Mutex<Option<Serving>>,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl InProcessStream {
    /// Runs the registry as far as it can get.
    fn drive(&mut self, context: &mut Context<'_>) {
        let slot = self.serving.get_mut();
        let Some(serving) = slot else {
            return;
        };
        // A panic ends this connection, and not the task that reads from it.
        let polled = AssertUnwindSafe(serving).catch_unwind().poll_unpin(context);
        if polled.is_ready() {
            *slot = None;
            let mut pipes = self.pipes.lock();
            pipes.to_client.closed = true;
            // The registry reads no more: unread bytes need not live as long as the client.
            pipes.to_server = Pipe::default();
        }
    }

    /// Reads what is there; `Pending` if there is nothing yet.
    fn read_ready(&mut self, buffer: &mut ReadBuf<'_>) -> Poll<()> {
        let pipe = &mut self.pipes.lock().to_client;
        if pipe.is_empty() && !pipe.closed {
            return Poll::Pending;
        }
        pipe.read(buffer.remaining(), |bytes| buffer.put_slice(bytes));
        Poll::Ready(())
    }

    /// Wakes the halves that can make progress now.
    fn wake(&mut self) {
        let pipes = self.pipes.lock();
        let readable = !pipes.to_client.is_empty() || pipes.to_client.closed;
        let writable = pipes.to_server.is_empty() || pipes.to_client.closed;
        // A waker may run any code, and must not run while the lock is held.
        drop(pipes);
        if readable && let Some(reader) = self.reader.take() {
            reader.wake();
        }
        if writable && let Some(writer) = self.writer.take() {
            writer.wake();
        }
    }

    /// Writes what fits; `Pending` if nothing does.
    ///
    /// Bytes that are written once the registry is done are dropped: it has responded to an upload
    /// before its end, and the sender must not fail before it has read the response (RFC 9112,
    /// section 9.6).
    fn write_ready(&mut self, bytes: &[u8]) -> Poll<usize> {
        if self.serving.get_mut().is_none() {
            return Poll::Ready(bytes.len());
        }
        match self.pipes.lock().to_server.write(bytes) {
            0 if !bytes.is_empty() => Poll::Pending,
            written => Poll::Ready(written),
        }
    }
}

impl AsyncRead for InProcessStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.read_ready(buffer).is_pending() {
            this.drive(context);
            this.wake();
            if this.read_ready(buffer).is_pending() {
                // A later write drives the registry with its own waker, and then wakes this one.
                this.reader = Some(context.waker().clone());
                return Poll::Pending;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for InProcessStream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let mut written = this.write_ready(bytes);
        // A reader that waits drives nothing until it is woken, so that this write has to.
        if written.is_pending() || this.reader.is_some() {
            this.drive(context);
            this.wake();
        }
        if written.is_pending() {
            written = this.write_ready(bytes);
        }
        if written.is_pending() {
            this.writer = Some(context.waker().clone());
        }
        written.map(Ok)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Closes the direction to the registry, and lets the registry end.
    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.pipes.lock().to_server.closed = true;
        this.drive(context);
        this.wake();
        Poll::Ready(Ok(()))
    }
}

impl fmt::Debug for InProcessStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InProcessStream").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, poll_fn};
    use std::sync::atomic::{AtomicBool, Ordering};

    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, copy, split};

    use super::*;

    fn dialer<F>(serve: impl Fn(TokioIo<ServerEnd>) -> F + Send + Sync + 'static) -> Dialer
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Dialer {
            serve: Arc::new(move |end| Box::pin(serve(TokioIo::new(end)))),
        }
    }

    #[tokio::test]
    async fn large_bodies_pass_in_both_directions_at_once() {
        let echo = dialer(async |end| {
            let (mut reader, mut writer) = split(end);
            copy(&mut reader, &mut writer).await.unwrap();
            writer.shutdown().await.unwrap();
        });
        let content: Vec<u8> = (0..10_000_000_u32)
            .map(|n| n.to_le_bytes()[n as usize % 3])
            .collect();
        let (mut reader, mut writer) = split(echo.dial());
        let mut received = Vec::new();
        let write_all = async {
            for piece in content.chunks(100_001) {
                writer.write_all(piece).await?;
            }
            writer.shutdown().await
        };
        let (written, read) = tokio::join!(write_all, reader.read_to_end(&mut received));
        written.unwrap();
        read.unwrap();
        assert!(received == content);
    }

    #[tokio::test]
    async fn work_that_waits_for_another_thread_is_woken() {
        let late = dialer(async |mut end| {
            let written = tokio::task::spawn_blocking(|| b"late".to_vec());
            end.write_all(&written.await.unwrap()).await.unwrap();
        });
        let mut response = Vec::new();
        late.dial().read_to_end(&mut response).await.unwrap();
        assert_eq!(response, b"late");
    }

    #[tokio::test]
    async fn a_writer_waits_for_its_reader() {
        let deaf = dialer(async |_end| pending().await);
        let mut stream = deaf.dial();
        let piece = vec![0; 1000];
        let mut taken = 0;
        while let Poll::Ready(written) =
            poll_fn(|context| Poll::Ready(Pin::new(&mut stream).poll_write(context, &piece))).await
        {
            taken += written.unwrap();
        }
        assert_eq!(taken, CAPACITY);
    }

    #[tokio::test]
    async fn a_response_before_the_end_of_the_request_can_be_read() {
        let early = dialer(async |mut end: TokioIo<ServerEnd>| {
            end.write_all(b"enough").await.unwrap();
        });
        let mut stream = early.dial();
        stream.write_all(&vec![0; 10 * CAPACITY]).await.unwrap();
        let mut response = Vec::new();
        stream.read_to_end(&mut response).await.unwrap();
        assert_eq!(response, b"enough");
    }

    #[tokio::test]
    async fn a_panic_ends_the_connection_and_nothing_else() {
        let failing = dialer(async |mut end: TokioIo<ServerEnd>| {
            end.write_all(b"half").await.unwrap();
            panic!("on purpose");
        });
        let mut stream = failing.dial();
        let mut response = Vec::new();
        stream.read_to_end(&mut response).await.unwrap();
        assert_eq!(response, b"half");
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn dropping_a_connection_ends_its_work() {
        struct Flag(Arc<AtomicBool>);
        impl Drop for Flag {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let ended = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&ended);
        let working = dialer(move |mut end| {
            let flag = Flag(Arc::clone(&flag));
            async move {
                end.write_all(b"begun").await.unwrap();
                pending::<()>().await;
                drop(flag);
            }
        });
        let mut stream = working.dial();
        let mut begun = [0; 5];
        stream.read_exact(&mut begun).await.unwrap();
        assert!(!ended.load(Ordering::Relaxed));
        drop(stream);
        assert!(ended.load(Ordering::Relaxed));
    }
}
