//! Connections of clients: pipelining, HTTP/1.0, `Expect`, and the connection limit.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::octoserve::Launch;
use harness::poll;
use harness::process::OutputStream;
use harness::scrape::metric;
use harness::scripted::{Caller, Scripted};
use harness::wire::Wire;

use crate::scene::{BLOB, LENGTH, SESSION, Scene, get, response};

const DEADLINE: Duration = Duration::from_secs(30);

/// Reads the body of each request and responds with its target.
async fn echo(mut caller: Caller) -> Result<()> {
    loop {
        let head = caller.head().await?;
        let target = head.split(' ').nth(1).unwrap_or_default();
        if target.contains("?big") {
            caller.send(response("200 OK", LENGTH, "")).await?;
            let piece = vec![b'x'; 1 << 20];
            for _ in 0..LENGTH / piece.len() {
                caller.send(&piece).await?;
            }
            continue;
        }
        if head.starts_with("PATCH ") {
            caller.exactly(4).await?;
        } else if head.starts_with("POST ") {
            caller.until("0\r\n\r\n").await?;
        }
        caller
            .send(response("200 OK", target.len(), target))
            .await?;
    }
}

#[tokio::test]
async fn a_request_sent_during_a_response_is_served_after_it() -> Result<()> {
    let mut scene = Scene::of(echo).await?;
    let mut client = scene.client().await?;
    for round in 1..=3 {
        client.send(get(&format!("{BLOB}?big")).as_bytes()).await?;
        ensure!(client.head().await?.status == 200);
        client.exactly(1000).await?;
        for next in ["/v2/a", "/v2/b"] {
            client.send(get(next).as_bytes()).await?;
        }
        let rest = client.exactly(LENGTH - 1000).await;
        rest.with_context(|| format!("round {round}"))?;
        assert_eq!(client.response("GET").await?.body, b"/v2/a");
        assert_eq!(client.response("GET").await?.body, b"/v2/b");
    }
    let requests = metric("octoserve_http_requests_total");
    requests.value(9).assert_in(&scene.server).await?;
    scene.nothing_in_flight().await?;
    let log = scene.server.process().output(OutputStream::Stderr)?;
    ensure!(!log.contains("upstream failed"), "{log}");
    Ok(())
}

#[tokio::test]
async fn pipelined_requests_get_their_responses_in_order() -> Result<()> {
    let scene = Scene::of(echo).await?;
    let mut client = scene.client().await?;
    let patch = format!("PATCH {SESSION} HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nsome");
    let chunked = "POST /v2/chunked HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunked = format!("{chunked}3\r\nabc\r\n0\r\n\r\n");
    let all = [get("/v2/1"), patch, get("/v2/2"), chunked, get("/v2/3")].concat();
    let all = all.as_bytes();
    // Split at arbitrary points.
    let (first, second) = all.split_at(all.len() - 20);
    client.send(first).await?;
    for (method, body) in [
        ("GET", "/v2/1"),
        ("PATCH", SESSION),
        ("GET", "/v2/2"),
        ("POST", "/v2/chunked"),
    ] {
        assert_eq!(client.response(method).await?.body, body.as_bytes());
    }
    client.send(second).await?;
    assert_eq!(client.response("GET").await?.body, b"/v2/3");
    let requests = metric("octoserve_http_requests_total").label("status", "200");
    requests.value(5).assert_in(&scene.server).await
}

#[tokio::test]
async fn a_client_that_closes_with_pipelined_requests_leaves_nothing_in_flight() -> Result<()> {
    let scene = Scene::of(echo).await?;
    let mut client = scene.client().await?;
    client.send(get(&format!("{BLOB}?big")).as_bytes()).await?;
    ensure!(client.head().await?.status == 200);
    client.send(get("/v2/never").as_bytes()).await?;
    drop(client);
    scene.counted("blob", "200").await
}

#[tokio::test]
async fn an_http_1_0_client_gets_a_body_without_chunks() -> Result<()> {
    let scene = Scene::of(|mut caller: Caller| async move {
        let head = caller.head().await?;
        ensure!(head.starts_with("GET /v2/ HTTP/1.1\r\n"), "{head}");
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        caller.send(format!("{head}3\r\nabc\r\n0\r\n\r\n")).await?;
        caller.closed().await
    })
    .await?;
    let request = b"GET /v2/ HTTP/1.0\r\nHost: a\r\n\r\n";
    let mut client = scene.client().await?;
    client.send(request).await?;
    let head = client.head().await?;
    assert_eq!(head.header("transfer-encoding"), None);
    assert_eq!(client.rest().await?, b"abc");
    Ok(())
}

#[tokio::test]
async fn an_http_1_0_client_without_a_host_header_is_served() -> Result<()> {
    let request = b"GET /v2/ HTTP/1.0\r\nX-Forwarded-Host: elsewhere\r\n\r\n";
    let scene = Scene::of(echo).await?;
    let mut client = scene.client().await?;
    client.send(request).await?;
    assert_eq!(client.response("GET").await?.body, b"/v2/");
    // The proxy forwards HTTP/1.1, which requires a Host header.
    let heard = scene.upstream.heard().concat().to_ascii_lowercase();
    let host = format!("\r\nhost: {}\r\n", scene.upstream.address());
    assert_eq!(heard.matches(&host).count(), 1, "{heard}");
    ensure!(!heard.contains("x-forwarded-host"), "{heard}");

    let server = Launch::all_in_one().start().await?;
    let mut client = Wire::connect(server.address()).await?;
    client.send(request).await?;
    assert_eq!(client.response("GET").await?.head.status, 200);
    Ok(())
}

#[tokio::test]
async fn an_upload_refused_at_expect_100_continue_sends_no_body() -> Result<()> {
    let scene = Scene::of(|mut caller: Caller| async move {
        let head = caller.head().await?.to_ascii_lowercase();
        ensure!(head.contains("\r\nexpect: 100-continue\r\n"), "{head}");
        caller.send(response("401 Unauthorized", 2, "no")).await?;
        caller.closed().await
    })
    .await?;
    let head = format!("PATCH {SESSION} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue");
    let mut client = scene.client().await?;
    client
        .send(format!("{head}\r\nContent-Length: 4\r\n\r\n").as_bytes())
        .await?;
    // The first head is final, without a 100 Continue before it.
    let head = client.interim().await?;
    assert_eq!(head.status, 401);
    assert_eq!(client.exactly(2).await?, b"no");
    drop(client);
    scene.counted("upload_session", "401").await?;
    let received = metric("octoserve_http_request_body_bytes_total");
    let received = scene.server.scrape().await?.sum(&received);
    ensure!(received.is_none_or(|bytes| bytes == 0.0), "{received:?}");
    Ok(())
}

#[tokio::test]
async fn the_connection_limit_bounds_concurrent_requests() -> Result<()> {
    let scene = |caller: Caller| async move { echo(caller).await };
    let upstream = Scripted::start(scene).await?;
    let server = Launch::in_front_of(&upstream.url())
        .environment("OCTOSERVE_LIMITS_CONNECTIONS", "3")
        .metrics_listener()
        .start()
        .await?;
    let head = format!("PATCH {SESSION} HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n");
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = Wire::connect(server.address()).await?;
        client.send(head.as_bytes()).await?;
        clients.push(client);
    }
    let in_flight = metric("octoserve_http_requests_in_flight");
    in_flight.value(3).assert_in(&server).await?;
    for _ in 0..3 {
        let mut more = Wire::connect(server.address()).await?;
        // The proxy may close before anything is sent, which may also fail the read.
        more.send(get("/v2/").as_bytes()).await.ok();
        ensure!(more.rest().await.unwrap_or_default().is_empty());
    }
    for client in &mut clients {
        client.send(b"some").await?;
        ensure!(client.response("PATCH").await?.head.status == 200);
    }
    poll::until("there is a free slot again", DEADLINE, async || {
        let mut client = Wire::connect(server.address()).await?;
        if client.send(get("/v2/").as_bytes()).await.is_err() {
            return Ok(None);
        }
        let response = client.response("GET").await;
        Ok(response
            .is_ok_and(|response| response.head.status == 200)
            .then_some(()))
    })
    .await
}
