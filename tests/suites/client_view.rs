//! Who the client is, and how it sees the proxy: what a trusted peer says of it is kept, and what
//! anybody else says is replaced, whichever way it is spelt.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::foreign::ForeignRegistry;
use harness::octoserve::{Launch, Server};
use harness::poll;
use harness::process::OutputStream;
use harness::scrape::metric;
use harness::scripted::{Caller, Scripted};
use harness::skopeo::Skopeo;
use harness::terminator::Terminator;
use harness::wire::{self, Wire};
use serde_json::Value;

/// All that a peer can say of its client, in every spelling.
const CLAIMS: &[(&str, &str)] = &[
    ("X-Forwarded-For", "198.51.100.1, 203.0.113.7"),
    ("X-Forwarded-Proto", "https"),
    ("X-Forwarded-Host", "claimed.example"),
    ("X-Forwarded-Port", "443"),
    ("X-Forwarded-Prefix", "/claimed"),
    ("X-Real-IP", "203.0.113.7"),
    (
        "Forwarded",
        "for=203.0.113.7;proto=https;host=claimed.example",
    ),
    ("x_forwarded_for", "203.0.113.8"),
    ("X_Real-IP", "203.0.113.8"),
    ("x-forwarded_host", "disguised.example"),
];

const DEADLINE: Duration = Duration::from_secs(30);

const TRUSTED: &str = "trust_forwarded_from: [127.0.0.0/8]\n";

struct Front {
    server: Server,
    upstream: Scripted,
}

impl Front {
    /// A proxy with these keys, in front of an upstream that names itself as registries do.
    async fn with(keys: &str) -> Result<Self> {
        let upstream = Scripted::start(|mut caller: Caller| async move {
            let own = caller.address()?;
            loop {
                let head = caller.head().await?;
                let (status, field) = if head.starts_with("GET /v2/a/tags/") {
                    (
                        "200 OK",
                        format!("Link: <http://{own}/v2/a/tags/list?last=x&n=1>; rel=\"next\""),
                    )
                } else if head.starts_with("GET /v2/private/") {
                    (
                        "401 Unauthorized",
                        format!(
                            "WWW-Authenticate: Bearer realm=\"http://{own}/token\",service=\"s\""
                        ),
                    )
                } else {
                    (
                        "202 Accepted",
                        format!("Location: http://{own}/v2/a/blobs/uploads/1"),
                    )
                };
                caller
                    .send(format!(
                        "HTTP/1.1 {status}\r\n{field}\r\nContent-Length: 0\r\n\r\n"
                    ))
                    .await?;
            }
        })
        .await?;
        let configuration = format!("upstreams: [{{replicas: ['{}']}}]\n{keys}", upstream.url());
        let launch = Launch::configured(&configuration).metrics_listener();
        let server = launch.start().await?;
        Ok(Self { server, upstream })
    }

    /// The head of the response to a request.
    async fn ask(&self, path: &str, headers: &[(&str, &str)]) -> Result<wire::Response> {
        let request = wire::request("GET", path, headers, b"");
        wire::exchange(self.server.address(), "GET", &request).await
    }

    /// The fields that say who the client is, as the upstream got them.
    async fn told(&self, headers: &[(&str, &str)]) -> Result<Vec<String>> {
        self.ask("/v2/", headers).await?;
        let heard = self.upstream.heard();
        let heard = heard.last().context("the upstream received nothing")?;
        let last = heard.rsplit("GET ").next().unwrap_or_default();
        let mut told: Vec<String> = last
            .lines()
            .map(str::to_ascii_lowercase)
            .filter(|line| {
                let line = line.replace('_', "-");
                ["x-forwarded", "x-real", "forwarded", "x-request-id"]
                    .iter()
                    .any(|name| line.starts_with(name))
            })
            .map(|line| match line.strip_prefix("x-request-id: ") {
                Some(_) => "x-request-id".to_owned(),
                None => line,
            })
            .collect();
        told.sort_unstable();
        Ok(told)
    }
}

#[tokio::test]
async fn what_anybody_says_of_a_client_is_replaced_in_every_spelling() -> Result<()> {
    for keys in ["", "trust_forwarded_from: [10.0.0.0/8, '::1', 'unix:']\n"] {
        let front = Front::with(keys).await?;
        assert_eq!(
            front.told(CLAIMS).await?,
            [
                "x-forwarded-for: 127.0.0.1",
                "x-forwarded-host: registry",
                "x-forwarded-proto: http",
                "x-request-id",
            ]
        );
        let response = front.ask("/v2/a/blobs/uploads/", CLAIMS).await?;
        assert_eq!(
            response.head.header("location"),
            Some("http://registry/v2/a/blobs/uploads/1")
        );
    }
    Ok(())
}

#[tokio::test]
async fn what_a_trusted_peer_says_is_kept_and_appended_to() -> Result<()> {
    let front = Front::with(TRUSTED).await?;
    assert_eq!(
        front.told(CLAIMS).await?,
        [
            "forwarded: for=203.0.113.7;proto=https;host=claimed.example, \
             for=127.0.0.1;host=\"registry\";proto=http",
            "x-forwarded-for: 198.51.100.1, 203.0.113.7, 127.0.0.1",
            "x-forwarded-host: claimed.example",
            "x-forwarded-port: 443",
            "x-forwarded-prefix: /claimed",
            "x-forwarded-proto: https",
            "x-real-ip: 203.0.113.7",
            "x-request-id",
        ]
    );
    // What it does not say is said as for any other client.
    assert_eq!(
        front.told(&[("X-Forwarded-Proto", "https")]).await?,
        [
            "x-forwarded-for: 127.0.0.1",
            "x-forwarded-host: registry",
            "x-forwarded-proto: https",
            "x-request-id",
        ]
    );
    Ok(())
}

#[tokio::test]
async fn each_header_can_be_turned_off_and_others_on() -> Result<()> {
    let off = "forward_headers: {x_forwarded_for: false, x_forwarded_proto: false, \
               x_forwarded_host: false, x_request_id: false}\n";
    let front = Front::with(off).await?;
    let told = front.told(CLAIMS).await?;
    ensure!(told.is_empty(), "{told:?}");
    let on = "forward_headers: {x_forwarded_port: true, x_real_ip: true, forwarded: true}\n";
    let front = Front::with(on).await?;
    assert_eq!(
        front.told(CLAIMS).await?,
        [
            "forwarded: for=127.0.0.1;host=\"registry\";proto=http",
            "x-forwarded-for: 127.0.0.1",
            "x-forwarded-host: registry",
            "x-forwarded-port: 80",
            "x-forwarded-proto: http",
            "x-real-ip: 127.0.0.1",
            "x-request-id",
        ]
    );
    Ok(())
}

#[tokio::test]
async fn a_response_names_the_proxy_as_the_client_sees_it() -> Result<()> {
    let secure = [
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "registry.example"),
        ("X-Forwarded-Port", "8443"),
    ];
    for (keys, headers, own) in [
        ("", &secure[..], "http://registry"),
        (TRUSTED, &[], "http://registry"),
        (TRUSTED, &secure[..1], "https://registry"),
        (TRUSTED, &secure, "https://registry.example:8443"),
        (
            TRUSTED,
            &[("Forwarded", "for=1.1.1.1;proto=https;host=\"a:1\"")],
            "https://a:1",
        ),
        (
            TRUSTED,
            &[("X-Forwarded-Host", "a/../b")],
            "http://registry",
        ),
    ] {
        let front = Front::with(keys).await?;
        let location = front.ask("/v2/a/blobs/uploads/", headers).await?;
        let expected = format!("{own}/v2/a/blobs/uploads/1");
        assert_eq!(location.head.header("location"), Some(expected.as_str()));
        let link = front.ask("/v2/a/tags/list?n=1", headers).await?;
        let expected = format!("<{own}/v2/a/tags/list?last=x&n=1>; rel=\"next\"");
        assert_eq!(link.head.header("link"), Some(expected.as_str()));
        let challenge = front.ask("/v2/private/manifests/1", headers).await?;
        let expected = format!("Bearer realm=\"{own}/token\",service=\"s\"");
        assert_eq!(
            challenge.head.header("www-authenticate"),
            Some(expected.as_str())
        );
    }
    Ok(())
}

#[tokio::test]
async fn the_access_log_has_the_clients_address() -> Result<()> {
    for (keys, address) in [("", "127.0.0.1"), (TRUSTED, "203.0.113.7")] {
        let mut front = Front::with(keys).await?;
        front.ask("/v2/", CLAIMS).await?;
        let server = &mut front.server;
        let event = poll::until(
            "the request is logged",
            Duration::from_secs(30),
            async || {
                let log = server.process().output(OutputStream::Stderr)?;
                let mut events = log
                    .lines()
                    .filter_map(|line| serde_json::from_str::<Value>(line).ok());
                Ok(events.find(|event| event["target"] == "access"))
            },
        )
        .await?;
        assert_eq!(event["client_address"], address);
    }
    Ok(())
}

/// A header of version 1, and one of version 2, of the same client.
const HEADERS: [&[u8]; 2] = [
    b"PROXY TCP4 203.0.113.7 127.0.0.1 4711 5000\r\n",
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xcb\0\x71\x07\x7f\0\0\x01\x12\x67\x13\x88",
];

#[tokio::test]
async fn the_client_of_the_proxy_protocol_is_the_peer() -> Result<()> {
    let balanced = "proxy_protocol_from: [127.0.0.1]\n";
    let client = "127.0.0.1";
    for (keys, told) in [
        (balanced.to_owned(), "x-forwarded-for: 203.0.113.7"),
        (
            format!("{balanced}trust_forwarded_from: [{client}]\n"),
            "x-forwarded-for: 203.0.113.7",
        ),
        (
            format!("{balanced}trust_forwarded_from: [203.0.113.0/24]\n"),
            "x-forwarded-for: 192.0.2.9, 203.0.113.7",
        ),
    ] {
        let front = Front::with(&keys).await?;
        for header in HEADERS {
            let request = wire::request("GET", "/v2/", &[("X-Forwarded-For", "192.0.2.9")], b"");
            let response =
                wire::exchange(front.server.address(), "GET", &[header, &request].concat()).await?;
            assert_eq!(response.head.status, 202);
            let heard = front.upstream.heard().concat();
            let last = heard.rsplit("GET ").next().unwrap_or_default();
            ensure!(last.contains(&format!("\r\n{told}\r\n")), "{keys}: {last}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_connection_without_its_proxy_header_is_closed_and_counted() -> Result<()> {
    let mut front = Front::with("proxy_protocol_from: [127.0.0.1]\n").await?;
    let mut wire = Wire::connect(front.server.address()).await?;
    wire.send(&wire::request("GET", "/v2/", &[], b"")).await?;
    ensure!(wire.rest().await?.is_empty());
    ensure!(front.upstream.heard().is_empty());
    let refused = metric("octoserve_connections_rejected_total").label("reason", "proxy_protocol");
    refused.value(1).assert_in(&front.server).await?;
    let server = &mut front.server;
    poll::until("the reason is logged", DEADLINE, async || {
        let log = server.process().output(OutputStream::Stderr)?;
        let reason = "does not begin with a header of the PROXY protocol";
        Ok(log.contains(reason).then_some(()))
    })
    .await?;
    // From others the header is no request.
    let front = Front::with("proxy_protocol_from: ['::1']\n").await?;
    let request = [HEADERS[0], &wire::request("GET", "/v2/", &[], b"")].concat();
    let response = wire::exchange(front.server.address(), "GET", &request).await?;
    assert_eq!(response.head.status, 400);
    Ok(())
}

#[tokio::test]
async fn a_connection_that_waits_for_its_proxy_header_does_not_hold_the_shutdown() -> Result<()> {
    let keys = "proxy_protocol_from: [127.0.0.1]\nlimits: {header_timeout: 5m, drain: 10m}\n";
    let mut front = Front::with(keys).await?;
    let mut wire = Wire::connect(front.server.address()).await?;
    wire.send(b"PROXY TCP4").await?;
    let open = metric("octoserve_connections_active");
    open.value(1).assert_in(&front.server).await?;
    assert_eq!(front.server.terminate(DEADLINE).await?.code(), Some(0));
    Ok(())
}

/// distribution answers an upload with a Location that has the scheme and the host which it was told.
#[tokio::test]
async fn a_push_and_a_pull_pass_a_tls_terminator_in_front() -> Result<()> {
    let registry = ForeignRegistry::start_with_password().await?;
    let configuration = format!(
        "upstreams: [{{replicas: ['{}']}}]\n{TRUSTED}",
        registry.url()
    );
    let server = Launch::configured(&configuration).start().await?;
    let terminator = Terminator::start(server.address()).await?;
    let (user, password) = harness::foreign::USER;
    let credentials = format!("{user}:{password}");
    let skopeo = Skopeo::new()?;
    let source = skopeo.layout("made", &[31, 32, 33])?;
    let name = format!("docker://{}/team/app:1", terminator.host());
    skopeo
        .copy(&source, &name, &["--dest-creds", &credentials])
        .await?;
    let manifest = skopeo.manifest_as(&name, &credentials).await?;
    ensure!(manifest.contains("application/vnd.oci.image"), "{manifest}");
    Ok(())
}
