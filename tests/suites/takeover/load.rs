//! Clients that go on over a takeover: many, in all protocols, and their own books.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::{Context, Result, ensure};
use harness::client::Client;
use harness::content;
use harness::h2::H2;
use harness::poll;
use harness::scrape::metric;
use harness::tls::{SecureClient, TlsOffer};
use harness::wire::{self, Wire};
use reqwest::Method;
use tokio::net::UnixStream;
use tokio::task::JoinSet;

use super::{DEADLINE, Generations, ended, last_sum, ready, secure_address};

/// How many clients of each kind.
const EACH: usize = 4;
/// What each client does at least before the first takeover, and between two of them.
const ROUNDS: usize = 5;

/// What a client connects to.
#[derive(Clone)]
enum Kind {
    /// HTTP/1.1 on a connection that is kept.
    KeptAlive(SocketAddr),
    /// A connection for each request.
    New(SocketAddr),
    Unix(PathBuf),
    Tls(SocketAddr, SecureClient),
    H2c(SocketAddr),
    H2Tls(SocketAddr, SecureClient),
    /// Uploads in four requests.
    Pushes(SocketAddr),
    /// A scraper's connection that is kept.
    Scrapes(SocketAddr),
    Probes(SocketAddr),
}

/// What the clients have done.
#[derive(Default)]
struct Books {
    stop: AtomicBool,
    /// Whole requests that the proxy counts.
    requests: AtomicUsize,
    rounds: Vec<AtomicUsize>,
}

const SCRAPE: &[u8] = b"GET /metrics HTTP/1.1\r\nHost: registry\r\n\r\n";
const REQUEST: &[u8] = b"GET /v2/ HTTP/1.1\r\nHost: registry\r\n\r\n";

/// Requests on a connection that is kept for as long as the server keeps it.
async fn keep_alive(books: &Books, round: &AtomicUsize, kind: &Kind) -> Result<()> {
    let is_scrape = matches!(kind, Kind::Scrapes(_));
    let request = if is_scrape { SCRAPE } else { REQUEST };
    let mut wire = kind.connect().await?;
    while !books.stop.load(Ordering::Relaxed) {
        wire.send(request).await?;
        let response = wire.response("GET").await?;
        ensure!(response.head.status == 200, "{}", response.head.status);
        let is_counted = !is_scrape;
        books
            .requests
            .fetch_add(is_counted.into(), Ordering::Relaxed);
        round.fetch_add(1, Ordering::Relaxed);
        if response.head.header("connection") == Some("close") {
            wire = kind.connect().await?;
        }
    }
    Ok(())
}

/// Requests on an HTTP/2 connection until the server says that it ends.
async fn multiplexed(books: &Books, round: &AtomicUsize, kind: &Kind) -> Result<()> {
    let mut h2 = kind.connect_h2().await?;
    while !books.stop.load(Ordering::Relaxed) {
        let mut streams = Vec::new();
        for _ in 0..3 {
            // Refused by the client itself, after a GOAWAY: nothing was sent.
            match h2.send("GET", "/v2/", &[], true).await {
                Ok(stream) => streams.push(stream),
                Err(_) => break,
            }
        }
        let sent = streams.len();
        for stream in streams {
            let response = stream.response().await?;
            ensure!(response.status == 200, "{}", response.status);
            response.read().await?;
            books.requests.fetch_add(1, Ordering::Relaxed);
        }
        round.fetch_add(1, Ordering::Relaxed);
        if sent < 3 {
            h2 = kind.connect_h2().await?;
        }
    }
    Ok(())
}

/// Uploads, whose requests may come to different processes.
async fn push(books: &Books, round: &AtomicUsize, address: SocketAddr, own: usize) -> Result<()> {
    let client = Client::new(&format!("http://{address}"))?;
    let mut number = 0;
    while !books.stop.load(Ordering::Relaxed) {
        number += 1;
        let bytes = content::bytes((own * 1000 + number) as u64, 30_000);
        let mut location = client.open_upload("team/app").await?;
        books.requests.fetch_add(1, Ordering::Relaxed);
        for part in bytes.chunks(15_000) {
            let response = client
                .send(Method::PATCH, &location, &[], part.to_vec())
                .await?;
            let status = response.status();
            ensure!(status == 202, "PATCH {status}");
            let next = response.headers().get("location");
            next.context("no location")?
                .to_str()?
                .clone_into(&mut location);
            books.requests.fetch_add(1, Ordering::Relaxed);
        }
        let joint = if location.contains('?') { '&' } else { '?' };
        let path = format!("{location}{joint}digest={}", content::digest(&bytes));
        let response = client.send(Method::PUT, &path, &[], "").await?;
        let status = response.status();
        ensure!(status == 201, "PUT {status}");
        books.requests.fetch_add(1, Ordering::Relaxed);
        round.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

impl Kind {
    async fn connect(&self) -> Result<Wire> {
        match self {
            Self::Unix(path) => Ok(Wire::inside(UnixStream::connect(path).await?)),
            Self::Tls(address, client) | Self::H2Tls(address, client) => {
                Ok(Wire::inside(client.connect(*address).await?))
            }
            Self::KeptAlive(address)
            | Self::New(address)
            | Self::H2c(address)
            | Self::Pushes(address)
            | Self::Scrapes(address)
            | Self::Probes(address) => Wire::connect(*address).await,
        }
    }

    async fn connect_h2(&self) -> Result<H2> {
        match self {
            Self::H2Tls(address, client) => H2::inside(client.connect(*address).await?).await,
            Self::H2c(address) => H2::connect(*address, false).await,
            _ => anyhow::bail!("no HTTP/2"),
        }
    }

    async fn run(self, books: Arc<Books>, own: usize) -> Result<()> {
        let round = &books.rounds[own];
        match self {
            Self::KeptAlive(_) | Self::Unix(_) | Self::Tls(..) | Self::Scrapes(_) => {
                keep_alive(&books, round, &self).await
            }
            Self::New(address) => {
                let request = wire::request("GET", "/v2/", &[], b"");
                while !books.stop.load(Ordering::Relaxed) {
                    let response = wire::exchange(address, "GET", &request).await?;
                    ensure!(response.head.status == 200, "{}", response.head.status);
                    books.requests.fetch_add(1, Ordering::Relaxed);
                    round.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            }
            Self::Probes(address) => {
                while !books.stop.load(Ordering::Relaxed) {
                    // 503 for a moment: the old process does not want new clients any more.
                    let status = ready(address).await?;
                    ensure!(matches!(status, 200 | 503), "{status}");
                    round.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            }
            Self::H2c(_) | Self::H2Tls(..) => multiplexed(&books, round, &self).await,
            Self::Pushes(address) => push(&books, round, address, own).await,
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::KeptAlive(_) => "kept alive",
            Self::New(_) => "new connections",
            Self::Unix(_) => "Unix socket",
            Self::Tls(..) => "TLS",
            Self::H2c(_) => "h2c",
            Self::H2Tls(..) => "h2",
            Self::Pushes(_) => "pushes",
            Self::Scrapes(_) => "scrapes",
            Self::Probes(_) => "probes",
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_load_no_client_notices_three_takeovers_and_no_request_is_lost_from_the_books()
-> Result<()> {
    let generations = Generations::new("").await?;
    let mut server = generations.first().await?;
    let (plain, secure) = (server.address(), secure_address(&mut server)?);
    let trusted = &[&generations.certificate][..];
    let offer = |protocols| TlsOffer {
        trusted,
        protocols,
        ..TlsOffer::default()
    };
    let http1 = SecureClient::offering(&offer(&["http/1.1"]))?;
    let http2 = SecureClient::offering(&offer(&["h2"]))?;
    let kinds = [
        Kind::KeptAlive(plain),
        Kind::New(plain),
        Kind::Unix(generations.path("main.sock")),
        Kind::Tls(secure, http1),
        Kind::H2c(plain),
        Kind::H2Tls(secure, http2),
        Kind::Pushes(plain),
        Kind::Scrapes(server.metrics_address()),
        Kind::Probes(server.metrics_address()),
    ];
    let books = Arc::new(Books {
        rounds: std::iter::repeat_with(AtomicUsize::default)
            .take(kinds.len() * EACH)
            .collect(),
        ..Books::default()
    });
    let mut clients = JoinSet::new();
    for (at, kind) in kinds.iter().enumerate() {
        for number in 0..EACH {
            let (kind, books) = (kind.clone(), Arc::clone(&books));
            clients.spawn(async move {
                let name = kind.name();
                kind.run(books, at * EACH + number).await.context(name)
            });
        }
    }
    let mut old = Vec::new();
    for _ in 0..3 {
        some_rounds(&books, &mut clients).await?;
        let new = generations.next(&mut server).await?;
        assert_eq!(new.address(), plain);
        old.push(std::mem::replace(&mut server, new));
    }
    some_rounds(&books, &mut clients).await?;
    books.stop.store(true, Ordering::Relaxed);
    while let Some(client) = clients.join_next().await {
        client??;
    }
    for old in old {
        ended(old).await?;
    }
    ensure!(server.terminate(DEADLINE).await?.success());
    // Each process counted what it served, and no more.
    let requests = books.requests.load(Ordering::Relaxed);
    let counted = last_sum(
        generations.directory.path(),
        &metric("octoserve_http_requests_total"),
    )?;
    assert_eq!(counted.to_string(), requests.to_string());
    Ok(())
}

/// Waits until each client has done some more, and fails with the first that fails.
async fn some_rounds(books: &Books, clients: &mut JoinSet<Result<()>>) -> Result<()> {
    let before: Vec<_> = books
        .rounds
        .iter()
        .map(|r| r.load(Ordering::Relaxed))
        .collect();
    poll::until("all clients go on", DEADLINE, async || {
        if let Some(ended) = clients.try_join_next() {
            ended?.context("a client ended")?;
        }
        let mut rounds = books.rounds.iter().zip(&before);
        let all = rounds.all(|(now, before)| now.load(Ordering::Relaxed) >= before + ROUNDS);
        Ok(all.then_some(()))
    })
    .await
}
