//! Several replicas of one upstream: how requests are spread over them, what happens when one fails,
//! and how many requests wait.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Result, ensure};
use harness::client::Client;
use harness::foreign::ForeignRegistry;
use harness::octoserve::{Launch, Server};
use harness::poll;
use harness::scrape::{Metric, metric};
use harness::scripted::{Caller, Scripted};
use harness::skopeo::Skopeo;
use harness::wire::{self, Wire};

use crate::scene::get;

const DEADLINE: Duration = Duration::from_secs(30);

/// The address of nobody: only root can bind the discard port.
const NOBODY: &str = "http://127.0.0.1:9";

/// A configuration with these replicas and other keys of the upstream.
fn configuration(replicas: &[&str], keys: &str) -> String {
    let mut yaml = "upstreams:\n- name: main\n  replicas:\n".to_owned();
    for replica in replicas {
        let _ = writeln!(yaml, "  - {replica}");
    }
    yaml + keys
}

async fn proxy(replicas: &[&str], keys: &str) -> Result<Server> {
    Launch::configured(&configuration(replicas, keys))
        .start()
        .await
}

fn of(name: &str) -> Metric {
    metric(name).label("upstream", "main")
}

/// Waits until so many replicas are healthy.
async fn healthy(server: &Server, replicas: u32) -> Result<()> {
    let gauge = of("octoserve_upstream_replicas_healthy");
    poll::until("the replicas' health is known", DEADLINE, async || {
        let seen = server.scrape().await?.sum(&gauge);
        Ok((seen == Some(f64::from(replicas))).then_some(()))
    })
    .await
}

async fn ready(server: &Server, status: u16) -> Result<()> {
    poll::until("/readyz changes", DEADLINE, async || {
        let response = wire::exchange(server.address(), "GET", get("/readyz").as_bytes()).await?;
        Ok((response.head.status == status).then_some(()))
    })
    .await
}

/// Responds to every request with a text.
async fn say(mut caller: Caller, text: &'static str) -> Result<()> {
    loop {
        caller.head().await?;
        let length = text.len();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{text}");
        caller.send(head).await?;
    }
}

async fn named(name: &'static str) -> Result<Scripted> {
    Scripted::start(move |caller: Caller| say(caller, name)).await
}

/// Which replica responds to a request.
async fn asked(server: &Server, path: &str) -> Result<String> {
    let response = wire::exchange(server.address(), "GET", get(path).as_bytes()).await?;
    ensure!(response.head.status == 200, "{}", response.head.status);
    Ok(String::from_utf8(response.body)?)
}

#[tokio::test]
async fn round_robin_asks_each_replica_in_turn() -> Result<()> {
    let (a, b) = (named("a").await?, named("b").await?);
    let server = proxy(&[&a.url(), &b.url()], "  balance: round_robin\n").await?;
    healthy(&server, 2).await?;
    let mut order = String::new();
    for _ in 0..6 {
        order += &asked(&server, "/v2/").await?;
    }
    ensure!(order == "ababab" || order == "bababa", "{order}");
    Ok(())
}

#[tokio::test]
async fn least_connections_passes_over_a_replica_that_is_busy() -> Result<()> {
    let busy = Scripted::start(crate::scene::sulk).await?;
    let free = named("free").await?;
    let server = proxy(&[&busy.url(), &free.url()], "").await?;
    healthy(&server, 2).await?;
    // Until one is stuck at the busy replica.
    let mut stuck = Vec::new();
    while busy.heard().is_empty() {
        ensure!(stuck.len() < 20, "the busy replica is never asked");
        let mut client = Wire::connect(server.address()).await?;
        client.send(get("/v2/").as_bytes()).await?;
        let _ = tokio::time::timeout(Duration::from_millis(200), client.response("GET")).await;
        stuck.push(client);
    }
    for _ in 0..6 {
        assert_eq!(asked(&server, "/v2/").await?, "free");
    }
    assert_eq!(busy.heard().len(), 1);
    Ok(())
}

#[tokio::test]
async fn a_replica_that_cannot_be_connected_is_left_without_the_client_noticing() -> Result<()> {
    let there = named("there").await?;
    for balance in ["round_robin", "least_connections"] {
        let keys = format!("  balance: {balance}\n");
        let server = proxy(
            &[NOBODY, "http://registry.invalid:5000", &there.url()],
            &keys,
        )
        .await?;
        // Before and after the health is known.
        for _ in 0..6 {
            assert_eq!(asked(&server, "/v2/").await?, "there");
        }
        healthy(&server, 1).await?;
        let errors = of("octoserve_upstream_errors_total");
        let before = server.scrape().await?.sum(&errors);
        for _ in 0..6 {
            assert_eq!(asked(&server, "/v2/").await?, "there");
        }
        assert_eq!(
            server.scrape().await?.sum(&errors),
            before,
            "it is not tried"
        );
        let requests = metric("octoserve_http_requests_total").label("status", "200");
        requests.value(12).assert_in(&server).await?;
    }
    let server = proxy(&[NOBODY, "http://127.0.0.1:10"], "").await?;
    let response = wire::exchange(server.address(), "GET", get("/v2/").as_bytes()).await?;
    assert_eq!(response.head.status, 502);
    Ok(())
}

#[tokio::test]
async fn health_is_shown_by_metrics_readiness_and_log() -> Result<()> {
    let upstream = named("a").await?;
    let address = upstream.address().to_string();
    let mut server = proxy(&[&upstream.url(), NOBODY], "").await?;
    healthy(&server, 1).await?;
    ready(&server, 200).await?;
    let replicas = of("octoserve_upstream_replicas");
    replicas.value(2).assert_in(&server).await?;
    drop(upstream);
    healthy(&server, 0).await?;
    ready(&server, 503).await?;
    let _again = Scripted::listening(&address, |caller: Caller| say(caller, "again")).await?;
    healthy(&server, 1).await?;
    ready(&server, 200).await?;
    assert_eq!(asked(&server, "/v2/").await?, "again");
    let scrape = server.scrape().await?;
    ensure!(!scrape.text().contains(&address), "an address is a label");
    let log = server
        .process()
        .output(harness::process::OutputStream::Stderr)?;
    let url = format!("http://{address}");
    for (event, replica) in [
        ("upstream unhealthy", NOBODY),
        ("upstream unhealthy", url.as_str()),
        ("upstream healthy", url.as_str()),
    ] {
        let lines = log
            .lines()
            .filter(|line| line.contains(event) && line.contains(replica));
        assert_eq!(lines.count(), 1, "{event} {replica}:\n{log}");
    }
    Ok(())
}

#[tokio::test]
async fn requests_beyond_the_maximum_wait_and_beyond_the_queue_get_503() -> Result<()> {
    // Responds once it is told to, by the end of the body.
    let script = |mut caller: Caller| async move {
        loop {
            caller.head().await?;
            caller.exactly(1).await?;
            caller
                .send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                .await?;
        }
    };
    let (a, b) = (
        Scripted::start(script).await?,
        Scripted::start(script).await?,
    );
    let keys = "  max_connections: 1\n  queue: {length: 2, timeout: 30s}\n";
    let server = proxy(&[&a.url(), &b.url()], keys).await?;
    healthy(&server, 2).await?;
    let queue = of("octoserve_upstream_queue_length");
    queue.clone().value(0).assert_in(&server).await?;
    let begin = async || {
        let mut client = Wire::connect(server.address()).await?;
        let head = "PUT /v2/ HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n";
        client.send(head.as_bytes()).await?;
        anyhow::Ok(client)
    };
    let mut first = [begin().await?, begin().await?];
    poll::until("both are busy", DEADLINE, async || {
        Ok((a.heard().len() == 1 && b.heard().len() == 1).then_some(()))
    })
    .await?;
    let leaving = begin().await?;
    queue.clone().value(1).assert_in(&server).await?;
    let mut waiting = begin().await?;
    queue.clone().value(2).assert_in(&server).await?;
    let mut refused = begin().await?;
    let response = refused.response("PUT").await?;
    assert_eq!(response.head.status, 503);
    assert_eq!(response.head.header("retry-after"), Some("1"));
    assert_eq!(response.error_code().as_deref(), Some("UNAVAILABLE"));
    drop(leaving);
    queue.clone().value(1).assert_in(&server).await?;
    for client in &mut first {
        client.send(b"x").await?;
        assert_eq!(client.response("PUT").await?.head.status, 200);
    }
    waiting.send(b"x").await?;
    assert_eq!(waiting.response("PUT").await?.head.status, 200);
    queue.value(0).assert_in(&server).await?;
    let in_flight = metric("octoserve_http_requests_in_flight");
    in_flight.value(0).assert_in(&server).await
}

#[tokio::test]
async fn a_request_that_waits_too_long_gets_503() -> Result<()> {
    let upstream = Scripted::start(crate::scene::sulk).await?;
    let keys = "  max_connections: 1\n  queue: {length: 2, timeout: 1s}\n";
    let server = proxy(&[&upstream.url()], keys).await?;
    let mut first = Wire::connect(server.address()).await?;
    first.send(get("/v2/").as_bytes()).await?;
    poll::until("it is busy", DEADLINE, async || {
        Ok((upstream.heard().len() == 1).then_some(()))
    })
    .await?;
    let response = wire::exchange(server.address(), "GET", get("/v2/").as_bytes()).await?;
    assert_eq!(response.head.status, 503);
    assert_eq!(response.head.header("retry-after"), Some("1"));
    let queue = of("octoserve_upstream_queue_length");
    queue.value(0).assert_in(&server).await
}

#[tokio::test]
async fn a_replica_that_is_killed_is_not_missed() -> Result<()> {
    let mut a = ForeignRegistry::start().await?;
    let b = a.replica().await?;
    let server = proxy(&[&a.url(), &b.url()], "  balance: round_robin\n").await?;
    healthy(&server, 2).await?;
    let client = Client::new(&server.url(""))?;
    // Both have idle connections now.
    for seed in 0..4 {
        let tag = format!("before-{seed}");
        client.push_image("team/app", &tag, &[seed]).await?;
        client.pull_image("team/app", &tag).await?;
    }
    a.process().kill()?;
    for seed in 4..8 {
        let tag = format!("after-{seed}");
        client.push_image("team/app", &tag, &[seed]).await?;
        client.pull_image("team/app", &tag).await?;
    }
    let skopeo = Skopeo::new()?;
    let image = format!("docker://{}/team/app:before-0", server.host());
    let copy = format!("docker://{}/team/copy:1", server.host());
    skopeo.copy(&image, &copy, &[]).await?;
    let failed = metric("octoserve_http_requests_total").label("status", "502");
    assert_eq!(server.scrape().await?.sum(&failed), None);
    Ok(())
}
