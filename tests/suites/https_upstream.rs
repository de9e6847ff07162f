//! Upstreams behind TLS, below a path, and under other names.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::authority::{Authority, SignedCertificate};
use harness::client::Client;
use harness::foreign::ForeignRegistry;
use harness::octoserve::{Launch, Server};
use harness::poll;
use harness::process::OutputStream;
use harness::scrape::metric;
use harness::scripted::{Caller, Scripted};
use harness::source::Source;
use harness::tls_front::TlsFront;
use harness::wire;

use crate::scene::get;

const DEADLINE: Duration = Duration::from_secs(30);

/// An upstream that responds to everything with a few bytes.
async fn plain() -> Result<Scripted> {
    Scripted::start(|mut caller: Caller| async move {
        loop {
            caller.head().await?;
            caller
                .send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                .await?;
        }
    })
    .await
}

/// A proxy in front of `https://localhost:PORT` with these keys of TLS.
async fn proxy(port: u16, tls: &str) -> Result<Server> {
    let configuration =
        format!("upstreams: [{{replicas: ['https://localhost:{port}'], tls: {{{tls}}}}}]\n");
    Launch::configured(&configuration).start().await
}

/// Waits until the log has this text.
async fn logs(server: &mut Server, text: &str) -> Result<()> {
    poll::until(text, DEADLINE, async || {
        let log = server.process().output(OutputStream::Stderr)?;
        Ok(log.contains(text).then_some(()))
    })
    .await
}

fn ca(authority: &Authority) -> String {
    format!("ca: '{}'", authority.path().display())
}

#[tokio::test]
async fn a_registry_behind_tls_is_pushed_to_and_pulled_from() -> Result<()> {
    let authority = Authority::new("the authority")?;
    let registry = ForeignRegistry::start_with_tls(&authority.sign(&["localhost"])?).await?;
    let server = proxy(registry.address().port(), &ca(&authority)).await?;
    let client = Client::new(&server.url(""))?;
    let large = vec![1; 3 << 20];
    for tag in ["1", "2"] {
        client.push_blob("team/app", &large).await?;
        client.push_image("team/app", tag, &[1, 2]).await?;
        client.pull_image("team/app", tag).await?;
    }
    let failed = metric("octoserve_upstream_errors_total");
    let scrape = server.scrape().await?;
    assert_eq!(scrape.sum(&failed), Some(0.0));
    let reused = metric("octoserve_upstream_connections_reused_total");
    ensure!(scrape.sum(&reused) > Some(10.0), "no connection is reused");
    Ok(())
}

/// A failed handshake: 502 that says nothing, one line of the log that says all, and a count.
async fn fails(port: u16, tls: &str, reason: &str) -> Result<Server> {
    let mut server = proxy(port, tls).await?;
    for _ in 0..3 {
        let request = wire::request("GET", "/v2/a/tags/list", &[], b"");
        let response = wire::exchange(server.address(), "GET", &request).await?;
        assert_eq!(response.head.status, 502, "{reason}");
        let body = String::from_utf8_lossy(&response.body).into_owned();
        for inside in ["certificate", "localhost", "TLS"] {
            ensure!(!body.contains(inside), "{body}");
        }
    }
    logs(&mut server, reason).await?;
    logs(&mut server, "upstream unhealthy").await?;
    let log = server.process().output(OutputStream::Stderr)?;
    let lines = log
        .lines()
        .filter(|line| line.contains("TLS handshake with the upstream failed"));
    assert_eq!(lines.count(), 1, "{log}");
    let failed = metric("octoserve_upstream_errors_total").label("reason", "tls");
    ensure!(
        // At least one: the reset of a server that refuses us may overtake what it says.
        server.scrape().await?.sum(&failed) >= Some(1.0),
        "{reason}: not counted"
    );
    Ok(server)
}

#[tokio::test]
async fn a_handshake_that_fails_is_explained_in_the_log_and_counted() -> Result<()> {
    let upstream = plain().await?;
    let authority = Authority::new("the authority")?;
    let stranger = Authority::new("a stranger")?;
    let (known, clients) = (ca(&authority), Some(&authority));
    let front = |certificate: SignedCertificate, clients| {
        let address = upstream.address();
        async move { TlsFront::start(address, &certificate, clients).await }
    };
    let unknown = front(stranger.sign(&["localhost"])?, None).await?;
    fails(
        unknown.port(),
        &known,
        "not signed by a known authority; set tls.ca",
    )
    .await?;
    let misnamed = front(authority.sign(&["registry.example"])?, None).await?;
    let message = "is for registry.example, and not for localhost";
    fails(misnamed.port(), &known, message).await?;
    let expired = front(authority.sign_expired(&["localhost"])?, None).await?;
    fails(expired.port(), &known, "expired at 2001-01-01T00:00:00Z").await?;
    let guarded = front(authority.sign(&["localhost"])?, clients).await?;
    fails(
        guarded.port(),
        &known,
        "asks for a client certificate; set tls.certificate",
    )
    .await?;
    let ours = stranger.sign(&["proxy"])?;
    let keys = format!("{known}, {}", ours.keys());
    fails(guarded.port(), &keys, "refuses our client certificate").await?;
    // It responds to what is no request.
    let registry = ForeignRegistry::start().await?;
    let port = registry.address().port();
    fails(port, &known, "does not speak TLS on this port").await?;
    Ok(())
}

#[tokio::test]
async fn a_server_name_and_a_client_certificate_open_what_was_closed() -> Result<()> {
    let upstream = plain().await?;
    let authority = Authority::new("the authority")?;
    let certificate = authority.sign(&["registry.example"])?;
    let front = TlsFront::start(upstream.address(), &certificate, Some(&authority)).await?;
    let ours = authority.sign(&["proxy"])?;
    let keys = format!(
        "{}, server_name: registry.example, {}",
        ca(&authority),
        ours.keys()
    );
    let server = proxy(front.port(), &keys).await?;
    let response =
        wire::exchange(server.address(), "GET", get("/v2/a/tags/list").as_bytes()).await?;
    assert_eq!(
        (response.head.status, &response.body[..]),
        (200, &b"ok"[..])
    );
    Ok(())
}

#[tokio::test]
async fn sessions_of_tls_are_resumed() -> Result<()> {
    // Each response closes the connection, so that the next request needs another one.
    let upstream = Scripted::start(|mut caller: Caller| async move {
        caller.head().await?;
        let response = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok";
        caller.send(response).await
    })
    .await?;
    let authority = Authority::new("the authority")?;
    let certificate = authority.sign(&["localhost"])?;
    let front = TlsFront::start(upstream.address(), &certificate, None).await?;
    let server = proxy(front.port(), &ca(&authority)).await?;
    for _ in 0..5 {
        let request = get("/v2/a/tags/list");
        let response = wire::exchange(server.address(), "GET", request.as_bytes()).await?;
        assert_eq!(response.head.status, 200);
    }
    ensure!(
        front.resumed() >= 3,
        "only {} were resumed",
        front.resumed()
    );
    Ok(())
}

#[tokio::test]
async fn the_metrics_of_an_upstream_may_be_behind_tls() -> Result<()> {
    let source = Source::exposition("text/plain; version=0.0.4", "pulls_total 7\n").await?;
    let authority = Authority::new("the authority")?;
    let certificate = authority.sign(&["localhost"])?;
    let front = TlsFront::start(source.address(), &certificate, None).await?;
    let configuration = format!(
        "upstreams: [{{replicas: ['http://127.0.0.1:1'], tls: {{{}}}, \
         metrics: [{{source: a, url: 'https://localhost:{}/metrics'}}]}}]\n",
        ca(&authority),
        front.port()
    );
    let server = Launch::configured(&configuration).start().await?;
    let pulls = metric("pulls_total").label("source", "a");
    pulls.value(7).assert_in(&server).await
}

#[tokio::test]
async fn a_registry_below_a_path_is_pushed_to_and_pulled_from() -> Result<()> {
    let path = "/artifactory/api/docker/team";
    let registry = ForeignRegistry::start_below(path).await?;
    for host in ["keep", "upstream", "registry.example"] {
        let configuration = format!(
            "upstreams: [{{replicas: ['{}{path}/'], host: {host}}}]\n",
            registry.url()
        );
        let server = Launch::configured(&configuration).start().await?;
        let client = Client::new(&server.url(""))?;
        for tag in ["1", "2"] {
            client.push_image("team/app", tag, &[1, 2]).await?;
            client.pull_image("team/app", tag).await?;
        }
        let location = client.open_upload("team/app").await?;
        ensure!(!location.contains("artifactory"), "{host}: {location}");
        client.push_image("team/other", "1", &[1]).await?;
        let page = client.get("/v2/_catalog?n=1").await?;
        let link = page.headers().get("link").context("no Link")?.to_str()?;
        ensure!(link.contains("/v2/_catalog?"), "{host}: {link}");
        ensure!(!link.contains("artifactory"), "{host}: {link}");
    }
    Ok(())
}

/// What an upstream below `/p` hears and what its client sees of the `Location` that it responds with, in
/// which `HOST` is the host that it was asked for, and `OWN` its address.
async fn located(host: &str, path: &str, location: &'static str) -> Result<(String, String)> {
    let upstream = Scripted::start(move |mut caller: Caller| async move {
        loop {
            let head = caller.head().await?;
            let host = head.lines().find_map(|line| line.strip_prefix("Host: "));
            let own = caller.address()?.to_string();
            let location = location
                .replace("HOST", host.unwrap_or_default())
                .replace("OWN", &own);
            caller
                .send(format!(
                    "HTTP/1.1 202 Accepted\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"
                ))
                .await?;
        }
    })
    .await?;
    let configuration = format!(
        "upstreams: [{{replicas: ['{}{path}'], host: '{host}'}}]\n",
        upstream.url()
    );
    let server = Launch::configured(&configuration).start().await?;
    let request = wire::request("GET", "/v2/a/tags/list?n=1", &[], b"");
    let response = wire::exchange(server.address(), "GET", &request).await?;
    let location = response.head.header("location").context("no Location")?;
    let heard = upstream.heard().concat();
    let own = upstream.address().to_string();
    let told: Vec<_> = heard
        .lines()
        .filter(|line| {
            ["GET ", "Host: ", "x-forwarded-host: "]
                .iter()
                .any(|start| line.starts_with(start))
        })
        .collect();
    Ok((
        told.join("|").replace(&own, "OWN"),
        location.replace(&own, "OWN"),
    ))
}

#[tokio::test]
async fn an_upstream_is_asked_for_the_configured_host_and_path() -> Result<()> {
    let forwarded = "x-forwarded-host: registry";
    for (host, asked) in [
        ("keep", "registry"),
        ("upstream", "OWN"),
        ("registry.example:5000", "registry.example:5000"),
    ] {
        for path in ["", "/p/q"] {
            let (told, _) = located(host, path, "/").await?;
            let line = format!("GET {path}/v2/a/tags/list?n=1 HTTP/1.1");
            assert_eq!(told, format!("{line}|Host: {asked}|{forwarded}"));
        }
    }
    Ok(())
}

#[tokio::test]
async fn what_an_upstream_names_below_its_path_is_named_without_it() -> Result<()> {
    for (host, path, location, seen) in [
        (
            "keep",
            "/p",
            "http://OWN/p/v2/x?y",
            "http://registry/v2/x?y",
        ),
        ("keep", "/p", "http://HOST/p/v2/x", "http://registry/v2/x"),
        ("keep", "/p", "/p/v2/x?y", "/v2/x?y"),
        ("keep", "/p", "/p", "/"),
        (
            "upstream",
            "/p",
            "http://HOST/p/v2/x",
            "http://registry/v2/x",
        ),
        (
            "other.example",
            "/p",
            "https://HOST/p/v2/x",
            "http://registry/v2/x",
        ),
        (
            "other.example",
            "",
            "https://HOST/v2/x",
            "http://registry/v2/x",
        ),
        // What lies beside the registry, or elsewhere, stays.
        ("keep", "/p", "http://OWN/q/v2/x", "http://OWN/q/v2/x"),
        ("keep", "/p", "/q/v2/x", "/q/v2/x"),
        ("keep", "/p", "/p2/v2/x", "/p2/v2/x"),
        ("keep", "/p", "/p//evil.example/x", "/p//evil.example/x"),
        ("keep", "", "http://HOST/v2/x", "http://registry/v2/x"),
        (
            "keep",
            "/p",
            "https://storage.example/p/x",
            "https://storage.example/p/x",
        ),
    ] {
        let (_, found) = located(host, path, location).await?;
        assert_eq!(found, seen, "{host} {path} {location}");
    }
    Ok(())
}
