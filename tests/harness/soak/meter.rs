//! Follows the messages in a stream of HTTP/1.1 bytes without changing them.

use anyhow::{Context, Result, ensure};

use super::observation::KEPT;

/// The longest head.
const LONGEST_HEAD: usize = 64 << 10;

/// The start line and the headers of a message.
#[derive(Clone, Debug, Default)]
pub(crate) struct MessageHead {
    pub(crate) first_line: String,
    headers: Vec<(String, String)>,
}

/// One direction of a connection.
#[derive(Debug, Default)]
pub(crate) struct MessageMeter {
    part: MessagePart,
    line: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum MessagePart {
    #[default]
    Head,
    /// So much of the body, or of a chunk, is left.
    Body(u64),
    Chunk(u64),
    ChunkSize,
    ChunkEnd,
    Trailers,
    UntilClose,
}

/// What bytes were.
pub(crate) enum MessageEvent<'b> {
    Head(MessageHead),
    Body(&'b [u8]),
    End,
}

/// How a body is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyFraming {
    None,
    Length(u64),
    Chunked,
    UntilClose,
}

impl MessageHead {
    fn parse(text: &str) -> Result<Self> {
        let mut lines = text.split("\r\n");
        let first_line = lines.next().unwrap_or_default().to_owned();
        let headers = lines.map(|line| {
            let (name, value) = line.split_once(':').context("no colon in a header")?;
            Ok((name.to_ascii_lowercase(), value.trim().to_owned()))
        });
        Ok(Self {
            first_line,
            headers: headers.collect::<Result<_>>()?,
        })
    }

    /// A header, by its name in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let mut headers = self.headers.iter();
        let (_, value) = headers.find(|(key, _)| key == name)?;
        Some(value.clone())
    }

    /// The framing that the headers tell of; without any a request has no body.
    pub(crate) fn framing(&self, without: BodyFraming) -> BodyFraming {
        if self.header("transfer-encoding").is_some() {
            return BodyFraming::Chunked;
        }
        let length = self.header("content-length");
        match length.and_then(|length| length.parse().ok()) {
            Some(0) => BodyFraming::None,
            Some(length) => BodyFraming::Length(length),
            None => without,
        }
    }

    /// The status of a response.
    pub(crate) fn status(&self) -> Result<u16> {
        let status = self.first_line.split(' ').nth(1).context("no status")?;
        Ok(status.parse()?)
    }
}

impl MessageMeter {
    /// The stream's next bytes. `see` returns the framing of the body after a head.
    pub(crate) fn feed(
        &mut self,
        mut bytes: &[u8],
        mut see: impl FnMut(MessageEvent<'_>) -> Result<BodyFraming>,
    ) -> Result<()> {
        while !bytes.is_empty() {
            match self.part {
                MessagePart::Body(left) | MessagePart::Chunk(left) => {
                    let length = usize::try_from(left).map_or(bytes.len(), |l| l.min(bytes.len()));
                    let (piece, rest) = bytes.split_at(length);
                    bytes = rest;
                    see(MessageEvent::Body(piece))?;
                    let left = left - length as u64;
                    self.part = match (self.part, left) {
                        (MessagePart::Chunk(_), 0) => MessagePart::ChunkEnd,
                        (MessagePart::Chunk(_), left) => MessagePart::Chunk(left),
                        (_, 0) => {
                            see(MessageEvent::End)?;
                            MessagePart::Head
                        }
                        (_, left) => MessagePart::Body(left),
                    };
                }
                MessagePart::UntilClose => {
                    see(MessageEvent::Body(bytes))?;
                    bytes = &[];
                }
                MessagePart::Head => bytes = self.head(bytes, &mut see)?,
                MessagePart::ChunkSize | MessagePart::ChunkEnd | MessagePart::Trailers => {
                    bytes = self.line(bytes, &mut see)?;
                }
            }
        }
        Ok(())
    }

    /// Whether a body lasts until the end of the connection.
    pub(crate) fn lasts_until_close(&self) -> bool {
        self.part == MessagePart::UntilClose
    }

    fn head<'b>(
        &mut self,
        bytes: &'b [u8],
        see: &mut impl FnMut(MessageEvent<'_>) -> Result<BodyFraming>,
    ) -> Result<&'b [u8]> {
        let mut rest = bytes;
        while let Some((byte, after)) = rest.split_first() {
            rest = after;
            self.line.push(*byte);
            if self.line.ends_with(b"\r\n\r\n") {
                let line = std::mem::take(&mut self.line);
                let text = std::str::from_utf8(&line[..line.len() - 4])?;
                let head = MessageHead::parse(text)?;
                self.part = match see(MessageEvent::Head(head))? {
                    BodyFraming::None => {
                        see(MessageEvent::End)?;
                        MessagePart::Head
                    }
                    BodyFraming::Length(length) => MessagePart::Body(length),
                    BodyFraming::Chunked => MessagePart::ChunkSize,
                    BodyFraming::UntilClose => MessagePart::UntilClose,
                };
                return Ok(rest);
            }
        }
        ensure!(self.line.len() < LONGEST_HEAD, "a head without an end");
        Ok(rest)
    }

    fn line<'b>(
        &mut self,
        bytes: &'b [u8],
        see: &mut impl FnMut(MessageEvent<'_>) -> Result<BodyFraming>,
    ) -> Result<&'b [u8]> {
        let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
            self.line.extend_from_slice(bytes);
            ensure!(self.line.len() < LONGEST_HEAD, "a line without an end");
            return Ok(&[]);
        };
        let (start, rest) = bytes.split_at(end + 1);
        self.line.extend_from_slice(start);
        let line = std::mem::take(&mut self.line);
        let text = std::str::from_utf8(&line)?.trim_end();
        self.part = match self.part {
            MessagePart::ChunkEnd => MessagePart::ChunkSize,
            MessagePart::ChunkSize => {
                let size = text.split(';').next().unwrap_or_default();
                match u64::from_str_radix(size, 16).context("no size of a chunk")? {
                    0 => MessagePart::Trailers,
                    size => MessagePart::Chunk(size),
                }
            }
            _ if text.is_empty() => {
                see(MessageEvent::End)?;
                MessagePart::Head
            }
            part => part,
        };
        Ok(rest)
    }
}

/// Appends what is kept of a body for the books.
pub(crate) fn keep(kept: &mut Vec<u8>, piece: &[u8]) {
    let room = KEPT.saturating_sub(kept.len()).min(piece.len());
    kept.extend_from_slice(&piece[..room]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_followed_in_any_pieces() {
        let stream =
            b"POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x\r\nde\r\n\
            0\r\n\r\nPUT /b HTTP/1.1\r\nContent-Length: 3\r\n\r\nfghGET /c HTTP/1.1\r\n\r\n";
        for size in [1, 2, 3, 7, 1000] {
            let mut meter = MessageMeter::default();
            let (mut heads, mut body, mut ends) = (Vec::new(), Vec::new(), 0);
            for piece in stream.chunks(size) {
                let fed = meter.feed(piece, |event| {
                    match event {
                        MessageEvent::Head(head) => {
                            heads.push(head.first_line.clone());
                            return Ok(head.framing(BodyFraming::None));
                        }
                        MessageEvent::Body(piece) => body.extend_from_slice(piece),
                        MessageEvent::End => ends += 1,
                    }
                    Ok(BodyFraming::None)
                });
                fed.unwrap();
            }
            assert_eq!(
                heads,
                ["POST /a HTTP/1.1", "PUT /b HTTP/1.1", "GET /c HTTP/1.1"]
            );
            assert_eq!((body.as_slice(), ends), (&b"abcdefgh"[..], 3));
        }
    }
}
