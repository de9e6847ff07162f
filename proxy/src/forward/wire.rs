//! The bodies of HTTP/1.1 messages on their way through a connection, in either direction.
//!
//! A body is read into one reused buffer and written from there: a piece is copied nowhere else.

use std::io::{self, IoSlice};
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BytesMut};

use super::buffers::{self, SMALL};
use super::chunked::{ChunkDecoder, Chunked, size_line};
use super::framing::BodyLength;
use super::socket::Socket;
use crate::error::Refusal;

/// How much is read at a time of a long body: more makes no difference.
const LARGE: usize = 128 << 10;

/// A piece that is not longer is copied behind what is to be written before it: that takes less time
/// than the kernel needs for two slices.
const COPIED: usize = 4 << 10;

/// A connection's bytes.
pub(super) trait Io {
    /// Reads into the free space of the buffer. 0 is the end.
    fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut BytesMut,
    ) -> Poll<io::Result<usize>>;

    /// Writes some of the bytes.
    fn poll_write(
        &mut self,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>>;

    /// Writes what was taken and is held back.
    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>>;
}

impl Io for &Socket {
    fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut BytesMut,
    ) -> Poll<io::Result<usize>> {
        Socket::poll_read(self, context, buffer)
    }

    fn poll_write(
        &mut self,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Socket::poll_write(self, context, slices)
    }

    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Socket::poll_flush(self, context)
    }
}

/// Why a body can't be read to its end.
#[derive(Debug)]
pub(super) enum BodyError {
    /// The connection ended or failed first.
    Cut,
    /// It is malformed.
    Malformed(Refusal),
}

/// What is left of a body that is read.
#[derive(Debug)]
enum Left {
    Known(u64),
    Chunked(ChunkDecoder),
    UntilClose,
}

/// What was read of a connection and not used yet, and the body that is read from it.
#[derive(Debug)]
pub(super) struct Incoming {
    pub(super) buffer: BytesMut,
    left: Left,
}

impl Incoming {
    pub(super) fn new(buffer: BytesMut) -> Incoming {
        Incoming {
            buffer,
            left: Left::Known(0),
        }
    }

    /// A body of this length comes next.
    pub(super) fn begin(&mut self, length: BodyLength) {
        self.left = match length {
            BodyLength::None => Left::Known(0),
            BodyLength::Known(length) => Left::Known(length),
            BodyLength::Chunked => Left::Chunked(ChunkDecoder::new()),
            BodyLength::UntilClose => Left::UntilClose,
        };
    }

    /// Reads more; 0 is the end of the connection.
    pub(super) fn poll_fill(
        &mut self,
        io: &mut impl Io,
        context: &mut Context<'_>,
        size: usize,
    ) -> Poll<io::Result<usize>> {
        if self.buffer.capacity() == 0 {
            self.buffer = buffers::take();
        }
        self.buffer.reserve(size);
        io.poll_read(context, &mut self.buffer)
    }

    /// The next bytes of the body, as they are there; none at its end.
    pub(super) fn poll_piece(
        &mut self,
        io: &mut impl Io,
        context: &mut Context<'_>,
    ) -> Poll<Result<&[u8], BodyError>> {
        loop {
            let there = match &mut self.left {
                Left::Known(0) => return Poll::Ready(Ok(&[])),
                Left::Known(left) => {
                    let there = self.buffer.len();
                    usize::try_from(*left).map_or(there, |left| left.min(there))
                }
                Left::Chunked(decoder) => {
                    match decoder.decode(&self.buffer).map_err(BodyError::Malformed)? {
                        Chunked::Data { framing, data } => {
                            self.buffer.advance(framing);
                            data
                        }
                        Chunked::More { framing } => {
                            self.buffer.advance(framing);
                            0
                        }
                        Chunked::End { framing } => {
                            self.buffer.advance(framing);
                            return Poll::Ready(Ok(&[]));
                        }
                    }
                }
                Left::UntilClose => self.buffer.len(),
            };
            if there > 0 {
                return Poll::Ready(Ok(&self.buffer[..there]));
            }
            let size = match self.left {
                Left::Known(left) if left <= SMALL as u64 => SMALL,
                _ => LARGE,
            };
            match ready!(self.poll_fill(io, context, size)) {
                Ok(0) if matches!(self.left, Left::UntilClose) => {
                    self.left = Left::Known(0);
                }
                Ok(0) | Err(_) => return Poll::Ready(Err(BodyError::Cut)),
                Ok(_) => {}
            }
        }
    }

    /// So many bytes of the last piece were used.
    pub(super) fn consume(&mut self, used: usize) {
        self.buffer.advance(used);
        self.moved(used as u64);
    }

    /// So many bytes of the body passed, without having been in the buffer.
    pub(super) fn moved(&mut self, bytes: u64) {
        match &mut self.left {
            Left::Known(left) => *left = left.saturating_sub(bytes),
            // Chunks are never larger than what a buffer had of them.
            Left::Chunked(decoder) => decoder.consume(usize::try_from(bytes).unwrap_or(usize::MAX)),
            Left::UntilClose => {}
        }
    }

    /// Whether the whole body was read.
    pub(super) fn is_whole(&self) -> bool {
        match &self.left {
            Left::Known(left) => *left == 0,
            Left::Chunked(decoder) => decoder.is_at_end(),
            Left::UntilClose => false,
        }
    }

    /// How many bytes of a body of known length are still to be read, if none of them was read ahead.
    pub(super) fn on_socket(&self) -> Option<u64> {
        self.missing().filter(|_| self.buffer.is_empty())
    }

    /// How many bytes of a body of known length are still to be read from the socket.
    pub(super) fn missing(&self) -> Option<u64> {
        match self.left {
            Left::Known(left) => Some(left.saturating_sub(self.buffer.len() as u64)),
            _ => None,
        }
    }

    /// Gives an empty buffer back.
    pub(super) fn release(&mut self) {
        if self.buffer.is_empty() {
            buffers::give(std::mem::take(&mut self.buffer));
        }
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        buffers::give(std::mem::take(&mut self.buffer));
    }
}

/// How the body that is written is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Delimiter {
    /// By its length, or by the end of the connection.
    None,
    /// By chunks, the current one of which has so many bytes left.
    Chunks { left: usize },
}

/// What is to be written to a connection: heads and the lines of chunks, before the next piece of a
/// body.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) buffer: BytesMut,
    delimiter: Delimiter,
}

impl Outgoing {
    pub(super) fn new() -> Outgoing {
        Outgoing {
            buffer: BytesMut::new(),
            delimiter: Delimiter::None,
        }
    }

    /// Where a head is written to.
    pub(super) fn head(&mut self) -> &mut BytesMut {
        if self.buffer.capacity() == 0 {
            self.buffer = buffers::take();
        }
        &mut self.buffer
    }

    /// A body comes next, in chunks or not.
    pub(super) fn begin(&mut self, is_chunked: bool) {
        self.delimiter = if is_chunked {
            Delimiter::Chunks { left: 0 }
        } else {
            Delimiter::None
        };
    }

    /// Writes some of a piece, after what is to be written before it. The piece must not be empty.
    pub(super) fn poll_send(
        &mut self,
        io: &mut impl Io,
        context: &mut Context<'_>,
        mut piece: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Delimiter::Chunks { left } = &mut self.delimiter {
            if *left == 0 {
                size_line(&mut self.buffer, piece.len());
                *left = piece.len();
            }
            // A later call may have more than the chunk was begun with.
            piece = &piece[..piece.len().min(*left)];
        }
        loop {
            let before = self.buffer.len();
            let written = if before == 0 {
                io.poll_write(context, &[IoSlice::new(piece)])
            } else if piece.len() <= COPIED {
                self.buffer.extend_from_slice(piece);
                let written = io.poll_write(context, &[IoSlice::new(&self.buffer)]);
                self.buffer.truncate(before);
                written
            } else {
                io.poll_write(context, &[IoSlice::new(&self.buffer), IoSlice::new(piece)])
            };
            let written = ready!(written)?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let before = written.min(before);
            self.buffer.advance(before);
            let sent = written - before;
            if sent > 0 {
                if let Delimiter::Chunks { left } = &mut self.delimiter {
                    *left -= sent;
                    if *left == 0 {
                        self.buffer.extend_from_slice(b"\r\n");
                    }
                }
                return Poll::Ready(Ok(sent));
            }
        }
    }

    /// Whether bytes of the body may be written past this.
    pub(super) fn is_plain(&self) -> bool {
        self.delimiter == Delimiter::None && self.buffer.is_empty()
    }

    /// The body has ended.
    pub(super) fn end(&mut self) {
        if matches!(self.delimiter, Delimiter::Chunks { .. }) {
            self.buffer.extend_from_slice(b"0\r\n\r\n");
        }
        self.delimiter = Delimiter::None;
    }

    /// Writes all that is buffered.
    pub(super) fn poll_flush(
        &mut self,
        io: &mut impl Io,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while !self.buffer.is_empty() {
            let written = ready!(io.poll_write(context, &[IoSlice::new(&self.buffer)]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.buffer.advance(written);
        }
        io.poll_flush(context)
    }

    /// Gives an empty buffer back.
    pub(super) fn release(&mut self) {
        if self.buffer.is_empty() {
            buffers::give(std::mem::take(&mut self.buffer));
        }
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        buffers::give(std::mem::take(&mut self.buffer));
    }
}

#[cfg(test)]
mod tests;
