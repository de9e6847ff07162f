//! The TLS handshake of a client, before anything of HTTP.

use std::future::poll_fn;
use std::io;
use std::time::Duration;

use bytes::BytesMut;
use service::listen::ClientStream;
use service::tls::Tls;
use service::tls::codec::{HandshakeError, TlsCodec};
use tokio::time::timeout;

use super::buffers::SMALL;
use super::socket::Socket;
use crate::error::{Failure, Refusal};

/// How long a client that speaks plain HTTP may take to read that it should not.
const LINGER: Duration = Duration::from_secs(2);

/// Shakes hands within the limit. `first` was read of the connection already.
pub(crate) async fn handshake(
    stream: ClientStream,
    tls: &Tls,
    first: &[u8],
    limit: Duration,
) -> Result<Socket, HandshakeError> {
    let mut codec = TlsCodec::server(tls.config()).map_err(HandshakeError::Refused)?;
    let shaken = match codec.receive_first(first) {
        Ok(()) => {
            let shake = poll_fn(|context| codec.poll_handshake(&stream, context));
            let late = |_| Err(HandshakeError::Closed(io::ErrorKind::TimedOut.into()));
            timeout(limit, shake).await.unwrap_or_else(late)
        }
        Err(error) => Err(error),
    };
    match shaken {
        Ok(()) => Ok(Socket::inside_tls(stream, codec)),
        Err(error) => {
            if let HandshakeError::NotTls(said) = &error
                && said.first().is_some_and(u8::is_ascii_uppercase)
            {
                // A method: such a client can read a response.
                refuse_plain_http(stream).await;
            }
            Err(error)
        }
    }
}

async fn refuse_plain_http(stream: ClientStream) {
    let socket = Socket::new(stream);
    let response = Failure::Refused(Refusal::PlainHttp).to_http1();
    // It fits: nothing was written before.
    let _ = socket.try_write(&response);
    socket.shut_down_writing();
    let mut ignored = BytesMut::with_capacity(SMALL);
    // Closed at once, unread bytes would make the kernel reset it (RFC 9112 §9.6).
    let read = async {
        loop {
            ignored.clear();
            let read = poll_fn(|context| socket.poll_read(context, &mut ignored));
            if !read.await.is_ok_and(|length| length > 0) {
                return;
            }
        }
    };
    let _ = timeout(LINGER, read).await;
}
