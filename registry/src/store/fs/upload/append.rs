//! The bytes of an upload on their way into its file.
//!
//! A body is gathered in batches on the caller's task, and each batch is hashed and written, at the
//! same time, on two blocking threads while the next one is gathered: two batches at most are in
//! memory, the reactor never waits, and a client that sends slowly occupies no thread.
//!
//! Gathering copies. The pieces of a body are views of whatever buffer they were received into, and
//! to keep a few small ones would be to keep all of their buffers.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use tokio::runtime::Handle;
use tokio::sync::{OwnedMutexGuard, Semaphore};
use tokio::task::{JoinHandle, spawn_blocking};

use super::session::Work;
use super::sessions::InUse;
use crate::oci::{Algorithm, Hasher};
use crate::store::fs::buffers::Buffer;
use crate::store::fs::file::{SHORTER, cut};
use crate::store::fs::{Durability, Inner, unwind};
use crate::store::{ErrorKind, Result, StoreError, Upload};

/// The bytes that are gathered in memory of their own size: most uploads are not larger, and need
/// no large buffer.
const SMALL: usize = 32 * 1024;

/// The large buffers of all uploads together. Two keep an upload going at full speed, and more of them
/// than this are not quicker by having more; clients that break off leave theirs to be written.
const LARGE: usize = 48;

/// The size from which a batch is hashed on a thread of its own; below, waking one costs more.
const APART: usize = 128 * 1024;

/// The syncs ahead that run at the same time: more would only keep each other and their threads
/// waiting for the same disk.
const SYNCS: usize = 2;

/// The bytes after which what was written is synced ahead, so that the commit has little to wait
/// for, and the page cache never holds much that is dirty.
const SYNC_AHEAD: u64 = 16 * 1024 * 1024;

/// What keeps many uploads at a time from taking a thread or two each: the processor is shared by
/// all of them anyway.
pub(in crate::store::fs) struct Limits {
    batches: Semaphore,
    large: Arc<Semaphore>,
    syncs: Arc<Semaphore>,
}

impl Limits {
    pub(in crate::store::fs) fn new() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            batches: Semaphore::new(2 * processors),
            large: Arc::new(Semaphore::new(LARGE)),
            syncs: Arc::new(Semaphore::new(SYNCS)),
        }
    }
}

pub(in crate::store::fs) async fn append<B>(
    inner: Arc<Inner>,
    session: InUse,
    offset: u64,
    mut body: B,
) -> Result<Upload>
where
    B: Stream<Item = Result<Bytes>> + Send + Unpin + 'static,
{
    // The request is over when all that it brought is written, even if nobody waits for that.
    let session = Arc::new(session);
    let work = session.claim().await?;
    let receiving = session.receiving();
    let expected = session.offset();
    if offset != expected {
        return Err(StoreError::UploadOffset { expected });
    }
    let writer = Writer::new(Arc::clone(&inner), Arc::clone(&session), work);
    let mut gathering = Gathering {
        inner,
        state: State::Idle(writer),
        small: BytesMut::new(),
        large: None,
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
    // What the store has to say about itself matters more than a body that broke as well.
    match gathering.finish().await.and(received) {
        Err(e) if e.kind() == ErrorKind::NoSpace => Err(e),
        _ if session.has_ended() => Err(StoreError::UploadUnknown),
        done => done.map(|()| session.upload()),
    }
}

/// Bytes that were received, and the writer that takes them.
struct Gathering {
    inner: Arc<Inner>,
    state: State,
    small: BytesMut,
    large: Option<Buffer>,
}

enum State {
    Idle(Writer),
    Writing(JoinHandle<Result<Writer>>),
    Failed,
}

impl Gathering {
    async fn push(&mut self, mut bytes: Bytes) -> Result<()> {
        while !bytes.is_empty() {
            let room = SMALL.saturating_sub(self.small.len());
            if self.large.is_none() && bytes.len() > room {
                self.large = self.take_large();
            }
            let taken = if let Some(large) = &mut self.large {
                large.append(&bytes)
            } else {
                let taken = bytes.len().min(room);
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

    /// A large buffer with what was gathered so far. `None` where all are in use: then the upload
    /// goes on in small batches, which are slower and take no more memory.
    fn take_large(&mut self) -> Option<Buffer> {
        let inner = &self.inner;
        let mut buffer = inner.buffers.take_one_of(&inner.limits.large)?;
        buffer.append(&std::mem::take(&mut self.small));
        Some(buffer)
    }

    /// Gives what was gathered to the writer, as soon as it is done with what it has.
    async fn hand_over(&mut self) -> Result<()> {
        self.idle().await?;
        if let State::Idle(writer) = std::mem::replace(&mut self.state, State::Failed) {
            let batch = self.gathered();
            self.state = State::Writing(tokio::spawn(writer.take(batch)));
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
        // Awaited in place: if this future is dropped now, `drop` must still find the job.
        if let State::Writing(job) = &mut self.state {
            let done = unwind(job.await);
            self.state = State::Failed;
            self.state = State::Idle(done.flatten()?);
        }
        Ok(())
    }

    async fn finish(mut self) -> Result<()> {
        if !self.is_empty() && !matches!(self.state, State::Failed) {
            self.hand_over().await?;
        }
        self.idle().await
    }
}

impl Drop for Gathering {
    /// Whoever gives up in the middle of a body loses none of it: the rest is written behind their
    /// back, and only then is the session free for the next.
    fn drop(&mut self) {
        let batch = self.gathered();
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
    session: Arc<InUse>,
    work: OwnedMutexGuard<Work>,
    path: PathBuf,
    file: Option<Arc<File>>,
    /// Where the session stood before: so much of it has been promised to the client.
    promised: u64,
    unsynced: u64,
    syncing: Arc<AtomicBool>,
}

impl Writer {
    fn new(inner: Arc<Inner>, session: Arc<InUse>, work: OwnedMutexGuard<Work>) -> Self {
        let path = inner.layout.upload_data(&session.id);
        let promised = session.offset();
        Self {
            inner,
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
        let inner = Arc::clone(&self.inner);
        // Never closed, so that there is always a permit to be had.
        let _permit = inner.limits.batches.acquire().await;
        // If anything fails from here, the hasher's state is lost, and the file tells it again.
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

    /// Appends a batch, whole or not at all, and not where nobody would find it again.
    fn write(self, batch: &[u8]) -> Result<Self> {
        let inner = Arc::clone(&self.inner);
        inner.root.confirm(self.write_at_end(batch))
    }

    fn write_at_end(mut self, batch: &[u8]) -> Result<Self> {
        let file = match &self.file {
            Some(file) => Arc::clone(file),
            None => self.open()?,
        };
        let offset = self.session.offset();
        let length = batch.len() as u64;
        let written = self.inner.in_room(|| {
            self.inner.take_room(length)?;
            file.write_all_at(batch, offset).map_err(|e| {
                self.inner.sessions.held.give_back(length);
                // A part of the batch may be there, and on a full disk it only takes up room.
                let _ = file.set_len(offset);
                StoreError::io(&self.path, e)
            })
        });
        if let Err(e) = written {
            if e.kind() == ErrorKind::NoSpace {
                // The client is told that the request failed, and the room is somebody else's. The
                // hasher is lost with this writer; the file tells its state again.
                let _ = file.set_len(self.promised);
                self.session.refuse(self.promised);
            }
            return Err(e);
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
        let file = match opened {
            // The folder goes when the session ends.
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(StoreError::UploadUnknown),
            opened => opened.map_err(|e| StoreError::io(&self.path, e))?,
        };
        cut(&file, &self.path, offset)?;
        let file = Arc::new(file);
        self.file = Some(Arc::clone(&file));
        Ok(file)
    }

    fn sync_ahead(&mut self, file: &Arc<File>) {
        let permit = Arc::clone(&self.inner.limits.syncs).try_acquire_owned();
        let Ok(permit) = permit else { return };
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
            drop(permit);
        }));
    }
}

/// The hasher's state after the first `length` bytes of a file.
pub(in crate::store::fs) fn hash(path: &Path, algorithm: Algorithm, length: u64) -> Result<Hasher> {
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
