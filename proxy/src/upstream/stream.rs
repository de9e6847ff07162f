//! A connection to an upstream.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::BytesMut;
use rustix::io::Errno;
use rustix::net::RecvFlags;
use tokio::io::AsyncWrite as _;
use tokio::net::{TcpStream, UnixStream};
use tokio_util::io::poll_read_buf;

/// A connection to an upstream.
#[derive(Debug)]
pub(crate) enum UpstreamStream {
    /// To another process or machine.
    Tcp(TcpStream),
    /// To another process of this machine.
    Unix(UnixStream),
}

macro_rules! each {
    ($stream:expr, $each:ident => $do:expr) => {
        match $stream {
            UpstreamStream::Tcp($each) => $do,
            UpstreamStream::Unix($each) => $do,
        }
    };
}

impl UpstreamStream {
    /// Reads into the free space of a buffer. 0 is the end.
    pub(crate) fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut BytesMut,
    ) -> Poll<io::Result<usize>> {
        each!(self, stream => poll_read_buf(Pin::new(stream), context, buffer))
    }

    /// Writes some of the bytes.
    pub(crate) fn poll_write(
        &mut self,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // One slice is sent by a cheaper system call than several.
        each!(self, stream => match slices {
            [slice] => Pin::new(stream).poll_write(context, slice),
            slices => Pin::new(stream).poll_write_vectored(context, slices),
        })
    }

    /// Writes what was taken and is held back.
    pub(crate) fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_flush(context))
    }

    /// Whether an idle connection can carry a request: the upstream has neither closed it nor sent
    /// anything. Mostly the runtime knows, and no system call is made.
    pub(crate) fn is_idle(&self) -> bool {
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
        }
    }

    /// An idle connection of another runtime, for the one that this is called in; `None` if the upstream
    /// has closed it, or the kernel refuses.
    pub(crate) fn moved_here(self) -> Option<UpstreamStream> {
        let stream = match self {
            UpstreamStream::Tcp(stream) => {
                UpstreamStream::Tcp(TcpStream::from_std(stream.into_std().ok()?).ok()?)
            }
            UpstreamStream::Unix(stream) => {
                UpstreamStream::Unix(UnixStream::from_std(stream.into_std().ok()?).ok()?)
            }
        };
        // What this runtime has not seen yet, the kernel knows.
        let read = each!(&stream, stream => rustix::net::recv(
            stream,
            &mut [0],
            RecvFlags::PEEK | RecvFlags::DONTWAIT,
        ));
        matches!(read, Err(Errno::AGAIN)).then_some(stream)
    }

    /// The TCP stream, unless it is of another kind.
    pub(crate) fn tcp(&self) -> Option<&TcpStream> {
        match self {
            UpstreamStream::Tcp(stream) => Some(stream),
            UpstreamStream::Unix(_) => None,
        }
    }
}
