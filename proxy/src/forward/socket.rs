//! A client's socket, which several parts of one task look at: one reads and writes, another watches
//! for a client that has left.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};
use std::task::{Context, Poll, ready};

use bytes::BufMut;
use service::listen::ClientStream;
use tokio::io::{Interest, Ready};
use tokio::net::TcpStream;
use tokio_util::either::Either;

/// A client's socket.
#[derive(Debug)]
pub(crate) struct Socket(ClientStream);

macro_rules! each {
    ($socket:expr, $stream:ident => $do:expr) => {
        match &$socket.0 {
            Either::Left($stream) => $do,
            Either::Right($stream) => $do,
        }
    };
}

impl Socket {
    pub(crate) fn new(stream: ClientStream) -> Socket {
        Socket(stream)
    }

    /// The TCP stream, unless it is a Unix socket.
    pub(crate) fn tcp(&self) -> Option<&TcpStream> {
        match &self.0 {
            Either::Left(stream) => Some(stream),
            Either::Right(_) => None,
        }
    }

    /// Reads into the free space of a buffer. 0 is the end.
    pub(crate) fn poll_read(
        &self,
        context: &mut Context<'_>,
        buffer: &mut impl BufMut,
    ) -> Poll<io::Result<usize>> {
        let room = buffer.chunk_mut().len();
        loop {
            ready!(each!(self, stream => stream.poll_read_ready(context)))?;
            let mut read = Err(io::ErrorKind::WouldBlock.into());
            // The outer call only tells the runtime that a short read emptied the socket, which saves
            // the system call that would find it empty.
            let _ = each!(self, stream => stream.try_io(Interest::READABLE, || {
                read = stream.try_read_buf(buffer);
                match &read {
                    Ok(length) if *length == 0 || *length == room => Ok(()),
                    _ => Err(io::Error::from(io::ErrorKind::WouldBlock)),
                }
            }));
            match read {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return Poll::Ready(read),
            }
        }
    }

    pub(crate) fn poll_write(
        &self,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(each!(self, stream => stream.poll_write_ready(context)))?;
            // One slice is sent by a cheaper system call than several.
            let written = match slices {
                [slice] => self.try_write(slice),
                slices => each!(self, stream => stream.try_write_vectored(slices)),
            };
            match written {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
    }

    /// Writes what fits at once, and does not wait.
    pub(crate) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        each!(self, stream => stream.try_write(bytes))
    }

    /// Waits until the client closes its sending half, whatever is unread; returns whether it can't
    /// receive any more, either. Cancel safe.
    pub(crate) async fn closed(&self) -> Closed {
        // The interest in priority data is the one that a closed sending half satisfies.
        let interest = Interest::PRIORITY | Interest::ERROR;
        match each!(self, stream => stream.ready(interest).await) {
            Ok(ready) if !ready.is_error() && !self.is_reset() => Closed::Sending,
            _ => Closed::Both,
        }
    }

    /// Waits until the connection is reset. Cancel safe.
    pub(crate) async fn reset(&self) -> Closed {
        let _ = each!(self, stream => stream.ready(Interest::ERROR).await);
        Closed::Both
    }

    /// Whether the runtime knows that the client can receive nothing more.
    fn is_reset(&self) -> bool {
        use futures_util::FutureExt as _;
        let interest = Interest::WRITABLE | Interest::ERROR;
        let ready = each!(self, stream => stream.ready(interest).now_or_never());
        let closed = |ready: Ready| ready.is_write_closed() || ready.is_error();
        ready.is_some_and(|ready| ready.is_ok_and(closed))
    }

    /// How many bytes have arrived and were not read.
    pub(crate) fn unread(&self) -> u64 {
        rustix::io::ioctl_fionread(self).unwrap_or(0)
    }

    /// Lets the client's connection be reset when it is closed.
    pub(crate) fn reset_at_close(&self) {
        let linger = Some(std::time::Duration::ZERO);
        let _ = rustix::net::sockopt::set_socket_linger(self, linger);
    }

    /// Says that nothing more will be written.
    pub(crate) fn shut_down_writing(&self) {
        // The client may be gone already.
        let _ = rustix::net::shutdown(self, rustix::net::Shutdown::Write);
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        each!(self, stream => stream.as_fd())
    }
}

/// What a client has closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Closed {
    /// It sends nothing more, but may wait for a response.
    Sending,
    /// The connection is gone.
    Both,
}
