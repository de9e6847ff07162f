//! Slow clients: none keeps a connection longer than the configured timeouts, whatever it sends.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Result, ensure};
use harness::h2::H2;
use harness::octoserve::{Launch, Server};
use harness::poll;
use harness::source::Source;
use harness::wire::Wire;

const DEADLINE: Duration = Duration::from_secs(20);

/// Starts the all-in-one with the shortest timeouts.
async fn impatient() -> Result<Server> {
    Launch::all_in_one()
        .environment("OCTOSERVE_LIMITS_HEADER_TIMEOUT", "1s")
        .environment("OCTOSERVE_LIMITS_IDLE_TIMEOUT", "1s")
        .start()
        .await
}

/// Sends a byte at intervals until the connection is closed.
async fn drip(wire: &mut Wire, server: &Server) -> Result<()> {
    poll::until("a dripping client is disconnected", DEADLINE, async || {
        Ok(wire.send(b"a").await.is_err().then_some(()))
    })
    .await?;
    still_well(server).await
}

async fn still_well(server: &Server) -> Result<()> {
    let mut wire = Wire::connect(server.address()).await?;
    wire.send(b"GET /v2/ HTTP/1.1\r\nHost: a\r\n\r\n").await?;
    ensure!(wire.response("GET").await?.head.status == 200);
    Ok(())
}

#[tokio::test]
async fn a_silent_client_is_disconnected() -> Result<()> {
    let server = impatient().await?;
    let mut wire = Wire::connect(server.address()).await?;
    assert_eq!(wire.rest().await?, b"");
    still_well(&server).await
}

#[tokio::test]
async fn a_client_that_stops_within_the_http2_preface_is_disconnected() -> Result<()> {
    let server = impatient().await?;
    let mut wire = Wire::connect(server.address()).await?;
    wire.send(b"PRI * HTTP").await?;
    assert_eq!(wire.rest().await?, b"");
    still_well(&server).await
}

#[tokio::test]
async fn headers_that_drip_reach_the_header_timeout() -> Result<()> {
    let server = impatient().await?;
    let mut wire = Wire::connect(server.address()).await?;
    wire.send(b"GET /v2/ HTTP/1.1\r\nHost: a\r\nX: ").await?;
    drip(&mut wire, &server).await
}

#[tokio::test]
async fn headers_that_drip_after_a_complete_request_reach_the_header_timeout() -> Result<()> {
    let server = impatient().await?;
    let mut wire = Wire::connect(server.address()).await?;
    wire.send(b"GET /v2/ HTTP/1.1\r\nHost: a\r\n\r\n").await?;
    ensure!(wire.response("GET").await?.head.status == 200);
    drip(&mut wire, &server).await
}

#[tokio::test]
async fn an_idle_connection_is_closed() -> Result<()> {
    let server = impatient().await?;
    let mut wire = Wire::connect(server.address()).await?;
    wire.send(b"GET /v2/ HTTP/1.1\r\nHost: a\r\n\r\n").await?;
    ensure!(wire.response("GET").await?.head.status == 200);
    assert_eq!(wire.rest().await?, b"");
    Ok(())
}

#[tokio::test]
async fn an_idle_http2_connection_is_closed() -> Result<()> {
    let server = impatient().await?;
    let mut wire = Wire::connect(server.address()).await?;
    // The preface and an empty SETTINGS frame.
    wire.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        .await?;
    ensure!(!wire.rest().await?.is_empty(), "no settings came");
    still_well(&server).await
}

/// Requests an exposition of 30 MB, more than the sockets hold, without reading it.
async fn stalled_scrape(over_http2: bool) -> Result<()> {
    let exposition = (0..100_000).fold(String::new(), |mut exposition, n| {
        // Writing to a String cannot fail.
        writeln!(exposition, "large{{n=\"{n:0>300}\"}} 1").ok();
        exposition
    });
    let source = Source::exposition("text/plain; version=0.0.4", exposition).await?;
    let configuration = format!(
        "upstreams: [{{replicas: ['http://127.0.0.1:1'], \
         metrics: [{{source: a, url: '{}'}}]}}]\nlimits: {{body_stall: 1s}}\n",
        source.url()
    );
    let launch = Launch::configured(&configuration).metrics_listener();
    let mut server = launch.start().await?;
    let before = server.process().descriptors()?;
    let connections = async |server: &mut Server| {
        let now = server.process().descriptors()?;
        Ok((now <= before).then_some(()))
    };
    if over_http2 {
        let mut client = H2::connect(server.metrics_address(), false).await?;
        // Kept until the end: dropping it would cancel the stream.
        let response = client
            .send("GET", "/metrics", &[], true)
            .await?
            .response()
            .await?;
        assert_eq!(response.status, 200);
        poll::until("the scraper is disconnected", DEADLINE, async || {
            connections(&mut server).await
        })
        .await?;
        drop(response);
        Ok(())
    } else {
        let mut wire = Wire::connect(server.metrics_address()).await?;
        wire.send(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")
            .await?;
        assert_eq!(wire.head().await?.status, 200);
        poll::until("the scraper is disconnected", DEADLINE, async || {
            connections(&mut server).await
        })
        .await
    }
}

#[tokio::test]
async fn a_scraper_that_does_not_read_is_closed() -> Result<()> {
    stalled_scrape(false).await
}

#[tokio::test]
async fn a_scraper_that_does_not_read_over_http2_is_closed() -> Result<()> {
    stalled_scrape(true).await
}
