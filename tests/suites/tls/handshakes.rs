//! Handshakes: what is agreed on, what is refused, and what is no handshake at all.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::certificate::Certificate;
use harness::octoserve::{Launch, Server};
use harness::poll;
use harness::process::OutputStream;
use harness::scrape::{Metric, metric};
use harness::scripted::{Caller, Scripted};
use harness::tls::{HandshakeKind, SecureClient, TlsOffer, version};
use harness::wire::{self, Wire};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Secure;

const DEADLINE: Duration = Duration::from_secs(30);

fn refused() -> Metric {
    metric("octoserve_connections_rejected_total").label("reason", "tls")
}

async fn logged(server: &mut Server, words: &str) -> Result<()> {
    poll::until("the log says it", DEADLINE, async || {
        let log = server.process().output(OutputStream::Stderr)?;
        Ok(log.contains(words).then_some(()))
    })
    .await
}

#[tokio::test]
async fn the_protocol_is_what_the_client_offers_best() -> Result<()> {
    let mut front = Secure::embedded().await?;
    for (protocols, agreed) in [
        (&["h2", "http/1.1"][..], Some("h2")),
        (&["http/1.1"], Some("http/1.1")),
        // The server prefers HTTP/2.
        (&["http/1.1", "h2"], Some("h2")),
        (&["spdy/3", "http/1.1"], Some("http/1.1")),
        // HTTP/1.1 needs no word of it.
        (&[], None),
    ] {
        let client = SecureClient::offering(&TlsOffer {
            trusted: &[&front.certificate],
            protocols,
            ..TlsOffer::default()
        })?;
        let stream = client.connect(front.server.address()).await?;
        let spoken = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
        assert_eq!(
            spoken.as_deref(),
            agreed.map(str::as_bytes),
            "{protocols:?}"
        );
        if agreed != Some("h2") {
            let mut wire = Wire::inside(stream);
            wire.send(&wire::request("GET", "/v2/", &[], b"")).await?;
            assert_eq!(wire.response("GET").await?.head.status, 200);
        }
    }
    let client = SecureClient::offering(&TlsOffer {
        trusted: &[&front.certificate],
        protocols: &["spdy/3"],
        ..TlsOffer::default()
    })?;
    ensure!(client.connect(front.server.address()).await.is_err());
    refused().value(1).assert_in(&front.server).await?;
    logged(&mut front.server, "TLS handshake failed").await
}

#[tokio::test]
async fn a_client_that_stalls_in_its_handshake_is_closed_and_counted() -> Result<()> {
    let certificate = Certificate::new()?;
    let limits = "limits: {header_timeout: 1s}\n";
    let server = Launch::all_in_one().secured(&certificate.keys(), limits);
    let server = server.start().await?;
    // Nothing at all, and the beginning of a hello.
    for (number, said) in [(1, &b""[..]), (2, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc")] {
        let mut wire = Wire::connect(server.address()).await?;
        wire.send(said).await?;
        assert_eq!(wire.rest().await?, b"");
        refused().value(number).assert_in(&server).await?;
    }
    metric("octoserve_connections_active")
        .value(0)
        .assert_in(&server)
        .await
}

#[tokio::test]
async fn plain_http_gets_a_400_that_says_so_and_is_counted() -> Result<()> {
    let mut front = Secure::embedded().await?;
    let address = front.server.address();
    for request in [
        wire::request("GET", "/v2/", &[], b""),
        wire::request("PUT", "/v2/a/manifests/1", &[], &vec![b'x'; 100_000]),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
    ] {
        let response = wire::exchange(address, "GET", &request).await?;
        assert_eq!(response.head.status, 400);
        let body = String::from_utf8(response.body)?;
        ensure!(body.contains("use https://"), "{body}");
    }
    refused().value(3).assert_in(&front.server).await?;
    logged(&mut front.server, "it does not speak TLS").await
}

#[tokio::test]
async fn garbage_is_closed_and_counted() -> Result<()> {
    let front = Secure::embedded().await?;
    let garbage: [&[u8]; 6] = [
        b"\0",
        b"get / http/1.1\r\n\r\n",
        b"SSH-2.0-OpenSSH\r\n",
        // A record that is too long, a hello that is none, and an alert.
        b"\x16\x03\x01\xff\xff\x01\x00\x00",
        b"\x16\x03\x01\x00\x05hello",
        b"\x15\x03\x01\x00\x02\x02\x28",
    ];
    for (number, garbage) in garbage.into_iter().enumerate() {
        let mut stream = TcpStream::connect(front.server.address()).await?;
        stream.write_all(garbage).await?;
        let mut heard = Vec::new();
        // It may be reset, as bytes of it were not read.
        let closed = timeout(DEADLINE, stream.read_to_end(&mut heard)).await;
        let _ = closed.context("not closed in time")?;
        refused()
            .value(u32::try_from(number + 1)?)
            .assert_in(&front.server)
            .await?;
    }
    // It serves as before.
    let mut wire = front.wire().await?;
    wire.send(&wire::request("GET", "/v2/", &[], b"")).await?;
    assert_eq!(wire.response("GET").await?.head.status, 200);
    Ok(())
}

#[tokio::test]
async fn a_session_is_resumed_in_both_versions() -> Result<()> {
    let front = Secure::embedded().await?;
    for version in [&version::TLS13, &version::TLS12] {
        let client = SecureClient::offering(&TlsOffer {
            trusted: &[&front.certificate],
            versions: &[version],
            ..TlsOffer::default()
        })?;
        for expected in [HandshakeKind::Full, HandshakeKind::Resumed] {
            let mut stream = client.connect(front.server.address()).await?;
            let kind = stream.get_ref().1.handshake_kind();
            assert_eq!(kind, Some(expected), "{version:?}");
            // The tickets come with the response.
            stream
                .write_all(&wire::request("GET", "/v2/", &[], b""))
                .await?;
            let mut response = Vec::new();
            stream.read_to_end(&mut response).await?;
            ensure!(response.starts_with(b"HTTP/1.1 200 "));
        }
    }
    Ok(())
}

/// A socket that holds back small writes (without `TCP_NODELAY`) sends a request only once the client's last
/// flight is acknowledged: the kernel does that after 40 ms, unless there is something to send.
#[tokio::test]
async fn a_client_gets_its_tickets_before_it_asks_for_anything() -> Result<()> {
    let front = Secure::embedded().await?;
    let stream = TcpStream::connect(front.server.address()).await?;
    let stream = front.client.shake(stream, "localhost").await?;
    let (socket, _) = stream.get_ref();
    let there = timeout(DEADLINE, socket.peek(&mut [0])).await??;
    ensure!(there > 0, "the connection was closed");
    Ok(())
}

#[tokio::test]
async fn an_older_version_than_the_minimum_is_refused() -> Result<()> {
    let certificate = Certificate::new()?;
    let keys = certificate.keys().replace('}', ", min_version: 1.3}");
    let mut server = Launch::all_in_one().secured(&keys, "").start().await?;
    for (version, accepted) in [(&version::TLS12, false), (&version::TLS13, true)] {
        let client = SecureClient::offering(&TlsOffer {
            trusted: &[&certificate],
            versions: &[version],
            ..TlsOffer::default()
        })?;
        let connected = client.connect(server.address()).await;
        assert_eq!(connected.is_ok(), accepted, "{version:?}");
    }
    refused().value(1).assert_in(&server).await?;
    logged(&mut server, "have nothing in common").await
}

/// The request that a client with this certificate makes: its status, or `None` if it gets no response.
async fn status(
    server: &Server,
    trusted: &Certificate,
    own: Option<&Certificate>,
) -> Result<Option<u16>> {
    let client = SecureClient::offering(&TlsOffer {
        trusted: &[trusted],
        own,
        ..TlsOffer::default()
    })?;
    // A client of TLS 1.3 learns after its handshake that it was refused.
    let Ok(stream) = client.connect(server.address()).await else {
        return Ok(None);
    };
    let mut wire = Wire::inside(stream);
    if wire
        .send(&wire::request("GET", "/v2/", &[], b""))
        .await
        .is_err()
    {
        return Ok(None);
    }
    let response = wire.response("GET").await;
    Ok(response.ok().map(|response| response.head.status))
}

#[tokio::test]
async fn a_client_needs_a_certificate_where_one_is_required() -> Result<()> {
    let certificate = Certificate::new()?;
    let (known, unknown) = (Certificate::of("client")?, Certificate::of("other")?);
    for (mode, without) in [
        ("", None),
        (", client_certificates: optional", Some(200)),
        (", client_certificates: required", None),
    ] {
        let authority = known.path().display().to_string();
        let more = format!(", client_ca: '{authority}'{mode}}}");
        let keys = certificate.keys().replace('}', &more);
        let mut server = Launch::all_in_one().secured(&keys, "").start().await?;
        let with = status(&server, &certificate, Some(&known)).await?;
        assert_eq!(with, Some(200), "{mode}");
        assert_eq!(
            status(&server, &certificate, None).await?,
            without,
            "{mode}"
        );
        let wrong = status(&server, &certificate, Some(&unknown)).await?;
        assert_eq!(wrong, None, "{mode}");
        logged(&mut server, "no authority in tls.client_ca has signed it").await?;
        if without.is_none() {
            logged(&mut server, "the client has no certificate").await?;
        }
        let count = if without.is_none() { 2 } else { 1 };
        refused().value(count).assert_in(&server).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_client_that_does_not_trust_the_certificate_is_told_apart_in_the_log() -> Result<()> {
    // The second is of an authority that it trusts by name, and has another key.
    for trusted in ["other.example", "localhost"] {
        let mut front = Secure::embedded().await?;
        let client = SecureClient::trusting(&Certificate::of(trusted)?)?;
        ensure!(client.connect(front.server.address()).await.is_err());
        let words = "does not trust this server's certificate";
        logged(&mut front.server, words).await?;
        refused().value(1).assert_in(&front.server).await?;
    }
    Ok(())
}

/// A load balancer that forwards connections says whose they are before their first byte.
#[tokio::test]
async fn a_header_of_the_proxy_protocol_comes_before_the_handshake() -> Result<()> {
    let upstream = Scripted::start(|mut caller: Caller| async move {
        loop {
            caller.head().await?;
            caller
                .send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                .await?;
        }
    })
    .await?;
    let keys = "proxy_protocol_from: [127.0.0.1]\n";
    let front = Secure::in_front_of(&upstream.url(), keys).await?;
    for together in [false, true] {
        let mut stream = TcpStream::connect(front.server.address()).await?;
        // Corked, the header goes in one segment with the first flight of the handshake.
        socket2::SockRef::from(&stream).set_tcp_cork(together)?;
        stream.set_nodelay(!together)?;
        stream
            .write_all(b"PROXY TCP4 203.0.113.7 127.0.0.1 4711 443\r\n")
            .await?;
        let stream = front.client.shake(stream, "localhost").await?;
        socket2::SockRef::from(stream.get_ref().0).set_tcp_cork(false)?;
        let mut wire = Wire::inside(stream);
        wire.send(&wire::request("GET", "/v2/", &[], b"")).await?;
        assert_eq!(wire.response("GET").await?.head.status, 200);
    }
    let heard = upstream.heard().concat().to_ascii_lowercase();
    let told = heard
        .matches("\r\nx-forwarded-for: 203.0.113.7\r\n")
        .count();
    assert_eq!(told, 2, "{heard}");
    // Without it there is no handshake.
    ensure!(front.client.connect(front.server.address()).await.is_err());
    let refused = metric("octoserve_connections_rejected_total").label("reason", "proxy_protocol");
    refused.value(1).assert_in(&front.server).await
}
