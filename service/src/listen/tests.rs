//! Binding, accepting and giving up sockets.

use std::os::unix::fs::PermissionsExt;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use super::*;

async fn bind(address: &str) -> Result<Listener, BindError> {
    Listener::bind(&address.parse().unwrap()).await
}

#[tokio::test]
async fn port_zero_is_replaced_by_the_chosen_port() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let mut listener = bind(address).await.unwrap();
        let ListenAddr::Tcp(bound) = *listener.address() else {
            panic!("not TCP")
        };
        assert_ne!(bound.port(), 0);
        let mut client = TcpStream::connect(bound).await.unwrap();
        let (mut stream, peer) = listener.accept().await;
        assert_eq!(peer, Peer::Tcp(client.local_addr().unwrap()));
        stream.write_all(b"hello").await.unwrap();
        drop(stream);
        let mut read = String::new();
        client.read_to_string(&mut read).await.unwrap();
        assert_eq!(read, "hello");
    }
}

#[tokio::test]
async fn an_address_in_use_is_an_error_that_names_it() {
    let first = bind("127.0.0.1:0").await.unwrap();
    let address = first.address().clone();
    let error = Listener::bind(&address).await.unwrap_err();
    assert!(error.to_string().contains(&address.to_string()), "{error}");
}

#[tokio::test]
async fn a_unix_socket_is_its_owners_alone_and_goes_with_its_listener() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s.sock");
    let mut listener = Listener::bind(&ListenAddr::Unix(path.clone()))
        .await
        .unwrap();
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let _client = UnixStream::connect(&path).await.unwrap();
    assert_eq!(listener.accept().await.1, Peer::Unix);
    drop(listener);
    assert!(!path.exists());
}

#[tokio::test]
async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s.sock");
    let address = ListenAddr::Unix(path.clone());
    // The standard library leaves the file behind.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let _live = Listener::bind(&address).await.unwrap();
    let error = Listener::bind(&address).await.unwrap_err();
    assert_eq!(error.source.kind(), io::ErrorKind::AddrInUse);
    UnixStream::connect(&path).await.unwrap();
}

#[tokio::test]
async fn a_file_that_is_no_socket_stays() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("precious");
    std::fs::write(&path, "data").unwrap();
    let error = Listener::bind(&ListenAddr::Unix(path.clone()))
        .await
        .unwrap_err();
    assert_eq!(error.source.kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(std::fs::read(&path).unwrap(), b"data");
}

#[tokio::test]
async fn a_listener_does_not_remove_the_socket_that_replaced_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s.sock");
    let address = ListenAddr::Unix(path.clone());
    let old = Listener::bind(&address).await.unwrap();
    let moved = directory.path().join("moved.sock");
    std::fs::rename(&path, &moved).unwrap();
    let _new = Listener::bind(&address).await.unwrap();
    drop(old);
    assert!(path.exists());
}

#[test]
fn a_lack_of_descriptors_is_waited_out_at_growing_intervals() {
    let mut failures = AcceptFailures::default();
    let emfile = io::Error::from_raw_os_error(24);
    let pauses: Vec<_> = (0..12).map(|_| failures.pause(&emfile).unwrap()).collect();
    assert!(pauses.is_sorted());
    assert_eq!(pauses[0], Duration::from_millis(10));
    assert_eq!(pauses[11], Duration::from_secs(1));
    failures.end();
    assert_eq!(failures.pause(&emfile).unwrap(), pauses[0]);
}

#[test]
fn a_connection_that_died_in_the_queue_costs_no_pause() {
    let mut failures = AcceptFailures::default();
    assert_eq!(
        failures.pause(&io::ErrorKind::ConnectionAborted.into()),
        None
    );
    assert_eq!(failures.count, 0);
}

#[tokio::test]
async fn an_address_in_use_is_told_with_its_cause_once() {
    let taken = bind("127.0.0.1:0").await.unwrap();
    let error = bind(&taken.address().to_string()).await.unwrap_err();
    let text = crate::log::causes(&error);
    assert_eq!(text.matches("Address already in use").count(), 1, "{text}");
    assert!(text.contains("; stop the program"), "{text}");
}
