//! Loads of many concurrent requests or many objects, by a client of our own: the usual load
//! generators cannot push.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use harness::client::{Client, MANIFEST};
use harness::content;
use harness::wire::{self, Wire};
use reqwest::{Method, StatusCode};
use serde_json::Value;
use tokio::task::{JoinHandle, JoinSet};

use crate::load::{Sample, transfer};
use crate::peers::Subject;

/// Concurrent connections that push.
pub(crate) const CONNECTIONS: u64 = 16;
/// The size of each concurrently pushed blob.
pub(crate) const BLOB: u64 = 64 << 20;
/// The page size of a listing.
const PAGE: u64 = 1000;
/// The tags that one push of a manifest sets.
const TAGS: u64 = 250;

/// A blob that is pushed, and its digest.
pub(crate) type Blob = (Bytes, String);

/// Requests per second of [`paced`], over [`CONNECTIONS`].
pub(crate) const PACE: u32 = 1000;

/// GETs `path` at a rate that leaves all programs mostly idle: ms to the end of the response.
pub(crate) async fn paced(subject: &mut Subject, path: &str, seconds: u64) -> Result<Sample> {
    let before = subject.processor_time()?;
    let latencies = latencies(subject.address(), path, seconds).await?;
    let spent = subject.processor_time()?.saturating_sub(before);
    let at = |share: usize| latencies.get(latencies.len() * share / 100).copied();
    Ok(Sample {
        value: at(50).context("nothing was asked")?,
        processor: spent.as_secs_f64() * 1e6 / latencies.len() as f64,
        p99: at(99),
        resident: subject.resident()?,
    })
}

/// The latencies of the same requests in ms, the shortest first. Where the server ends a connection, the
/// next request waits for a new one.
pub(crate) async fn latencies(address: SocketAddr, path: &str, seconds: u64) -> Result<Vec<f64>> {
    let connections = u32::try_from(CONNECTIONS)?;
    let period = Duration::from_secs(1) * connections / PACE;
    let requests = seconds * u64::from(PACE) / CONNECTIONS;
    let request = format!("GET {path} HTTP/1.1\r\nHost: registry\r\nAccept: {MANIFEST}\r\n\r\n");
    let mut workers = JoinSet::new();
    for connection in 0..connections {
        let request = request.clone();
        workers.spawn(async move {
            let mut open = Some(Wire::connect(address).await?);
            // The connections start at different times.
            let first = tokio::time::Instant::now() + period * connection / connections;
            let mut turns = tokio::time::interval_at(first, period);
            let mut latencies = Vec::new();
            for _ in 0..requests {
                turns.tick().await;
                let sent = Instant::now();
                let mut wire = match open.take() {
                    Some(wire) => wire,
                    None => Wire::connect(address).await?,
                };
                wire.send(request.as_bytes()).await?;
                let response = wire.response("GET").await?;
                latencies.push(sent.elapsed().as_secs_f64() * 1e3);
                ensure!(response.head.status == 200, "{}", response.head.status);
                let is_last = response.head.header("connection") == Some("close");
                open = (!is_last).then_some(wire);
            }
            anyhow::Ok(latencies)
        });
    }
    let mut latencies = Vec::new();
    while let Some(worker) = workers.join_next().await {
        latencies.extend(worker??);
    }
    latencies.sort_by(f64::total_cmp);
    Ok(latencies)
}

/// Scrapes per second of [`scraping`].
pub(crate) const SCRAPES: u32 = 50;

/// Sends one request of each endpoint and method, which makes a proxy's exposition as large as
/// possible.
pub(crate) async fn fill_exposition(address: SocketAddr) -> Result<()> {
    let digest = content::digest(b"");
    let paths = [
        "/v2/".to_owned(),
        "/v2/_catalog".to_owned(),
        "/v2/a/tags/list".to_owned(),
        "/v2/a/manifests/latest".to_owned(),
        format!("/v2/a/blobs/{digest}"),
        "/v2/a/blobs/uploads/".to_owned(),
        "/v2/a/blobs/uploads/session".to_owned(),
        format!("/v2/a/referrers/{digest}"),
        "/token".to_owned(),
        "/v2/a/_oci/extension".to_owned(),
        "/other".to_owned(),
    ];
    for path in &paths {
        for method in [
            "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW",
        ] {
            let request = wire::request(method, path, &[], b"");
            // The request is counted whatever the status.
            wire::exchange(address, method, &request).await?;
        }
    }
    Ok(())
}

/// Scrapes repeatedly until it is aborted.
pub(crate) fn scraping(address: SocketAddr) -> JoinHandle<Result<()>> {
    tokio::spawn(async move {
        let mut turns = tokio::time::interval(Duration::from_secs(1) / SCRAPES);
        let mut wire = Wire::connect(address).await?;
        loop {
            turns.tick().await;
            wire.send(b"GET /metrics HTTP/1.1\r\nHost: registry\r\n\r\n")
                .await?;
            let response = wire.response("GET").await?;
            ensure!(response.head.status == 200, "{}", response.head.status);
        }
    })
}

/// Pushes `count` distinct images: images per second.
pub(crate) async fn images(subject: &mut Subject, round: usize, count: u64) -> Result<Sample> {
    let before = subject.processor_time()?;
    let begun = Instant::now();
    let first = u64::try_from(round)? * count;
    each(subject, move |client, worker| async move {
        for image in (worker..count).step_by(usize::try_from(CONNECTIONS)?) {
            let seed = 3 * (first + image);
            let repository = format!("team/small-{}", image % 100);
            let tag = format!("{round}-{image}");
            client
                .push_image(&repository, &tag, &[seed, seed + 1, seed + 2])
                .await?;
        }
        Ok(())
    })
    .await?;
    let took = begun.elapsed();
    let spent = subject.processor_time()?.saturating_sub(before);
    let resident = subject.resident()?;
    per_second(count, took, spent, resident)
}

/// One blob for each connection.
pub(crate) fn blobs() -> Arc<[Blob]> {
    let blob = |seed| {
        let bytes = content::bytes(seed, BLOB);
        let digest = content::digest(&bytes);
        (Bytes::from(bytes), digest)
    };
    let seeds = 2000..2000 + CONNECTIONS;
    seeds.map(blob).collect()
}

/// Pushes `total` bytes, each connection its own blob repeatedly: MB/s.
pub(crate) async fn pushes(
    subject: &mut Subject,
    blobs: &Arc<[Blob]>,
    total: u64,
) -> Result<Sample> {
    let times = total.div_ceil(BLOB * CONNECTIONS);
    let before = subject.processor_time()?;
    let begun = Instant::now();
    let blobs = Arc::clone(blobs);
    each(subject, move |client, worker| {
        let blobs = Arc::clone(&blobs);
        async move {
            let (bytes, digest) = &blobs[usize::try_from(worker)?];
            for time in 0..times {
                let location = client.open_upload("team/large").await?;
                let path = format!("{location}?digest={digest}");
                let octets = [("Content-Type", "application/octet-stream")];
                let response = client
                    .send(Method::PUT, &path, &octets, bytes.clone())
                    .await?;
                let status = response.status();
                ensure!(
                    status == StatusCode::CREATED,
                    "{time}: PUT {path}: {status}"
                );
            }
            Ok(())
        }
    })
    .await?;
    let took = begun.elapsed();
    let spent = subject.processor_time()?.saturating_sub(before);
    let sample = transfer(
        subject,
        times * BLOB * CONNECTIONS,
        took.as_secs_f64(),
        spent,
    )?;
    Ok(Sample {
        resident: subject.peak()?,
        ..sample
    })
}

/// Gives one manifest `count` tags.
pub(crate) async fn tag(subject: &Subject, count: u64) -> Result<()> {
    let client = Client::new(&subject.url(""))?;
    let pushed = client.push_image("team/tags", "first", &[1]).await?;
    let pushed = Arc::new(pushed);
    each(subject, move |client, worker| {
        let pushed = Arc::clone(&pushed);
        async move {
            let batches = (0..count).step_by(usize::try_from(TAGS)?);
            for first in batches
                .skip(usize::try_from(worker)?)
                .step_by(usize::try_from(CONNECTIONS)?)
            {
                let tags: Vec<_> = (first..(first + TAGS).min(count))
                    .map(|tag| format!("tag=build-{tag:07}"))
                    .collect();
                let path = format!(
                    "/v2/team/tags/manifests/{}?{}",
                    pushed.digest,
                    tags.join("&")
                );
                let response = client
                    .send(
                        Method::PUT,
                        &path,
                        &[("Content-Type", MANIFEST)],
                        pushed.manifest.clone(),
                    )
                    .await?;
                ensure!(
                    response.status() == StatusCode::CREATED,
                    "tags from {first}: {}",
                    response.status()
                );
            }
            Ok(())
        }
    })
    .await
}

/// Lists all of them: pages per second.
pub(crate) async fn pages(subject: &mut Subject, count: u64) -> Result<Sample> {
    let client = Client::new(&subject.url(""))?;
    let before = subject.processor_time()?;
    let begun = Instant::now();
    let (mut pages, mut found) = (0, 0);
    let mut next = Some(format!("/v2/team/tags/tags/list?n={PAGE}"));
    while let Some(path) = next {
        ensure!(pages <= count / PAGE + 1, "the listing does not end");
        let response = client.get(&path).await?;
        ensure!(
            response.status() == StatusCode::OK,
            "GET {path}: {}",
            response.status()
        );
        next = response.headers().get("link").map(target).transpose()?;
        let page: Value = serde_json::from_slice(&response.bytes().await?)?;
        found += page["tags"]
            .as_array()
            .context("a page without tags")?
            .len() as u64;
        pages += 1;
    }
    let took = begun.elapsed();
    // Plus the first page.
    ensure!(found == count + 1, "{found} tags were listed");
    let spent = subject.processor_time()?.saturating_sub(before);
    let peak = subject.peak()?;
    per_second(pages, took, spent, peak)
}

/// Runs `work` on every connection, with its own client and number.
async fn each<F>(subject: &Subject, work: impl Fn(Client, u64) -> F) -> Result<()>
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    let mut workers = JoinSet::new();
    for worker in 0..CONNECTIONS {
        let client = Client::new(&subject.url(""))?;
        workers.spawn(work(client, worker));
    }
    while let Some(worker) = workers.join_next().await {
        worker??;
    }
    Ok(())
}

fn per_second(count: u64, took: Duration, spent: Duration, resident: f64) -> Result<Sample> {
    let count = count as f64;
    ensure!(count > 0.0, "nothing was done");
    Ok(Sample {
        value: count / took.as_secs_f64(),
        processor: spent.as_secs_f64() * 1e6 / count,
        p99: None,
        resident,
    })
}

/// The target of a `Link` header with one link (RFC 8288).
fn target(link: &reqwest::header::HeaderValue) -> Result<String> {
    let text = link.to_str()?;
    let target = text
        .strip_prefix('<')
        .and_then(|rest| rest.split('>').next());
    Ok(target.context("a strange Link header")?.to_owned())
}
