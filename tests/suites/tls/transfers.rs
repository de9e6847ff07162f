//! Bodies inside TLS, whole, cut and streamed, in HTTP/1.1 and HTTP/2.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::content;
use harness::foreign::ForeignRegistry;
use harness::h2::H2;
use harness::octoserve::Launch;
use harness::poll;
use harness::process::{OutputStream, Signal};
use harness::scrape::metric;
use harness::scripted::{Caller, Scripted};
use harness::tls::{SecureClient, TlsOffer};
use harness::wire::{self, Wire};
use tokio::sync::watch;

use super::Secure;

const SIZE: u64 = 50 << 20;

const DEADLINE: Duration = Duration::from_secs(30);

/// curl's name of a version of HTTP, and what it says of it afterwards.
const VERSIONS: [(&str, &str); 2] = [("--http1.1", "1.1"), ("--http2", "2")];

/// How an upload's body is sent.
const UPLOADS: [&[&str]; 2] = [
    // Its length is known.
    &["--request", "PUT", "--upload-file"],
    // Chunks, or a stream of HTTP/2 without a length.
    &[
        "--request",
        "PUT",
        "--header",
        "Transfer-Encoding: chunked",
        "--upload-file",
    ],
];

#[tokio::test]
async fn a_large_blob_goes_up_and_down_whole_in_both_versions() -> Result<()> {
    let front = Secure::embedded().await?;
    let directory = tempfile::tempdir()?;
    let path = |name: &str| directory.path().join(name).display().to_string();
    for (at, (version, spoken)) in VERSIONS.into_iter().enumerate() {
        for (how, upload) in UPLOADS.iter().enumerate() {
            let bytes = content::bytes(100 + 2 * at as u64 + how as u64, SIZE);
            let digest = content::digest(&bytes);
            std::fs::write(path("blob"), &bytes)?;
            let post = [version, "--request", "POST", "--include"];
            let begun = front.curl(&post, "/v2/team/app/blobs/uploads/").await?;
            let location = begun
                .lines()
                .find_map(|line| {
                    line.to_lowercase()
                        .strip_prefix("location: ")
                        .map(str::to_owned)
                })
                .context("no Location")?;
            let end = if location.contains('?') { '&' } else { '?' };
            let location = format!("{}{end}digest={digest}", location.trim());
            let file = path("blob");
            let put = [&[version], *upload, &[&file]].concat();
            front.curl(&put, &location).await?;
            let (copy, blob) = (path("copy"), format!("/v2/team/app/blobs/{digest}"));
            let get = [version, "--output", &copy, "--write-out", "%{http_version}"];
            assert_eq!(front.curl(&get, &blob).await?, spoken);
            ensure!(std::fs::read(&copy)? == bytes, "{version}, {upload:?}");
        }
    }
    let blobs = metric("octoserve_http_response_body_bytes_total").label("endpoint", "blob");
    let sent = u32::try_from(4 * SIZE)?;
    blobs.value(sent).assert_in(&front.server).await
}

#[tokio::test]
async fn a_connection_carries_one_request_after_another() -> Result<()> {
    let front = Secure::embedded().await?;
    let mut wire = front.wire().await?;
    for _ in 0..3 {
        wire.send(b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .await?;
        assert_eq!(wire.response("GET").await?.head.status, 200);
    }
    let accepted = metric("octoserve_connections_total");
    let requests = metric("octoserve_http_requests_total");
    accepted.value(1).assert_in(&front.server).await?;
    requests.value(3).assert_in(&front.server).await
}

#[tokio::test]
async fn a_client_that_has_said_all_gets_its_response() -> Result<()> {
    let front = Secure::embedded().await?;
    let mut wire = front.wire().await?;
    wire.send(b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await?;
    wire.finish().await?;
    assert_eq!(wire.response("GET").await?.head.status, 200);
    Ok(())
}

/// Sends a part of a body, in this framing, and closes.
async fn cutting(framing: &'static str) -> Result<Scripted> {
    Scripted::start(move |mut caller: Caller| async move {
        caller.head().await?;
        caller
            .send(format!("HTTP/1.1 200 OK\r\n{framing}\r\n5\r\nhello\r\n"))
            .await
    })
    .await
}

#[tokio::test]
async fn a_response_that_the_upstream_cut_has_no_end() -> Result<()> {
    for framing in ["Content-Length: 1000\r\n", "Transfer-Encoding: chunked\r\n"] {
        let upstream = cutting(framing).await?;
        let front = Secure::in_front_of(&upstream.url(), "").await?;
        for version in ["1.0", "1.1"] {
            let mut wire = front.wire().await?;
            let request = format!("GET /v2/a HTTP/{version}\r\nHost: localhost\r\n\r\n");
            wire.send(request.as_bytes()).await?;
            let head = wire.head().await?;
            assert_eq!(head.status, 200);
            // A body until the end of the connection is whole only where the end is announced.
            let cut = wire.rest().await;
            ensure!(cut.is_err(), "{framing:?}, HTTP/{version}: {cut:?}");
        }
        let client = SecureClient::offering(&TlsOffer {
            trusted: &[&front.certificate],
            protocols: &["h2"],
            ..TlsOffer::default()
        })?;
        let mut h2 = H2::inside(client.connect(front.server.address()).await?).await?;
        let response = h2.send("GET", "/v2/a", &[], true).await?.response().await?;
        ensure!(response.read().await.is_err(), "{framing:?}, HTTP/2");
    }
    Ok(())
}

#[tokio::test]
async fn a_body_until_the_end_of_the_connection_is_whole_where_the_end_is_announced() -> Result<()>
{
    let upstream = cutting("Connection: close\r\n").await?;
    let front = Secure::in_front_of(&upstream.url(), "").await?;
    let mut wire = front.wire().await?;
    wire.send(b"GET /v2/a HTTP/1.0\r\nHost: localhost\r\n\r\n")
        .await?;
    wire.head().await?;
    assert_eq!(wire.rest().await?, b"5\r\nhello\r\n");
    Ok(())
}

#[tokio::test]
async fn a_client_that_aborts_its_upload_is_known_to_the_upstream() -> Result<()> {
    let upstream = Scripted::start(|mut caller: Caller| async move {
        caller.head().await?;
        caller.closed().await
    })
    .await?;
    let front = Secure::in_front_of(&upstream.url(), "").await?;
    let mut wire = front.wire().await?;
    let sent = b"PATCH /v2/a/blobs/uploads/1 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999\r\n\r\nhello";
    wire.send(sent).await?;
    poll::until("the upstream gets the piece", DEADLINE, async || {
        let heard = upstream.heard().concat();
        Ok(heard.ends_with("hello").then_some(()))
    })
    .await?;
    drop(wire);
    let aborted = metric("octoserve_http_requests_total").label("status", "499");
    aborted.value(1).assert_in(&front.server).await
}

/// distribution names the scheme and the host that it was told.
#[tokio::test]
async fn the_upstream_knows_of_tls_and_its_locations_have_https() -> Result<()> {
    let upstream = Scripted::start(|mut caller: Caller| async move {
        loop {
            caller.head().await?;
            let own = caller.address()?;
            let location = format!("Location: http://{own}/v2/a/blobs/uploads/1\r\n");
            caller
                .send(format!(
                    "HTTP/1.1 202 Accepted\r\n{location}Content-Length: 0\r\n\r\n"
                ))
                .await?;
        }
    })
    .await?;
    let front = Secure::in_front_of(&upstream.url(), "").await?;
    let mut wire = front.wire().await?;
    wire.send(&wire::request("POST", "/v2/a/blobs/uploads/", &[], b""))
        .await?;
    let response = wire.response("POST").await?;
    let location = response.head.header("location");
    assert_eq!(location, Some("https://registry/v2/a/blobs/uploads/1"));
    let heard = upstream.heard().concat().to_ascii_lowercase();
    ensure!(
        heard.contains("\r\nx-forwarded-proto: https\r\n"),
        "{heard}"
    );

    let registry = ForeignRegistry::start().await?;
    let front = Secure::in_front_of(&registry.url(), "").await?;
    let own = format!("Host: {}", front.server.secure_host());
    let arguments = ["--request", "POST", "--include", "--header", &own];
    let begun = front
        .curl(&arguments, "/v2/team/app/blobs/uploads/")
        .await?;
    let location = format!("location: https://{}/v2/", front.server.secure_host());
    ensure!(begun.to_lowercase().contains(&location), "{begun}");
    Ok(())
}

#[tokio::test]
async fn requests_in_flight_end_at_the_shutdown() -> Result<()> {
    let (go, gone) = watch::channel(false);
    let upstream = Scripted::start(move |mut caller: Caller| {
        let mut gone = gone.clone();
        async move {
            caller.head().await?;
            caller
                .send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
                .await?;
            gone.wait_for(|gone| *gone).await?;
            caller.send("world").await
        }
    })
    .await?;
    let mut front = Secure::in_front_of(&upstream.url(), "").await?;
    let mut wire = front.wire().await?;
    let mut idle = front.wire().await?;
    wire.send(b"GET /v2/a HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await?;
    wire.head().await?;
    assert_eq!(wire.exactly(5).await?, b"hello");
    let process = front.server.process();
    process.signal(Signal::TERM)?;
    poll::until("it drains", DEADLINE, async || {
        let log = process.output(OutputStream::Stderr)?;
        Ok(log.contains("draining").then_some(()))
    })
    .await?;
    // The end of an idle connection is announced.
    assert_eq!(idle.rest().await?, b"");
    go.send(true)?;
    assert_eq!(wire.rest().await?, b"world");
    assert_eq!(process.exited(DEADLINE).await?.code(), Some(0));
    Ok(())
}

#[tokio::test]
async fn a_listener_beside_it_needs_no_tls() -> Result<()> {
    let front = Secure::embedded().await?;
    let keys = front.certificate.keys();
    let configuration =
        format!("listen: ['127.0.0.1:0', {{address: '127.0.0.1:0', tls: {keys}}}]\n");
    let launch = Launch::all_in_one()
        .configuration(&configuration)
        .listens_as_configured();
    let server = launch.start().await?;
    let mut wire = Wire::connect(server.address()).await?;
    wire.send(&wire::request("GET", "/v2/", &[], b"")).await?;
    assert_eq!(wire.response("GET").await?.head.status, 200);
    Ok(())
}
