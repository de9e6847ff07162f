//! Where a request goes when the first address is of no use.

use std::net::SocketAddr;

use pingora::proxy::http_proxy;
use pingora::server::configuration::ServerConf;
use registry::service::listen::{ListenAddr, Listener};
use registry::service::shutdown::Drain;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::*;
use crate::admin::Readiness;
use crate::downstream::{self, App, Patience};

const LONG: Duration = Duration::from_secs(30);

/// The address of a proxy before the addresses of one upstream.
async fn before(addresses: &[SocketAddr]) -> SocketAddr {
    let upstream = Upstream::new("main".to_owned(), "http://registry".parse().unwrap());
    upstream.replace(addresses);
    let admin = Admin::new(
        None,
        "/metrics".to_owned(),
        None,
        Arc::new(Readiness::default()),
    );
    let proxy = Proxy {
        upstream: Arc::new(upstream),
        admin: Arc::new(admin),
        recorder: None,
        limits: Limits {
            connections: 10,
            header_timeout: LONG,
            idle_timeout: LONG,
            body_stall: LONG,
            drain: LONG,
        },
        access_log: false,
    };
    let conf = ServerConf {
        max_retries: 2,
        ..ServerConf::default()
    };
    let app = Arc::new(App::new(http_proxy(&Arc::new(conf), proxy), None, None));
    let listener = Listener::bind(&"127.0.0.1:0".parse().unwrap())
        .await
        .unwrap();
    let ListenAddr::Tcp(address) = listener.local_addr().unwrap() else {
        panic!("no TCP address");
    };
    let patience = Patience {
        header: LONG,
        idle: LONG,
    };
    tokio::spawn(async move {
        let (_stop, stopping) = watch::channel(false);
        downstream::accept(listener, app, Drain::default(), 10, patience, stopping).await
    });
    address
}

/// Answers each request on a connection of its own, and counts them.
async fn upstream(listener: TcpListener) {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut heard = Vec::new();
        while !heard.ends_with(b"\r\n\r\n") {
            assert_ne!(stream.read_buf(&mut heard).await.unwrap(), 0);
        }
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        stream.write_all(answer).await.unwrap();
    }
}

async fn status(proxy: SocketAddr, method: &str) -> String {
    let mut client = TcpStream::connect(proxy).await.unwrap();
    let request = format!(
        "{method} /v2/ HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    client.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    answer.split(' ').nth(1).unwrap_or_default().to_owned()
}

#[tokio::test]
async fn an_address_where_nobody_listens_is_passed_over_for_the_next() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let alive = listener.local_addr().unwrap();
    let serving = tokio::spawn(upstream(listener));
    let dead = SocketAddr::new([127, 0, 0, 2].into(), alive.port());
    let proxy = before(&[dead, alive]).await;
    // They take turns: every other request meets the dead one first.
    for method in ["GET", "GET", "POST", "POST"] {
        assert_eq!(status(proxy, method).await, "200", "{method}");
    }
    serving.abort();
}

#[tokio::test]
async fn where_nobody_listens_at_all_it_is_not_tried_for_ever() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dead = listener.local_addr().unwrap();
    drop(listener);
    let proxy = before(&[dead]).await;
    assert_eq!(status(proxy, "GET").await, "502");
}
