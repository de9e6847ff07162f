//! SIGTERM: nothing new is accepted, everything begun is finished, and the program ends.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::content;
use harness::octoserve::{Launch, Server};
use harness::poll;
use harness::process::Signal;
use harness::wire::{self, Wire};
use tokio::net::TcpStream;

use crate::Front;

/// More than all socket buffers between the two ends can hold.
const LENGTH: u64 = 64 << 20;

const DEADLINE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_download_in_flight_is_finished() -> Result<()> {
    let mut front = Front::embedded().await?;
    let bytes = content::bytes(5, LENGTH);
    let digest = front.client.push_blob("team/app", &bytes).await?;
    let mut wire = Wire::connect(front.server.address()).await?;
    let path = format!("/v2/team/app/blobs/{digest}");
    wire.send(&wire::request("GET", &path, &[], b"")).await?;
    ensure!(wire.head().await?.status == 200);

    front.server.process().signal(Signal::TERM)?;
    refused(&front.server).await?;
    let received = wire.exactly(usize::try_from(LENGTH)?).await?;
    assert_eq!(content::digest(&received), digest);
    drop(wire);
    ended(&mut front.server).await
}

#[tokio::test]
async fn an_upload_in_flight_is_finished() -> Result<()> {
    let mut front = Front::embedded().await?;
    let bytes = content::bytes(6, 1 << 20);
    let location = front.client.open_upload("team/app").await?;
    let whole = wire::request("PATCH", &location, &[], &bytes);
    let half = whole.len() / 2;
    let mut wire = Wire::connect(front.server.address()).await?;
    wire.send(&whole[..half]).await?;
    // It has begun once it is counted.
    harness::scrape::metric("octoserve_http_requests_in_flight")
        .label("endpoint", "upload_session")
        .value(1)
        .assert_in(&front.server)
        .await?;

    front.server.process().signal(Signal::TERM)?;
    refused(&front.server).await?;
    wire.send(&whole[half..]).await?;
    assert_eq!(wire.answer("PATCH").await?.head.status, 202);
    ended(&mut front.server).await
}

#[tokio::test]
async fn an_idle_server_ends_at_once() -> Result<()> {
    for launch in [Launch::all_in_one(), Launch::registry()] {
        let mut server = launch.start().await?;
        // An idle connection that is kept alive holds nothing up.
        let mut wire = Wire::connect(server.address()).await?;
        wire.send(b"GET /v2/ HTTP/1.1\r\nHost: registry\r\n\r\n")
            .await?;
        ensure!(wire.answer("GET").await?.head.status == 200);
        let status = server.terminate(Duration::from_secs(5)).await?;
        ensure!(status.success(), "{status}");
    }
    Ok(())
}

/// Waits until no new connection is taken.
async fn refused(server: &Server) -> Result<()> {
    let address = server.address();
    poll::until("new connections are refused", DEADLINE, async || {
        Ok(TcpStream::connect(address).await.is_err().then_some(()))
    })
    .await
}

async fn ended(server: &mut Server) -> Result<()> {
    let status = server
        .process()
        .exited(DEADLINE)
        .await
        .context("after the last transfer")?;
    ensure!(status.success(), "{status}");
    Ok(())
}
