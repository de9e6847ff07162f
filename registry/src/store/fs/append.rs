//! The bytes of an upload on their way into its file.
//!
//! A body is gathered in batches on the caller's task, and each batch is hashed and written, at the
//! same time, on two blocking threads while the next one is gathered: two batches at most are in
//! memory, the reactor never waits, and a client that sends slowly occupies no thread.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use tokio::runtime::Handle;
use tokio::sync::OwnedMutexGuard;
use tokio::task::{JoinHandle, spawn_blocking};

use super::session::{Session, Work};
use super::{Durability, Inner, unwind};
use crate::oci::{Algorithm, Hasher};
use crate::store::{Result, StoreError, Upload};

/// The bytes that are gathered before they are handed over.
const BATCH: usize = 512 * 1024;

/// The size from which a batch is hashed on a thread of its own; below, waking one costs more.
const APART: u64 = 128 * 1024;

/// The bytes after which what was written is synced ahead, so that the commit has little to wait
/// for, and the page cache never holds much that is dirty.
const SYNC_AHEAD: u64 = 16 * 1024 * 1024;

pub(super) async fn append<B>(
    inner: Arc<Inner>,
    session: Arc<Session>,
    offset: u64,
    mut body: B,
) -> Result<Upload>
where
    B: Stream<Item = Result<Bytes>> + Send + Unpin + 'static,
{
    let work = session.claim().await?;
    let receiving = session.receiving();
    let expected = session.offset();
    if offset != expected {
        return Err(StoreError::UploadOffset { expected });
    }
    let writer = Writer::new(inner, Arc::clone(&session), work);
    let mut gathering = Gathering {
        state: State::Idle(writer),
        batch: Vec::new(),
        length: 0,
    };
    let received = loop {
        match body.next().await {
            None => break Ok(()),
            Some(Err(e)) => break Err(e),
            Some(Ok(bytes)) => {
                if let Err(e) = gathering.push(bytes).await {
                    break Err(e);
                }
            }
        }
    };
    drop(receiving);
    let written = gathering.finish().await;
    if session.has_ended() {
        return Err(StoreError::UploadUnknown);
    }
    // What the store has to say about itself matters more than a body that broke as well.
    written.and(received)?;
    Ok(session.upload())
}

/// Bytes that were received, and the writer that takes them.
struct Gathering {
    state: State,
    batch: Vec<Bytes>,
    length: usize,
}

enum State {
    Idle(Writer),
    Writing(JoinHandle<Result<Writer>>),
    Failed,
}

impl Gathering {
    async fn push(&mut self, bytes: Bytes) -> Result<()> {
        self.length += bytes.len();
        self.batch.push(bytes);
        if self.length < BATCH {
            Ok(())
        } else {
            self.hand_over().await
        }
    }

    /// Gives what was gathered to the writer, as soon as it is done with what it has.
    async fn hand_over(&mut self) -> Result<()> {
        self.idle().await?;
        if let State::Idle(writer) = std::mem::replace(&mut self.state, State::Failed) {
            let batch = std::mem::take(&mut self.batch);
            self.length = 0;
            self.state = State::Writing(tokio::spawn(writer.take(batch)));
        }
        Ok(())
    }

    async fn idle(&mut self) -> Result<()> {
        // Awaited in place: if this future is dropped now, `drop` must still find the job.
        if let State::Writing(job) = &mut self.state {
            let done = unwind(job.await);
            self.state = State::Failed;
            self.state = State::Idle(done.flatten()?);
        }
        Ok(())
    }

    async fn finish(mut self) -> Result<()> {
        if !self.batch.is_empty() && !matches!(self.state, State::Failed) {
            self.hand_over().await?;
        }
        self.idle().await
    }
}

impl Drop for Gathering {
    /// Whoever gives up in the middle of a body loses none of it: the rest is written behind their
    /// back, and only then is the session free for the next.
    fn drop(&mut self) {
        let batch = std::mem::take(&mut self.batch);
        let state = std::mem::replace(&mut self.state, State::Failed);
        if batch.is_empty() || matches!(state, State::Failed) {
            return;
        }
        // Without a runtime the program is at its end.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move {
                let writer = match state {
                    State::Idle(writer) => Some(writer),
                    State::Writing(job) => job.await.ok().and_then(Result::ok),
                    State::Failed => None,
                };
                if let Some(writer) = writer {
                    // Nobody is left to hear of a failure; the bytes are as if never received.
                    let _ = writer.take(batch).await;
                }
            });
        }
    }
}

/// Hashes and writes, on blocking threads; owns the right to work on the session.
struct Writer {
    inner: Arc<Inner>,
    session: Arc<Session>,
    work: OwnedMutexGuard<Work>,
    path: PathBuf,
    file: Option<Arc<File>>,
    unsynced: u64,
    syncing: Arc<AtomicBool>,
}

impl Writer {
    fn new(inner: Arc<Inner>, session: Arc<Session>, work: OwnedMutexGuard<Work>) -> Self {
        let path = inner.layout.upload_data(&session.id);
        Self {
            inner,
            session,
            work,
            path,
            file: None,
            unsynced: 0,
            syncing: Arc::default(),
        }
    }

    /// Hashes a batch and appends it.
    async fn take(mut self, batch: Vec<Bytes>) -> Result<Self> {
        let hasher = match self.work.hasher.take() {
            Some(hasher) if length(&batch) >= APART => hasher,
            hasher => {
                self.work.hasher = hasher;
                return unwind(spawn_blocking(move || self.write_and_hash(&batch)).await).flatten();
            }
        };
        // If anything fails from here, the hasher's state is lost, and the file tells it again.
        let batch = Arc::new(batch);
        let hashing = spawn_blocking({
            let batch = Arc::clone(&batch);
            move || updated(hasher, &batch)
        });
        let writing = spawn_blocking(move || self.write(&batch));
        let (state, written) = tokio::join!(hashing, writing);
        let mut writer = unwind(written).flatten()?;
        writer.work.hasher = Some(unwind(state)?);
        Ok(writer)
    }

    fn write_and_hash(mut self, batch: &[Bytes]) -> Result<Self> {
        let hasher = match self.work.hasher.take() {
            Some(hasher) => hasher,
            None => hash(&self.path, self.work.algorithm, self.session.offset())?,
        };
        let mut writer = self.write(batch)?;
        writer.work.hasher = Some(updated(hasher, batch));
        Ok(writer)
    }

    /// Appends a batch, whole or not at all.
    fn write(mut self, batch: &[Bytes]) -> Result<Self> {
        let file = match &self.file {
            Some(file) => Arc::clone(file),
            None => self.open()?,
        };
        let offset = self.session.offset();
        let length = length(batch);
        self.inner.take_room(length)?;
        if let Err(e) = write_all(&file, batch) {
            self.inner.sessions.held.give_back(length);
            // A part of the batch may be there, and on a full disk it only takes up room.
            let _ = file.set_len(offset);
            return Err(StoreError::io(&self.path, e));
        }
        self.session.advance(offset + length);
        self.unsynced += length;
        if self.unsynced >= SYNC_AHEAD && self.inner.durability == Durability::Full {
            self.sync_ahead(&file);
        }
        Ok(self)
    }

    fn open(&mut self) -> Result<Arc<File>> {
        let offset = self.session.offset();
        let mut options = OpenOptions::new();
        let opened = options
            .write(true)
            .create(true)
            .truncate(false)
            .open(&self.path);
        let mut file = match opened {
            // The folder goes when the session ends.
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(StoreError::UploadUnknown),
            opened => opened.map_err(|e| StoreError::io(&self.path, e))?,
        };
        file.set_len(offset)
            .and_then(|()| file.seek(SeekFrom::Start(offset)))
            .map_err(|e| StoreError::io(&self.path, e))?;
        let file = Arc::new(file);
        self.file = Some(Arc::clone(&file));
        Ok(file)
    }

    fn sync_ahead(&mut self, file: &Arc<File>) {
        if self.syncing.swap(true, Ordering::AcqRel) {
            return;
        }
        self.unsynced = 0;
        let (file, syncing) = (Arc::clone(file), Arc::clone(&self.syncing));
        let failed = Arc::clone(&self.work.sync_failed);
        drop(spawn_blocking(move || {
            if file.sync_data().is_err() {
                failed.store(true, Ordering::Release);
            }
            syncing.store(false, Ordering::Release);
        }));
    }
}

/// The hasher's state after the first `length` bytes of a file.
pub(super) fn hash(path: &Path, algorithm: Algorithm, length: u64) -> Result<Hasher> {
    let mut hasher = Hasher::new(algorithm);
    if length == 0 {
        return Ok(hasher);
    }
    let failed = |e| StoreError::io(path, e);
    let mut rest = File::open(path).map_err(failed)?.take(length);
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match rest.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => hasher.update(&buffer[..read]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(failed(e)),
        }
    }
    if rest.limit() == 0 {
        Ok(hasher)
    } else {
        Err(failed(io::ErrorKind::UnexpectedEof.into()))
    }
}

fn updated(mut hasher: Hasher, batch: &[Bytes]) -> Hasher {
    for bytes in batch {
        hasher.update(bytes);
    }
    hasher
}

fn length(batch: &[Bytes]) -> u64 {
    batch.iter().map(|bytes| bytes.len() as u64).sum()
}

fn write_all(mut file: &File, batch: &[Bytes]) -> io::Result<()> {
    // As many as the system takes in one call.
    for part in batch.chunks(1024) {
        let mut slices: Vec<_> = part.iter().map(|bytes| IoSlice::new(bytes)).collect();
        let mut rest = &mut slices[..];
        IoSlice::advance_slices(&mut rest, 0);
        while !rest.is_empty() {
            match file.write_vectored(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => IoSlice::advance_slices(&mut rest, written),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }
    Ok(())
}
