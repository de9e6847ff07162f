//! Appends: the bytes of a body are written to the file of an upload session.
//!
//! The caller's task gathers a body in batches. Each batch is hashed and written, at the same time, on
//! two blocking threads while the next one is gathered. So at most two batches are in memory, the
//! reactor never waits for the disk, and a client that sends slowly occupies no thread.
//!
//! Gathering copies the bytes. The chunks of a body are views of the buffers they were received into:
//! to keep a few small chunks would keep all of their buffers.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use tokio::runtime::Handle;
use tokio::sync::OwnedMutexGuard;
use tokio::task::{JoinHandle, spawn_blocking};

use super::quota;
use super::session::UploadWork;
use super::sessions::SessionInUse;
use crate::oci::{Algorithm, Hasher};
use crate::store::fs::blocking::unwind;
use crate::store::fs::buffers::Buffer;
use crate::store::fs::data_directory::DataDirectory;
use crate::store::fs::disk;
use crate::store::fs::file::{SHORTER, cut};
use crate::store::fs::options::Durability;
use crate::store::{ErrorKind, Result, StoreError, Upload};

/// The size up to which a batch is gathered in memory of its own size. Most uploads are not larger, and
/// need no large buffer.
const SMALL: usize = 32 * 1024;

/// The size from which a batch is hashed on a thread of its own. Below, waking a thread costs more.
const APART: usize = 128 * 1024;

/// The number of written bytes after which an early sync starts, so that the commit has little to wait
/// for, and the page cache never holds many dirty pages.
const EARLY_SYNC: u64 = 16 * 1024 * 1024;

/// Appends a body to a session, and returns how the session stands then.
pub(in crate::store::fs) async fn append<B>(
    data: Arc<DataDirectory>,
    session: SessionInUse,
    offset: u64,
    mut body: B,
) -> Result<Upload>
where
    B: Stream<Item = Result<Bytes>> + Send + Unpin + 'static,
{
    // Shared with the writer: the session is in use until all bytes of this request are written, even
    // if the caller's future is dropped before that.
    let session = Arc::new(session);
    let work = session.claim().await?;
    let receiving = session.receiving();
    let expected = session.offset();
    if offset != expected {
        return Err(StoreError::UploadOffset { expected });
    }
    let writer = BatchWriter::new(Arc::clone(&data), Arc::clone(&session), work);
    let mut batches = BatchBuffer {
        data,
        state: WriterState::Idle(writer),
        small: BytesMut::new(),
        large: None,
    };
    let received = loop {
        match body.next().await {
            None => break Ok(()),
            Some(Err(e)) => break Err(e),
            Some(Ok(bytes)) => {
                if let Err(e) = batches.push(bytes).await {
                    break Err(e);
                }
            }
        }
    };
    drop(receiving);
    // A full disk is reported rather than a body that failed as well: it is what the operator has to
    // know.
    match batches.finish().await.and(received) {
        Err(e) if e.kind() == ErrorKind::NoSpace => Err(e),
        _ if session.has_ended() => Err(StoreError::UploadUnknown),
        done => done.map(|()| session.upload()),
    }
}

/// Bytes that were received, and the writer that they are handed to.
struct BatchBuffer {
    data: Arc<DataDirectory>,
    state: WriterState,
    small: BytesMut,
    large: Option<Buffer>,
}

enum WriterState {
    Idle(BatchWriter),
    Writing(JoinHandle<Result<BatchWriter>>),
    Failed,
}

impl BatchBuffer {
    async fn push(&mut self, mut bytes: Bytes) -> Result<()> {
        while !bytes.is_empty() {
            let left = SMALL.saturating_sub(self.small.len());
            if self.large.is_none() && bytes.len() > left {
                self.large = self.take_large();
            }
            let taken = if let Some(large) = &mut self.large {
                large.append(&bytes)
            } else {
                let taken = bytes.len().min(left);
                self.small.extend_from_slice(&bytes[..taken]);
                taken
            };
            if taken == 0 {
                self.hand_over().await?;
            }
            let _ = bytes.split_to(taken);
        }
        Ok(())
    }

    /// A large buffer with the bytes gathered so far. `None` where all buffers are in use: then the
    /// upload continues in small batches, which are slower and take no more memory.
    fn take_large(&mut self) -> Option<Buffer> {
        let data = &self.data;
        let mut buffer = data.buffers.take_limited(&data.appends.large_buffers)?;
        buffer.append(&std::mem::take(&mut self.small));
        Some(buffer)
    }

    /// Hands the gathered bytes to the writer, as soon as it has written the batch before.
    async fn hand_over(&mut self) -> Result<()> {
        self.idle().await?;
        if let WriterState::Idle(writer) = std::mem::replace(&mut self.state, WriterState::Failed) {
            let batch = self.gathered();
            self.state = WriterState::Writing(tokio::spawn(writer.take(batch)));
        }
        Ok(())
    }

    fn gathered(&mut self) -> Bytes {
        match self.large.take() {
            Some(large) => {
                let length = large.len();
                large.freeze(length)
            }
            None => std::mem::take(&mut self.small).freeze(),
        }
    }

    fn is_empty(&self) -> bool {
        self.large.is_none() && self.small.is_empty()
    }

    async fn idle(&mut self) -> Result<()> {
        // Awaited in place, not taken out first: if this future is dropped now, `drop` must still find
        // the job.
        if let WriterState::Writing(job) = &mut self.state {
            let done = unwind(job.await);
            self.state = WriterState::Failed;
            self.state = WriterState::Idle(done.flatten()?);
        }
        Ok(())
    }

    async fn finish(mut self) -> Result<()> {
        if !self.is_empty() && !matches!(self.state, WriterState::Failed) {
            self.hand_over().await?;
        }
        self.idle().await
    }
}

impl Drop for BatchBuffer {
    /// A client that disconnects in the middle of a body loses none of the bytes that arrived: they are
    /// written in the background, and the session is free for the next request only after that.
    fn drop(&mut self) {
        let batch = self.gathered();
        let state = std::mem::replace(&mut self.state, WriterState::Failed);
        if batch.is_empty() || matches!(state, WriterState::Failed) {
            return;
        }
        // Without a runtime the program is stopping.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move {
                let writer = match state {
                    WriterState::Idle(writer) => Some(writer),
                    WriterState::Writing(job) => job.await.ok().and_then(Result::ok),
                    WriterState::Failed => None,
                };
                if let Some(writer) = writer {
                    // No caller is left to report a failure to. The offset does not count bytes that
                    // were not written, so that the client sends them again.
                    let _ = writer.take(batch).await;
                }
            });
        }
    }
}

/// Hashes and writes batches on blocking threads. It owns the right to work on the session.
struct BatchWriter {
    data: Arc<DataDirectory>,
    session: Arc<SessionInUse>,
    work: OwnedMutexGuard<UploadWork>,
    path: PathBuf,
    file: Option<Arc<File>>,
    /// The offset before this append, which the client was promised.
    promised: u64,
    unsynced: u64,
    syncing: Arc<AtomicBool>,
}

impl BatchWriter {
    fn new(
        data: Arc<DataDirectory>,
        session: Arc<SessionInUse>,
        work: OwnedMutexGuard<UploadWork>,
    ) -> Self {
        let path = data.layout.upload_data(&session.id);
        let promised = session.offset();
        Self {
            data,
            session,
            work,
            path,
            file: None,
            promised,
            unsynced: 0,
            syncing: Arc::default(),
        }
    }

    /// Hashes a batch and appends it.
    async fn take(mut self, batch: Bytes) -> Result<Self> {
        let hasher = match self.work.hasher.take() {
            Some(hasher) if batch.len() >= APART => hasher,
            hasher => {
                self.work.hasher = hasher;
                return unwind(spawn_blocking(move || self.write_and_hash(&batch)).await).flatten();
            }
        };
        let data = Arc::clone(&self.data);
        // The semaphore is never closed, so that this cannot fail.
        let _permit = data.appends.batches.acquire().await;
        // If anything fails from here, the hasher is lost, and is computed from the file when it is
        // needed.
        let hashing = spawn_blocking({
            let batch = batch.clone();
            move || updated(hasher, &batch)
        });
        let writing = spawn_blocking(move || self.write(&batch));
        let (state, written) = tokio::join!(hashing, writing);
        let mut writer = unwind(written).flatten()?;
        writer.work.hasher = Some(unwind(state)?);
        Ok(writer)
    }

    fn write_and_hash(mut self, batch: &[u8]) -> Result<Self> {
        let hasher = match self.work.hasher.take() {
            Some(hasher) => hasher,
            None => hash(&self.path, self.work.algorithm, self.session.offset())?,
        };
        let mut writer = self.write(batch)?;
        writer.work.hasher = Some(updated(hasher, batch));
        Ok(writer)
    }

    /// Appends a batch, whole or not at all. Bytes that went to a directory that was moved away are
    /// not acknowledged: nobody would find them again.
    fn write(mut self, batch: &[u8]) -> Result<Self> {
        let data = Arc::clone(&self.data);
        data.root.confirm(self.write_at_end(batch))?;
        Ok(self)
    }

    fn write_at_end(&mut self, batch: &[u8]) -> Result<()> {
        let file = match &self.file {
            Some(file) => Arc::clone(file),
            None => self.open()?,
        };
        let offset = self.session.offset();
        let length = batch.len() as u64;
        let written = quota::retry_when_full(&self.data, || {
            quota::reserve(&self.data, length)?;
            disk::write(&file, &self.path, batch, offset).map_err(|e| {
                self.data.sessions.reserved.release(length);
                // Part of the batch may be there, and takes space that a full disk does not have.
                let _ = disk::set_length(&file, &self.path, offset);
                StoreError::io(&self.path, e)
            })
        });
        if let Err(e) = written {
            if e.kind() == ErrorKind::NoSpace {
                // The request fails, and the space is free again for others. The hasher
                // is lost with this writer; it is computed from the file when it is needed.
                let _ = disk::set_length(&file, &self.path, self.promised);
                self.session.refuse(self.promised);
            }
            return Err(e);
        }
        // Last: an offset that a client gets stands for bytes that are in the file.
        self.session.advance(offset + length);
        self.unsynced += length;
        if self.unsynced >= EARLY_SYNC && self.data.durability == Durability::Full {
            self.sync_early(&file);
        }
        Ok(())
    }

    fn open(&mut self) -> Result<Arc<File>> {
        let offset = self.session.offset();
        let file = match disk::create(&self.path) {
            // The directory is removed when the session ends.
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(StoreError::UploadUnknown),
            opened => opened.map_err(|e| StoreError::io(&self.path, e))?,
        };
        let metadata = file.metadata().map_err(|e| StoreError::io(&self.path, e))?;
        if metadata.nlink() > 1 {
            // A commit that was interrupted, or that failed late, has made it content. More bytes would
            // damage that.
            self.data.sessions.end(&self.session, &self.data.layout)?;
            return Err(StoreError::UploadUnknown);
        }
        // A batch that failed may have left bytes after the offset.
        cut(&file, &self.path, offset)?;
        let file = Arc::new(file);
        self.file = Some(Arc::clone(&file));
        Ok(file)
    }

    fn sync_early(&mut self, file: &Arc<File>) {
        let permit = Arc::clone(&self.data.appends.early_syncs).try_acquire_owned();
        let Ok(permit) = permit else { return };
        // One at a time for a file: a second sync would wait for the first.
        if self.syncing.swap(true, Ordering::AcqRel) {
            return;
        }
        self.unsynced = 0;
        let (file, path) = (Arc::clone(file), self.path.clone());
        let syncing = Arc::clone(&self.syncing);
        let failed = Arc::clone(&self.work.sync_failed);
        drop(spawn_blocking(move || {
            if disk::sync_file(&file, &path).is_err() {
                // Release, with the commit's Acquire: a commit that finds the sync ended finds this.
                failed.store(true, Ordering::Release);
            }
            syncing.store(false, Ordering::Release);
            drop(permit);
        }));
    }
}

/// Computes a hasher's state after the first `length` bytes of a file.
pub(in crate::store::fs) fn hash(path: &Path, algorithm: Algorithm, length: u64) -> Result<Hasher> {
    let mut hasher = Hasher::new(algorithm);
    if length == 0 {
        return Ok(hasher);
    }
    let failed = |e| StoreError::io(path, e);
    let mut rest = disk::open(path).map_err(failed)?.take(length);
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
        Err(StoreError::Corrupt {
            path: path.to_owned(),
            reason: SHORTER,
        })
    }
}

fn updated(mut hasher: Hasher, batch: &[u8]) -> Hasher {
    hasher.update(batch);
    hasher
}
