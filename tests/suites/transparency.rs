//! What the proxy forwards, byte for byte: what the upstream receives, and what the client
//! receives.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use harness::octoserve::{Launch, Server};
use harness::scrape::metric;
use harness::scripted::{Caller, Scripted};
use harness::tools;
use harness::wire::{self, Wire};
use tokio::sync::Notify;

struct ScriptedFront {
    server: Server,
    upstream: Scripted,
}

impl ScriptedFront {
    /// In front of an upstream that sends the same response to every request without a body.
    async fn responding(response: &str) -> Result<Self> {
        let response = response.to_owned();
        let upstream = Scripted::start(move |mut caller: Caller| {
            let response = response.clone();
            async move {
                loop {
                    caller.head().await?;
                    caller.send(&response).await?;
                }
            }
        });
        Self::before(upstream.await?).await
    }

    async fn before(upstream: Scripted) -> Result<Self> {
        let server = Launch::in_front_of(&upstream.url()).start().await?;
        Ok(Self { server, upstream })
    }

    async fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<wire::Response> {
        let request = wire::request(method, path, headers, b"");
        wire::exchange(self.server.address(), method, &request).await
    }

    /// Waits until this many requests have been counted. Their connections to the upstream are back
    /// in the pool then; a response alone does not guarantee that.
    async fn ended(&self, requests: u32) -> Result<()> {
        let all = metric("octoserve_http_requests_total");
        all.value(requests).assert_in(&self.server).await
    }

    /// The bytes that the upstream received on its last connection.
    fn heard(&self) -> Result<String> {
        let heard = self.upstream.heard();
        heard
            .last()
            .cloned()
            .context("the upstream received nothing")
    }
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[tokio::test]
async fn a_request_target_is_forwarded_byte_for_byte() -> Result<()> {
    for target in [
        "/v2/a%2Fb/tags/list",
        "/v2/a%2fb/%7euser/~user",
        "/v2/../x/./y/../../z",
        "//v2//a///b//",
        "/v2/?ns=docker.io&n=%20+%26&&=",
        "/v2/?",
        "/v2/a;b=c/'()*!$",
        "/ui/",
    ] {
        let front = ScriptedFront::responding(OK).await?;
        ensure!(front.ask("GET", target, &[]).await?.head.status == 200);
        let heard = front.heard()?;
        ensure!(
            heard.starts_with(&format!("GET {target} HTTP/1.1\r\n")),
            "{target}: {heard}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn an_absolute_request_target_is_forwarded_as_a_path() -> Result<()> {
    for (target, path) in [
        ("http://registry/v2/a?b=c", "/v2/a?b=c"),
        ("HTTP://registry/v2/%2F..", "/v2/%2F.."),
        ("http://registry", "/"),
    ] {
        // One for each: the proxy may have several connections, in any order.
        let front = ScriptedFront::responding(OK).await?;
        // Without it, the root is a probe of the proxy.
        let browser = [("Accept", "text/html")];
        ensure!(front.ask("GET", target, &browser).await?.head.status == 200);
        let heard = front.heard()?;
        let expected = format!("GET {path} HTTP/1.1\r\nHost: registry\r\n");
        let last = heard.rsplit("GET ").next().unwrap_or_default();
        ensure!(expected.ends_with(&last[..expected.len() - 4]), "{heard}");
    }
    // The metrics classify it by its path.
    let front = ScriptedFront::responding(OK).await?;
    let target = "http://registry/v2/team/app/tags/list";
    ensure!(front.ask("GET", target, &[]).await?.head.status == 200);
    let requests = metric("octoserve_http_requests_total").label("endpoint", "tags");
    requests.value(1).assert_in(&front.server).await
}

#[tokio::test]
async fn hop_by_hop_headers_are_removed_and_others_pass() -> Result<()> {
    let front = ScriptedFront::responding(OK).await?;
    let sent = [
        ("Authorization", "Bearer abc"),
        ("X-Meta-Thing", "  a,  b "),
        ("Connection", "X-Secret-Hop"),
        ("X-Secret-Hop", "1"),
        ("Keep-Alive", "timeout=1"),
        ("TE", "trailers"),
        ("Proxy-Authorization", "Basic abc"),
        ("Upgrade", "websocket"),
        ("X-Forwarded-For", "192.0.2.1"),
        ("X-Request-Id", "mine-1"),
    ];
    ensure!(front.ask("GET", "/v2/", &sent).await?.head.status == 200);
    let heard = front.heard()?.to_ascii_lowercase();
    for line in [
        "host: registry",
        "authorization: bearer abc",
        "x-forwarded-for: 127.0.0.1",
        "x-forwarded-host: registry",
        "x-forwarded-proto: http",
        "x-request-id: mine-1",
    ] {
        assert_eq!(
            heard.matches(&format!("\r\n{line}\r\n")).count(),
            1,
            "{heard}"
        );
    }
    let via = heard.matches("\r\nvia: 1.1 octoserve-").count();
    assert_eq!(via, 1, "{heard}");
    ensure!(heard.contains("x-meta-thing: a,  b"), "{heard}");
    for name in [
        "secret-hop",
        "keep-alive",
        "te:",
        "proxy-",
        "upgrade",
        "192.0.2.1",
    ] {
        ensure!(!heard.contains(&format!("\r\n{name}")), "{name}: {heard}");
        ensure!(!heard.contains(&format!("\r\nx-{name}")), "{name}: {heard}");
    }
    Ok(())
}

#[tokio::test]
async fn two_host_headers_are_refused_and_not_forwarded() -> Result<()> {
    let front = ScriptedFront::responding(OK).await?;
    let response = front.ask("GET", "/v2/", &[("Host", "other")]).await?;
    assert_eq!(response.head.status, 400);
    ensure!(front.upstream.heard().is_empty());
    let rejected = metric("octoserve_http_rejected_total");
    rejected.value(1).assert_in(&front.server).await?;
    // No other family counts it.
    let requests = metric("octoserve_http_requests_total");
    let requests = front.server.scrape().await?.sum(&requests);
    ensure!(requests.is_none(), "{requests:?}");
    Ok(())
}

#[tokio::test]
async fn a_body_with_two_framings_is_refused_and_not_forwarded() -> Result<()> {
    let front = ScriptedFront::responding(OK).await?;
    let request = "POST /v2/ HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\
                   Transfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\n\r\n";
    let response = wire::exchange(front.server.address(), "POST", request.as_bytes()).await?;
    assert_eq!(response.head.status, 400);
    assert_eq!(response.error_code().as_deref(), Some("UNSUPPORTED"));
    ensure!(front.upstream.heard().is_empty());
    let rejected = metric("octoserve_http_rejected_total");
    rejected.value(1).assert_in(&front.server).await
}

#[tokio::test]
async fn a_repeated_content_length_is_forwarded_once() -> Result<()> {
    let upstream = Scripted::start(|mut caller: Caller| async move {
        caller.until("some").await?;
        caller.send(OK).await?;
        caller.closed().await
    });
    let front = ScriptedFront::before(upstream.await?).await?;
    let request =
        "PUT /v2/ HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nContent-Length: 4\r\n\r\nsome";
    let response = wire::exchange(front.server.address(), "PUT", request.as_bytes()).await?;
    assert_eq!(response.head.status, 200);
    let heard = front.heard()?.to_ascii_lowercase();
    let length = "\r\ncontent-length: 4\r\n";
    assert_eq!(heard.matches("content-length").count(), 1, "{heard}");
    ensure!(heard.contains(length), "{heard}");
    Ok(())
}

#[tokio::test]
async fn lines_that_end_in_a_bare_line_feed_are_refused() -> Result<()> {
    let front = ScriptedFront::responding(OK).await?;
    for (requests, request) in [
        &b"GET /v2/ HTTP/1.1\nHost: a\nX-Meta: b\n\n"[..],
        b"GET /v2/ HTTP/1.1\r\nHost: a\nX-Meta: b\r\n\r\n",
    ]
    .into_iter()
    .enumerate()
    {
        let response = wire::exchange(front.server.address(), "GET", request).await?;
        assert_eq!(response.head.status, 400);
        assert_eq!(response.error_code().as_deref(), Some("UNSUPPORTED"));
        ensure!(front.upstream.heard().is_empty());
        let rejected = metric("octoserve_http_rejected_total");
        let count = u32::try_from(requests)? + 1;
        rejected.value(count).assert_in(&front.server).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_target_that_is_not_utf_8_is_refused_and_not_forwarded() -> Result<()> {
    let front = ScriptedFront::responding(OK).await?;
    let request = b"GET /v2/\xff/tags/list HTTP/1.1\r\nHost: a\r\n\r\n";
    let response = wire::exchange(front.server.address(), "GET", request).await?;
    assert_eq!(response.head.status, 400);
    ensure!(front.upstream.heard().is_empty());
    let rejected = metric("octoserve_http_rejected_total");
    rejected.value(1).assert_in(&front.server).await
}

#[tokio::test]
async fn the_proxy_compresses_nothing() -> Result<()> {
    let text = "text ".repeat(1000);
    let start = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5000\r\n\r\n";
    let front = ScriptedFront::responding(&format!("{start}{text}")).await?;
    let sent = [("Accept-Encoding", "gzip, br, zstd")];
    let response = front.ask("GET", "/v2/", &sent).await?;
    assert_eq!(response.body, text.as_bytes());
    assert_eq!(response.head.header("content-encoding"), None);
    assert_eq!(response.head.header("content-length"), Some("5000"));
    let heard = front.heard()?.to_ascii_lowercase();
    ensure!(heard.contains("accept-encoding: gzip, br, zstd"), "{heard}");
    Ok(())
}

#[tokio::test]
async fn upgrades_are_not_forwarded() -> Result<()> {
    let front = ScriptedFront::responding(OK).await?;
    let sent = [
        ("Upgrade", "websocket, h2c"),
        ("HTTP2-Settings", "AAMAAABk"),
    ];
    let mut wire = Wire::connect(front.server.address()).await?;
    let start = "GET /v2/ HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\n";
    let lines = sent.map(|(name, value)| format!("{name}: {value}\r\n"));
    wire.send(format!("{start}{}\r\n", lines.concat()).as_bytes())
        .await?;
    assert_eq!(wire.response("GET").await?.head.status, 200);
    let heard = front.heard()?.to_ascii_lowercase();
    for word in ["upgrade", "http2-settings"] {
        ensure!(!heard.contains(word), "{heard}");
    }
    Ok(())
}

#[tokio::test]
async fn responses_without_a_body_keep_their_headers() -> Result<()> {
    let length = "Content-Length: 1234\r\n";
    for (method, status, headers) in [
        ("HEAD", "200 OK", length),
        ("GET", "304 Not Modified", "ETag: \"a\"\r\n"),
        ("DELETE", "204 No Content", ""),
        ("HEAD", "404 Not Found", length),
    ] {
        let front =
            ScriptedFront::responding(&format!("HTTP/1.1 {status}\r\n{headers}X: y\r\n\r\n"))
                .await?;
        let mut wire = Wire::connect(front.server.address()).await?;
        let request = format!("{method} /v2/ HTTP/1.1\r\nHost: a\r\n\r\n");
        // Twice, to check that nothing is left on either connection.
        for _ in 0..2 {
            wire.send(request.as_bytes()).await?;
            let response = wire.response(method).await?;
            assert_eq!(response.head.status.to_string(), status[..3]);
            assert_eq!(response.head.header("x"), Some("y"));
            if headers == length {
                assert_eq!(response.head.header("content-length"), Some("1234"));
            }
        }
        assert_eq!(front.upstream.heard().len(), 1);
    }
    Ok(())
}

#[tokio::test]
async fn an_interim_response_reaches_the_client_before_the_final_one() -> Result<()> {
    let upstream = Scripted::start(|mut caller: Caller| async move {
        caller.head().await?;
        caller.send("HTTP/1.1 100 Continue\r\n\r\n").await?;
        caller.until("some").await?;
        caller.send(OK).await?;
        caller.closed().await
    });
    let front = ScriptedFront::before(upstream.await?).await?;
    let mut wire = Wire::connect(front.server.address()).await?;
    wire.send(b"PUT /v2/ HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
        .await?;
    let interim = b"HTTP/1.1 100 Continue\r\n\r\n";
    assert_eq!(wire.exactly(interim.len()).await?, interim);
    wire.send(b"some").await?;
    assert_eq!(wire.response("PUT").await?.body, b"ok");
    let requests = metric("octoserve_http_requests_total").label("status", "200");
    requests.value(1).assert_in(&front.server).await?;
    // The durations end with the final response.
    for family in [
        "octoserve_http_response_ttfb_seconds_count",
        "octoserve_upstream_request_duration_seconds_count",
    ] {
        metric(family).value(1).assert_in(&front.server).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_response_is_forwarded_without_waiting_for_more_bytes() -> Result<()> {
    let read = Arc::new(Notify::new());
    let go_on = Arc::clone(&read);
    let upstream = Scripted::start(move |mut caller: Caller| {
        let go_on = Arc::clone(&go_on);
        async move {
            caller.head().await?;
            caller
                .send("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n")
                .await?;
            for piece in ["one", "two"] {
                go_on.notified().await;
                caller.send(piece).await?;
            }
            caller.closed().await
        }
    });
    let front = ScriptedFront::before(upstream.await?).await?;
    let mut wire = Wire::connect(front.server.address()).await?;
    wire.send(b"GET /v2/ HTTP/1.1\r\nHost: a\r\n\r\n").await?;
    assert_eq!(wire.head().await?.status, 200);
    for piece in [b"one", b"two"] {
        read.notify_one();
        assert_eq!(wire.exactly(3).await?, piece);
    }
    Ok(())
}

#[tokio::test]
async fn trailers_of_a_response_are_dropped() -> Result<()> {
    let front = ScriptedFront::responding(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n\
         3\r\nabc\r\n0\r\nX: y\r\n\r\n",
    );
    let front = front.await?;
    let mut wire = Wire::connect(front.server.address()).await?;
    for _ in 0..2 {
        wire.send(b"GET /v2/ HTTP/1.1\r\nHost: a\r\n\r\n").await?;
        let response = wire.response("GET").await?;
        assert_eq!(
            (response.head.status, response.body.as_slice()),
            (200, &b"abc"[..])
        );
    }
    Ok(())
}

#[tokio::test]
async fn trailers_of_a_request_are_dropped() -> Result<()> {
    let upstream = Scripted::start(|mut caller: Caller| async move {
        loop {
            caller.until("0\r\n\r\n").await?;
            caller.send(OK).await?;
        }
    });
    let front = ScriptedFront::before(upstream.await?).await?;
    let mut wire = Wire::connect(front.server.address()).await?;
    let start = "PUT /v2/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n";
    for requests in 1..=2 {
        wire.send(format!("{start}\r\n4\r\nsome\r\n0\r\nX-End: y\r\n\r\n").as_bytes())
            .await?;
        assert_eq!(wire.response("PUT").await?.body, b"ok");
        front.ended(requests).await?;
    }
    let heard = front.upstream.heard().concat().to_ascii_lowercase();
    ensure!(!heard.contains("x-end"), "{heard}");
    assert_eq!(heard.matches("0\r\n\r\n").count(), 2, "{heard}");
    Ok(())
}

#[tokio::test]
async fn a_response_that_ends_with_its_connection_is_complete() -> Result<()> {
    let upstream = Scripted::start(|mut caller: Caller| async move {
        caller.head().await?;
        caller.send("HTTP/1.0 200 OK\r\n\r\nto the end").await
    });
    let front = ScriptedFront::before(upstream.await?).await?;
    let response = front.ask("GET", "/v2/", &[]).await?;
    assert_eq!(response.body, b"to the end");
    Ok(())
}

#[tokio::test]
async fn a_location_with_the_upstreams_address_is_rewritten() -> Result<()> {
    let upstream = Scripted::start(|mut caller: Caller| async move {
        loop {
            let head = caller.head().await?;
            let location = head.split(' ').nth(1).unwrap_or_default();
            let location = location.trim_start_matches("/v2/?").replace("%20", " ");
            caller
                .send(format!(
                    "HTTP/1.1 202 Accepted\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"
                ))
                .await?;
        }
    });
    let front = ScriptedFront::before(upstream.await?).await?;
    let own = front.upstream.address();
    let port = own.port();
    let rewritten = [
        (
            format!("http://{own}/v2/u/1?_state=%2F"),
            "/v2/u/1?_state=%2F",
        ),
        (format!("HTTP://{own}"), ""),
    ];
    let other_port = if port == 1 { 2 } else { port - 1 };
    let kept = [
        "/v2/team/app/blobs/uploads/1?_state=a%3D".to_owned(),
        "relative/1".to_owned(),
        format!("https://{own}/v2/"),
        format!("http://127.0.0.1:{other_port}/v2/"),
        format!("http://cdn.example/{own}/v2/?http://{own}/"),
        "http://registry/v2/".to_owned(),
    ];
    for (location, rest) in rewritten {
        let response = front.ask("POST", &format!("/v2/?{location}"), &[]).await?;
        let expected = format!("http://registry{rest}");
        assert_eq!(response.head.header("location"), Some(expected.as_str()));
        // Over HTTP/2, the host is in `:authority`.
        let url = front.server.url(&format!("/v2/?{location}"));
        let format = "%header{location}";
        let arguments = [
            "--silent",
            "--http2-prior-knowledge",
            "--write-out",
            format,
            &url,
        ];
        let said = tools::run("curl", &arguments).await?;
        let expected = front.server.url(rest);
        assert_eq!(said.trim(), expected);
    }
    for location in kept {
        let response = front.ask("POST", &format!("/v2/?{location}"), &[]).await?;
        assert_eq!(response.head.header("location"), Some(location.as_str()));
    }
    Ok(())
}

/// An upstream that closes its first connection at the second request on it.
async fn forgetful() -> Result<ScriptedFront> {
    let upstream = Scripted::start(|mut caller: Caller| async move {
        caller.head().await?;
        caller.send(OK).await?;
        caller.head().await?;
        if caller.number() == 0 {
            return Ok(());
        }
        caller.send(OK).await?;
        caller.closed().await
    });
    ScriptedFront::before(upstream.await?).await
}

#[tokio::test]
async fn a_get_on_a_closed_pooled_connection_is_retried() -> Result<()> {
    let front = forgetful().await?;
    for requests in 1..=2 {
        ensure!(front.ask("GET", "/v2/", &[]).await?.head.status == 200);
        front.ended(requests).await?;
    }
    let heard = front.upstream.heard();
    let heard: Vec<_> = heard
        .iter()
        .map(|all| all.matches("GET /v2/ ").count())
        .collect();
    assert_eq!(heard, [2, 1]);
    let requests = metric("octoserve_http_requests_total").label("status", "200");
    requests.value(2).assert_in(&front.server).await
}

#[tokio::test]
async fn a_post_on_a_closed_pooled_connection_is_not_retried() -> Result<()> {
    let front = forgetful().await?;
    ensure!(front.ask("GET", "/v2/", &[]).await?.head.status == 200);
    front.ended(1).await?;
    let response = front.ask("POST", "/v2/a/blobs/uploads/", &[]).await?;
    assert_eq!(response.head.status, 502);
    assert_eq!(front.upstream.heard().len(), 1);
    Ok(())
}

#[tokio::test]
async fn a_put_is_retried_if_its_body_is_still_buffered() -> Result<()> {
    for (length, status, connections) in [(4, 200, 2), (1 << 20, 502, 1)] {
        let upstream = Scripted::start(move |mut caller: Caller| async move {
            caller.head().await?;
            if caller.number() == 0 {
                caller.send(OK).await?;
                caller.head().await?;
                // The whole body, or more of it than the proxy buffers.
                caller.exactly(length.min(1 << 19)).await?;
                return Ok(());
            }
            caller.exactly(length).await?;
            caller.send(OK).await?;
            caller.closed().await
        });
        let front = ScriptedFront::before(upstream.await?).await?;
        ensure!(front.ask("GET", "/v2/", &[]).await?.head.status == 200);
        front.ended(1).await?;
        let request = wire::request("PUT", "/v2/", &[], &vec![b'x'; length]);
        let response = wire::exchange(front.server.address(), "PUT", &request).await?;
        assert_eq!(response.head.status, status, "{length}");
        assert_eq!(front.upstream.heard().len(), connections, "{length}");
    }
    Ok(())
}

#[tokio::test]
async fn an_http2_upload_of_unknown_length_gets_one_last_chunk() -> Result<()> {
    let upstream = Scripted::start(|mut caller: Caller| async move {
        loop {
            caller.until("0\r\n\r\n").await?;
            caller.send(OK).await?;
        }
    });
    let front = ScriptedFront::before(upstream.await?).await?;
    let url = front.server.url("/v2/a/blobs/uploads/1");
    let script =
        format!("printf some | curl --silent --fail --http2-prior-knowledge --upload-file - {url}");
    for requests in 1..=5 {
        assert_eq!(tools::run("sh", &["-c", &script]).await?, "ok");
        front.ended(requests).await?;
    }
    // The proxy may use one connection or several.
    let heard = front.upstream.heard().concat();
    for each in ["PUT ", "\r\n4\r\nsome\r\n0\r\n\r\n", "0\r\n\r\n"] {
        assert_eq!(heard.matches(each).count(), 5, "{each:?}: {heard}");
    }
    Ok(())
}

#[tokio::test]
async fn an_http2_client_may_send_megabytes_ahead() -> Result<()> {
    let front = ScriptedFront::responding(OK).await?;
    let mut wire = Wire::connect(front.server.address()).await?;
    wire.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        .await?;
    let head = wire.exactly(9).await?;
    assert_eq!(head[3], 4, "no SETTINGS first");
    let length = usize::from(head[1]) << 8 | usize::from(head[2]);
    let settings = wire.exactly(length).await?;
    let window = settings.chunks_exact(6).find_map(|setting| {
        let value = setting[2..].try_into().ok().map(u32::from_be_bytes)?;
        // SETTINGS_INITIAL_WINDOW_SIZE
        (setting[..2] == [0, 4]).then_some(value)
    });
    assert_eq!(window, Some(8 << 20));
    Ok(())
}
