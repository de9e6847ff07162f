//! The stream of an accepted connection.

use tokio::net::{TcpStream, UnixStream};
use tokio_util::either::Either;

/// An accepted connection, over TCP or a Unix socket.
pub type ClientStream = Either<TcpStream, UnixStream>;
