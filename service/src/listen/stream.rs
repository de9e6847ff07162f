//! The stream of an accepted connection.

use std::io;
use std::net::TcpStream as StdTcpStream;
use std::os::unix::net::UnixStream as StdUnixStream;

use tokio::net::{TcpStream, UnixStream};
use tokio_util::either::Either;

/// An accepted connection, over TCP or a Unix socket.
pub type ClientStream = Either<TcpStream, UnixStream>;

/// A connection on its way from one runtime to another.
#[derive(Debug)]
pub struct DetachedStream(Either<StdTcpStream, StdUnixStream>);

impl DetachedStream {
    /// Takes a connection from its runtime.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn detach(stream: ClientStream) -> io::Result<DetachedStream> {
        Ok(DetachedStream(match stream {
            Either::Left(stream) => Either::Left(stream.into_std()?),
            Either::Right(stream) => Either::Right(stream.into_std()?),
        }))
    }

    /// Gives it to the runtime that this is called in.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn attach(self) -> io::Result<ClientStream> {
        Ok(match self.0 {
            Either::Left(stream) => Either::Left(TcpStream::from_std(stream)?),
            Either::Right(stream) => Either::Right(UnixStream::from_std(stream)?),
        })
    }
}
