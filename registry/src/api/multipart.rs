//! Several ranges of a blob in one body: `multipart/byteranges` (RFC 9110, sections 14.6 and
//! 15.3.7.2).
//!
//! The reader yields the ranges one after another. A part's headers precede each, and a closing boundary
//! follows the last. The headers of only one part are in memory at a time.

use std::fmt::{self, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::Stream;

use super::body_reader::{ResponseBodyError, poll_reader};
use crate::oci::{MediaType, Span};
use crate::store::StoreError;

/// The rest of a body of several ranges of a blob.
#[derive(Debug)]
pub(super) struct MultipartRanges<R> {
    reader: R,
    spans: Arc<[Span]>,
    size: u64,
    /// Random, so that nobody can upload a blob that contains the boundary.
    boundary: u128,
    /// The index of the next part.
    next: usize,
    /// How many bytes of the current part are still to come.
    part_remaining: u64,
    /// How many bytes of the whole body are still to come.
    remaining: u64,
}

impl<R> MultipartRanges<R> {
    /// A body of the ranges `spans`, which `reader` yields, of a blob of `size` bytes.
    pub(super) fn new(reader: R, spans: Arc<[Span]>, size: u64) -> Self {
        let mut parts = Self {
            reader,
            spans,
            size,
            boundary: rand::random(),
            next: 0,
            part_remaining: 0,
            remaining: 0,
        };
        parts.remaining = parts.length();
        parts
    }

    /// The `Content-Type` of the whole body.
    pub(super) fn content_type(&self) -> String {
        format!("multipart/byteranges; boundary={:032x}", self.boundary)
    }

    /// How many bytes are still to come.
    pub(super) fn remaining(&self) -> u64 {
        self.remaining
    }

    /// The length of the whole body, in bytes. It is known before the first byte is sent, so that the
    /// response has a `Content-Length`.
    fn length(&self) -> u64 {
        let mut length = LengthCounter(0);
        for (index, span) in self.spans.iter().enumerate() {
            // The counter never fails.
            let _ = self.write_part_headers(&mut length, index, *span);
            length.0 += span.length;
        }
        let _ = self.write_closing_boundary(&mut length);
        length.0
    }

    fn write_part_headers(&self, to: &mut impl Write, index: usize, span: Span) -> fmt::Result {
        // No underflow: a span is never empty.
        let (first, last) = (span.start, span.start + span.length - 1);
        write!(
            to,
            "{}--{:032x}\r\nContent-Type: {}\r\nContent-Range: bytes {first}-{last}/{}\r\n\r\n",
            // The line break belongs to the boundary after it (RFC 2046, section 5.1.1).
            if index == 0 { "" } else { "\r\n" },
            self.boundary,
            MediaType::OCTET_STREAM,
            self.size
        )
    }

    fn write_closing_boundary(&self, to: &mut impl Write) -> fmt::Result {
        write!(to, "\r\n--{:032x}--\r\n", self.boundary)
    }

    /// The headers of the next part, or the closing boundary after the last.
    fn delimiter(&mut self) -> Bytes {
        let mut text = String::new();
        // Writing to a String never fails.
        let _ = match self.spans.get(self.next).copied() {
            Some(span) => {
                self.part_remaining = span.length;
                self.write_part_headers(&mut text, self.next, span)
            }
            None => self.write_closing_boundary(&mut text),
        };
        self.next += 1;
        text.into()
    }
}

impl<R: Stream<Item = Result<Bytes, StoreError>> + Unpin> MultipartRanges<R> {
    /// The next bytes; `None` after the last, or after a failure.
    pub(super) fn poll_bytes(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, ResponseBodyError>>> {
        if self.remaining == 0 {
            return Poll::Ready(None);
        }
        let bytes = if self.part_remaining == 0 {
            Ok(self.delimiter())
        } else {
            ready!(poll_reader(
                Pin::new(&mut self.reader),
                &mut self.part_remaining,
                cx
            ))
        };
        self.remaining = match &bytes {
            Ok(bytes) => self.remaining.saturating_sub(bytes.len() as u64),
            // Later bytes would land at wrong places, so that a failure ends the whole body.
            Err(_) => 0,
        };
        Poll::Ready(Some(bytes))
    }
}

/// Counts the bytes written to it.
struct LengthCounter(u64);

impl Write for LengthCounter {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0 += text.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use futures_util::stream;

    use super::*;

    const SPANS: [Span; 2] = [
        Span {
            start: 10,
            length: 4,
        },
        Span {
            start: 0,
            length: 2,
        },
    ];

    async fn collect(
        chunks: Vec<Result<Bytes, StoreError>>,
    ) -> (MultipartRanges<impl Stream>, Vec<u8>, bool) {
        let mut parts = MultipartRanges::new(stream::iter(chunks), SPANS.into(), 14);
        let (mut body, mut failed) = (Vec::new(), false);
        while let Some(bytes) = poll_fn(|cx| parts.poll_bytes(cx)).await {
            match bytes {
                Ok(bytes) => body.extend_from_slice(&bytes),
                Err(_) => failed = true,
            }
        }
        (parts, body, failed)
    }

    #[tokio::test]
    async fn each_part_has_its_content_range_and_the_length_is_known_in_advance() {
        let chunk = |text: &'static str| Ok(Bytes::from_static(text.as_bytes()));
        let chunks = vec![chunk("ab"), chunk("cd"), chunk("01")];
        let (parts, body, failed) = collect(chunks).await;
        assert!(!failed);
        assert_eq!(parts.length(), body.len() as u64);
        let kind = parts.content_type();
        let boundary = kind
            .strip_prefix("multipart/byteranges; boundary=")
            .unwrap();
        let body = String::from_utf8(body).unwrap().replace(boundary, "X");
        assert_eq!(
            body,
            "--X\r\nContent-Type: application/octet-stream\r\n\
             Content-Range: bytes 10-13/14\r\n\r\nabcd\r\n\
             --X\r\nContent-Type: application/octet-stream\r\n\
             Content-Range: bytes 0-1/14\r\n\r\n01\r\n--X--\r\n"
        );
    }

    #[tokio::test]
    async fn a_reader_that_fails_ends_early_or_gives_too_much_breaks_the_body() {
        let chunk = |text: &'static str| Ok(Bytes::from_static(text.as_bytes()));
        for chunks in [
            vec![chunk("ab")],
            vec![chunk("ab"), Err(StoreError::Interrupted)],
            vec![chunk("abcd01")],
        ] {
            let (parts, body, failed) = collect(chunks).await;
            assert!(failed && parts.remaining() == 0);
            assert!(!String::from_utf8_lossy(&body).contains("Content-Range: bytes 0-1"));
        }
    }
}
