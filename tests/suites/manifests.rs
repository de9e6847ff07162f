//! Manifests and their listings use bounded memory, whatever many clients do concurrently.

use std::sync::LazyLock;
use std::time::Duration;

use anyhow::{Result, ensure};
use harness::client::{Client, MANIFEST, descriptor};
use harness::content;
use harness::h2::{self, H2};
use harness::octoserve::{Launch, Server};
use harness::poll;
use harness::scrape::metric;
use harness::wire::Wire;

const DEADLINE: Duration = Duration::from_mins(1);

/// Clients that each push a manifest and stall before its last byte.
const PUSHES: usize = 200;
/// What each of them has sent: the largest accepted manifest except for its last byte.
static ALL_BUT_ONE: LazyLock<Vec<u8>> = LazyLock::new(|| vec![b' '; (4 << 20) - 1]);
/// How many of them must at least be aborted in favour of others.
const TURNED_AWAY: usize = 180;
/// The registry's memory bound meanwhile; all of the manifests would need 800 MiB.
const RESIDENT: u64 = 100 << 20;
/// The additional memory of the all-in-one's proxy for each of them: as for any stalled transfer.
const EACH_OF_THE_PROXY: u64 = 1 << 20;
/// Referrers of one subject.
const REFERRERS: usize = 100;
/// How many of them share an HTTP/2 connection.
const STREAMS: usize = 50;

/// Starts pushes over HTTP/1.1 that stall.
async fn stalled_over_http1(server: &Server) -> Result<Vec<Wire>> {
    let mut pushes = Vec::new();
    for n in 0..PUSHES {
        let mut wire = Wire::connect(server.address()).await?;
        let head = format!(
            "PUT /v2/team/app/manifests/{n} HTTP/1.1\r\nHost: a\r\nContent-Type: {MANIFEST}\r\n\
             Content-Length: {}\r\n\r\n",
            4 << 20
        );
        wire.send(head.as_bytes()).await?;
        wire.send(&ALL_BUT_ONE).await?;
        pushes.push(wire);
    }
    Ok(pushes)
}

/// Starts pushes over HTTP/2 that stall.
async fn stalled_over_http2(server: &Server) -> Result<Vec<(H2, Vec<h2::H2Stream>)>> {
    let mut connections = Vec::new();
    for _ in 0..PUSHES / STREAMS {
        let mut connection = H2::connect(server.address(), false).await?;
        let mut streams = Vec::new();
        for n in 0..STREAMS {
            let path = format!("/v2/team/app/manifests/{n}");
            let headers = [("content-type", MANIFEST)];
            let mut stream = connection.send("PUT", &path, &headers, false).await?;
            stream.push(&ALL_BUT_ONE, false)?;
            streams.push(stream);
        }
        connections.push((connection, streams));
    }
    Ok(connections)
}

/// Checks the memory of stalled pushes, and that a push and a pull succeed meanwhile.
async fn weigh<T>(
    launch: Launch,
    resident: u64,
    stalled: impl AsyncFn(&Server) -> Result<T>,
) -> Result<()> {
    let launch = launch.environment("OCTOSERVE_LIMITS_BODY_STALL", "10m");
    let mut server = launch.start().await?;
    let client = Client::new(&server.url(""))?;
    client.push_image("team/app", "first", &[1]).await?;
    let pushes = stalled(&server).await?;
    client.push_image("team/app", "good", &[2]).await?;
    client.pull_image("team/app", "good").await?;
    let turned_away = poll::until("the slowest pushes are aborted", DEADLINE, async || {
        let requests = metric("octoserve_registry_http_requests_total").label("status", "503");
        let found = server.scrape().await?.sum(&requests);
        Ok(found.filter(|found| *found >= TURNED_AWAY as f64))
    });
    turned_away.await?;
    client.push_image("team/app", "another", &[3]).await?;
    let peak = server.process().memory()?.peak;
    harness::report(&format!("{PUSHES} stalled manifests: {} MiB", peak >> 20));
    ensure!(peak <= resident, "{peak}");
    drop(pushes);
    Ok(())
}

#[tokio::test]
async fn manifests_that_stall_before_their_last_byte_use_bounded_memory() -> Result<()> {
    weigh(Launch::registry(), RESIDENT, stalled_over_http1).await
}

#[tokio::test]
async fn manifests_that_stall_over_http2_use_bounded_memory() -> Result<()> {
    weigh(Launch::registry(), RESIDENT, stalled_over_http2).await
}

#[tokio::test]
async fn manifests_that_stall_use_bounded_memory_in_the_all_in_one() -> Result<()> {
    weigh(
        Launch::all_in_one(),
        RESIDENT + PUSHES as u64 * EACH_OF_THE_PROXY,
        stalled_over_http1,
    )
    .await
}

#[tokio::test]
async fn manifests_that_stall_over_http2_use_bounded_memory_in_the_all_in_one() -> Result<()> {
    weigh(
        Launch::all_in_one(),
        RESIDENT + PUSHES as u64 * EACH_OF_THE_PROXY,
        stalled_over_http2,
    )
    .await
}

/// Pushes manifests with annotations of 3.9 MB and one subject, and reads all pages of their
/// listing.
#[tokio::test]
async fn referrers_with_large_annotations_are_listed_in_bounded_memory() -> Result<()> {
    let launch = Launch::registry().environment("OCTOSERVE_DURABILITY", "relaxed");
    let mut server = launch.start().await?;
    let client = Client::new(&server.url(""))?;
    client.push_blob("team/app", b"{}").await?;
    let empty = "application/vnd.oci.empty.v1+json";
    let subject = descriptor(MANIFEST, b"subject");
    let annotation = "x".repeat(3_900_000);
    for n in 0..REFERRERS {
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": "a/b", "subject": subject,
            "config": descriptor(empty, b"{}"), "layers": [descriptor(empty, b"{}")],
            "annotations": {"n": n.to_string(), "long": annotation},
        });
        let tag = n.to_string();
        let manifest = manifest.to_string();
        client
            .push_manifest("team/app", &tag, MANIFEST, &manifest)
            .await?;
    }
    let digest = content::digest(b"subject");
    for (filter, expected) in [
        ("?artifactType=c/d", 0),
        ("?artifactType=a/b", REFERRERS),
        ("", REFERRERS),
    ] {
        let path = format!("/v2/team/app/referrers/{digest}{filter}");
        let index: serde_json::Value = serde_json::from_slice(&client.read(&path).await?)?;
        let listed = index["manifests"].as_array().map_or(0, Vec::len);
        ensure!(listed == expected, "{filter}: {listed}");
    }
    let peak = server.process().memory()?.peak;
    harness::report(&format!("{REFERRERS} large referrers: {} MiB", peak >> 20));
    ensure!(peak <= RESIDENT, "{peak}");
    Ok(())
}
