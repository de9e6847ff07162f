//! Transfers that last over a takeover.

use anyhow::{Context, Result, ensure};
use harness::client::Client;
use harness::content;
use harness::h2::H2;
use harness::octoserve::Server;
use harness::poll;
use harness::process::Signal;
use harness::scrape::metric;
use harness::wire::{self, Wire};

use super::{DEADLINE, Generations, ended, last_response, ready, said};

/// More than all socket buffers between client and upstream hold.
const LENGTH: u64 = 64 << 20;

/// Waits until so many requests to an endpoint are in flight.
async fn in_flight(server: &Server, endpoint: &str) -> Result<()> {
    let requests = metric("octoserve_http_requests_in_flight").label("endpoint", endpoint);
    poll::until("the request is in flight", DEADLINE, async || {
        let now = server.scrape().await?.sum(&requests);
        Ok((now == Some(1.0)).then_some(()))
    })
    .await
}

/// A blob that both registries have.
async fn pushed(generations: &Generations) -> Result<String> {
    let bytes = content::bytes(5, LENGTH);
    let mut digest = String::new();
    for registry in &generations.registries {
        digest = Client::new(&registry.url(""))?
            .push_blob("team/app", &bytes)
            .await?;
    }
    Ok(digest)
}

#[tokio::test]
async fn a_download_and_an_upload_end_in_the_process_that_they_began_in() -> Result<()> {
    let generations = Generations::new("").await?;
    let digest = pushed(&generations).await?;
    let mut old = generations.first().await?;
    let mut download = Wire::connect(old.address()).await?;
    let path = format!("/v2/team/app/blobs/{digest}");
    download
        .send(&wire::request("GET", &path, &[], b""))
        .await?;
    ensure!(download.head().await?.status == 200);
    let client = Client::new(&old.url(""))?;
    let location = client.open_upload("team/app").await?;
    let whole = wire::request("PATCH", &location, &[], &content::bytes(8, 1 << 20));
    let (first, rest) = whole.split_at(whole.len() / 2);
    let mut upload = Wire::connect(old.address()).await?;
    upload.send(first).await?;
    in_flight(&old, "upload_session").await?;

    let mut new = generations.next(&mut old).await?;
    let newest = generations.next(&mut new).await?;
    // Nothing is in flight in the one between.
    ended(new).await?;
    ensure!(old.process().is_running()?, "the transfers were cut");
    upload.send(rest).await?;
    let response = upload.response("PATCH").await?;
    assert_eq!(response.head.status, 202);
    let location = response.head.header("location").context("no location")?;
    ensure!(old.process().is_running()?, "the download was cut");
    let received = download.exactly(usize::try_from(LENGTH)?).await?;
    assert_eq!(content::digest(&received), digest);
    drop((download, upload, client));
    ended(old).await?;
    // The session goes on two processes later, at the replica that has it, though nobody configured a key.
    let blob = content::digest(&content::bytes(8, 1 << 20));
    let joint = if location.contains('?') { '&' } else { '?' };
    let finish = format!("{location}{joint}digest={blob}");
    let finish = wire::request("PUT", &finish, &[], b"");
    let response = wire::exchange(newest.address(), "PUT", &finish).await?;
    assert_eq!(response.head.status, 201);
    Ok(())
}

#[tokio::test]
async fn an_idle_connection_gets_one_more_response_that_ends_it() -> Result<()> {
    let generations = Generations::new("").await?;
    let mut old = generations.first().await?;
    let request = b"GET /v2/ HTTP/1.1\r\nHost: registry\r\n\r\n";
    let mut used = Wire::connect(old.address()).await?;
    used.send(request).await?;
    let response = used.response("GET").await?;
    assert_eq!(response.head.header("connection"), None);
    let mut unused = Wire::connect(old.address()).await?;
    let mut multiplexed = H2::connect(old.address(), false).await?;
    let stream = multiplexed.send("GET", "/v2/", &[], true).await?;
    assert_eq!(stream.response().await?.status, 200);
    // Connections are accepted in order, so that these have been accepted.
    ready(old.address()).await?;

    let new = generations.next(&mut old).await?;
    for wire in [&mut used, &mut unused] {
        assert_eq!(last_response(wire, request).await?.head.status, 200);
        ensure!(wire.rest().await?.is_empty());
    }
    // The client of HTTP/2 was told before, and needs no response for that.
    ended(old).await?;
    ensure!(multiplexed.send("GET", "/v2/", &[], true).await.is_err());
    assert_eq!(ready(new.address()).await?, 200);
    Ok(())
}

#[tokio::test]
async fn an_idle_connection_does_not_hold_the_old_process_for_longer_than_its_timeout() -> Result<()>
{
    let generations = Generations::new("").await?;
    let limits = "limits: {drain: 0s, idle_timeout: 1s, header_timeout: 1s}";
    let configuration = generations
        .configuration
        .replace("limits: {drain: 0s}", limits);
    let generations = Generations {
        configuration,
        ..generations
    };
    let mut old = generations.first().await?;
    let mut idle = Wire::connect(old.address()).await?;
    idle.send(b"GET /v2/ HTTP/1.1\r\nHost: registry\r\n\r\n")
        .await?;
    ensure!(idle.response("GET").await?.head.status == 200);
    let _new = generations.next(&mut old).await?;
    ended(old).await
}

#[tokio::test]
async fn after_a_takeover_signals_still_end_the_old_process() -> Result<()> {
    let generations = Generations::new("").await?;
    let digest = pushed(&generations).await?;
    let mut old = generations.first().await?;
    let mut download = Wire::connect(old.address()).await?;
    let path = format!("/v2/team/app/blobs/{digest}");
    download
        .send(&wire::request("GET", &path, &[], b""))
        .await?;
    ensure!(download.head().await?.status == 200);
    let new = generations.next(&mut old).await?;
    ensure!(old.process().is_running()?);
    // The drain's deadline counts from here, and is zero.
    old.process().signal(Signal::TERM)?;
    said(&mut old, "requests in flight are cut off").await?;
    let status = old.process().exited(DEADLINE).await?;
    assert_eq!(status.code(), Some(1));
    assert_eq!(ready(new.address()).await?, 200);
    Ok(())
}
