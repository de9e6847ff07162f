//! Reads the bytes of a blob as a stream.

use std::fs::File;
use std::future::Future;
use std::io::{self, IoSliceMut};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::Stream;
use rustix::buffer::spare_capacity;
use rustix::io::{Errno, ReadWriteFlags, pread, preadv2};
use tokio::task::{JoinHandle, spawn_blocking};

use super::blocking::unwind;
use super::buffers::{self, Buffers};
use crate::oci::{Span, Spans};
use crate::store::{Result, StoreError};

/// The bytes that are read at once. Larger chunks save system calls, smaller ones save memory: up to
/// three of them are in flight for each stream.
const CHUNK: u64 = buffers::SIZE as u64;

/// A chunk smaller than this is read into memory of its own size.
const SMALL: u64 = CHUNK / 4;

/// A blob's bytes, read from its file.
///
/// A chunk in the page cache is copied at once: a switch to a blocking thread would take longer than the
/// copy. A chunk that has to come from the disk is read on a blocking thread, one chunk ahead, so that
/// disk and network work at the same time.
///
/// The first chunk is read when the blob is opened: a small blob takes one job on a blocking thread.
///
/// Each of several spans begins with a chunk of its own.
#[derive(Debug)]
pub struct BlobReader {
    source: Arc<BlobFile>,
    size: u64,
    spans: Spans,
    /// The index of the span after the current one.
    next_span: usize,
    /// Where the next read begins, and where the current span ends.
    next: u64,
    end: u64,
    chunk: NextChunk,
}

#[derive(Debug)]
struct BlobFile {
    file: File,
    path: PathBuf,
    buffers: Arc<Buffers>,
}

/// The chunk to yield next.
#[derive(Debug)]
enum NextChunk {
    /// To be read when it is polled for.
    Later,
    Ready(Bytes),
    Reading(JoinHandle<Result<Bytes>>),
    /// There are no more.
    End,
}

impl BlobReader {
    /// Reads the first chunk; the spans lie within the file of `size` bytes.
    pub(super) fn open(
        file: File,
        path: PathBuf,
        size: u64,
        spans: Spans,
        buffers: &Arc<Buffers>,
    ) -> Result<Self> {
        let buffers = Arc::clone(buffers);
        let source = Arc::new(BlobFile {
            file,
            path,
            buffers,
        });
        let span = spans.get(0, size).unwrap_or(Span {
            start: 0,
            length: 0,
        });
        let length = span.length.min(CHUNK);
        let chunk = match length {
            0 => NextChunk::End,
            _ => NextChunk::Ready(source.read(span.start, length)?),
        };
        let end = span.start + span.length;
        Ok(Self {
            source,
            size,
            spans,
            next_span: 1,
            next: span.start + length,
            end,
            chunk,
        })
    }

    /// Reads the next chunk, or begins to.
    fn read_on(&mut self) -> Result<NextChunk> {
        if self.next == self.end {
            let Some(span) = self.spans.get(self.next_span, self.size) else {
                return Ok(NextChunk::End);
            };
            self.next_span += 1;
            (self.next, self.end) = (span.start, span.start + span.length);
        }
        let length = CHUNK.min(self.end - self.next);
        let start = self.next;
        if let Some(bytes) = self.source.read_cached(start, length)? {
            // A cached read may be short. The next one begins where this one ended.
            self.next += bytes.len() as u64;
            return Ok(NextChunk::Ready(bytes));
        }
        self.next += length;
        let source = Arc::clone(&self.source);
        let job = spawn_blocking(move || source.read(start, length));
        Ok(NextChunk::Reading(job))
    }

    fn poll_chunk(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Bytes>>> {
        if matches!(self.chunk, NextChunk::Later) {
            self.chunk = self.read_on()?;
        }
        let bytes = match &mut self.chunk {
            NextChunk::End | NextChunk::Later => return Poll::Ready(Ok(None)),
            NextChunk::Ready(bytes) => {
                let bytes = std::mem::take(bytes);
                self.chunk = NextChunk::Later;
                bytes
            }
            NextChunk::Reading(job) => {
                let bytes = unwind(ready!(Pin::new(job).poll(context))).flatten()?;
                // A chunk came from the disk: the next one is read before it is polled for.
                self.chunk = self.read_on()?;
                bytes
            }
        };
        Poll::Ready(Ok(Some(bytes)))
    }
}

impl Stream for BlobReader {
    type Item = Result<Bytes>;

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes>>> {
        let chunk = ready!(self.poll_chunk(context));
        // An error is the end: bytes after a gap would pass for the blob's.
        if chunk.is_err() {
            self.chunk = NextChunk::End;
        }
        Poll::Ready(chunk.transpose())
    }
}

impl BlobFile {
    /// Reads `length` bytes. Waits for the disk.
    fn read(&self, start: u64, length: u64) -> Result<Bytes> {
        let wanted = usize::try_from(length).unwrap_or(usize::MAX);
        if length < SMALL {
            let mut bytes = Vec::with_capacity(wanted);
            while bytes.len() < wanted {
                let at = start + bytes.len() as u64;
                self.progress(pread(&self.file, spare_capacity(&mut bytes), at))?;
            }
            // The spare capacity may be larger than what was asked for, and the file may continue.
            bytes.truncate(wanted);
            return Ok(bytes.into());
        }
        let mut buffer = self.buffers.take();
        let mut filled = 0;
        while filled < wanted {
            let space = &mut buffer.space()[filled..wanted];
            filled += self.progress(pread(&self.file, space, start + filled as u64))?;
        }
        Ok(buffer.freeze(filled))
    }

    /// Reads up to `length` bytes that are in the page cache; `None` if the first of them is not.
    fn read_cached(&self, start: u64, length: u64) -> Result<Option<Bytes>> {
        let wanted = usize::try_from(length).unwrap_or(usize::MAX);
        if length < SMALL {
            // Many small spans may wait to be sent at once: none of them may hold a whole buffer.
            let mut bytes = vec![0; wanted];
            let read = self.read_now(&mut bytes, start)?;
            return Ok(read.map(|read| {
                bytes.truncate(read);
                bytes.into()
            }));
        }
        let mut buffer = self.buffers.take();
        let read = self.read_now(&mut buffer.space()[..wanted], start)?;
        Ok(read.map(|read| buffer.freeze(read)))
    }

    /// Fills the front of `space` without waiting for the disk; `None` if that is impossible.
    fn read_now(&self, space: &mut [u8], start: u64) -> Result<Option<usize>> {
        let space = &mut [IoSliceMut::new(space)];
        match preadv2(&self.file, space, start, ReadWriteFlags::NOWAIT) {
            // The bytes are not in the page cache, or the file system does not support the question.
            Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INTR) => Ok(None),
            read => self.progress(read).map(Some),
        }
    }

    /// The bytes that a read returned: at least one, unless it was interrupted.
    fn progress(&self, read: rustix::io::Result<usize>) -> Result<usize> {
        let failed = |e| Err(StoreError::io(&self.path, e));
        match read {
            // The store never shortens the file of a blob: a person or another program has.
            Ok(0) => failed(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => Ok(read),
            Err(Errno::INTR) => Ok(0),
            Err(e) => failed(e.into()),
        }
    }
}
