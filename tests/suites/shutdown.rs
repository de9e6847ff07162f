//! SIGTERM: no new requests are accepted, requests in flight finish, and the program exits. A
//! second SIGTERM ends it at once.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::client::Client;
use harness::octoserve::{Launch, Program, Server};
use harness::process::{OutputStream, Signal};
use harness::scrape::{Expected, metric};
use harness::wire::{self, Wire};
use harness::{content, poll, tools};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::Front;

/// More than all socket buffers between client and upstream hold.
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
    // The request has begun once it is counted.
    in_flight("upload_session").assert_in(&front.server).await?;

    front.server.process().signal(Signal::TERM)?;
    refused(&front.server).await?;
    wire.send(&whole[half..]).await?;
    assert_eq!(wire.response("PATCH").await?.head.status, 202);
    ended(&mut front.server).await
}

#[tokio::test]
async fn an_idle_server_exits_at_once() -> Result<()> {
    for launch in [Launch::all_in_one(), Launch::registry()] {
        let mut server = launch.start().await?;
        // An idle keep-alive connection does not delay the exit.
        let mut wire = Wire::connect(server.address()).await?;
        wire.send(b"GET /v2/ HTTP/1.1\r\nHost: registry\r\n\r\n")
            .await?;
        ensure!(wire.response("GET").await?.head.status == 200);
        let status = server.terminate(Duration::from_secs(5)).await?;
        ensure!(status.success(), "{status}");
    }
    Ok(())
}

#[tokio::test]
async fn shutdown_does_not_wait_for_a_silent_client() -> Result<()> {
    // Longer than the test waits for the exit.
    let launch = Launch::all_in_one().configuration("limits: {header_timeout: 10m}");
    let mut server = launch.start().await?;
    let mut silent = TcpStream::connect(server.address()).await?;
    // Connections are accepted in order, so earlier ones have been accepted, too.
    server.scrape().await?;
    server.process().signal(Signal::TERM)?;
    ended(&mut server).await?;
    assert_eq!(silent.read(&mut [0]).await?, 0);
    Ok(())
}

#[tokio::test]
async fn an_http2_download_in_flight_is_finished() -> Result<()> {
    let mut front = Front::embedded().await?;
    let bytes = content::bytes(7, LENGTH);
    let digest = front.client.push_blob("team/app", &bytes).await?;
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("blob");
    let mut curl = std::process::Command::new(tools::find("curl")?)
        .args(["--silent", "--fail", "--http2-prior-knowledge"])
        // Slow enough to be far from its end when the test first sees it.
        .args(["--limit-rate", "32M", "--output"])
        .arg(&file)
        .arg(front.server.url(&format!("/v2/team/app/blobs/{digest}")))
        .spawn()?;
    in_flight("blob").assert_in(&front.server).await?;
    front.server.process().signal(Signal::TERM)?;
    refused(&front.server).await?;
    ended(&mut front.server).await?;
    ensure!(curl.wait()?.success(), "the download broke off");
    assert_eq!(content::digest(&std::fs::read(&file)?), digest);
    Ok(())
}

#[tokio::test]
async fn metrics_and_probes_outlive_the_main_listener() -> Result<()> {
    for (program, launch) in [
        (Program::Octoserve, Launch::all_in_one().metrics_listener()),
        (Program::Registry, Launch::registry()),
    ] {
        let mut server = launch.start().await?;
        let (mut wire, rest) = half_an_upload(&server).await?;
        let ready = format!("http://{}/readyz", server.metrics_address());
        poll::until("it is ready", DEADLINE, async || {
            Ok((health(program, &ready).await? == Some(0)).then_some(()))
        })
        .await?;

        server.process().signal(Signal::TERM)?;
        refused(&server).await?;
        // Not ready for new requests, but alive, with its metrics.
        assert_eq!(health(program, &ready).await?, Some(1));
        assert_eq!(metrics_listener_status(&server, "/readyz").await?, 503);
        assert_eq!(metrics_listener_status(&server, "/livez").await?, 200);
        if program == Program::Octoserve {
            in_flight("upload_session").assert_in(&server).await?;
        }
        wire.send(&rest).await?;
        assert_eq!(wire.response("PATCH").await?.head.status, 202);
        ended(&mut server).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_second_signal_ends_the_process_at_once() -> Result<()> {
    for launch in [Launch::all_in_one(), Launch::registry()] {
        // The test fails if the server waits for this timeout.
        let launch = launch.environment("OCTOSERVE_LIMITS_DRAIN", "1h");
        let mut server = launch.start().await?;
        let (mut wire, _) = half_an_upload(&server).await?;
        server.process().signal(Signal::TERM)?;
        refused(&server).await?;
        ensure!(
            server.process().is_running()?,
            "the server did not wait for the upload"
        );
        server.process().signal(Signal::INT)?;
        let status = server.process().exited(DEADLINE).await?;
        // A client without a response makes the exit code a failure.
        assert_eq!(status.code(), Some(1));
        ensure!(
            wire.response("PATCH").await.is_err(),
            "a response after all"
        );
        let log = server.process().output(OutputStream::Stderr)?;
        ensure!(log.contains("shutting down at once"), "{log}");
    }
    Ok(())
}

/// An upload with one half sent, and the other half.
pub(crate) async fn half_an_upload(server: &Server) -> Result<(Wire, Vec<u8>)> {
    let client = Client::new(&server.url(""))?;
    let location = client.open_upload("team/app").await?;
    let mut whole = wire::request("PATCH", &location, &[], &content::bytes(8, 1 << 20));
    let rest = whole.split_off(whole.len() / 2);
    let mut wire = Wire::connect(server.address()).await?;
    wire.send(&whole).await?;
    // The session has bytes once the registry has received them.
    poll::until("the upload has begun", DEADLINE, async || {
        let received = metric("octoserve_registry_upload_bytes");
        let received = server.scrape().await?.sum(&received);
        Ok(received.filter(|bytes| *bytes > 0.0))
    })
    .await?;
    Ok((wire, rest))
}

fn in_flight(endpoint: &str) -> Expected {
    let requests = metric("octoserve_http_requests_in_flight");
    requests.label("endpoint", endpoint).value(1)
}

async fn metrics_listener_status(server: &Server, path: &str) -> Result<u16> {
    let request = wire::request("GET", path, &[], b"");
    let response = wire::exchange(server.metrics_address(), "GET", &request).await?;
    Ok(response.head.status)
}

async fn health(program: Program, url: &str) -> Result<Option<i32>> {
    let path = program.path()?;
    let asked = tools::attempt(&path.to_string_lossy(), &["health", "--url", url]).await?;
    Ok(asked.status.code())
}

/// Waits until new connections are refused.
pub(crate) async fn refused(server: &Server) -> Result<()> {
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
