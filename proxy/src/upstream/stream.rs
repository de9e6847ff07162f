//! A connection to an upstream.

use std::io::{self, IoSlice};
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::BytesMut;
use rustix::io::Errno;
use rustix::net::RecvFlags;
use tokio::io::AsyncWrite as _;
use tokio::net::{TcpStream, UnixStream};
use tokio_util::io::poll_read_buf;

use super::tls::UpstreamTlsStream;

/// A connection to an upstream.
#[derive(Debug)]
pub(crate) enum UpstreamStream {
    /// To another process or machine.
    Tcp(TcpStream),
    /// To another process of this machine.
    Unix(UnixStream),
    /// Inside TLS. Boxed: the others would be as large otherwise.
    Tls(Box<UpstreamTlsStream>),
}

impl UpstreamStream {
    /// Reads into the free space of a buffer. 0 is the end.
    pub(crate) fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut BytesMut,
    ) -> Poll<io::Result<usize>> {
        match self {
            UpstreamStream::Tcp(stream) => poll_read_buf(Pin::new(stream), context, buffer),
            UpstreamStream::Unix(stream) => poll_read_buf(Pin::new(stream), context, buffer),
            UpstreamStream::Tls(stream) => stream.poll_read(context, buffer),
        }
    }

    /// Writes some of the bytes.
    pub(crate) fn poll_write(
        &mut self,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // One slice is sent by a cheaper system call than several.
        match (self, slices) {
            (UpstreamStream::Tcp(stream), [slice]) => Pin::new(stream).poll_write(context, slice),
            (UpstreamStream::Tcp(stream), slices) => {
                Pin::new(stream).poll_write_vectored(context, slices)
            }
            (UpstreamStream::Unix(stream), [slice]) => Pin::new(stream).poll_write(context, slice),
            (UpstreamStream::Unix(stream), slices) => {
                Pin::new(stream).poll_write_vectored(context, slices)
            }
            (UpstreamStream::Tls(stream), slices) => stream.poll_write(context, slices),
        }
    }

    /// Hands to the socket what TLS holds back.
    pub(crate) fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            UpstreamStream::Tcp(_) | UpstreamStream::Unix(_) => Poll::Ready(Ok(())),
            UpstreamStream::Tls(stream) => stream.poll_flush(context),
        }
    }

    /// Whether an idle connection can carry a request: the upstream has neither closed it nor sent
    /// anything. Mostly the runtime knows, and no system call is made.
    pub(crate) fn is_idle(&mut self) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        let nothing_there = |read: io::Result<usize>| {
            read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
        };
        match self {
            UpstreamStream::Tcp(stream) => {
                stream.poll_read_ready(&mut context).is_pending()
                    || nothing_there(stream.try_read(&mut [0]))
            }
            UpstreamStream::Unix(stream) => {
                stream.poll_read_ready(&mut context).is_pending()
                    || nothing_there(stream.try_read(&mut [0]))
            }
            UpstreamStream::Tls(stream) => stream.is_idle(),
        }
    }

    /// An idle connection of another runtime, for the one that this is called in; `None` if the upstream
    /// has closed it, or the kernel refuses.
    pub(crate) fn moved_here(self) -> Option<UpstreamStream> {
        // What this runtime has not seen yet, the kernel knows.
        match self {
            UpstreamStream::Tcp(stream) => {
                let stream = TcpStream::from_std(stream.into_std().ok()?).ok()?;
                is_silent(&stream).then_some(UpstreamStream::Tcp(stream))
            }
            UpstreamStream::Unix(stream) => {
                let stream = UnixStream::from_std(stream.into_std().ok()?).ok()?;
                is_silent(&stream).then_some(UpstreamStream::Unix(stream))
            }
            UpstreamStream::Tls(stream) => {
                let stream = Box::new(stream.moved_here()?);
                Some(UpstreamStream::Tls(stream))
            }
        }
    }

    /// The TCP stream, unless it is of another kind.
    pub(crate) fn tcp(&self) -> Option<&TcpStream> {
        match self {
            UpstreamStream::Tcp(stream) => Some(stream),
            UpstreamStream::Unix(_) | UpstreamStream::Tls(_) => None,
        }
    }
}

/// Whether the other end has neither closed a socket nor sent anything.
fn is_silent(socket: impl AsFd) -> bool {
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    let read = rustix::net::recv(socket, &mut [0], flags);
    matches!(read, Err(Errno::AGAIN))
}
