//! Listeners: several at once, over IPv4, IPv6 and Unix sockets, and what each of them serves.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::client::Client;
use harness::octoserve::{Launch, Server};
use harness::process::OutputStream;
use harness::scrape::metric;
use harness::scripted::{Caller, Scripted};
use harness::wire;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

const DEADLINE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn every_listener_serves_and_is_printed_in_order() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let socket = directory.path().join("octoserve.sock");
    let unix = format!("unix:{}", socket.display());
    let mut server = Launch::all_in_one()
        .argument("--listen")
        .argument("[::1]:0")
        .argument("--listen")
        .argument(&unix)
        .start()
        .await?;
    let last = |line: &str| line.strip_prefix("listening on unix:").map(drop);
    let announced = server
        .process()
        .announced(OutputStream::Stdout, "all", last);
    announced.await?;
    let said = server.process().output(OutputStream::Stdout)?;
    let addresses: Vec<_> = said
        .lines()
        .map(|line| line.strip_prefix("listening on ").context(line.to_owned()))
        .collect::<Result<_>>()?;
    let [first, second, third] = addresses[..] else {
        anyhow::bail!("{said}");
    };
    assert_eq!(first, server.host());
    ensure!(
        second.starts_with("[::1]:") && second != "[::1]:0",
        "{said}"
    );
    assert_eq!(third, unix);

    let (ipv4, ipv6) = (server.address(), second.parse()?);
    for (path, counted) in [("/v2/", true), ("/livez", false), ("/metrics", false)] {
        let request = wire::request("GET", path, &[], b"");
        for address in [ipv4, ipv6] {
            let response = wire::exchange(address, "GET", &request).await?;
            assert_eq!(response.head.status, 200, "{address}{path}");
        }
        let mut stream = UnixStream::connect(&socket).await?;
        stream.write_all(&request).await?;
        let mut response = String::new();
        stream.read_to_string(&mut response).await?;
        ensure!(response.starts_with("HTTP/1.1 200 "), "{path}: {response}");
        if counted {
            let requests = metric("octoserve_http_requests_total").value(3);
            requests.assert_in(&server).await?;
        }
    }
    let status = server.terminate(DEADLINE).await?;
    ensure!(status.success(), "{status}");
    ensure!(!socket.exists(), "the socket is still there");
    Ok(())
}

#[tokio::test]
async fn clients_and_upstreams_may_use_ipv6() -> Result<()> {
    let registry = Launch::registry()
        .listen("[::1]:0".parse()?)
        .start()
        .await?;
    let server = Launch::in_front_of(&registry.url(""))
        .listen("[::1]:0".parse()?)
        .start()
        .await?;
    let client = Client::new(&server.url(""))?;
    client.push_image("team/app", "1", &[1]).await?;
    client.pull_image("team/app", "1").await?;
    Ok(())
}

#[tokio::test]
async fn an_ipv6_address_is_written_as_each_header_requires() -> Result<()> {
    let upstream = Scripted::listening("[::1]:0", |mut caller: Caller| async move {
        let head = caller.head().await?;
        let own = head.lines().find_map(|line| line.strip_prefix("own: "));
        let own = own.context("the address is not told")?;
        let response = format!(
            "HTTP/1.1 202 Accepted\r\nLocation: {own}/v2/a/blobs/uploads/1\r\nContent-Length: 0\r\n\r\n"
        );
        caller.send(response).await
    });
    let upstream = upstream.await?;
    let server = Launch::in_front_of(&upstream.url())
        .listen("[::1]:0".parse()?)
        .start()
        .await?;
    let url = upstream.url();
    let request = wire::request("POST", "/v2/a/blobs/uploads/", &[("Own", &url)], b"");
    let response = wire::exchange(server.address(), "POST", &request).await?;
    assert_eq!(response.head.status, 202);
    // The proxy replaced the upstream's address, including its brackets, with the client's Host.
    assert_eq!(
        response.head.header("location"),
        Some("http://registry/v2/a/blobs/uploads/1")
    );
    let heard = upstream.heard().join("").to_ascii_lowercase();
    ensure!(heard.contains("\r\nx-forwarded-for: ::1\r\n"), "{heard}");
    Ok(())
}

#[tokio::test]
async fn a_metrics_listener_serves_metrics_and_probes_and_nothing_else() -> Result<()> {
    let server = Launch::all_in_one().metrics_listener().start().await?;
    for (path, status) in [
        ("/metrics", 200),
        ("/livez", 200),
        ("/v2/", 404),
        ("/v2/_catalog", 404),
        // The status page, for whoever asks by an address; this client asks by a name.
        ("/", 403),
        ("/index.html", 404),
    ] {
        let request = wire::request("GET", path, &[], b"");
        let response = wire::exchange(server.metrics_address(), "GET", &request).await?;
        assert_eq!(response.head.status, status, "{path}");
    }
    // The main listener is a loopback address, so it serves the metrics, too.
    assert_eq!(status(&server, "/metrics").await?, 200);
    Ok(())
}

#[tokio::test]
async fn the_metrics_endpoint_is_at_the_configured_path() -> Result<()> {
    let server = Launch::all_in_one()
        .environment("OCTOSERVE_METRICS_PATH", "/-/figures")
        .start()
        .await?;
    assert_eq!(status(&server, "/-/figures").await?, 200);
    // The proxy forwards all other paths to the registry.
    assert_eq!(status(&server, "/metrics").await?, 404);
    Ok(())
}

#[tokio::test]
async fn without_metrics_there_is_neither_an_endpoint_nor_a_listener() -> Result<()> {
    for launch in [Launch::all_in_one(), Launch::registry()] {
        let mut server = launch
            .without_metrics()
            .argument("--metrics-listen")
            .argument("127.0.0.1:0")
            .start()
            .await?;
        assert_eq!(status(&server, "/metrics").await?, 404);
        Client::new(&server.url(""))?
            .push_image("team/app", "1", &[1])
            .await?;
        let said = server.process().output(OutputStream::Stdout)?;
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    Ok(())
}

async fn status(server: &Server, path: &str) -> Result<u16> {
    let request = wire::request("GET", path, &[], b"");
    let response = wire::exchange(server.address(), "GET", &request).await?;
    Ok(response.head.status)
}
