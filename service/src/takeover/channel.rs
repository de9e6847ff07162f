//! The connection between two processes: lines, and descriptors beside them.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg, sockopt,
};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::error::TakeoverError;
use super::message::{LONGEST, MessageError, TakeoverMessage};

/// The most descriptors of a message: more than the listeners that a configuration may have.
pub(super) const MOST_SOCKETS: usize = 128;

/// How long each side waits for the other's next word, unless that takes real work.
pub(super) const STEP: Duration = Duration::from_secs(10);

const CHUNK: usize = 4096;

/// One side of the connection.
#[derive(Debug)]
pub(super) struct Channel {
    stream: UnixStream,
    /// Read, and not parsed yet.
    buffer: Vec<u8>,
    descriptors: Vec<OwnedFd>,
}

/// Who is at the other side.
#[derive(Clone, Copy, Debug)]
pub(super) struct PeerProcess {
    pub(super) pid: i32,
    pub(super) user: u32,
}

impl Channel {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            buffer: Vec::new(),
            descriptors: Vec::new(),
        }
    }

    /// Who is at the other side, as the kernel says.
    pub(super) fn peer(&self) -> io::Result<PeerProcess> {
        let peer = sockopt::socket_peercred(&self.stream)?;
        Ok(PeerProcess {
            pid: peer.pid.as_raw_nonzero().get(),
            user: peer.uid.as_raw(),
        })
    }

    /// Sends a message, with descriptors.
    pub(super) async fn send(
        &self,
        message: &TakeoverMessage,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), TakeoverError> {
        let line = message.to_line()?;
        if descriptors.len() > MOST_SOCKETS {
            return Err(MessageError::TooManySockets(MOST_SOCKETS).into());
        }
        let sending = async {
            let sent = self.stream.async_io(Interest::WRITABLE, || {
                let mut space =
                    [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_SOCKETS))];
                let mut control = SendAncillaryBuffer::new(&mut space);
                if !descriptors.is_empty() {
                    // There is space for as many as were counted above.
                    control.push(SendAncillaryMessage::ScmRights(descriptors));
                }
                let flags = SendFlags::NOSIGNAL;
                let sent = sendmsg(&self.stream, &[IoSlice::new(&line)], &mut control, flags);
                sent.map_err(io::Error::from)
            });
            let sent = sent.await?;
            write_all(&self.stream, line.get(sent..).unwrap_or_default()).await
        };
        let sent = timeout(STEP, sending).await;
        sent.map_err(|_| TakeoverError::TimedOut("that it listens", STEP))??;
        Ok(())
    }

    /// The next message, which is expected to be `expected`, and has so much time.
    pub(super) async fn receive(
        &mut self,
        expected: &'static str,
        limit: Duration,
    ) -> Result<TakeoverMessage, TakeoverError> {
        let line = timeout(limit, self.line(expected)).await;
        let line = line.map_err(|_| TakeoverError::TimedOut(expected, limit))??;
        match TakeoverMessage::parse(&line)? {
            TakeoverMessage::Refused(refused) => Err(TakeoverError::Refused(refused.reason)),
            message if message.name() == expected => Ok(message),
            message => Err(TakeoverError::Unexpected {
                expected,
                said: message.name(),
            }),
        }
    }

    /// The descriptors that have come so far.
    pub(super) fn take_descriptors(&mut self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.descriptors)
    }

    async fn line(&mut self, expected: &'static str) -> Result<Vec<u8>, TakeoverError> {
        let mut searched = 0;
        loop {
            let found = self.buffer[searched..]
                .iter()
                .position(|&byte| byte == b'\n');
            if let Some(at) = found {
                let rest = self.buffer.split_off(searched + at + 1);
                let mut line = std::mem::replace(&mut self.buffer, rest);
                line.pop();
                return Ok(line);
            }
            searched = self.buffer.len();
            if searched > LONGEST {
                return Err(MessageError::TooLong.into());
            }
            if self.fill().await? == 0 {
                return Err(TakeoverError::Closed(expected));
            }
        }
    }

    /// Reads some more, with the descriptors that come with it.
    async fn fill(&mut self) -> Result<usize, TakeoverError> {
        let Self {
            stream,
            buffer,
            descriptors,
        } = self;
        let read = stream.async_io(Interest::READABLE, || {
            let mut chunk = [0; CHUNK];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_SOCKETS))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let flags = RecvFlags::CMSG_CLOEXEC;
            let mut parts = [IoSliceMut::new(&mut chunk)];
            let received = recvmsg(&*stream, &mut parts, &mut control, flags)?;
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(rights) = message {
                    descriptors.extend(rights);
                }
            }
            let length = received.bytes.min(CHUNK);
            buffer.extend_from_slice(&chunk[..length]);
            Ok((length, received.flags.contains(ReturnFlags::CTRUNC)))
        });
        let (length, is_cut) = read.await?;
        // The kernel leaves out what there is no space for.
        if is_cut || descriptors.len() > MOST_SOCKETS {
            return Err(MessageError::TooManySockets(MOST_SOCKETS).into());
        }
        Ok(length)
    }
}

async fn write_all(stream: &UnixStream, bytes: &[u8]) -> io::Result<()> {
    let mut rest = bytes;
    while !rest.is_empty() {
        stream.writable().await?;
        match stream.try_write(rest) {
            Ok(written) => rest = &rest[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
