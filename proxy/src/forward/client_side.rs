//! What forwarding needs of a client, whichever version of HTTP it speaks.

use std::task::{Context, Poll};

use tokio::net::TcpStream;

use super::framing::ResponseHead;
use crate::error::Failure;

/// The client's side of one exchange. The socket lives for `'s`.
pub(super) trait ClientSide<'s> {
    /// The next bytes of the request's body, as they are there; none at its end.
    fn poll_body(&mut self, context: &mut Context<'_>) -> Poll<Result<&[u8], Failure>>;

    /// So many bytes of the last piece of the body were used.
    fn consume_body(&mut self, used: usize);

    /// The socket that so many bytes of the body are still to be read from, if nothing but them is.
    fn body_source(&self) -> Option<(&'s TcpStream, u64)>;

    /// So many bytes of the body were read from the socket.
    fn body_moved(&mut self, bytes: usize);

    /// The socket that the response's body may be written to as it is.
    fn body_sink(&self) -> Option<&'s TcpStream>;

    /// Whether the whole body was read.
    fn is_body_whole(&self) -> bool;

    /// Whether the rest of the body can still arrive from a client that sends nothing more. So many bytes
    /// of it were taken from the socket, and are on their way.
    fn can_body_arrive(&self, on_their_way: usize) -> bool;

    /// Sends a 1xx response, if the client can get one.
    fn interim(&mut self, head: &ResponseHead);

    /// Begins the response. Its head may wait for the first piece of its body.
    fn begin_response(&mut self, head: ResponseHead) -> Result<(), Failure>;

    /// Sends some of a piece of the response's body, which must not be empty.
    fn poll_send(
        &mut self,
        context: &mut Context<'_>,
        piece: &[u8],
    ) -> Poll<Result<usize, Failure>>;

    /// Sends what is held back.
    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Failure>>;

    /// Ends the response's body, once.
    fn end(&mut self) -> Result<(), Failure>;

    /// Lets the client see that its response is cut off, or will not come.
    fn abort(&mut self);

    /// Ready once the client can't receive anything more.
    fn poll_left(&mut self, context: &mut Context<'_>) -> Poll<()>;

    /// Whether the client sends nothing more, but may wait for its response: known from
    /// [`ClientSide::poll_left`].
    fn is_half_closed(&self) -> bool;
}
