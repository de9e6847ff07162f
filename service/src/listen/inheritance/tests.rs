//! Who gets which socket, and what becomes of its file.

use std::path::Path;

use super::*;

fn address(text: &str) -> ListenAddr {
    text.parse().unwrap()
}

/// The process after `old`, which has what that one has.
fn successor(old: &Inheritance) -> Inheritance {
    let new = Inheritance::default();
    let copies = old.copies().unwrap().into_iter();
    let sockets = copies.map(|(passed, copy)| (passed, InheritedSocket::new(copy).unwrap()));
    new.add(sockets.collect::<Vec<_>>(), old.state());
    new
}

fn unix(path: &Path) -> ListenAddr {
    ListenAddr::Unix(path.to_owned())
}

#[tokio::test]
async fn each_listener_gets_the_socket_of_its_address_in_any_order() {
    let old = Inheritance::default();
    let mut bound = Vec::new();
    for (wanted, key) in [
        ("127.0.0.1:0", "listen"),
        ("127.0.0.1:0", "listen"),
        ("127.0.0.1:0", "metrics.listen"),
    ] {
        let listener = old.listen(&address(wanted), key).await.unwrap();
        bound.push(listener);
    }
    let addresses: Vec<_> = bound.iter().map(|bound| bound.address().clone()).collect();
    let new = successor(&old);
    // By its own address, whatever the key was.
    let first = new.listen(&addresses[1], "metrics.listen").await.unwrap();
    assert_eq!(*first.address(), addresses[1]);
    // With port 0 by the key.
    let other = address("127.0.0.1:0");
    let metrics = new.listen(&other, "metrics.listen").await.unwrap();
    assert_eq!(*metrics.address(), addresses[2]);
    let main = new.listen(&other, "listen").await.unwrap();
    assert_eq!(*main.address(), addresses[0]);
    // No more are left: one is bound.
    let more = new.listen(&other, "listen").await.unwrap();
    assert!(!addresses.contains(more.address()));
    new.close_unclaimed().unwrap();
}

#[tokio::test]
async fn a_socket_that_is_not_configured_any_more_is_closed() {
    let old = Inheritance::default();
    let listener = old.listen(&address("127.0.0.1:0"), "listen").await.unwrap();
    let bound = listener.address().clone();
    let new = successor(&old);
    new.close_unclaimed().unwrap();
    // Only the old process still has it.
    drop(listener);
    assert!(old.copies().unwrap().is_empty());
    Listener::bind(&bound).await.unwrap();
}

#[tokio::test]
async fn the_last_process_that_has_a_unix_socket_removes_its_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let old = Inheritance::default();
    let listener = old.listen(&unix(&path), "listen").await.unwrap();
    // A successor that dies half way leaves the file alone.
    let failed = successor(&old);
    drop(failed.listen(&unix(&path), "listen").await.unwrap());
    assert!(path.exists());
    // Nor does one that does not ask for it, before it serves.
    let new = successor(&old);
    new.close_unclaimed().unwrap();
    drop(new);
    assert!(path.exists());
    let new = successor(&old);
    let next = new.listen(&unix(&path), "listen").await.unwrap();
    old.own_files(false);
    new.own_files(true);
    drop(listener);
    assert!(path.exists());
    drop(next);
    assert!(!path.exists());
}

#[tokio::test]
async fn the_file_of_a_socket_that_is_not_configured_any_more_is_removed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let old = Inheritance::default();
    let listener = old.listen(&unix(&path), "listen").await.unwrap();
    let new = successor(&old);
    new.close_unclaimed().unwrap();
    old.own_files(false);
    assert!(path.exists());
    new.own_files(true);
    assert!(!path.exists());
    drop(listener);
}

#[tokio::test]
async fn a_unix_socket_of_systemd_stays_also_after_a_takeover() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let socket = InheritedSocket::new(socket.into()).unwrap();
    let old = Inheritance::from_systemd(vec![socket]);
    let listener = old.listen(&unix(&path), "listen").await.unwrap();
    old.own_files(true);
    let new = successor(&old);
    let next = new.listen(&unix(&path), "listen").await.unwrap();
    new.own_files(true);
    drop((listener, next));
    assert!(path.exists());
}

#[tokio::test]
async fn a_socket_of_systemd_that_nothing_names_is_refused() {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    let socket = InheritedSocket::new(socket.into()).unwrap();
    let inheritance = Inheritance::from_systemd(vec![socket]);
    // An address that only overlaps it is not it.
    let everywhere = address(&format!("0.0.0.0:{port}"));
    let error = inheritance.listen(&everywhere, "listen").await.unwrap_err();
    let passed = format!("systemd passed a socket at 127.0.0.1:{port}, ");
    assert!(error.to_string().contains(&passed), "{error}");
    let error = inheritance.close_unclaimed().unwrap_err();
    assert!(error.to_string().starts_with(&passed), "{error}");
}

#[test]
fn state_is_passed_under_its_name() {
    let old = Inheritance::default();
    assert_eq!(old.received("key"), None);
    old.pass_on("key", "0a".to_owned());
    let new = successor(&old);
    assert_eq!(new.received("key").as_deref(), Some("0a"));
    // It is not passed any further by itself.
    assert!(new.state().is_empty());
}
