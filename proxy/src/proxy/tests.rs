//! Where a request goes when the first address is of no use.

use std::net::SocketAddr;

use pingora::apps::HttpServerOptions;
use pingora::proxy::http_proxy;
use pingora::server::configuration::ServerConf;
use registry::metrics::label::{Method as MethodLabel, Pair, Status};
use registry::oci::Endpoint;
use service::listen::{ListenAddr, Listener};
use service::metrics::MetricsRegistry;
use service::shutdown::Drain;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::*;
use crate::admin::refuse;
use crate::downstream::{self, App, Patience};
use crate::exchange::Recorder;
use crate::metrics::{Rules, UpstreamFamilies};
use crate::upstream::Timeouts;
use service::admin::Readiness;

const LONG: Duration = Duration::from_secs(30);

/// A proxy before the addresses of one upstream.
fn proxy(addresses: &[SocketAddr], timeouts: Timeouts) -> Proxy {
    let upstream = upstream_at(addresses, timeouts);
    in_front_of(upstream)
}

fn upstream_at(addresses: &[SocketAddr], timeouts: Timeouts) -> Upstream {
    let target = "http://registry".parse().unwrap();
    let upstream = Upstream::new("main".to_owned(), target, timeouts);
    upstream.replace(addresses);
    upstream
}

fn in_front_of(upstream: Upstream) -> Proxy {
    let admin = Admin::new(
        None,
        "/metrics".to_owned(),
        None,
        Arc::new(Readiness::default()),
        refuse,
    );
    Proxy {
        upstream: Arc::new(upstream),
        admin: Arc::new(admin),
        observer: None,
        limits: Limits {
            connections: 10,
            header_timeout: LONG,
            idle_timeout: LONG,
            body_stall: LONG,
            drain: LONG,
        },
        access_log: false,
    }
}

/// Serves it, and returns its address.
async fn serve<P>(proxy: P) -> SocketAddr
where
    P: ProxyHttp<CTX: Send + Sync> + Send + Sync + 'static,
{
    let conf = ServerConf {
        max_retries: 2,
        ..ServerConf::default()
    };
    let mut proxy = http_proxy(&Arc::new(conf), proxy);
    let mut options = HttpServerOptions::default();
    options.h2c = true;
    proxy.server_options = Some(options);
    let app = Arc::new(App::new(proxy, None, None, LONG));
    let listener = Listener::bind(&"127.0.0.1:0".parse().unwrap())
        .await
        .unwrap();
    let ListenAddr::Tcp(address) = *listener.address() else {
        panic!("no TCP address");
    };
    let patience = Patience {
        header: LONG,
        idle: LONG,
    };
    let cap = service::connection::ConnectionCap::new(10);
    tokio::spawn(async move {
        let (_stop, stopping) = watch::channel(false);
        downstream::accept(listener, app, Drain::default(), cap, patience, stopping).await
    });
    address
}

async fn before(addresses: &[SocketAddr]) -> SocketAddr {
    serve(proxy(addresses, Timeouts::beside(LONG))).await
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

/// A proxy whose upstream may be silent for a moment only, and its page.
async fn impatient(upstream: SocketAddr) -> (SocketAddr, MetricsRegistry) {
    let short = Duration::from_millis(100);
    let timeouts = Timeouts {
        read: short,
        write: short,
    };
    let registry = MetricsRegistry::new("");
    let metrics = UpstreamFamilies::declare(&registry, 1).of("main");
    let upstream = upstream_at(&[upstream], timeouts).measured(metrics);
    (serve(in_front_of(upstream)).await, registry)
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
    let (mut answers, mut body) = client.split();
    let mut answer = Vec::new();
    // More than all the sockets hold; it ends when the proxy has had enough.
    let sending = async {
        let piece = vec![b'x'; 1 << 20];
        while body.write_all(&piece).await.is_ok() {}
    };
    let reading = async {
        while !answer.ends_with(b"\"}]}") {
            assert_ne!(answers.read_buf(&mut answer).await.unwrap(), 0);
        }
    };
    // The answer is there to be read even if what is sent no longer goes anywhere.
    tokio::join!(reading, sending);
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
    assert!(answer.contains("UNAVAILABLE"), "{answer}");
    assert_given_up(&page, 1);
}

/// Fails in the worst way there is, after its request was begun.
struct Panicking(Proxy);

#[async_trait]
impl ProxyHttp for Panicking {
    type CTX = Context;

    fn new_ctx(&self) -> Context {
        self.0.new_ctx()
    }

    async fn early_request_filter(&self, session: &mut Session, ctx: &mut Context) -> Result<()> {
        self.0.early_request_filter(session, ctx).await
    }

    async fn upstream_peer(&self, _: &mut Session, _: &mut Context) -> Result<Box<HttpPeer>> {
        panic!("on purpose");
    }
}

#[tokio::test]
async fn a_panic_is_counted_as_500_over_either_version() {
    let rules = Rules::new(10, Vec::new(), Vec::new(), LONG).unwrap();
    let recorder = Arc::new(Recorder::new(&MetricsRegistry::new("octoserve_"), rules));
    let metrics = Arc::clone(&recorder.metrics.http);
    let mut proxy = proxy(&[], Timeouts::beside(LONG));
    proxy.observer = Some(Observer::Metrics(recorder));
    let address = serve(Panicking(proxy)).await;
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
