//! Aborts, stalls and protocol errors of clients and upstreams: the response, the metrics, and that
//! nothing stays in flight.
//!
//! The upstream follows a script, so that each fault happens at an exact point.

use anyhow::{Result, ensure};
use harness::octoserve::Launch;
use harness::process::{OutputStream, Signal};
use harness::scrape::metric;
use harness::scripted::Caller;
use harness::wire::{self, Wire};
use tokio::io::AsyncReadExt;

use crate::scene::{BLOB, DEADLINE, LENGTH, SESSION, Scene, get, pour, response, sulk, upload};

#[tokio::test]
async fn a_download_that_the_client_aborts_keeps_its_status() -> Result<()> {
    let front = Scene::of(pour).await?;
    let mut client = front.client().await?;
    client.send(get(BLOB).as_bytes()).await?;
    ensure!(client.head().await?.status == 200);
    client.exactly(1000).await?;
    drop(client);
    front.counted("blob", "200").await?;
    let sizes = metric("octoserve_http_response_size_bytes_count");
    let whole = front.server.scrape().await?.sum(&sizes);
    ensure!(whole.is_none_or(|count| count == 0.0), "{whole:?}");
    Ok(())
}

#[tokio::test]
async fn an_upload_that_the_client_aborts_is_499() -> Result<()> {
    for reset in [false, true] {
        let front = Scene::of(sulk).await?;
        let client = front.raw(&upload(1000, "some")).await?;
        front.heard("some").await?;
        if reset {
            client.set_zero_linger()?;
        }
        drop(client);
        front.counted("upload_session", "499").await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_client_that_closes_before_the_response_is_499() -> Result<()> {
    let front = Scene::of(sulk).await?;
    let client = front.raw(&get(BLOB)).await?;
    front.heard("\r\n\r\n").await?;
    drop(client);
    front.counted("blob", "499").await
}

#[tokio::test]
async fn an_http2_client_that_closes_before_the_response_is_499() -> Result<()> {
    let mut front = Scene::of(sulk).await?;
    let url = front.server.url(BLOB);
    let mut curl = std::process::Command::new("curl")
        .args([
            "--silent",
            "--http2-prior-knowledge",
            "--output",
            "/dev/null",
        ])
        .arg(url)
        .spawn()?;
    front.heard("\r\n\r\n").await?;
    curl.kill()?;
    curl.wait()?;
    front.counted("blob", "499").await?;
    let log = front.server.process().output(OutputStream::Stderr)?;
    ensure!(log.contains("\"status\":499"), "{log}");
    Ok(())
}

#[tokio::test]
async fn a_client_that_stops_sending_is_408() -> Result<()> {
    let front = Scene::of(sulk).await?;
    let mut client = front.client().await?;
    client.send(upload(1000, "some").as_bytes()).await?;
    let response = client.response("PATCH").await?;
    assert_eq!(response.head.status, 408);
    assert_eq!(response.error_code().as_deref(), Some("UNSUPPORTED"));
    front.counted("upload_session", "408").await
}

#[tokio::test]
async fn a_client_that_stops_reading_is_disconnected() -> Result<()> {
    let front = Scene::of(pour).await?;
    let client = front.raw(&get(BLOB)).await?;
    front.counted("blob", "200").await?;
    drop(client);
    Ok(())
}

#[tokio::test]
async fn an_upstream_that_aborts_before_its_response_is_502() -> Result<()> {
    for reset in [false, true] {
        let front = Scene::of(move |mut caller: Caller| async move {
            caller.until("some").await?;
            if reset {
                caller.reset()?;
            }
            Ok(())
        });
        let front = front.await?;
        let mut client = front.client().await?;
        // The proxy never retries a PATCH.
        client.send(upload(4, "some").as_bytes()).await?;
        let response = client.response("PATCH").await?;
        assert_eq!(response.head.status, 502);
        assert_eq!(response.error_code().as_deref(), Some("UNAVAILABLE"));
        front.counted("upload_session", "502").await?;
        assert_eq!(front.upstream.heard().len(), 1);
    }
    Ok(())
}

#[tokio::test]
async fn an_upstream_that_aborts_within_its_response_cuts_the_clients_connection() -> Result<()> {
    for reset in [false, true] {
        let front = Scene::of(move |mut caller: Caller| async move {
            caller.head().await?;
            caller.send(response("200 OK", 1000, "some")).await?;
            if reset {
                caller.reset()?;
            }
            Ok(())
        });
        let front = front.await?;
        let mut client = front.client().await?;
        client.send(get(BLOB).as_bytes()).await?;
        // The reset may overtake the bytes sent before it.
        if let Ok(head) = client.head().await
            && head.status == 200
        {
            ensure!(
                client.exactly(1000).await.is_err(),
                "a cut body looks complete"
            );
        }
        front.nothing_in_flight().await?;
        let requests = metric("octoserve_http_requests_total").label("endpoint", "blob");
        requests.value(1).assert_in(&front.server).await?;
    }
    Ok(())
}

#[tokio::test]
async fn an_upstream_that_does_not_speak_http_is_502() -> Result<()> {
    let front = Scene::of(|mut caller: Caller| async move {
        caller.head().await?;
        caller
            .send("220 welcome to this mail server\r\n\r\n")
            .await?;
        caller.closed().await
    });
    let front = front.await?;
    let request = wire::request("POST", "/v2/team/app/blobs/uploads/", &[], b"");
    let response = wire::exchange(front.server.address(), "POST", &request).await?;
    assert_eq!(response.head.status, 502);
    assert_eq!(response.error_code().as_deref(), Some("UNAVAILABLE"));
    front.counted("upload_start", "502").await
}

#[tokio::test]
async fn an_early_refusal_reaches_a_client_that_then_stops_sending() -> Result<()> {
    for status in ["401 Unauthorized", "413 Content Too Large"] {
        let front = Scene::of(move |mut caller: Caller| async move {
            caller.head().await?;
            caller.send(response(status, 2, "no")).await?;
            caller.closed().await
        });
        let front = front.await?;
        let mut client = front.client().await?;
        client.send(upload(LENGTH, "some").as_bytes()).await?;
        let response = client.response("PATCH").await?;
        assert_eq!(response.body, b"no");
        assert_eq!(response.head.status.to_string(), status[..3]);
        drop(client);
        front.counted("upload_session", &status[..3]).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_malformed_chunked_body_is_400_with_its_reason() -> Result<()> {
    for body in [
        "zz\r\nabc\r\n0\r\n\r\n",
        "3\r\nabcde\r\n0\r\n\r\n",
        "-1\r\n",
    ] {
        let front = Scene::of(sulk).await?;
        let mut client = front.client().await?;
        let head = format!("PATCH {SESSION} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n");
        client.send(format!("{head}\r\n{body}").as_bytes()).await?;
        let response = client.response("PATCH").await?;
        assert_eq!(response.head.status, 400, "{body:?}");
        let text = String::from_utf8(response.body)?;
        ensure!(
            text.contains("UNSUPPORTED") && text.contains("body"),
            "{text}"
        );
        front.counted("upload_session", "400").await?;
    }
    Ok(())
}

#[tokio::test]
async fn too_many_or_too_large_headers_are_400_with_a_body() -> Result<()> {
    let server = Launch::all_in_one().start().await?;
    let many: Vec<String> = (0..99).map(|number| format!("x-{number}")).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|name| (name.as_str(), "y")).collect();
    let long = "x".repeat(500_000);
    let query = format!("/v2/?{}", "x".repeat(62_000));
    for (path, headers) in [
        ("/v2/", &many[..]),
        ("/v2/", &[("x", long.as_str())]),
        (query.as_str(), &[]),
    ] {
        let request = wire::request("GET", path, headers, b"");
        let response = wire::exchange(server.address(), "GET", &request).await?;
        assert_eq!(response.head.status, 400);
        assert_eq!(response.error_code().as_deref(), Some("UNSUPPORTED"));
    }
    let refused = metric("octoserve_http_requests_total").label("status", "400");
    refused.value(3).assert_in(&server).await
}

#[tokio::test]
async fn each_refusal_has_its_own_message() -> Result<()> {
    let server = Launch::all_in_one().start().await?;
    for (request, words) in [
        ("GET /v2/ HTTP/1.1\r\n\r\n", "Host"),
        ("GET v2/ HTTP/1.1\r\nHost: a\r\n\r\n", "target"),
        ("GET /v2/?n=\u{1} HTTP/1.1\r\nHost: a\r\n\r\n", "control"),
        ("GET /v2/?n=\0 HTTP/1.1\r\nHost: a\r\n\r\n", "control"),
        (
            "GET /v2/ HTTP/1.1\r\nHost: a\r\nConnection: Host\r\n\r\n",
            "a header",
        ),
    ] {
        let response = wire::exchange(server.address(), "GET", request.as_bytes()).await?;
        assert_eq!(response.head.status, 400, "{request}");
        assert_eq!(response.error_code().as_deref(), Some("UNSUPPORTED"));
        let text = String::from_utf8(response.body)?;
        ensure!(text.contains(words), "{request}: {text}");
    }
    Ok(())
}

#[tokio::test]
async fn a_transfer_cut_by_the_shutdown_is_logged() -> Result<()> {
    for arguments in [&["--http1.1"][..], &["--http2-prior-knowledge"]] {
        let front = Scene::of(|mut caller: Caller| async move {
            caller.head().await?;
            caller.send(response("200 OK", 1000, "some")).await?;
            caller.closed().await
        });
        let mut front = front.await?;
        let mut curl = std::process::Command::new("curl")
            .args(arguments)
            .args(["--silent", "--output", "/dev/null"])
            .arg(front.server.url(BLOB))
            .spawn()?;
        let sent = metric("octoserve_http_response_ttfb_seconds_count");
        sent.value(1).assert_in(&front.server).await?;
        front.server.process().signal(Signal::TERM)?;
        let status = front.server.process().exited(DEADLINE).await?;
        curl.wait()?;
        ensure!(!status.success(), "{status}");
        let log = front.server.process().output(OutputStream::Stderr)?;
        let event = log
            .lines()
            .find(|line| line.contains("\"endpoint\":\"blob\""));
        ensure!(
            event.is_some_and(|event| event.contains("\"status\":200")),
            "{log}"
        );
        ensure!(log.contains("request aborted"), "{log}");
    }
    Ok(())
}

#[tokio::test]
async fn a_blocked_log_delays_no_request() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let mut child = tokio::process::Command::new(harness::octoserve::Program::Octoserve.path()?)
        .args(["--listen", "127.0.0.1:0", "--data"])
        .arg(directory.path().join("data"))
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut announced = Vec::new();
    let stdout = child
        .stdout
        .as_mut()
        .ok_or_else(|| anyhow::anyhow!("no stdout"))?;
    while !announced.contains(&b'\n') {
        ensure!(stdout.read_buf(&mut announced).await? > 0, "it ended");
    }
    let announced = String::from_utf8(announced)?;
    let address = announced
        .trim()
        .trim_start_matches("listening on ")
        .parse()?;
    let mut client = Wire::connect(address).await?;
    // Each request logs about two hundred bytes; the pipe holds 64 KiB.
    for _ in 0..2000 {
        client.send(get("/v2/").as_bytes()).await?;
        ensure!(client.response("GET").await?.head.status == 200);
    }
    Ok(())
}
