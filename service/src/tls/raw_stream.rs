//! A socket as [`TlsCodec`](super::codec::TlsCodec) uses it.

use std::io::{self, IoSlice};
use std::os::fd::AsFd;
use std::task::{Context, Poll};

use rustix::net::RecvFlags;
use tokio::io::Interest;
use tokio::net::{TcpStream, UnixStream};
use tokio_util::either::Either;

/// A socket that is read and written without a wait.
pub trait RawStream {
    /// Ready once there may be something to read.
    fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Ready once something may be written.
    fn poll_writable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Reads what is there. 0 is the end.
    fn try_receive(&self, buffer: &mut [u8]) -> io::Result<usize>;

    /// Writes what fits.
    fn try_send(&self, slices: &[IoSlice<'_>]) -> io::Result<usize>;
}

/// A socket whose runtime does not know yet what has arrived.
pub struct Unseen<'s, S>(pub &'s S);

impl<S: AsFd> RawStream for Unseen<'_, S> {
    fn poll_readable(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }

    fn poll_writable(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }

    fn try_receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        receive_now(self.0, buffer)
    }

    fn try_send(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        Ok(rustix::io::writev(self.0, slices)?)
    }
}

fn receive_now(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<usize> {
    let (length, _) = rustix::net::recv(socket, buffer, RecvFlags::DONTWAIT)?;
    Ok(length)
}

macro_rules! raw_stream {
    ($stream:ty) => {
        impl RawStream for $stream {
            fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
                self.poll_read_ready(context)
            }

            fn poll_writable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
                self.poll_write_ready(context)
            }

            fn try_receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
                let room = buffer.len();
                let mut read = Err(io::ErrorKind::WouldBlock.into());
                // The outer call only tells the runtime that a short read emptied the socket, which saves
                // the system call that would find it empty.
                let _ = self.try_io(Interest::READABLE, || {
                    read = receive_now(self, buffer);
                    match &read {
                        Ok(length) if *length == 0 || *length == room => Ok(()),
                        _ => Err(io::Error::from(io::ErrorKind::WouldBlock)),
                    }
                });
                read
            }

            fn try_send(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
                // One slice is sent by a cheaper system call than several.
                match slices {
                    [slice] => self.try_write(slice),
                    slices => self.try_write_vectored(slices),
                }
            }
        }
    };
}

raw_stream!(TcpStream);
raw_stream!(UnixStream);

impl<L: RawStream, R: RawStream> RawStream for Either<L, R> {
    fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Either::Left(stream) => stream.poll_readable(context),
            Either::Right(stream) => stream.poll_readable(context),
        }
    }

    fn poll_writable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Either::Left(stream) => stream.poll_writable(context),
            Either::Right(stream) => stream.poll_writable(context),
        }
    }

    fn try_receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Either::Left(stream) => stream.try_receive(buffer),
            Either::Right(stream) => stream.try_receive(buffer),
        }
    }

    fn try_send(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Either::Left(stream) => stream.try_send(slices),
            Either::Right(stream) => stream.try_send(slices),
        }
    }
}
