//! A connection to an upstream inside TLS.

use std::fmt;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use service::log::{OutcomeChange, OutcomeChanges};
use service::tls::codec::{HandshakeError, Pending, TlsCodec};
use service::tls::{TlsClient, TlsFailure, Unseen};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long an upstream may take to shake hands.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// TLS towards one replica, and how the last connection to it went.
pub(super) struct ReplicaTls {
    client: TlsClient,
    /// The name of the upstream, for the log.
    upstream: String,
    host: String,
    outcomes: OutcomeChanges,
}

/// A connection to an upstream inside TLS.
pub(crate) struct UpstreamTlsStream {
    codec: TlsCodec,
    stream: TcpStream,
    replica: Arc<ReplicaTls>,
    /// The upstream has said something inside TLS: it accepts our side of the handshake.
    is_accepted: bool,
}

impl ReplicaTls {
    pub(super) fn new(client: TlsClient, upstream: String, host: String) -> ReplicaTls {
        ReplicaTls {
            client,
            upstream,
            host,
            outcomes: OutcomeChanges::default(),
        }
    }

    /// Shakes hands. An error holds a [`TlsFailure`].
    pub(super) async fn connect(
        self: &Arc<ReplicaTls>,
        stream: TcpStream,
    ) -> io::Result<UpstreamTlsStream> {
        let shaken = timeout(HANDSHAKE, self.shake_hands(&stream)).await;
        let shaken = shaken.unwrap_or_else(|_| {
            let late = io::Error::from(io::ErrorKind::TimedOut);
            Err(TlsFailure::during(&late))
        });
        match shaken {
            Ok(codec) => Ok(UpstreamTlsStream {
                codec,
                stream,
                replica: Arc::clone(self),
                is_accepted: false,
            }),
            Err(failure) => {
                self.note(Some(&failure));
                Err(io::Error::other(failure))
            }
        }
    }

    async fn shake_hands(&self, stream: &TcpStream) -> Result<TlsCodec, TlsFailure> {
        let config = Arc::clone(self.client.config());
        let name = self.client.server_name(&self.host);
        let name = name.map_err(|error| TlsFailure::during(&error))?;
        let mut codec = TlsCodec::client(config, name).map_err(|error| TlsFailure::from(&error))?;
        let shaken = poll_fn(|context| codec.poll_handshake(stream, context)).await;
        match shaken {
            Ok(()) => Ok(codec),
            Err(HandshakeError::NotTls(_)) => Err(TlsFailure::not_tls()),
            Err(HandshakeError::Closed(error)) => Err(TlsFailure::during(&error)),
            Err(HandshakeError::Refused(error)) => Err(TlsFailure::from(&error)),
        }
    }

    /// Logs a failure once for as long as it stays the same, and its end.
    fn note(&self, failure: Option<&TlsFailure>) {
        let failure = failure.map(ToString::to_string);
        let (upstream, host) = (&self.upstream, &self.host);
        match (self.outcomes.note(failure.as_deref()), failure) {
            (OutcomeChange::Failed, Some(error)) => {
                tracing::warn!(
                    upstream,
                    host,
                    error,
                    "TLS handshake with the upstream failed"
                );
            }
            (OutcomeChange::Recovered, _) => {
                tracing::info!(
                    upstream,
                    host,
                    "TLS handshake with the upstream succeeded again"
                );
            }
            (OutcomeChange::Failed | OutcomeChange::None, _) => {}
        }
    }
}

impl UpstreamTlsStream {
    pub(super) fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut BytesMut,
    ) -> Poll<io::Result<usize>> {
        let read = self.codec.poll_read(&self.stream, context, buffer);
        if let (Poll::Ready(Ok(1..)), false) = (&read, self.is_accepted) {
            self.is_accepted = true;
            self.replica.note(None);
        }
        read.map_err(|error| self.failed(error))
    }

    pub(super) fn poll_write(
        &mut self,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.codec.poll_write(&self.stream, context, slices)
    }

    pub(super) fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.codec.poll_flush(&self.stream, context)
    }

    /// Whether it has nothing to say, nor has said anything that nobody has read. Mostly the runtime
    /// knows, and no system call is made.
    pub(super) fn is_idle(&mut self) -> bool {
        self.codec.pending(&self.stream) == Pending::Nothing
    }

    /// An idle connection of another runtime, for the one that this is called in.
    pub(super) fn moved_here(mut self) -> Option<UpstreamTlsStream> {
        self.stream = TcpStream::from_std(self.stream.into_std().ok()?).ok()?;
        // What this runtime has not seen yet, the kernel knows.
        let pending = self.codec.pending(&Unseen(&self.stream));
        (pending == Pending::Nothing).then_some(self)
    }

    /// A server that wants a client certificate, or another one, says so only after the handshake (RFC
    /// 8446 §4.4.2).
    fn failed(&self, error: io::Error) -> io::Error {
        let Some(failure) = TlsFailure::of(&error).filter(|_| !self.is_accepted) else {
            return error;
        };
        self.replica.note(Some(&failure));
        io::Error::other(failure)
    }
}

impl fmt::Debug for UpstreamTlsStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("UpstreamTlsStream")
            .field(&self.stream)
            .finish()
    }
}
