//! A thousand concurrent stalled transfers in either direction: each uses bounded memory, other
//! requests are served meanwhile, and nothing is left afterwards.

use anyhow::{Context, Result, ensure};
use harness::octoserve::{Launch, Server};
use harness::poll;
use harness::scrape::metric;
use harness::scripted::{Caller, Scripted};
use harness::wire::{self, Wire};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::SockRef;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use crate::scene::{BLOB, DEADLINE, Holdings, SESSION, get};

/// The number of stalled clients.
const CLIENTS: u32 = 1000;

/// The memory bound of the proxy for each of them.
const EACH: u64 = 300_000;

/// The memory bound of the proxy for each idle connection.
const IDLE_EACH: u64 = 20_000;

/// The number of idle connections.
const IDLE: u32 = 2000;

/// The tests run one after another, because the kernel's socket memory is limited.
pub(crate) static ALONE: Mutex<()> = Mutex::const_new(());

static PIECE: [u8; 64 << 10] = [b'x'; 64 << 10];

/// The proxy in front of an upstream that sends large downloads and reads no uploads.
pub(crate) async fn stage() -> Result<(Server, Scripted)> {
    // This process owns three sockets for each client.
    let limit = getrlimit(Resource::Nofile);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            ..limit
        },
    )?;
    let address = "127.0.0.1:0".parse()?;
    let listener = frugal(|socket| {
        // Old connections must not block the port when the upstream is restarted.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        Ok(socket.listen(CLIENTS)?)
    });
    let upstream = Scripted::start_on(listener?, serve)?;
    let server = Launch::in_front_of(&upstream.url())
        .environment("OCTOSERVE_LIMITS_BODY_STALL", "10m")
        .start()
        .await?;
    serves(&server).await?;
    Ok((server, upstream))
}

/// A socket with small buffers and the segment size of a real network, so that the kernel's buffers
/// do not absorb the stalled transfers.
pub(crate) fn frugal<T>(open: impl FnOnce(TcpSocket) -> Result<T>) -> Result<T> {
    let socket = TcpSocket::new_v4()?;
    SockRef::from(&socket).set_tcp_mss(1400)?;
    socket.set_send_buffer_size(16 << 10)?;
    socket.set_recv_buffer_size(4 << 10)?;
    open(socket)
}

/// Sends large downloads and reads no uploads.
async fn serve(mut caller: Caller) -> Result<()> {
    loop {
        let head = caller.head().await?;
        if head.starts_with("PATCH ") {
            break;
        }
        if !head.starts_with(&format!("GET {BLOB}")) {
            let head = "HTTP/1.1 200 OK\r\nContent-Length: 2";
            caller.send(format!("{head}\r\n\r\nok")).await?;
            continue;
        }
        let length = PIECE.len() << 20;
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
        caller.send(head).await?;
        // This blocks, because the client does not read.
        while caller.send(&PIECE).await.is_ok() {}
        break;
    }
    // The proxy decides whether to keep the connection.
    std::future::pending().await
}

pub(crate) async fn serves(server: &Server) -> Result<()> {
    let request = wire::request("GET", "/v2/", &[], b"");
    let response = wire::exchange(server.address(), "GET", &request).await?;
    ensure!(response.body == b"ok", "{}", response.head.status);
    Ok(())
}

pub(crate) async fn client(server: &Server) -> Result<TcpStream> {
    let connecting = frugal(|socket| Ok(socket.connect(server.address())))?;
    connecting.await.context("connecting")
}

/// Waits until `name` stops changing: so many transfers have stalled.
pub(crate) async fn settled(server: &Server, transfers: u32, name: &str) -> Result<()> {
    let in_flight = metric("octoserve_http_requests_in_flight");
    in_flight.value(transfers).assert_in(server).await?;
    let (mut last, mut same) = (None, 0);
    poll::until("all transfers have stalled", DEADLINE, async || {
        let now = server.scrape().await?.sum(&metric(name));
        same = if now == last { same + 1 } else { 0 };
        last = now;
        Ok((same == 30).then_some(()))
    })
    .await
}

/// Checks the memory of the stalled clients, and that other requests are served.
async fn weigh(server: &mut Server, before: u64, what: &str) -> Result<()> {
    let now = server.process().memory()?.resident;
    let each = now.saturating_sub(before) / u64::from(CLIENTS);
    harness::report(&format!(
        "{CLIENTS} stalled {what}: {} KiB each",
        each >> 10
    ));
    ensure!(each < EACH, "{each} bytes each");
    serves(server).await
}

pub(crate) async fn over(server: &mut Server, before: &Holdings) -> Result<()> {
    let in_flight = metric("octoserve_http_requests_in_flight");
    in_flight.value(0).assert_in(server).await?;
    serves(server).await?;
    before.regained(server).await
}

#[tokio::test]
async fn idle_connections_use_little_memory() -> Result<()> {
    let _alone = ALONE.lock().await;
    let (mut server, _upstream) = stage().await?;
    let before = server.process().memory()?.resident;
    let mut clients = Vec::new();
    for _ in 0..IDLE {
        let mut client = Wire::connect(server.address()).await?;
        client.send(get("/v2/").as_bytes()).await?;
        assert_eq!(client.response("GET").await?.body, b"ok");
        clients.push(client);
    }
    let now = server.process().memory()?.resident;
    let each = now.saturating_sub(before) / u64::from(IDLE);
    harness::report(&format!("{IDLE} idle connections: {each} bytes each"));
    ensure!(each < IDLE_EACH, "{each} bytes each");
    serves(&server).await
}

#[tokio::test]
async fn a_thousand_stalled_downloads_use_bounded_memory_and_leave_nothing() -> Result<()> {
    let _alone = ALONE.lock().await;
    let (mut server, _upstream) = stage().await?;
    let before = Holdings::of(&mut server)?;
    let resident = server.process().memory()?.resident;
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let mut client = client(&server).await?;
        client.write_all(get(BLOB).as_bytes()).await?;
        clients.push(client);
    }
    settled(&server, CLIENTS, "octoserve_http_response_body_bytes_total").await?;
    weigh(&mut server, resident, "downloads").await?;
    drop(clients);
    over(&mut server, &before).await?;
    let downloads = metric("octoserve_http_requests_total").label("endpoint", "blob");
    downloads.value(CLIENTS).assert_in(&server).await
}

#[tokio::test]
async fn a_thousand_uploads_to_a_stalled_upstream_use_bounded_memory_and_leave_nothing()
-> Result<()> {
    let _alone = ALONE.lock().await;
    let (mut server, first) = stage().await?;
    let before = Holdings::of(&mut server)?;
    let resident = server.process().memory()?.resident;
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        clients.spawn(send(client(&server).await?));
    }
    settled(&server, CLIENTS, "octoserve_http_request_body_bytes_total").await?;
    weigh(&mut server, resident, "uploads").await?;
    // The upstream that reads nothing is restarted.
    let address = first.address();
    drop(first);
    let failed = metric("octoserve_http_requests_total").label("status", "502");
    failed.value(CLIENTS).assert_in(&server).await?;
    clients.shutdown().await;
    let _second = Scripted::listening(&address.to_string(), serve).await?;
    over(&mut server, &before).await
}

/// Sends an upload until nobody reads any more.
async fn send(mut client: TcpStream) -> Result<()> {
    let length = PIECE.len() << 20;
    let head = format!("PATCH {SESSION} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
    client.write_all(head.as_bytes()).await?;
    for _ in 0..1 << 20 {
        client.write_all(&PIECE).await?;
    }
    Ok(())
}
