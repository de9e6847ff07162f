//! Where a request goes when the first address is of no use, what becomes of one that the upstream does
//! not answer, and what a panic leaves behind.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use registry::metrics::label::{Method as MethodLabel, Pair, Status};
use registry::oci::Endpoint;
use service::admin::Readiness;
use service::limits::Limits;
use service::listen::{ListenAddr, Listener};
use service::log::on_panic;
use service::metrics::MetricsRegistry;
use service::runtime::WorkerSet;
use service::shutdown::Shutdown;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::{ForwardSettings, Forwarder, Shared};
use crate::admin::{Admin, refuse};
use crate::downstream::{self, OpenConnections};
use crate::exchange::{Observer, Recorder};
use crate::forwarded::ForwardedRules;
use crate::metrics::{Rules, UpstreamFamilies};
use crate::upstream::{Timeouts, Upstream, Upstreams};

const LONG: Duration = Duration::from_secs(30);

/// A proxy in front of the addresses of one upstream.
fn proxy(addresses: &[SocketAddr], timeouts: Timeouts) -> Forwarder {
    in_front_of(upstream_at(addresses, timeouts), timeouts.stall, None)
}

fn upstream_at(addresses: &[SocketAddr], timeouts: Timeouts) -> Upstream {
    Upstream::at(addresses, timeouts)
}

fn in_front_of(upstream: Upstream, stall: Duration, observer: Option<Observer>) -> Forwarder {
    let admin = Admin::new(
        None,
        "/metrics".to_owned(),
        None,
        Arc::new(Readiness::default()),
        refuse,
    );
    let limits = Limits {
        connections: 10,
        streams: 10,
        header_timeout: LONG,
        idle_timeout: LONG,
        body_stall: stall,
        drain: LONG,
    };
    let (trigger, stopping) = Shutdown::new();
    // A trigger that is dropped is a shutdown.
    std::mem::forget(trigger);
    let shared = Shared {
        rejected: None,
        splices: 1,
        stopping,
    };
    let settings = ForwardSettings {
        upstreams: Upstreams::new(Arc::new(upstream), Vec::new()),
        admin: Arc::new(admin),
        observer,
        limits,
        access_log: None,
        forwarded: ForwardedRules::default(),
        cors: None,
    };
    Forwarder::new(shared, settings)
}

/// Serves it, and returns its address.
async fn serve(forwarder: Forwarder) -> SocketAddr {
    let listener = Listener::bind(&"127.0.0.1:0".parse().unwrap())
        .await
        .unwrap();
    let ListenAddr::Tcp(address) = *listener.address() else {
        panic!("no TCP address");
    };
    tokio::spawn(async move {
        let connections = OpenConnections::new(None, 10);
        downstream::accept(
            listener,
            None,
            Arc::new(forwarder),
            connections,
            WorkerSet::none(),
        )
        .await
    });
    address
}

async fn before(addresses: &[SocketAddr]) -> SocketAddr {
    serve(proxy(addresses, Timeouts::with_stall(LONG))).await
}

/// Responds to each request on a connection of its own, and counts them.
async fn upstream(listener: TcpListener) {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut heard = Vec::new();
        while !heard.ends_with(b"\r\n\r\n") {
            assert_ne!(stream.read_buf(&mut heard).await.unwrap(), 0);
        }
        let response = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        stream.write_all(response).await.unwrap();
    }
}

async fn status(proxy: SocketAddr, method: &str) -> String {
    let mut client = TcpStream::connect(proxy).await.unwrap();
    let request = format!(
        "{method} /v2/ HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    client.write_all(request.as_bytes()).await.unwrap();
    let mut response = String::new();
    client.read_to_string(&mut response).await.unwrap();
    response.split(' ').nth(1).unwrap_or_default().to_owned()
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

/// A proxy whose upstream may be silent for a moment only, and its page.
async fn impatient(upstream: SocketAddr) -> (SocketAddr, MetricsRegistry) {
    let short = Duration::from_millis(100);
    let timeouts = Timeouts {
        response: short,
        stall: short,
    };
    let registry = MetricsRegistry::new("");
    let metrics = UpstreamFamilies::declare(&registry, 1).of("main");
    let upstream = upstream_at(&[upstream], timeouts).with_metrics(metrics);
    (serve(in_front_of(upstream, LONG, None)).await, registry)
}

/// So many requests were sent to the upstream and given up, and it did nothing else wrong.
fn assert_given_up(registry: &MetricsRegistry, count: u64) {
    let mut page = String::new();
    registry.gather().write_text(&mut page);
    let seen: Vec<_> = page
        .lines()
        .filter(|line| line.starts_with("upstream_errors") || line.contains("outcome="))
        .filter(|line| !line.ends_with(" 0") && !line.contains("_bucket") && !line.contains("_sum"))
        .collect();
    let errors = format!("upstream_errors_total{{reason=\"timeout\",upstream=\"main\"}} {count}");
    let sent = "upstream_request_duration_seconds_count";
    let sent = format!("{sent}{{outcome=\"timeout\",upstream=\"main\"}} {count}");
    assert_eq!(seen, [errors, sent]);
}

#[tokio::test]
async fn an_upstream_that_does_not_answer_in_time_is_504() {
    // It accepts by its kernel alone.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (proxy, page) = impatient(listener.local_addr().unwrap()).await;
    for method in ["GET", "POST", "HEAD"] {
        assert_eq!(status(proxy, method).await, "504", "{method}");
    }
    assert_given_up(&page, 3);
}

#[tokio::test]
async fn an_upstream_that_takes_no_body_is_504() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (proxy, page) = impatient(listener.local_addr().unwrap()).await;
    let mut client = TcpStream::connect(proxy).await.unwrap();
    let head = "PUT /v2/ HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n";
    client.write_all(head.as_bytes()).await.unwrap();
    let (mut responses, mut body) = client.split();
    let mut response = Vec::new();
    // More than all the sockets hold; it ends when the proxy has had enough.
    let sending = async {
        let piece = vec![b'x'; 1 << 20];
        while body.write_all(&piece).await.is_ok() {}
    };
    let reading = async {
        while !response.ends_with(b"\"}]}") {
            assert_ne!(responses.read_buf(&mut response).await.unwrap(), 0);
        }
    };
    // The response is there to be read even if what is sent no longer goes anywhere.
    tokio::join!(reading, sending);
    let response = String::from_utf8(response).unwrap();
    assert!(response.starts_with("HTTP/1.1 504 "), "{response}");
    assert!(response.contains("UNAVAILABLE"), "{response}");
    assert_given_up(&page, 1);
}

/// Panics at each request, after it was begun.
fn panicking(observer: Option<Observer>) -> Forwarder {
    let upstream = upstream_at(&[], Timeouts::with_stall(LONG));
    let mut forwarder = in_front_of(upstream, LONG, observer);
    forwarder.on_request = Some(|| panic!("on purpose"));
    forwarder
}

#[tokio::test]
async fn a_panic_is_counted_as_500_over_either_version() {
    let rules = Rules::new(10, Vec::new(), Vec::new(), LONG).unwrap();
    let recorder = Arc::new(Recorder::new(&MetricsRegistry::new("octoserve_"), rules));
    let metrics = Arc::clone(&recorder.metrics.http);
    let forwarder = panicking(Some(Observer::Metrics(recorder)));
    let address = serve(forwarder).await;
    let counted = || {
        let pair = Pair::of(Endpoint::Base, MethodLabel::Get);
        metrics.requests.value((pair, Status::of(500)))
    };
    assert_eq!(status(address, "GET").await, "500");
    assert_eq!(counted(), 1);

    let stream = TcpStream::connect(address).await.unwrap();
    let handshake = hyper::client::conn::http2::handshake(
        hyper_util::rt::TokioExecutor::new(),
        hyper_util::rt::TokioIo::new(stream),
    );
    let (mut client, connection) = handshake.await.unwrap();
    tokio::spawn(connection);
    // A stream is reset; the others of its connection go on.
    for streams in 2..=3 {
        let request = http::Request::get("http://registry/v2/");
        let request = request.body(String::new()).unwrap();
        assert!(client.send_request(request).await.is_err());
        assert_eq!(counted(), streams);
    }
    let in_flight = metrics.in_flight.value(Endpoint::Base);
    assert!(in_flight.abs() < f64::EPSILON, "{in_flight}");
}

#[tokio::test]
async fn a_request_that_panics_is_answered_counted_and_harms_no_other() {
    static PANICS: AtomicUsize = AtomicUsize::new(0);
    on_panic(|| {
        PANICS.fetch_add(1, Ordering::Relaxed);
    });
    let address = serve(panicking(None)).await;
    for _ in 0..2 {
        let mut client = TcpStream::connect(address).await.unwrap();
        let request = b"GET /v2/ HTTP/1.1\r\nHost: a\r\n\r\n";
        client.write_all(request).await.unwrap();
        let mut response = String::new();
        client.read_to_string(&mut response).await.unwrap();
        assert!(response.starts_with("HTTP/1.1 500 "), "{response:?}");
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        assert!(
            head.contains(&format!("content-length: {}", body.len())),
            "{head}"
        );
        assert!(body.contains("UNAVAILABLE"), "{body}");
        assert!(!body.contains("purpose"), "{body}");
    }
    assert!(PANICS.load(Ordering::Relaxed) >= 2);
}

/// Reads a head.
async fn head(stream: &mut TcpStream) -> String {
    let mut heard = Vec::new();
    while !heard.ends_with(b"\r\n\r\n") {
        let byte = stream.read_u8().await.unwrap();
        heard.push(byte);
    }
    String::from_utf8(heard).unwrap()
}

/// One thread, so that nothing is polled between the upstream's reset and the client's body.
#[tokio::test]
async fn a_put_of_which_bytes_are_on_their_way_is_not_sent_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = before(&[listener.local_addr().unwrap()]).await;
    let mut client = TcpStream::connect(proxy).await.unwrap();
    client
        .write_all(b"GET /v2/ HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    let (mut upstream, _) = listener.accept().await.unwrap();
    assert!(head(&mut upstream).await.starts_with("GET "));
    let response = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    upstream.write_all(response).await.unwrap();
    assert!(head(&mut client).await.starts_with("HTTP/1.1 200 "));
    let put = b"PUT /v2/ HTTP/1.1\r\nHost: a\r\nContent-Length: 300000\r\n\r\n";
    client.write_all(put).await.unwrap();
    assert!(head(&mut upstream).await.starts_with("PUT "));

    upstream.set_zero_linger().unwrap();
    drop(upstream);
    let sent = client.try_write(&vec![b'x'; 200_000]).unwrap();
    assert!(sent > 0);
    let response = head(&mut client).await;
    assert!(response.starts_with("HTTP/1.1 502 "), "{response}");
    let again = tokio::time::timeout(Duration::from_millis(100), listener.accept());
    assert!(again.await.is_err(), "it was sent again");
}

#[tokio::test]
async fn an_upload_whose_client_closes_its_sending_half_is_whole() {
    const LENGTH: usize = 6_000_000;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = before(&[listener.local_addr().unwrap()]).await;
    let upstream = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        assert!(head(&mut stream).await.starts_with("PATCH "));
        // Slow enough for the client to be done before the upstream has read much.
        tokio::time::sleep(Duration::from_millis(200)).await;
        let mut received = vec![0; LENGTH];
        stream.read_exact(&mut received).await.unwrap();
        let response = b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n";
        stream.write_all(response).await.unwrap();
    });
    let mut client = TcpStream::connect(proxy).await.unwrap();
    let start = format!("PATCH /v2/ HTTP/1.1\r\nHost: a\r\nContent-Length: {LENGTH}\r\n\r\n");
    client.write_all(start.as_bytes()).await.unwrap();
    client.write_all(&vec![b'x'; LENGTH]).await.unwrap();
    client.shutdown().await.unwrap();
    let response = head(&mut client).await;
    assert!(response.starts_with("HTTP/1.1 202 "), "{response}");
    upstream.await.unwrap();
}
