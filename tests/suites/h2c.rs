//! HTTP/2 without TLS in front of an HTTP/1.1 upstream: what it receives, and streams that stall,
//! are reset or have the wrong length.

use anyhow::{Context, Result, ensure};
use harness::h2::H2;
use harness::process::OutputStream;
use harness::scrape::metric;
use harness::scripted::Caller;

use crate::scene::{BLOB, SESSION, Scene, pour, sulk};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[tokio::test]
async fn the_host_of_a_stream_is_kept() -> Result<()> {
    let scene = Scene::of(|mut caller: Caller| async move {
        caller.head().await?;
        caller.send(OK).await?;
        caller.closed().await
    })
    .await?;
    let mut client = H2::connect(scene.address(), false).await?;
    let stream = client.send("GET", "/v2/a%2Fb//c?n=%7e", &[], true).await?;
    let response = stream.response().await?;
    assert_eq!(
        (response.status, response.read().await?),
        (200, b"ok".to_vec())
    );
    let heard = scene.upstream.heard().concat();
    ensure!(
        heard.starts_with("GET /v2/a%2Fb//c?n=%7e HTTP/1.1\r\n"),
        "{heard}"
    );
    let heard = heard.to_ascii_lowercase();
    for line in [
        "host: registry",
        "x-forwarded-host: registry",
        "x-forwarded-for: 127.0.0.1",
        "x-forwarded-proto: http",
    ] {
        assert_eq!(
            heard.matches(&format!("\r\n{line}\r\n")).count(),
            1,
            "{heard}"
        );
    }
    assert_eq!(heard.matches("\r\nvia: 2 octoserve-").count(), 1, "{heard}");
    Ok(())
}

#[tokio::test]
async fn an_interim_response_is_dropped_over_http2() -> Result<()> {
    let scene = Scene::of(|mut caller: Caller| async move {
        caller.head().await?;
        caller.send("HTTP/1.1 100 Continue\r\n\r\n").await?;
        caller
            .send("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n")
            .await?;
        caller.exactly(4).await?;
        caller.send(OK).await?;
        caller.closed().await
    })
    .await?;
    let mut client = H2::connect(scene.address(), false).await?;
    let headers = [("content-length", "4"), ("expect", "100-continue")];
    let mut stream = client.send("PUT", SESSION, &headers, false).await?;
    stream.push(b"some", true)?;
    let response = stream.response().await?;
    assert_eq!(
        (response.status, response.read().await?),
        (200, b"ok".to_vec())
    );
    scene.counted("upload_session", "200").await
}

#[tokio::test]
async fn trailers_of_an_http2_request_are_dropped() -> Result<()> {
    let scene = Scene::of(|mut caller: Caller| async move {
        loop {
            caller.until("0\r\n\r\n").await?;
            caller.send(OK).await?;
        }
    })
    .await?;
    let mut client = H2::connect(scene.address(), false).await?;
    for _ in 0..2 {
        let mut stream = client.send("PUT", SESSION, &[], false).await?;
        stream.push(b"some", false)?;
        stream.trail("x-end", "y")?;
        let response = stream.response().await?;
        assert_eq!(
            (response.status, response.read().await?),
            (200, b"ok".to_vec())
        );
        scene.nothing_in_flight().await?;
    }
    let heard = scene.upstream.heard().concat().to_ascii_lowercase();
    ensure!(!heard.contains("x-end"), "{heard}");
    assert_eq!(heard.matches("0\r\n\r\n").count(), 2, "{heard}");
    Ok(())
}

#[tokio::test]
async fn a_stream_with_too_large_headers_is_refused_and_others_continue() -> Result<()> {
    let scene = Scene::of(|mut caller: Caller| async move {
        caller.head().await?;
        caller.send(OK).await?;
        caller.closed().await
    })
    .await?;
    let long = "x".repeat(100_000);
    let mut client = H2::connect(scene.address(), false).await?;
    // The client may refuse to send it: the server announces its limit at the start.
    if let Ok(stream) = client.send("GET", "/v2/", &[("x", &long)], true).await
        && let Ok(response) = stream.response().await
    {
        ensure!((400..500).contains(&response.status), "{}", response.status);
    }
    ensure!(
        scene.upstream.heard().is_empty(),
        "the upstream received the request"
    );
    let mut client = H2::connect(scene.address(), false).await?;
    let response = client
        .send("GET", "/v2/", &[], true)
        .await?
        .response()
        .await?;
    assert_eq!(response.status, 200);
    Ok(())
}

#[tokio::test]
async fn a_reset_stream_is_counted_and_others_continue() -> Result<()> {
    let scene = Scene::of(|mut caller: Caller| async move {
        let head = caller.head().await?;
        if head.contains("?wait") {
            return caller.closed().await;
        }
        caller.send(OK).await?;
        caller.closed().await
    })
    .await?;
    let mut client = H2::connect(scene.address(), false).await?;
    let upload = format!("{SESSION}?wait");
    let mut sending = client
        .send("PATCH", &upload, &[("content-length", "1000")], false)
        .await?;
    sending.push(b"some", false)?;
    scene.heard("some").await?;
    sending.cancel();
    let left = metric("octoserve_http_requests_total").label("status", "499");
    left.clone().value(1).assert_in(&scene.server).await?;
    let waiting = client
        .send("GET", &format!("{BLOB}?wait"), &[], true)
        .await?;
    scene.heard(&format!("{BLOB}?wait")).await?;
    waiting.cancel();
    left.value(2).assert_in(&scene.server).await?;
    let response = client
        .send("GET", "/v2/", &[], true)
        .await?
        .response()
        .await?;
    assert_eq!(
        (response.status, response.read().await?),
        (200, b"ok".to_vec())
    );
    scene.nothing_in_flight().await
}

#[tokio::test]
async fn a_closed_connection_ends_its_streams() -> Result<()> {
    for reset in [false, true] {
        let mut scene = Scene::of(sulk).await?;
        let mut client = H2::connect(scene.address(), reset).await?;
        let mut sending = client.send("PATCH", SESSION, &[], false).await?;
        sending.push(b"some", false)?;
        scene.heard("some").await?;
        drop((client, sending));
        scene.counted("upload_session", "499").await?;
        let log = scene.server.process().output(OutputStream::Stderr)?;
        ensure!(!log.contains("upstream failed"), "{log}");
    }
    Ok(())
}

#[tokio::test]
async fn a_reset_download_keeps_its_status() -> Result<()> {
    let mut scene = Scene::of(pour).await?;
    let mut client = H2::connect(scene.address(), false).await?;
    let response = client
        .send("GET", BLOB, &[], true)
        .await?
        .response()
        .await?;
    assert_eq!(response.status, 200);
    drop(response);
    scene.counted("blob", "200").await?;
    let sizes = metric("octoserve_http_response_size_bytes_count");
    let whole = scene.server.scrape().await?.sum(&sizes);
    ensure!(whole.is_none_or(|count| count == 0.0), "{whole:?}");
    let log = scene.server.process().output(OutputStream::Stderr)?;
    ensure!(!log.contains("upstream failed"), "{log}");
    Ok(())
}

#[tokio::test]
async fn a_stream_that_is_not_read_is_reset_and_its_connection_stays_open() -> Result<()> {
    let scene = Scene::of(|mut caller: Caller| async move {
        let head = caller.head().await?;
        if head.starts_with(&format!("GET {BLOB}")) {
            let piece = vec![b'x'; 1 << 20];
            let length = 64 * piece.len();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
            caller.send(head).await?;
            for _ in 0..64 {
                caller.send(&piece).await?;
            }
        } else {
            caller.send(OK).await?;
        }
        caller.closed().await
    })
    .await?;
    let mut client = H2::connect(scene.address(), false).await?;
    // The client never opens its window again.
    let unread = client
        .send("GET", BLOB, &[], true)
        .await?
        .response()
        .await?;
    assert_eq!(unread.status, 200);
    let ended = metric("octoserve_http_requests_total").label("endpoint", "blob");
    ended.value(1).assert_in(&scene.server).await?;
    ensure!(unread.read().await.is_err(), "a cut body looks complete");
    let mut client = H2::connect(scene.address(), false).await?;
    let response = client
        .send("GET", "/v2/", &[], true)
        .await?
        .response()
        .await?;
    assert_eq!(response.read().await?, b"ok");
    scene.nothing_in_flight().await
}

#[tokio::test]
async fn a_stream_that_stops_sending_is_408_and_its_connection_stays_open() -> Result<()> {
    let scene = Scene::of(|mut caller: Caller| async move {
        let head = caller.head().await?;
        if head.starts_with("GET ") {
            caller.send(OK).await?;
        }
        caller.closed().await
    })
    .await?;
    let mut client = H2::connect(scene.address(), false).await?;
    for (requests, headers) in [(1, &[][..]), (2, &[("content-length", "1000")])] {
        let mut stream = client.send("PATCH", SESSION, headers, false).await?;
        stream.push(b"some", false)?;
        let response = stream.response().await?;
        assert_eq!(response.status, 408);
        let body = String::from_utf8(response.read().await?)?;
        ensure!(body.contains("\"UNSUPPORTED\""), "{body}");
        let stalled = metric("octoserve_http_requests_total").label("status", "408");
        stalled.value(requests).assert_in(&scene.server).await?;
        scene.nothing_in_flight().await?;
    }
    let response = client
        .send("GET", "/v2/", &[], true)
        .await?
        .response()
        .await?;
    assert_eq!(response.read().await?, b"ok");
    Ok(())
}

#[tokio::test]
async fn a_body_of_the_wrong_length_smuggles_no_request() -> Result<()> {
    let scene = Scene::of(|mut caller: Caller| async move {
        loop {
            let head = caller.head().await?.to_ascii_lowercase();
            if head.contains("content-length: 4") {
                caller.exactly(4).await?;
            } else if head.contains("content-length: 1000") {
                caller.exactly(1000).await?;
            }
            caller.send(OK).await?;
        }
    })
    .await?;
    for (length, body) in [
        ("1000", &b"some"[..]),
        ("4", b"someGET /v2/hidden HTTP/1.1\r\n\r\n"),
    ] {
        let mut client = H2::connect(scene.address(), false).await?;
        let headers = [("content-length", length)];
        let mut stream = client.send("PUT", SESSION, &headers, false).await?;
        stream.push(body, true)?;
        let response = stream.response().await;
        let status = response.as_ref().map(|response| response.status).ok();
        ensure!(
            status.is_none_or(|status| status == 400),
            "{length}: {status:?}"
        );
        // The next request must not use a connection with half a request on it.
        let mut client = H2::connect(scene.address(), false).await?;
        let response = client
            .send("GET", "/v2/", &[], true)
            .await?
            .response()
            .await?;
        assert_eq!(response.status, 200);
    }
    scene.nothing_in_flight().await?;
    let heard = scene.upstream.heard().concat();
    ensure!(!heard.contains("hidden"), "{heard}");
    Ok(())
}

#[tokio::test]
async fn a_connect_over_http2_is_refused_and_counted() -> Result<()> {
    let scene = Scene::of(sulk).await?;
    let url = scene.server.url("/");
    let script = format!(
        "curl --silent --http2-prior-knowledge --request CONNECT --output /dev/null \
         --write-out '%{{http_code}}' {url} || true"
    );
    let said = harness::tools::run("sh", &["-c", &script]).await?;
    ensure!(said != "200", "{said}");
    ensure!(
        scene.upstream.heard().is_empty(),
        "the upstream received the request"
    );
    Ok(())
}

#[tokio::test]
async fn an_upstream_that_aborts_is_502_or_a_reset_over_http2() -> Result<()> {
    for (said, status) in [
        ("", Some(502)),
        ("HTTP/1.1 200 O", Some(502)),
        ("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nsome", None),
    ] {
        let scene = Scene::of(move |mut caller: Caller| async move {
            caller.until("some").await?;
            caller.send(said).await
        })
        .await?;
        let mut client = H2::connect(scene.address(), false).await?;
        let mut stream = client
            .send("PATCH", SESSION, &[("content-length", "4")], false)
            .await?;
        stream.push(b"some", true)?;
        let response = stream.response().await.context("no head")?;
        if let Some(status) = status {
            assert_eq!(response.status, status);
            let body = String::from_utf8(response.read().await?)?;
            ensure!(body.contains("\"UNAVAILABLE\""), "{body}");
            scene.counted("upload_session", "502").await?;
        } else {
            assert_eq!(response.status, 200);
            ensure!(response.read().await.is_err(), "a cut body looks complete");
            scene.counted("upload_session", "200").await?;
        }
    }
    Ok(())
}
