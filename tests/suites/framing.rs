//! Requests whose framing is ambiguous, stalls or never ends: a smuggled request is not executed,
//! and no request blocks a server.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::client::Client;
use harness::octoserve::{Launch, Server};
use harness::wire::{self, Wire};
use harness::{content, poll, tree, tree::Tree};

const DEADLINE: Duration = Duration::from_secs(20);

/// A digest without content, so that the request around a smuggled one fails by itself.
const NOTHING: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";

/// The smuggled request. Its response would be 202.
const HIDDEN: &str =
    "DELETE /v2/team/app/manifests/1 HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n";

/// Headers that servers may interpret differently to find the end of the body.
const AMBIGUOUS: &[&str] = &[
    "Content-Length: 5\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding: chunked\r\nContent-Length: 5",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
    "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\nContent-Length: 5",
    "Transfer-Encoding: chunked, identity",
    "Transfer-Encoding: xchunked",
    "Transfer-Encoding: chunked;q=1",
    "Transfer-Encoding : chunked\r\nContent-Length: 5",
    " Transfer-Encoding: chunked\r\nContent-Length: 5",
    "Transfer-Encoding:\u{b}chunked\r\nContent-Length: 5",
    "Transfer\u{0}-Encoding: chunked\r\nContent-Length: 5",
    "X: y\rTransfer-Encoding: chunked\r\nContent-Length: 5",
    "Content-Length: 5\r\nContent-Length: 0",
    "Content-Length: 5, 0",
    "Content-Length: +5",
    "Content-Length: -1",
    "Content-Length: 0x5",
    "Content-Length: 5 0",
    "Content-Length: 18446744073709551621",
];

/// Chunks whose length servers may interpret differently.
const CHUNKS: &[&str] = &[
    "0x0\r\n\r\n",
    "-1\r\n\r\n",
    "+0\r\n\r\n",
    "10000000000000000\r\n\r\n",
    "g\r\n\r\n",
    "\r\n\r\n",
    "3\r\nabcd0\r\n\r\n",
    "3;\nx\r\nabc\r\n0\r\n\r\n",
];

async fn all() -> Result<Vec<Server>> {
    let servers = [Launch::registry().start(), Launch::all_in_one().start()];
    let mut all = Vec::new();
    for server in servers {
        all.push(server.await?);
    }
    Ok(all)
}

#[tokio::test]
async fn a_smuggled_request_is_not_executed() -> Result<()> {
    for server in all().await? {
        let client = Client::new(&server.url(""))?;
        client.push_image("team/app", "1", &[1]).await?;
        let before = tree::list(server.data())?;
        let start = format!("POST /v2/team/app/blobs/uploads/?digest={NOTHING} HTTP/1.1");
        let mut requests: Vec<_> = AMBIGUOUS
            .iter()
            .map(|headers| format!("{start}\r\nHost: a\r\n{headers}\r\n\r\n0\r\n\r\n{HIDDEN}"))
            .collect();
        let chunked = "Transfer-Encoding: chunked";
        requests.extend(
            CHUNKS
                .iter()
                .map(|chunks| format!("{start}\r\nHost: a\r\n{chunked}\r\n\r\n{chunks}{HIDDEN}")),
        );
        for request in requests {
            let responses = responses(server.address(), &request).await?;
            ensure!(
                !responses.contains("HTTP/1.1 202") && !responses.contains("HTTP/1.1 5"),
                "{request:?} got {responses:?}"
            );
            let there = client.get("/v2/team/app/manifests/1").await?;
            ensure!(there.status() == 200, "{request:?}: {}", there.status());
            as_before(&server, &before).await.context(request)?;
        }
    }
    Ok(())
}

/// A client disconnects right after its request. The upload session is removed, although nobody
/// receives the error.
#[tokio::test]
async fn an_aborted_single_post_leaves_no_session() -> Result<()> {
    for server in all().await? {
        let client = Client::new(&server.url(""))?;
        client.push_image("team/app", "1", &[1]).await?;
        let before = tree::list(server.data())?;
        let post = format!("/v2/team/app/blobs/uploads/?digest={NOTHING}");
        for length in [0, 100, 10_000] {
            let bytes = content::bytes(63, length);
            let whole = wire::request("POST", &post, &[], &bytes);
            let chunked = wire::chunked("POST", &post, &[], &[&bytes]);
            // The race does not occur at every attempt.
            for request in [&whole, &chunked].repeat(10) {
                let mut wire = Wire::connect(server.address()).await?;
                wire.send(request).await?;
                wire.finish().await?;
            }
        }
        as_before(&server, &before).await?;
    }
    Ok(())
}

/// Waits until nothing is left of a refused request: the response may come before the cleanup.
async fn as_before(server: &Server, before: &Tree) -> Result<()> {
    let same = poll::until("the directory is unchanged", DEADLINE, async || {
        // A file that is removed during the listing is an error of the listing: try again.
        let now = tree::list(server.data()).ok();
        Ok((now.as_ref() == Some(before)).then_some(()))
    });
    same.await
}

/// The responses to these bytes until the connection ends.
async fn responses(address: SocketAddr, request: &str) -> Result<String> {
    let mut wire = Wire::connect(address).await?;
    // The server may close before everything is sent, which may also fail the read.
    if wire.send(request.as_bytes()).await.is_err() || wire.finish().await.is_err() {
        return Ok(String::new());
    }
    let rest = wire.rest().await.unwrap_or_default();
    Ok(String::from_utf8_lossy(&rest).into_owned())
}

#[tokio::test]
async fn an_endless_request_is_refused() -> Result<()> {
    for server in all().await? {
        let long = "a".repeat(4 << 20);
        for request in [
            format!("GET /v2/{long} HTTP/1.1\r\nHost: a\r\n\r\n"),
            format!("GET /v2/?{long} HTTP/1.1\r\nHost: a\r\n\r\n"),
            format!("{long} /v2/ HTTP/1.1\r\nHost: a\r\n\r\n"),
            format!("GET /v2/ HTTP/1.1\r\nHost: {long}\r\n\r\n"),
            format!("GET /v2/ HTTP/1.1\r\nHost: a\r\n{long}: b\r\n\r\n"),
        ] {
            let responses = responses(server.address(), &request).await?;
            ensure!(
                responses.is_empty() || responses.starts_with("HTTP/1.1 4"),
                "{:?} got {responses:?}",
                &request[..40]
            );
        }
        let client = Client::new(&server.url(""))?;
        ensure!(client.get("/v2/").await?.status() == 200, "it has ended");
    }
    Ok(())
}

#[tokio::test]
async fn a_stalled_body_is_aborted_and_the_upload_resumes() -> Result<()> {
    for launch in [Launch::registry(), Launch::all_in_one()] {
        let launch = launch.environment("OCTOSERVE_LIMITS_BODY_STALL", "1s");
        let server = launch.start().await?;
        let client = Client::new(&server.url(""))?;
        let bytes = content::bytes(61, 1000);
        let location = client.open_upload("team/app").await?;
        let request = wire::request("PATCH", &location, &[], &bytes);
        let mut wire = Wire::connect(server.address()).await?;
        wire.send(&request[..request.len() - 500]).await?;
        let response = wire.response("PATCH").await.context("no response")?;
        ensure!(response.head.status == 408, "{}", response.head.status);
        ensure!(response.error_code().is_some(), "{:?}", response.body);
        wire.rest().await.context("the connection stays")?;

        let offset = poll::until("the session is released", DEADLINE, async || {
            let status = client.get(&location).await?;
            let range = status.headers().get("range").context("no Range")?;
            let last: usize = range.to_str()?.trim_start_matches("0-").parse()?;
            let first = if last == 0 { 0 } else { last + 1 };
            let range = format!("{first}-999");
            let headers = [("Content-Range", range.as_str())];
            let rest = bytes[first..].to_vec();
            let taken = client
                .send(reqwest::Method::PATCH, &location, &headers, rest)
                .await?;
            Ok((taken.status() == 202).then_some(first))
        });
        ensure!(offset.await? <= 500, "more than was sent");
    }
    Ok(())
}
