//! The chunks of a body (RFC 9112 §7.1), as they arrive.

use crate::error::Refusal;

/// The most digits of a chunk's size: more do not fit into 64 bits.
const MAX_DIGITS: u8 = 16;

/// The most bytes of a chunk's extension, and of all trailers.
const MAX_EXTENSION: usize = 4 << 10;
const MAX_TRAILERS: usize = 16 << 10;

/// Where the decoder is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// In the digits of a size, of which there were so many.
    Size { value: u64, digits: u8 },
    /// In the spaces between a size and its extension, which must be read (§7.1.1).
    Space { value: u64, length: usize },
    /// In an extension, of which there were so many bytes.
    Extension { value: u64, length: usize },
    /// After the carriage return of the size's line.
    SizeEnd { value: u64 },
    /// In the data, of which so many bytes are left.
    Data { left: u64 },
    /// After the data.
    DataEnd,
    /// After the carriage return after the data.
    DataEndLine,
    /// At the start of a line of the trailers, or within one.
    Trailer { length: usize, is_start: bool },
    /// After the carriage return of a line of the trailers.
    TrailerEnd { length: usize, is_last: bool },
    /// After the last byte of the body.
    End,
}

/// Reads a chunked body.
#[derive(Debug)]
pub(super) struct ChunkDecoder(State);

/// What comes next in the bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Chunked {
    /// So many bytes are framing, and more must arrive.
    More { framing: usize },
    /// After so many bytes of framing, so many of data.
    Data { framing: usize, data: usize },
    /// After so many bytes of framing the body has ended.
    End { framing: usize },
}

impl ChunkDecoder {
    pub(super) fn new() -> ChunkDecoder {
        ChunkDecoder(State::Size {
            value: 0,
            digits: 0,
        })
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.0 == State::End
    }

    /// Reads as far as the next data. The caller drops the framing, and says with
    /// [`ChunkDecoder::consume`] how much of the data it took.
    pub(super) fn decode(&mut self, bytes: &[u8]) -> Result<Chunked, Refusal> {
        for (framing, &byte) in bytes.iter().enumerate() {
            match self.0 {
                State::Data { left } => {
                    let there = bytes.len() - framing;
                    let data = usize::try_from(left).map_or(there, |left| left.min(there));
                    return Ok(Chunked::Data { framing, data });
                }
                State::End => return Ok(Chunked::End { framing }),
                _ => self.0 = self.0.after(byte).ok_or(Refusal::Body)?,
            }
        }
        let framing = bytes.len();
        Ok(match self.0 {
            State::End => Chunked::End { framing },
            _ => Chunked::More { framing },
        })
    }

    /// So many bytes of the data were taken.
    pub(super) fn consume(&mut self, taken: usize) {
        if let State::Data { left } = &mut self.0 {
            *left = left.saturating_sub(taken as u64);
            if *left == 0 {
                self.0 = State::DataEnd;
            }
        }
    }
}

impl State {
    /// The state after a byte of framing; `None` if it must not be there.
    fn after(self, byte: u8) -> Option<State> {
        Some(match (self, byte) {
            (State::Size { value, digits }, _) if byte.is_ascii_hexdigit() => {
                if digits == MAX_DIGITS {
                    return None;
                }
                let digit = u64::from((byte as char).to_digit(16)?);
                State::Size {
                    value: value << 4 | digit,
                    digits: digits + 1,
                }
            }
            // At least one digit: an empty line is no last chunk.
            (State::Size { digits: 0, .. }, _) => return None,
            (
                State::Size { value, .. }
                | State::Space { value, .. }
                | State::Extension { value, .. },
                b'\r',
            ) => State::SizeEnd { value },
            (State::Size { value, .. } | State::Space { value, .. }, b';') => {
                State::Extension { value, length: 1 }
            }
            (State::Size { value, .. }, b' ' | b'\t') => State::Space { value, length: 1 },
            (State::Space { value, length }, b' ' | b'\t') if length < MAX_EXTENSION => {
                State::Space {
                    value,
                    length: length + 1,
                }
            }
            (State::Extension { value, length }, _) if is_text(byte) && length < MAX_EXTENSION => {
                State::Extension {
                    value,
                    length: length + 1,
                }
            }
            (State::SizeEnd { value: 0 }, b'\n') => State::Trailer {
                length: 0,
                is_start: true,
            },
            (State::SizeEnd { value }, b'\n') => State::Data { left: value },
            (State::DataEnd, b'\r') => State::DataEndLine,
            (State::DataEndLine, b'\n') => State::Size {
                value: 0,
                digits: 0,
            },
            (State::Trailer { length, is_start }, b'\r') => State::TrailerEnd {
                length,
                is_last: is_start,
            },
            (State::Trailer { length, .. }, _) if is_text(byte) && length < MAX_TRAILERS => {
                State::Trailer {
                    length: length + 1,
                    is_start: false,
                }
            }
            (State::TrailerEnd { is_last: true, .. }, b'\n') => State::End,
            (State::TrailerEnd { length, .. }, b'\n') => State::Trailer {
                length,
                is_start: true,
            },
            _ => return None,
        })
    }
}

/// A byte of a line: no control character but tab.
fn is_text(byte: u8) -> bool {
    byte == b'\t' || !byte.is_ascii_control()
}

/// Writes the line before a chunk of this size.
pub(super) fn size_line(out: &mut bytes::BytesMut, size: usize) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = (usize::BITS - size.max(1).leading_zeros()).div_ceil(4);
    for place in (0..digits).rev() {
        out.extend_from_slice(&[DIGITS[size >> (4 * place) & 0xf]]);
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests;
