//! What a connection is spared, and what its client is told.

use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use pingora::proxy::{Session, http_proxy};
use pingora::server::configuration::ServerConf;
use pingora::upstreams::peer::HttpPeer;
use service::listen::ListenAddr;
use service::log::on_panic;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::*;

/// Fails at each request in the worst way there is.
struct Panicking;

#[async_trait]
impl ProxyHttp for Panicking {
    type CTX = ();

    fn new_ctx(&self) {
        request_seen();
    }

    async fn upstream_peer(&self, _: &mut Session, (): &mut ()) -> pingora::Result<Box<HttpPeer>> {
        panic!("on purpose");
    }
}

#[tokio::test]
async fn a_request_that_panics_is_answered_counted_and_harms_no_other() {
    static PANICS: AtomicUsize = AtomicUsize::new(0);
    on_panic(|| {
        PANICS.fetch_add(1, Ordering::Relaxed);
    });
    let any = "127.0.0.1:0".parse().unwrap();
    let listener = Listener::bind(&any).await.unwrap();
    let ListenAddr::Tcp(address) = *listener.address() else {
        panic!("no TCP address");
    };
    let proxy = http_proxy(&Arc::new(ServerConf::default()), Panicking);
    let app = Arc::new(App::new(proxy, None, None, Duration::from_secs(30)));
    let patience = Patience {
        header: Duration::from_secs(30),
        idle: Duration::from_secs(30),
    };
    let (_stop, stopping) = watch::channel(false);
    let connections = Drain::default();
    let cap = ConnectionCap::new(10);
    let accepting = accept(listener, app, connections.clone(), cap, patience, stopping);
    let accepting = tokio::spawn(accepting);
    for _ in 0..2 {
        let mut client = TcpStream::connect(address).await.unwrap();
        let request = b"GET /v2/ HTTP/1.1\r\nHost: a\r\n\r\n";
        client.write_all(request).await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 500 "), "{answer:?}");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(
            head.contains(&format!("content-length: {}", body.len())),
            "{head}"
        );
        assert!(body.contains("UNAVAILABLE"), "{body}");
        assert!(!body.contains("purpose"), "{body}");
    }
    assert!(PANICS.load(Ordering::Relaxed) >= 2);
    assert!(connections.wait(Duration::from_secs(30)).await);
    accepting.abort();
}
