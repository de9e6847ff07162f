//! Large bodies between two TCP sockets without a copy through this process: the kernel moves them
//! through a pipe (splice(2)).

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use parking_lot::Mutex;
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use tokio::io::Interest;
use tokio::net::TcpStream;

/// How much of a body must be left to be worth a pipe.
pub(super) const SPLICE_FROM: u64 = 128 << 10;

/// How much a pipe holds, and so a transfer that stalls.
const PIPE_SIZE: usize = 256 << 10;

/// The most pipes. A user without privileges has 64 MiB for all of theirs (pipe(7)), and each takes two
/// file descriptors. Where there are more transfers, bodies are copied.
const MAX_PIPES: usize = 256;

/// Pipes, which are used again.
#[derive(Clone)]
pub(super) struct Pipes(Arc<SharedPipes>);

struct SharedPipes {
    limit: usize,
    idle: Mutex<Vec<Pipe>>,
    /// Those that are idle or in use.
    count: AtomicUsize,
}

/// The two ends of an empty pipe.
struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
}

/// A pipe in use.
pub(super) struct Splice {
    pipes: Pipes,
    /// Always there, until it is dropped.
    pipe: Option<Pipe>,
    /// How many bytes are in it.
    held: usize,
}

/// Which socket has failed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum SpliceError {
    From,
    To,
}

/// Which socket is waited for, or how much went out.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Spliced {
    AwaitsFrom,
    AwaitsTo,
    Moved(usize),
}

impl Pipes {
    /// At most so many, and never more than [`MAX_PIPES`].
    pub(super) fn new(limit: usize) -> Pipes {
        Pipes(Arc::new(SharedPipes {
            limit: limit.min(MAX_PIPES),
            idle: Mutex::default(),
            count: AtomicUsize::new(0),
        }))
    }

    /// A pipe, unless there are too many, or the kernel gives none of the size.
    pub(super) fn take(&self) -> Option<Splice> {
        let idle = self.0.idle.lock().pop();
        let pipe = match idle {
            Some(pipe) => pipe,
            None => self.make()?,
        };
        Some(Splice {
            pipes: self.clone(),
            pipe: Some(pipe),
            held: 0,
        })
    }

    fn make(&self) -> Option<Pipe> {
        if self.0.count.fetch_add(1, Ordering::Relaxed) < self.0.limit
            && let Ok((read, write)) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)
            && fcntl_setpipe_size(&write, PIPE_SIZE).is_ok()
        {
            return Some(Pipe { read, write });
        }
        self.0.count.fetch_sub(1, Ordering::Relaxed);
        None
    }
}

impl Splice {
    /// How many bytes were taken from the first socket and not sent yet.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// Moves some of a body that has so many bytes left in the first socket. What has arrived goes on
    /// before more is taken.
    pub(super) fn poll_move(
        &mut self,
        context: &mut Context<'_>,
        from: &TcpStream,
        to: &TcpStream,
        left: u64,
    ) -> Result<Spliced, SpliceError> {
        if self.held == 0 {
            match self.poll_fill(context, from, left) {
                Poll::Pending => return Ok(Spliced::AwaitsFrom),
                Poll::Ready(Ok(taken)) if taken > 0 => self.held = taken,
                Poll::Ready(_) => return Err(SpliceError::From),
            }
        }
        match self.poll_drain(context, to) {
            Poll::Pending => Ok(Spliced::AwaitsTo),
            Poll::Ready(Ok(sent)) if sent > 0 => {
                self.held -= sent;
                Ok(Spliced::Moved(sent))
            }
            Poll::Ready(_) => Err(SpliceError::To),
        }
    }

    fn poll_fill(
        &self,
        context: &mut Context<'_>,
        from: &TcpStream,
        left: u64,
    ) -> Poll<io::Result<usize>> {
        let Some(pipe) = &self.pipe else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        let most = usize::try_from(left).map_or(PIPE_SIZE, |left| left.min(PIPE_SIZE));
        loop {
            ready!(from.poll_read_ready(context))?;
            match from.try_io(Interest::READABLE, || move_bytes(from, &pipe.write, most)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                moved => return Poll::Ready(moved),
            }
        }
    }

    fn poll_drain(&self, context: &mut Context<'_>, to: &TcpStream) -> Poll<io::Result<usize>> {
        let Some(pipe) = &self.pipe else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        loop {
            ready!(to.poll_write_ready(context))?;
            match to.try_io(Interest::WRITABLE, || move_bytes(&pipe.read, to, self.held)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                moved => return Poll::Ready(moved),
            }
        }
    }
}

fn move_bytes(from: impl AsFd, to: impl AsFd, most: usize) -> io::Result<usize> {
    let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
    Ok(splice(from, None, to, None, most, flags)?)
}

/// Gives an empty pipe back; one that holds bytes is of no use any more.
impl Drop for Splice {
    fn drop(&mut self) {
        let Some(pipe) = self.pipe.take() else {
            return;
        };
        if self.held == 0 {
            self.pipes.0.idle.lock().push(pipe);
        } else {
            self.pipes.0.count.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let connecting = TcpStream::connect(listener.local_addr().unwrap());
        let (near, far) = tokio::join!(connecting, listener.accept());
        (near.unwrap(), far.unwrap().0)
    }

    #[tokio::test]
    async fn a_body_passes_whole_and_its_pipe_is_used_again() {
        let pipes = Pipes::new(usize::MAX);
        let content: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_le_bytes()[1]).collect();
        for _ in 0..2 {
            let (mut source, from) = pair().await;
            let (to, mut sink) = pair().await;
            let sending = content.clone();
            let sending = tokio::spawn(async move { source.write_all(&sending).await });
            let length = content.len();
            let receiving = tokio::spawn(async move {
                let mut received = vec![0; length];
                sink.read_exact(&mut received).await.map(|_| received)
            });
            let mut splice = pipes.take().unwrap();
            let mut left = content.len() as u64;
            while left > 0 {
                let moved = poll_fn(
                    |context| match splice.poll_move(context, &from, &to, left) {
                        Ok(Spliced::Moved(moved)) => Poll::Ready(moved),
                        Ok(_) => Poll::Pending,
                        Err(error) => panic!("{error:?}"),
                    },
                );
                left -= moved.await as u64;
            }
            drop(splice);
            sending.await.unwrap().unwrap();
            assert!(receiving.await.unwrap().unwrap() == content);
            assert_eq!(pipes.0.count.load(Ordering::Relaxed), 1);
        }
    }

    #[test]
    fn pipes_are_bounded_in_all() {
        let pipes = Pipes::new(usize::MAX);
        let taken: Vec<_> = std::iter::from_fn(|| pipes.take())
            .take(MAX_PIPES + 1)
            .collect();
        assert_eq!(taken.len(), MAX_PIPES);
        drop(taken);
        assert!(pipes.take().is_some());
        assert_eq!(pipes.0.count.load(Ordering::Relaxed), MAX_PIPES);
    }
}
