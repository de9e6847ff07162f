//! The bytes of a blob as a stream.

use std::fs::File;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::Stream;
use rustix::buffer::spare_capacity;
use tokio::task::JoinHandle;

use super::unwind;
use crate::store::{Result, Span, StoreError};

/// How much is read at once. Larger chunks spare hops between threads, smaller ones memory: two of
/// them are in flight for each stream.
const CHUNK: u64 = 256 * 1024;

/// A blob's bytes, read from its file one chunk ahead, so that disk and network work at once.
///
/// The first chunk is there from the start: a small blob costs one visit to a blocking thread.
#[derive(Debug)]
pub struct BlobReader {
    source: Arc<Source>,
    /// Where the next read begins, and where the last one ends.
    next: u64,
    end: u64,
    chunk: Chunk,
}

#[derive(Debug)]
struct Source {
    file: File,
    path: PathBuf,
}

#[derive(Debug)]
enum Chunk {
    Ready(Bytes),
    Reading(JoinHandle<Result<Bytes>>),
    None,
}

impl BlobReader {
    /// Reads the first chunk; the span lies within the file.
    pub(super) fn open(file: File, path: PathBuf, span: Span) -> Result<Self> {
        let source = Arc::new(Source { file, path });
        let length = span.length.min(CHUNK);
        let chunk = match length {
            0 => Chunk::None,
            _ => Chunk::Ready(source.read(span.start, length)?),
        };
        let end = span.start + span.length;
        Ok(Self {
            source,
            next: span.start + length,
            end,
            chunk,
        })
    }

    fn read_ahead(&mut self) -> Chunk {
        let length = CHUNK.min(self.end - self.next);
        if length == 0 {
            return Chunk::None;
        }
        let (source, start) = (Arc::clone(&self.source), self.next);
        self.next += length;
        Chunk::Reading(tokio::task::spawn_blocking(move || {
            source.read(start, length)
        }))
    }
}

impl Stream for BlobReader {
    type Item = Result<Bytes>;

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes>>> {
        let bytes = match &mut self.chunk {
            Chunk::None => return Poll::Ready(None),
            Chunk::Ready(bytes) => Ok(std::mem::take(bytes)),
            Chunk::Reading(job) => unwind(ready!(Pin::new(job).poll(context))).flatten(),
        };
        self.chunk = match &bytes {
            Ok(_) => self.read_ahead(),
            Err(_) => Chunk::None,
        };
        Poll::Ready(Some(bytes))
    }
}

impl Source {
    fn read(&self, start: u64, length: u64) -> Result<Bytes> {
        let wanted = usize::try_from(length).unwrap_or(usize::MAX);
        let mut bytes = Vec::with_capacity(wanted);
        while bytes.len() < wanted {
            let at = start + bytes.len() as u64;
            let read = rustix::io::pread(&self.file, spare_capacity(&mut bytes), at);
            match read {
                Ok(0) => {
                    let end = io::ErrorKind::UnexpectedEof;
                    return Err(StoreError::io(&self.path, end.into()));
                }
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(StoreError::io(&self.path, e.into())),
            }
        }
        // The allocator may have given more than was asked for, and the file may go on.
        bytes.truncate(wanted);
        Ok(bytes.into())
    }
}
