//! One end of TLS beside the socket that it reads and writes.
//!
//! The socket stays where it is, so that others may watch it, move it to another runtime or give it up.
//! What is read is decrypted straight into the caller's buffer. What is written is encrypted at once, and
//! waits here for as long as the socket takes nothing: at most [`MAX_WAITING`] bytes of it.

use std::cell::RefCell;
use std::fmt;
use std::io::{self, BufRead as _, IoSlice, Write};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::BufMut;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{
    self, ClientConfig, ClientConnection, Connection, ProtocolVersion, ServerConfig,
    ServerConnection,
};

use super::raw_stream::RawStream;

/// The most bytes that wait to be sent: four records.
const MAX_WAITING: usize = 64 << 10;

/// How much is read of a socket at a time, at most.
const READ: usize = 64 << 10;

/// How much rustls takes of what was read, at a time.
const STEP: usize = 4 << 10;

/// The longest record (RFC 8446 §5.2), and what rustls takes beside it.
const RECORD_AND_STEP: usize = (16 << 10) + 256 + STEP;

/// What a connection that speaks TLS begins with: a record of the handshake (RFC 8446 §5.1).
const HANDSHAKE_RECORD: u8 = 22;

thread_local! {
    /// What is read passes through here: it is empty again before anything else is done.
    static RECEIVED: RefCell<Vec<u8>> = RefCell::new(vec![0; READ]);
}

/// One end of TLS.
pub struct TlsCodec {
    connection: Connection,
    /// What was read of the socket, and what rustls takes once the caller has had what is decrypted.
    untaken: Vec<u8>,
    /// The socket took not all that was encrypted.
    is_blocked: bool,
    has_begun: bool,
}

/// Why a handshake failed.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The other end speaks no TLS. These are its first bytes.
    #[error("it does not speak TLS")]
    NotTls(Vec<u8>),
    /// The connection failed or was closed.
    #[error("the connection was closed during the TLS handshake")]
    Closed(#[source] io::Error),
    /// One end refused what the other one said.
    #[error(transparent)]
    Refused(rustls::Error),
}

/// What an idle connection has to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pending {
    /// Nothing.
    Nothing,
    /// It was closed, or says what nobody asked for.
    Something,
}

impl TlsCodec {
    /// The end of a server.
    ///
    /// # Errors
    /// If the configuration is of no use.
    pub fn server(config: Arc<ServerConfig>) -> Result<TlsCodec, rustls::Error> {
        Ok(TlsCodec::new(ServerConnection::new(config)?.into()))
    }

    /// The end of a client that asks for a server of this name.
    ///
    /// # Errors
    /// If the configuration is of no use.
    pub fn client(
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> Result<TlsCodec, rustls::Error> {
        Ok(TlsCodec::new(ClientConnection::new(config, name)?.into()))
    }

    fn new(mut connection: Connection) -> TlsCodec {
        connection.set_buffer_limit(Some(MAX_WAITING));
        TlsCodec {
            connection,
            untaken: Vec::new(),
            is_blocked: false,
            has_begun: false,
        }
    }

    /// The protocol that both ends agreed on (RFC 7301), if they did.
    pub fn alpn(&self) -> Option<&[u8]> {
        self.connection.alpn_protocol()
    }

    /// Whether the other end has shown a certificate, which was verified.
    pub fn has_peer_certificate(&self) -> bool {
        self.connection.peer_certificates().is_some()
    }

    /// Takes bytes that were read of the socket already, before the handshake.
    ///
    /// # Errors
    /// If they are no TLS.
    pub fn receive_first(&mut self, mut first: &[u8]) -> Result<(), HandshakeError> {
        self.check_first(first)?;
        while !first.is_empty() && self.step(&mut first).map_err(handshake_error)? {}
        Ok(())
    }

    /// Shakes hands. The last flight of a client of TLS 1.3 may go with the first bytes that are written.
    pub fn poll_handshake(
        &mut self,
        raw: &impl RawStream,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), HandshakeError>> {
        while self.connection.is_handshaking() || self.owes_last_flight() {
            if self.connection.wants_write() {
                ready!(self.poll_flush(raw, context)).map_err(HandshakeError::Closed)?;
                continue;
            }
            ready!(raw.poll_readable(context)).map_err(HandshakeError::Closed)?;
            let received = RECEIVED.with_borrow_mut(|scratch| {
                let length = raw.try_receive(&mut scratch[..STEP])?;
                if length == 0 {
                    return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
                }
                Ok(self.receive_first(&scratch[..length]))
            });
            match received {
                Ok(taken) => {
                    if let Err(error) = taken {
                        // The other end learns why, if it can.
                        let _ = self.try_flush(raw);
                        return Poll::Ready(Err(error));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(HandshakeError::Closed(error))),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Whether the other end waits for what is not sent yet. In TLS 1.2, a client says nothing before the
    /// server's last flight (RFC 5246 §7.3). In TLS 1.3, that flight is tickets alone, and a client whose
    /// socket holds back small writes sends its request once its own last flight is acknowledged: the
    /// tickets do that at once, and the kernel alone after 40 ms.
    fn owes_last_flight(&self) -> bool {
        let is_1_3 = self.connection.protocol_version() == Some(ProtocolVersion::TLSv1_3);
        let is_server = matches!(self.connection, Connection::Server(_));
        self.connection.wants_write() && (is_server || !is_1_3)
    }

    fn check_first(&mut self, received: &[u8]) -> Result<(), HandshakeError> {
        match received.first() {
            Some(first) if !self.has_begun && *first != HANDSHAKE_RECORD => {
                // A server answers a bad hello with an alert.
                let is_alert = matches!(self.connection, Connection::Client(_)) && *first == 21;
                if is_alert {
                    self.has_begun = true;
                    return Ok(());
                }
                Err(HandshakeError::NotTls(received.to_vec()))
            }
            Some(_) => {
                self.has_begun = true;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Reads into the free space of a buffer. 0 is the end.
    pub fn poll_read(
        &mut self,
        raw: &impl RawStream,
        context: &mut Context<'_>,
        buffer: &mut impl BufMut,
    ) -> Poll<io::Result<usize>> {
        loop {
            match self.take(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                taken => return Poll::Ready(taken),
            }
            if self.untaken.is_empty() {
                ready!(raw.poll_readable(context))?;
            }
            match self.receive(raw, buffer) {
                Ok(0) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                received => return Poll::Ready(received),
            }
        }
    }

    /// Reads of the socket, and decrypts into the buffer. 0 where nothing was for the caller.
    fn receive(&mut self, raw: &impl RawStream, buffer: &mut impl BufMut) -> io::Result<usize> {
        RECEIVED.with_borrow_mut(|scratch| {
            let length = if self.untaken.is_empty() {
                // All that is decrypted should fit into the buffer, or into what rustls keeps.
                let room = buffer.chunk_mut().len();
                let most = room.saturating_sub(RECORD_AND_STEP).clamp(STEP, READ);
                raw.try_receive(&mut scratch[..most])?
            } else {
                // A connection that is idle holds no buffer.
                let untaken = std::mem::take(&mut self.untaken);
                scratch[..untaken.len()].copy_from_slice(&untaken);
                untaken.len()
            };
            let mut received = &scratch[..length];
            let mut taken = 0;
            // The end of the socket is a step, too.
            loop {
                let stepped = self.step(&mut received);
                if stepped.is_err() {
                    // The other end learns why, if it can.
                    let _ = self.try_flush(raw);
                }
                let has_more = stepped? && !received.is_empty();
                match self.take(buffer) {
                    Ok(more) => taken += more,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) if taken == 0 => return Err(error),
                    // It is found again, after what was read before it.
                    Err(_) => break,
                }
                if !has_more {
                    break;
                }
                // rustls keeps a record and refuses more, even where a step has taken a part of what was
                // read: the rest waits until the caller has taken what there is.
                if self.has_decrypted() {
                    self.untaken.extend_from_slice(received);
                    break;
                }
            }
            // Such as the other end's wish for new keys.
            if self.connection.wants_write() && !self.is_blocked {
                let _ = self.try_flush(raw);
            }
            Ok(taken)
        })
    }

    /// Whether something is decrypted that the caller has not taken.
    fn has_decrypted(&mut self) -> bool {
        let mut reader = self.connection.reader();
        reader.fill_buf().is_ok_and(|there| !there.is_empty())
    }

    /// Gives rustls some of what was received, or its end. Returns whether it took any: after a
    /// `close_notify` it takes nothing.
    fn step(&mut self, received: &mut &[u8]) -> io::Result<bool> {
        let taken = self.connection.read_tls(received)?;
        let processed = self.connection.process_new_packets();
        let invalid = |error| io::Error::new(io::ErrorKind::InvalidData, error);
        processed.map_err(invalid)?;
        Ok(taken > 0)
    }

    /// What is decrypted already. An end that the other side has not announced is an error.
    fn take(&mut self, buffer: &mut impl BufMut) -> io::Result<usize> {
        let mut taken = 0;
        loop {
            let mut reader = self.connection.reader();
            let there = match reader.fill_buf() {
                Ok(there) => there,
                Err(_) if taken > 0 => return Ok(taken),
                Err(error) => return Err(error),
            };
            let length = there.len().min(buffer.chunk_mut().len());
            if length == 0 {
                return Ok(taken);
            }
            buffer.put_slice(&there[..length]);
            reader.consume(length);
            taken += length;
        }
    }

    /// Encrypts some of the bytes, and writes what fits.
    pub fn poll_write(
        &mut self,
        raw: &impl RawStream,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.is_blocked {
            ready!(self.poll_flush(raw, context))?;
        }
        let mut writer = self.connection.writer();
        let written = match slices {
            [slice] => writer.write(slice),
            slices => writer.write_vectored(slices),
        };
        let written = written?;
        match self.try_flush(raw) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            flushed => flushed?,
        }
        Poll::Ready(Ok(written))
    }

    /// Writes all that was encrypted.
    pub fn poll_flush(
        &mut self,
        raw: &impl RawStream,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            match self.try_flush(raw) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(raw.poll_writable(context))?;
                }
                flushed => return Poll::Ready(flushed),
            }
        }
    }

    /// Writes what fits of what was encrypted.
    fn try_flush(&mut self, raw: &impl RawStream) -> io::Result<()> {
        while self.connection.wants_write() {
            let written = self.connection.write_tls(&mut RawWriter(raw));
            self.is_blocked = written
                .as_ref()
                .is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
            if written? == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
        }
        Ok(())
    }

    /// Says that nothing more will be written, as far as it can be said without a wait.
    pub fn close(&mut self, raw: &impl RawStream) {
        self.connection.send_close_notify();
        let _ = self.try_flush(raw);
    }

    /// At most how many bytes were received and not read.
    pub fn unread(&mut self) -> usize {
        let buffered = self.connection.reader().fill_buf().map_or(0, <[u8]>::len);
        // A record may be there in part.
        buffered + self.untaken.len() + RECORD_AND_STEP
    }

    /// What an idle connection has to say. What only TLS has to say to itself is heard, such as tickets.
    pub fn pending(&mut self, raw: &impl RawStream) -> Pending {
        let mut nothing = [0_u8; 0];
        loop {
            match self.receive(raw, &mut &mut nothing[..]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return match self.connection.reader().fill_buf() {
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Pending::Nothing,
                        _ => Pending::Something,
                    };
                }
                Ok(0) => match self.connection.reader().fill_buf() {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    _ => return Pending::Something,
                },
                Ok(_) | Err(_) => return Pending::Something,
            }
        }
    }
}

fn handshake_error(error: io::Error) -> HandshakeError {
    match error.downcast::<rustls::Error>() {
        Ok(error) => HandshakeError::Refused(error),
        Err(error) => HandshakeError::Closed(error),
    }
}

impl fmt::Debug for TlsCodec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsCodec")
    }
}

/// What rustls writes to.
struct RawWriter<'r, R>(&'r R);

impl<R: RawStream> Write for RawWriter<'_, R> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_send(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_send(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
