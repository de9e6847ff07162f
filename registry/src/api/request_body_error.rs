//! Why a request's body did not arrive.

/// Why a request's body could not be read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum RequestBodyError {
    /// The body has fewer or more bytes than declared, or malformed chunks.
    #[error("the request body does not have the length that its headers declare")]
    Length,
    /// No byte arrived for too long.
    #[error("the request body stalled")]
    Stalled,
    /// The client closed the connection or reset the stream.
    #[error("the client closed the connection")]
    Gone,
}
