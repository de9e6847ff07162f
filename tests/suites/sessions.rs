//! Abandoned upload sessions block no push, whatever their number and size.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::client::Client;
use harness::content;
use harness::octoserve::{Launch, Program, Server};
use harness::poll;
use harness::wire::Wire;
use reqwest::Method;
use tempfile::TempDir;

/// The limit of open sessions.
const SESSIONS: usize = 20;

/// Longer than an idle session with bytes is protected from eviction.
const DEADLINE: Duration = Duration::from_mins(1);

const PROGRAMS: [Program; 2] = [Program::Registry, Program::Octoserve];

async fn start(program: Program, data: &Path, key: &str, value: &str) -> Result<Server> {
    let (launch, prefix) = match program {
        Program::Registry => (Launch::registry(), "OCTOSERVE_UPLOADS"),
        Program::Octoserve => (Launch::all_in_one(), "OCTOSERVE_REGISTRY_UPLOADS"),
    };
    let variable = format!("{prefix}_{key}");
    launch
        .data(data)
        .environment(&variable, value)
        .start()
        .await
}

/// An upload of ten bytes, five of which have been sent, and which the registry has started to
/// read.
async fn half_sent(server: &Server, location: &str) -> Result<Wire> {
    let mut wire = Wire::connect(server.address()).await?;
    let head = format!(
        "PATCH {location} HTTP/1.1\r\nHost: registry\r\nContent-Length: 10\r\n\
         Expect: 100-continue\r\n\r\n"
    );
    wire.send(head.as_bytes()).await?;
    let interim = wire.interim().await?;
    ensure!(interim.status == 100, "{interim:?}");
    wire.send(b"01234").await?;
    Ok(wire)
}

async fn flood(client: &Client) -> Result<Vec<String>> {
    let mut locations = Vec::new();
    for _ in 0..3 * SESSIONS {
        locations.push(client.open_upload("team/flood").await?);
    }
    Ok(locations)
}

async fn status(client: &Client, location: &str) -> Result<u16> {
    Ok(client.get(location).await?.status().as_u16())
}

#[tokio::test]
async fn a_push_succeeds_though_idle_sessions_fill_the_limit() -> Result<()> {
    for program in PROGRAMS {
        let data = TempDir::new()?;
        let limit = SESSIONS.to_string();
        let mut server = start(program, data.path(), "MAX_SESSIONS", &limit).await?;
        let client = Client::new(&server.url(""))?;
        let with_bytes = client.open_upload("team/app").await?;
        let sent = client.send(Method::PATCH, &with_bytes, &[], "some").await?;
        ensure!(sent.status() == 202, "{}", sent.status());
        let slow = client.open_upload("team/app").await?;
        let mut wire = half_sent(&server, &slow).await?;

        let locations = flood(&client).await?;
        client.push_image("team/app", "1", &[1, 2]).await?;
        client.pull_image("team/app", "1").await?;
        let first = locations.first().context("no session")?;
        ensure!(status(&client, first).await? == 404, "the first is open");
        let refused = client.send(Method::PATCH, first, &[], "late").await?;
        let body = refused.text().await?;
        ensure!(body.contains("BLOB_UPLOAD_UNKNOWN"), "{body}");
        ensure!(status(&client, &with_bytes).await? == 204, "bytes are lost");

        // The session with a request in flight has not been evicted.
        wire.send(b"56789").await?;
        let response = wire.response("PATCH").await?;
        ensure!(response.head.status == 202, "{:?}", response.head);

        flood(&client).await?;
        server.process().kill()?;
        let server = start(program, data.path(), "MAX_SESSIONS", &limit).await?;
        let client = Client::new(&server.url(""))?;
        client.push_image("team/app", "2", &[3, 4]).await?;
        client.pull_image("team/app", "2").await?;
        for kept in [&with_bytes, &slow] {
            ensure!(status(&client, kept).await? == 204, "bytes are lost");
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_push_succeeds_though_idle_sessions_hold_all_bytes() -> Result<()> {
    for program in PROGRAMS {
        let data = TempDir::new()?;
        let server = start(program, data.path(), "MAX_BYTES", "1MiB").await?;
        let client = Client::new(&server.url(""))?;
        let mut abandoned = Vec::new();
        for seed in 0..2 {
            let location = client.open_upload("team/app").await?;
            let bytes = content::bytes(seed, 512 << 10);
            let sent = client.send(Method::PATCH, &location, &[], bytes).await?;
            ensure!(sent.status() == 202, "{}", sent.status());
            abandoned.push(location);
        }
        let bytes = content::bytes(7, 256 << 10);
        poll::until("a push finds space", DEADLINE, async || {
            match client.push_blob("team/app", &bytes).await {
                Ok(_) => Ok(Some(())),
                Err(error) if format!("{error:#}").contains("507") => Ok(None),
                Err(error) => Err(error),
            }
        })
        .await?;
        // Evicting one was enough: the one that had been idle longer.
        ensure!(status(&client, &abandoned[0]).await? == 404);
        ensure!(status(&client, &abandoned[1]).await? == 204);
    }
    Ok(())
}
