//! Both ends, over a real connection.

use std::future::poll_fn;
use std::sync::Arc;

use bytes::BytesMut;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use super::*;
use crate::tls::Unseen;

/// A connection's end: the socket, and what speaks TLS over it.
struct End {
    socket: TcpStream,
    codec: TlsCodec,
}

impl End {
    async fn shake(&mut self) -> Result<(), HandshakeError> {
        poll_fn(|context| self.codec.poll_handshake(&self.socket, context)).await?;
        // Otherwise the last flight goes with the first bytes.
        let flush = poll_fn(|context| self.codec.poll_flush(&self.socket, context));
        flush.await.map_err(HandshakeError::Closed)
    }

    async fn write_all(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let halves = bytes.split_at(bytes.len() / 2);
            let slices = [IoSlice::new(halves.0), IoSlice::new(halves.1)];
            let write = poll_fn(|context| self.codec.poll_write(&self.socket, context, &slices));
            let written = write.await.unwrap();
            assert!(written > 0);
            bytes = &bytes[written..];
        }
        let flush = poll_fn(|context| self.codec.poll_flush(&self.socket, context));
        flush.await.unwrap();
    }

    /// Reads into buffers of so much room.
    async fn read(&mut self, room: usize) -> io::Result<Vec<u8>> {
        let mut buffer = BytesMut::with_capacity(room).limit(room);
        let read = poll_fn(|context| self.codec.poll_read(&self.socket, context, &mut buffer));
        let length = read.await?;
        let buffer = buffer.into_inner();
        assert_eq!(buffer.len(), length);
        Ok(buffer.to_vec())
    }

    async fn read_exactly(&mut self, length: usize, room: usize) -> Vec<u8> {
        let mut all = Vec::new();
        while all.len() < length {
            let piece = self.read(room.min(length - all.len())).await.unwrap();
            assert!(!piece.is_empty(), "it ended after {} bytes", all.len());
            all.extend(piece);
        }
        all
    }
}

async fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let connecting = TcpStream::connect(listener.local_addr().unwrap());
    let (near, far) = tokio::join!(connecting, listener.accept());
    (near.unwrap(), far.unwrap().0)
}

/// A client that trusts the server, and the server.
async fn ends() -> (End, End) {
    ends_of(rustls::ALL_VERSIONS).await
}

/// Such ends, whose client speaks these versions.
async fn ends_of(versions: &[&'static rustls::SupportedProtocolVersion]) -> (End, End) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(ring::default_provider());
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let (near, far) = sockets().await;
    let name = ServerName::try_from("localhost").unwrap();
    let client = End {
        socket: near,
        codec: TlsCodec::client(Arc::new(client), name).unwrap(),
    };
    let server = End {
        socket: far,
        codec: TlsCodec::server(Arc::new(server)).unwrap(),
    };
    (client, server)
}

async fn connected() -> (End, End) {
    let (mut client, mut server) = ends().await;
    let (near, far) = tokio::join!(client.shake(), server.shake());
    near.unwrap();
    far.unwrap();
    (client, server)
}

/// A client of TLS 1.2 says nothing before the server's last flight, and a server has nothing to say before
/// the client does.
#[tokio::test]
async fn a_server_sends_its_last_flight_by_itself_in_each_version() {
    for version in rustls::ALL_VERSIONS {
        let (mut client, mut server) = ends_of(&[version]).await;
        let serve = async {
            // Nothing else is flushed.
            let shake = poll_fn(|context| server.codec.poll_handshake(&server.socket, context));
            shake.await.unwrap();
            server.read_exactly(5, 100).await
        };
        let ask = async {
            client.shake().await.unwrap();
            client.write_all(b"hello").await;
        };
        let (heard, ()) = tokio::join!(serve, ask);
        assert_eq!(heard, b"hello", "{version:?}");
    }
}

fn content(length: usize) -> Vec<u8> {
    (0..length)
        .map(|at| (at * 31 % 251).to_le_bytes()[0])
        .collect()
}

#[tokio::test]
async fn bytes_pass_whole_in_both_directions_into_buffers_of_any_size() {
    for (length, room) in [
        (1, 1),
        (100, 7),
        (100_000, 1),
        (300_000, 3_000),
        (3_000_000, 16 << 10),
        (3_000_000, 128 << 10),
    ] {
        let (mut client, mut server) = connected().await;
        let sent = content(length);
        let ((), received) =
            tokio::join!(client.write_all(&sent), server.read_exactly(length, room));
        assert!(received == sent, "{length} up, {room}");
        let ((), received) =
            tokio::join!(server.write_all(&sent), client.read_exactly(length, room));
        assert!(received == sent, "{length} down, {room}");
    }
}

/// As HTTP/2 writes its frames: a whole record, and a short one after it. Together they are more than rustls
/// keeps, and a step may end in the middle of what was read.
#[tokio::test]
async fn records_that_rustls_cannot_keep_are_not_lost() {
    for (room, short) in [(1, 9), (500, 900), (3_000, 900)] {
        let (mut client, mut server) = connected().await;
        let sent = content(1_000_000);
        let write = async {
            for frame in sent.chunks((16 << 10) + short) {
                client.write_all(frame).await;
            }
        };
        let ((), received) = tokio::join!(write, server.read_exactly(sent.len(), room));
        assert!(received == sent, "{room}");
    }
}

#[tokio::test]
async fn what_waits_for_a_peer_that_does_not_read_is_bounded() {
    let (_client, mut server) = connected().await;
    let piece = content(1 << 20);
    let mut taken = 0;
    for _ in 0..1_000 {
        let slices = [IoSlice::new(&piece)];
        let write = poll_fn(|context| {
            let written = server.codec.poll_write(&server.socket, context, &slices);
            Poll::Ready(match written {
                Poll::Ready(written) => written.unwrap(),
                Poll::Pending => 0,
            })
        });
        let written = write.await;
        assert!(written <= MAX_WAITING);
        taken += written;
        if written == 0 {
            break;
        }
    }
    // The sockets hold the rest.
    assert!(taken < 100 << 20, "{taken}");
}

#[tokio::test]
async fn an_announced_end_is_an_end_and_another_one_is_an_error() {
    let (mut client, mut server) = connected().await;
    client.write_all(b"last").await;
    client.codec.close(&client.socket);
    assert_eq!(server.read(100).await.unwrap(), b"last");
    assert_eq!(server.read(100).await.unwrap(), b"");
    // The other direction goes on.
    server.write_all(b"rest").await;
    assert_eq!(client.read(100).await.unwrap(), b"rest");

    let (mut client, mut server) = connected().await;
    client.write_all(b"last").await;
    client.socket.shutdown().await.unwrap();
    assert_eq!(server.read(100).await.unwrap(), b"last");
    let error = server.read(100).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn bytes_after_the_announced_end_are_not_read() {
    let (mut client, mut server) = connected().await;
    client.codec.close(&client.socket);
    client.socket.write_all(&content(20_000)).await.unwrap();
    assert_eq!(server.read(128 << 10).await.unwrap(), b"");
    assert_eq!(server.codec.pending(&server.socket), Pending::Something);
}

#[tokio::test]
async fn an_idle_connection_hears_its_tickets_and_says_nothing() {
    let (mut client, mut server) = connected().await;
    // They go with the first bytes.
    server.write_all(b"a").await;
    assert_eq!(client.read(1).await.unwrap(), b"a");
    for _ in 0..100 {
        tokio::task::yield_now().await;
        assert_eq!(client.codec.pending(&client.socket), Pending::Nothing);
        assert_eq!(
            client.codec.pending(&Unseen(&client.socket)),
            Pending::Nothing
        );
    }
    server.write_all(b"b").await;
    assert_eq!(
        client.codec.pending(&Unseen(&client.socket)),
        Pending::Something
    );
    drop(server);

    let (mut client, server) = connected().await;
    drop(server);
    client.socket.readable().await.unwrap();
    assert_eq!(client.codec.pending(&client.socket), Pending::Something);
}

#[tokio::test]
async fn what_is_no_tls_is_told_apart() {
    let (_, mut server) = ends().await;
    let error = server
        .codec
        .receive_first(b"GET / HTTP/1.1\r\n")
        .unwrap_err();
    assert!(matches!(error, HandshakeError::NotTls(first) if first.starts_with(b"GET ")));

    let (mut client, mut server) = ends().await;
    client
        .socket
        .write_all(b"GET / HTTP/1.1\r\n")
        .await
        .unwrap();
    let error = server.shake().await.unwrap_err();
    assert!(matches!(error, HandshakeError::NotTls(first) if first.starts_with(b"GET ")));

    let (client, mut server) = ends().await;
    drop(client);
    let error = server.shake().await.unwrap_err();
    assert!(matches!(error, HandshakeError::Closed(_)));
}

#[tokio::test]
async fn a_handshake_that_is_refused_says_why_to_both() {
    let (mut client, _) = ends().await;
    let (_, mut server) = ends().await;
    let (near, far) = sockets().await;
    client.socket = near;
    server.socket = far;
    let (client, server) = tokio::join!(client.shake(), server.shake());
    assert!(matches!(
        client.unwrap_err(),
        HandshakeError::Refused(rustls::Error::InvalidCertificate(_))
    ));
    assert!(matches!(
        server.unwrap_err(),
        HandshakeError::Refused(rustls::Error::AlertReceived(_))
    ));
}

#[tokio::test]
async fn the_first_bytes_may_have_been_read_already() {
    let (mut client, mut server) = ends().await;
    let begin = poll_fn(|context| {
        assert!(
            client
                .codec
                .poll_handshake(&client.socket, context)
                .is_pending()
        );
        Poll::Ready(())
    });
    begin.await;
    server.socket.readable().await.unwrap();
    let mut first = vec![0; 8 << 10];
    let length = server.socket.try_read(&mut first).unwrap();
    server.codec.receive_first(&first[..length]).unwrap();
    let (near, far) = tokio::join!(client.shake(), server.shake());
    near.unwrap();
    far.unwrap();
}
