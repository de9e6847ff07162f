//! HTTP/2 frame by frame, for what no client library does: to never read, to ignore what the server
//! says, or to send fields that a library refuses.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::net::TcpStream;

use crate::wire::Wire;

/// The largest flow-control window (RFC 9113 §6.9.1).
const WINDOW: u32 = (1 << 31) - 1;

/// The window of a connection at its start.
const FIRST_WINDOW: u32 = (1 << 16) - 1;

// Types of frames (RFC 9113 §6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const WINDOW_UPDATE: u8 = 8;

/// The flag of the last frame of a body.
const END_STREAM: u8 = 0x1;

/// The flags of a header block that is all of its request.
const END_STREAM_AND_HEADERS: u8 = 0x1 | 0x4;

/// One connection, whose flow control never stops the server.
pub struct Frames {
    wire: Wire,
    next: u32,
}

/// How the server responds to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// With this status.
    Status(u16),
    /// By resetting the stream.
    Reset,
    /// By ending the connection.
    Closed,
}

impl Frames {
    /// Connects.
    ///
    /// # Errors
    /// If the connection fails.
    pub async fn connect(address: SocketAddr) -> Result<Self> {
        Self::over(TcpStream::connect(address).await?).await
    }

    /// Begins HTTP/2 on an open connection.
    ///
    /// # Errors
    /// If it is closed.
    pub async fn over(stream: TcpStream) -> Result<Self> {
        let mut wire = Wire::over(stream)?;
        let mut first = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        // SETTINGS_INITIAL_WINDOW_SIZE
        let window = [&[0, 4][..], &WINDOW.to_be_bytes()].concat();
        first.extend(frame(SETTINGS, 0, 0, &window)?);
        let more = WINDOW - FIRST_WINDOW;
        first.extend(frame(WINDOW_UPDATE, 0, 0, &more.to_be_bytes())?);
        wire.send(&first).await?;
        Ok(Self { wire, next: 1 })
    }

    /// Reads the server's settings, which it sends first.
    ///
    /// # Errors
    /// If it sends something else.
    pub async fn settings(&mut self) -> Result<()> {
        let (kind, ..) = self.frame().await?;
        ensure!(
            kind == SETTINGS,
            "a frame of type {kind} before the settings"
        );
        Ok(())
    }

    /// Sends a request without a body, with exactly these fields, and returns its stream.
    ///
    /// # Errors
    /// If the connection is gone, or a field is too long.
    pub async fn ask(&mut self, fields: &[(&str, &str)]) -> Result<u32> {
        let mut block = Vec::new();
        for (name, value) in fields {
            // A literal field with a new name, without an index and Huffman's code (RFC 7541 §6.2.2).
            block.push(0);
            for text in [name, value] {
                let length = u8::try_from(text.len()).ok().filter(|length| *length < 127);
                block.push(length.context("a field that is too long")?);
                block.extend(text.as_bytes());
            }
        }
        let stream = self.next;
        self.next += 2;
        let headers = frame(HEADERS, END_STREAM_AND_HEADERS, stream, &block)?;
        self.wire.send(&headers).await?;
        Ok(stream)
    }

    /// Sends a GET for this path.
    ///
    /// # Errors
    /// If the connection is gone, or the path is too long.
    pub async fn get(&mut self, path: &str) -> Result<u32> {
        self.ask(&[
            (":method", "GET"),
            (":scheme", "http"),
            (":authority", "registry"),
            (":path", path),
        ])
        .await
    }

    /// Reads until the server has responded to this request, and acknowledges nothing.
    ///
    /// # Errors
    /// If the status is an unusual one.
    pub async fn response(&mut self, stream: u32) -> Result<Outcome> {
        loop {
            let Ok((kind, _, id, payload)) = self.frame().await else {
                return Ok(Outcome::Closed);
            };
            match kind {
                RST_STREAM if id == stream => return Ok(Outcome::Reset),
                HEADERS if id == stream => return Ok(Outcome::Status(status(&payload)?)),
                _ => {}
            }
        }
    }

    /// Reads the body of a response to its end, with a pause before each piece, says of each that it was
    /// read, and returns the length of all.
    ///
    /// # Errors
    /// If it is cut.
    pub async fn body(&mut self, stream: u32, pause: Duration) -> Result<usize> {
        let mut whole = 0;
        loop {
            tokio::time::sleep(pause).await;
            let (kind, flags, id, payload) = self.frame().await?;
            if kind != DATA || id != stream {
                continue;
            }
            whole += payload.len();
            if flags & END_STREAM > 0 {
                return Ok(whole);
            }
            let read = u32::try_from(payload.len())?.to_be_bytes();
            // The server may have closed its side, and the rest still be on its way.
            let _ = self.wire.send(&frame(WINDOW_UPDATE, 0, 0, &read)?).await;
        }
    }

    /// The type, the flags, the stream and the payload of the next frame.
    async fn frame(&mut self) -> Result<(u8, u8, u32, Vec<u8>)> {
        let head = self.wire.exactly(9).await?;
        let length = head[..3].iter();
        let length = length.fold(0, |sum, byte| sum << 8 | usize::from(*byte));
        let stream = u32::from_be_bytes(head[5..9].try_into()?);
        let payload = self.wire.exactly(length).await?;
        Ok((head[3], head[4], stream, payload))
    }
}

/// The status of a response whose header block begins with an indexed one (RFC 7541, appendix A).
fn status(block: &[u8]) -> Result<u16> {
    Ok(match block.first() {
        Some(0x88) => 200,
        Some(0x89) => 204,
        Some(0x8a) => 206,
        Some(0x8b) => 304,
        Some(0x8c) => 400,
        Some(0x8d) => 404,
        Some(0x8e) => 500,
        other => bail!("a header block that begins with {other:?}"),
    })
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Result<Vec<u8>> {
    let length = u32::try_from(payload.len())?;
    let mut bytes = length.to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    Ok(bytes)
}
