//! A client's socket, which several parts of one task look at: one reads and writes, perhaps inside TLS,
//! another watches for a client that has left.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};
use std::task::{Context, Poll, Waker, ready};

use bytes::BufMut;
use parking_lot::Mutex;
use service::listen::ClientStream;
use service::tls::codec::TlsCodec;
use tokio::io::{Interest, Ready};
use tokio::net::TcpStream;
use tokio_util::either::Either;

/// A client's socket.
#[derive(Debug)]
pub(crate) struct Socket {
    stream: ClientStream,
    /// Never waited for: one task alone uses it.
    tls: Option<Box<Mutex<TlsCodec>>>,
}

macro_rules! each {
    ($socket:expr, $stream:ident => $do:expr) => {
        match &$socket.stream {
            Either::Left($stream) => $do,
            Either::Right($stream) => $do,
        }
    };
}

impl Socket {
    pub(crate) fn new(stream: ClientStream) -> Socket {
        Socket { stream, tls: None }
    }

    /// A socket on which both ends have shaken hands.
    pub(crate) fn inside_tls(stream: ClientStream, codec: TlsCodec) -> Socket {
        Socket {
            stream,
            tls: Some(Box::new(Mutex::new(codec))),
        }
    }

    /// Whether what is said on it is encrypted.
    pub(crate) fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Whether the client has shown a certificate, which was verified.
    pub(crate) fn has_certificate(&self) -> bool {
        let tls = self.tls.as_ref();
        tls.is_some_and(|tls| tls.lock().has_peer_certificate())
    }

    /// The TCP stream that carries the bytes as they are: not a Unix socket, and not inside TLS.
    pub(crate) fn tcp(&self) -> Option<&TcpStream> {
        match &self.stream {
            Either::Left(stream) if self.tls.is_none() => Some(stream),
            _ => None,
        }
    }

    /// Reads into the free space of a buffer. 0 is the end.
    pub(crate) fn poll_read(
        &self,
        context: &mut Context<'_>,
        buffer: &mut impl BufMut,
    ) -> Poll<io::Result<usize>> {
        if let Some(tls) = &self.tls {
            return tls.lock().poll_read(&self.stream, context, buffer);
        }
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
        if let Some(tls) = &self.tls {
            return tls.lock().poll_write(&self.stream, context, slices);
        }
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

    /// Writes what TLS holds back.
    pub(crate) fn poll_flush(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &self.tls {
            None => Poll::Ready(Ok(())),
            Some(tls) => tls.lock().poll_flush(&self.stream, context),
        }
    }

    /// Writes what fits at once, and does not wait.
    pub(crate) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        if self.tls.is_none() {
            return each!(self, stream => stream.try_write(bytes));
        }
        let mut context = Context::from_waker(Waker::noop());
        match self.poll_write(&mut context, &[IoSlice::new(bytes)]) {
            Poll::Ready(written) => written,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
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

    /// How many bytes have arrived and were not read; inside TLS, at most how many.
    pub(crate) fn unread(&self) -> u64 {
        let decrypted = self.tls.as_ref().map_or(0, |tls| tls.lock().unread());
        rustix::io::ioctl_fionread(self).unwrap_or(0) + decrypted as u64
    }

    /// Lets the client's connection be reset when it is closed.
    pub(crate) fn reset_at_close(&self) {
        let linger = Some(std::time::Duration::ZERO);
        let _ = rustix::net::sockopt::set_socket_linger(self, linger);
    }

    /// Says inside TLS that nothing more will be written. Without it the client could not tell an end
    /// from a cut.
    pub(crate) fn announce_end(&self) {
        if let Some(tls) = &self.tls {
            tls.lock().close(&self.stream);
        }
    }

    /// Says that nothing more will be written.
    pub(crate) fn shut_down_writing(&self) {
        self.announce_end();
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
