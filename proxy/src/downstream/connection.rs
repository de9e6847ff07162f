//! What pingora reads and writes a client's connection through.

use std::future::poll_fn;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use async_trait::async_trait;
use pingora::http::ResponseHeader;
use pingora::protocols::http::ServerSession;
use pingora::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown as ShutdownIo, SocketDigest,
    Ssl, TimingDigest, UniqueID, UniqueIDType, raw_connect::ProxyDigest,
};
use service::connection::Requests;
use service::listen::{ClientStream, Peer};
use service::shutdown::DrainGuard;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufWriter, ReadBuf};
use tokio_util::either::Either;

use super::counted::Counted;
use super::wait::{Signals, Wait};
use crate::error::Failure;

/// Enough for the headers and the body of a small answer to leave in one write.
const WRITE_BUFFER: usize = 4 << 10;

/// The first bytes of an HTTP/2 connection, RFC 9113 §3.4.
const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A client's connection as pingora sees it.
#[derive(Debug)]
pub(super) struct Connection {
    io: BufWriter<ClientStream>,
    /// Bytes that were read ahead to tell HTTP/2 from HTTP/1.1, and how many of them are consumed.
    ahead: Vec<u8>,
    consumed: usize,
    digest: Arc<SocketDigest>,
    signals: Arc<Signals>,
    wait: Wait,
    counted: Counted,
    _guard: DrainGuard,
}

impl Connection {
    pub(super) fn new(
        stream: ClientStream,
        peer: Peer,
        signals: Arc<Signals>,
        wait: Wait,
        (counted, guard): (Counted, DrainGuard),
    ) -> Connection {
        let digest = SocketDigest::from_raw_fd(fd(&stream));
        // Known already: else each request would ask the kernel.
        let address = match peer {
            Peer::Tcp(address) => Some(address.into()),
            Peer::Unix => None,
        };
        // The cell was made a line ago: it is empty.
        let _ = digest.peer_addr.set(address);
        Connection {
            io: BufWriter::with_capacity(WRITE_BUFFER, stream),
            ahead: Vec::new(),
            consumed: 0,
            digest: Arc::new(digest),
            signals,
            wait,
            counted,
            _guard: guard,
        }
    }

    /// Reads from the client, who has no more to say once it has taken too long to say it.
    fn poll_client(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // pingora flushes an answer of a known length at its end only. Whoever comes to read has nothing
        // to write for now, and an upstream that pauses must not hold back what it sent before. What
        // can't be written now is told by the next write.
        if !self.io.buffer().is_empty() {
            let _ = Pin::new(&mut self.io).poll_flush(context);
        }
        let before = buffer.filled().len();
        if let Poll::Ready(read) = Pin::new(self.io.get_mut()).poll_read(context, buffer) {
            self.wait.read(&self.signals, &buffer.filled()[before..]);
            return Poll::Ready(read);
        }
        ready!(self.wait.poll(&self.signals, context));
        if self.wait.is_for_headers() {
            self.counted.timed_out();
        }
        Poll::Ready(Ok(()))
    }
}

/// What ends a connection does not end it in silence. A request that panics is answered if nothing was
/// said yet; of an answer that breaks off, the client gets what there was.
impl Drop for Connection {
    fn drop(&mut self) {
        let panicked = std::thread::panicking();
        let last = if panicked && self.signals.is_seen() && !self.signals.is_answered() {
            Failure::Internal.to_http1()
        } else {
            self.io.buffer().to_vec()
        };
        if last.is_empty() {
            return;
        }
        // Nothing may wait here. So little fits into the buffer of a socket that is not written to.
        let _ = match self.io.get_ref() {
            Either::Left(stream) => stream.try_write(&last),
            Either::Right(stream) => stream.try_write(&last),
        };
    }
}

fn fd(stream: &ClientStream) -> RawFd {
    match stream {
        Either::Left(stream) => stream.as_raw_fd(),
        Either::Right(stream) => stream.as_raw_fd(),
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.consumed < self.ahead.len() {
            let ahead = &self.ahead[self.consumed..];
            let taken = ahead.len().min(buffer.remaining());
            buffer.put_slice(&ahead[..taken]);
            self.consumed += taken;
            if self.consumed == self.ahead.len() {
                self.ahead = Vec::new();
                self.consumed = 0;
            }
            return Poll::Ready(Ok(()));
        }
        self.poll_client(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.io).poll_write(context, bytes));
        self.signals.answer();
        Poll::Ready(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.io).poll_write_vectored(context, bytes));
        self.signals.answer();
        Poll::Ready(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

#[async_trait]
impl Peek for Connection {
    /// Reads ahead no further than the bytes can still be what the caller hopes for: a short
    /// HTTP/1.1 request must not wait for bytes that will never come.
    async fn try_peek(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        while self.ahead.len() < buffer.len() && H2_PREFACE.starts_with(&self.ahead) {
            let mut chunk = [0; H2_PREFACE.len()];
            let wanted = buffer.len() - self.ahead.len();
            let wanted = wanted.min(chunk.len());
            let mut chunk = ReadBuf::new(&mut chunk[..wanted]);
            poll_fn(|context| self.poll_client(context, &mut chunk)).await?;
            if chunk.filled().is_empty() {
                break;
            }
            self.ahead.extend_from_slice(chunk.filled());
        }
        if self.ahead == H2_PREFACE {
            self.wait.waive();
            // It is refused by frames, if at all.
            self.signals.see();
        }
        let known = self.ahead.len().min(buffer.len());
        buffer[..known].copy_from_slice(&self.ahead[..known]);
        Ok(true)
    }
}

#[async_trait]
impl ShutdownIo for Connection {
    async fn shutdown(&mut self) {
        // The peer may be gone already, which is what we want of it.
        let _ = AsyncWriteExt::shutdown(self).await;
    }
}

impl UniqueID for Connection {
    fn id(&self) -> UniqueIDType {
        fd(self.io.get_ref())
    }
}

impl Ssl for Connection {}

impl GetTimingDigest for Connection {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for Connection {
    /// The streams of an HTTP/2 connection are served by tasks of pingora's, which know nothing of
    /// it but its digests. This one is for what a proxy before us has said, with room for more.
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        if self.ahead != H2_PREFACE {
            return None;
        }
        let requests = self.signals.requests()?.clone();
        let nothing = ResponseHeader::build_no_case(200, None).ok()?;
        let digest = ProxyDigest::new(Box::new(nothing), Some(Box::new(requests)));
        Some(Arc::new(digest))
    }
}

/// The requests of the HTTP/2 connection that a stream belongs to.
pub(super) fn requests(session: &ServerSession) -> Option<Requests> {
    let digest = session.digest()?.proxy_digest.as_deref()?;
    digest.user_data.as_deref()?.downcast_ref().cloned()
}

impl GetSocketDigest for Connection {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        Some(Arc::clone(&self.digest))
    }
}
