//! Open uploads and concurrent scrapes use bounded memory.

use std::time::Duration;

use anyhow::{Result, ensure};
use futures_util::future::try_join_all;
use harness::client::Client;
use harness::content;
use harness::octoserve::{Launch, Server};
use harness::poll;
use harness::scrape::metric;
use harness::source::Source;
use harness::wire::{self, Wire};

const DEADLINE: Duration = Duration::from_mins(1);

/// Clients with an open upload.
const UPLOADS: u64 = 200;
/// The bytes that each of them has sent: more than two large buffers.
const SENT: u64 = 600 << 10;
/// The bytes of it that the registry has at least written while it waits for more.
const WRITTEN: u64 = 512 << 10;
/// How much memory they may add together; two large buffers for each would be 100 MiB.
const MARGIN: u64 = 72 << 20;

/// Waits until the open uploads hold this many bytes.
async fn received(server: &Server, bytes: u64) -> Result<()> {
    let received = poll::until("the uploads have arrived", DEADLINE, async || {
        let exposition = server.scrape().await?;
        let held = exposition.sum(&metric("octoserve_registry_upload_bytes"));
        Ok(held.filter(|held| *held >= bytes as f64).map(drop))
    });
    received.await
}

#[tokio::test]
async fn open_and_aborted_uploads_use_bounded_memory() -> Result<()> {
    let launch = Launch::registry().environment("OCTOSERVE_DURABILITY", "relaxed");
    let mut server = launch.start().await?;
    let client = Client::new(&server.url(""))?;
    let idle = server.process().memory()?.resident;
    let part = content::bytes(1, SENT);
    let mut open = Vec::new();
    for _ in 0..UPLOADS {
        let location = client.open_upload("team/app").await?;
        let mut wire = Wire::connect(server.address()).await?;
        let head =
            format!("PATCH {location} HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000\r\n\r\n");
        wire.send(head.as_bytes()).await?;
        wire.send(&part).await?;
        open.push(wire);
    }
    received(&server, UPLOADS * WRITTEN).await?;
    // All clients disconnect, and the registry still writes what they sent.
    drop(open);
    received(&server, UPLOADS * SENT).await?;
    let peak = server.process().memory()?.peak;
    ensure!(
        peak.saturating_sub(idle) <= MARGIN,
        "idle {idle}, peak {peak}"
    );
    Ok(())
}

/// The size of a large source.
const SOURCE: usize = 12 << 20;
/// The memory bound of everything but the expositions: the program, its stacks and buffers.
const BESIDE: u64 = 48 << 20;

/// The memory bound of all expositions that are being sent.
const SENDING: u64 = 64 << 20;

/// The proxy with two large sources.
async fn with_large_sources() -> Result<(Server, [Source; 2])> {
    let line = |number: usize| format!("large_total{{number=\"{number}\",text=\"some text\"}} 1\n");
    let exposition: String = (0..SOURCE / line(100_000).len()).map(line).collect();
    let media_type = "text/plain; version=0.0.4";
    let sources = [
        Source::exposition(media_type, &exposition).await?,
        Source::exposition(media_type, &exposition).await?,
    ];
    let [first, second] = [&sources[0], &sources[1]].map(Source::url);
    let server = Launch::configured(&format!(
        "upstreams: [{{replicas: ['http://127.0.0.1:1'], metrics: [\
         {{source: a, url: '{first}'}}, {{source: b, url: '{second}'}}]}}]\n\
         metrics: {{aggregate: {{timeout: 1m}}}}\n"
    ));
    let server = server.metrics_listener().start().await?;
    Ok((server, sources))
}

/// Reads an exposition and returns its length.
async fn scrape(server: &Server) -> Result<usize> {
    let request = wire::request("GET", "/metrics", &[], b"");
    let response = wire::exchange(server.metrics_address(), "GET", &request).await?;
    assert_eq!(response.head.status, 200);
    Ok(response.body.len())
}

#[tokio::test]
async fn concurrent_scrapes_use_the_memory_of_one() -> Result<()> {
    let (mut server, sources) = with_large_sources().await?;
    // A few scrapes first, because the allocator keeps memory for reuse.
    for _ in 0..3 {
        scrape(&server).await?;
    }
    let length = scrape(&server).await?;
    ensure!(length > 2 * SOURCE, "{length}");
    let one = server.process().memory()?.peak;
    let before = sources[0].asked().len();
    let scrapes = try_join_all((0..16).map(|_| scrape(&server))).await?;
    ensure!(scrapes.iter().all(|all| *all > 2 * SOURCE), "{scrapes:?}");
    let all = server.process().memory()?.peak;
    ensure!(all <= one + BESIDE, "{one} for one scrape, {all} for 16");
    let fetches = sources[0].asked().len() - before;
    // A scrape that arrives while one exposition is written waits for the next fetch.
    ensure!(fetches < 8, "{fetches} fetches");
    Ok(())
}

#[tokio::test]
async fn scrapers_that_do_not_read_use_bounded_memory_and_block_no_others() -> Result<()> {
    let (mut server, _sources) = with_large_sources().await?;
    // Some scrapes first: the allocator keeps memory for reuse, in each thread that has served one.
    for _ in 0..24 {
        scrape(&server).await?;
    }
    let one = server.process().memory()?.peak;
    let request = wire::request("GET", "/metrics", &[], b"");
    let mut slow = Vec::new();
    for _ in 0..24 {
        let mut wire = Wire::connect(server.metrics_address()).await?;
        wire.send(&request).await?;
        // The head has arrived, so the next scrape gets an exposition of its own.
        assert_eq!(wire.head().await?.status, 200);
        slow.push(wire);
    }
    let many = server.process().memory()?.peak;
    ensure!(
        many <= one + BESIDE + SENDING,
        "{one} for one scrape, {many} for 24"
    );
    let length = scrape(&server).await?;
    ensure!(length > 2 * SOURCE, "{length}");
    // The first scraper is cut off, because its exposition was dropped for a newer one.
    let first = slow[0].rest().await.unwrap_or_default().len();
    ensure!(first < 2 * SOURCE, "{first}");
    Ok(())
}
