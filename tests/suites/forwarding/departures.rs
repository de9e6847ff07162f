//! Clients that leave, or close their sending half, while the upstream does nothing: whatever of
//! their requests is unread, nothing stays in flight.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use harness::h2::H2;
use harness::poll;
use harness::scrape::metric;
use harness::scripted::{Caller, Scripted};
use harness::wire::Wire;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::{OK, deaf, ok, polite};
use crate::scene::{BLOB, DEADLINE, LENGTH, SESSION, Scene, get, sulk};
use crate::stalls::frugal;

/// Less than fills the buffers of a socket.
static PIECE: [u8; 16 << 10] = [b'x'; 16 << 10];

/// Enough for a socket to take what it has space for.
const FITS: Duration = Duration::from_millis(500);

/// More than the windows of HTTP/2.
static LARGE: [u8; 16 << 20] = [b'x'; 16 << 20];

/// A deaf upstream, with small buffers and no limit for stalled bodies that matters here.
async fn deaf_for_long() -> Result<Scene> {
    let address = "127.0.0.1:0".parse()?;
    let listener = frugal(|socket| {
        socket.bind(address)?;
        Ok(socket.listen(128)?)
    });
    Scene::before(Scripted::start_on(listener?, deaf)?, "10m").await
}

/// Sends an upload's body in a task, for as long as anybody reads it.
fn pouring(stream: TcpStream, piece: Vec<u8>) -> Result<(Wire, JoinHandle<()>)> {
    let stream = stream.into_std()?;
    let mut sender = TcpStream::from_std(stream.try_clone()?)?;
    let sending = tokio::spawn(async move {
        for _ in 0..LENGTH / piece.len() {
            if sender.write_all(&piece).await.is_err() {
                return;
            }
        }
    });
    Ok((Wire::over(TcpStream::from_std(stream)?)?, sending))
}

#[tokio::test]
async fn an_upstream_that_reads_no_body_is_504() -> Result<()> {
    for (framing, piece) in [
        (format!("Content-Length: {LENGTH}"), PIECE.to_vec()),
        (
            "Transfer-Encoding: chunked".to_owned(),
            [b"4000\r\n", &PIECE[..], b"\r\n"].concat(),
        ),
    ] {
        let scene = Scene::of(deaf).await?;
        let head = format!("PATCH {SESSION} HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n");
        let (mut client, sending) = pouring(scene.raw(&head).await?, piece)?;
        let response = client.response("PATCH").await?;
        assert_eq!(response.head.status, 504, "{framing}");
        assert_eq!(response.error_code().as_deref(), Some("UNAVAILABLE"));
        scene.counted("upload_session", "504").await?;
        sending.abort();
    }
    Ok(())
}

#[tokio::test]
async fn an_upstream_that_reads_no_body_is_504_over_http2() -> Result<()> {
    for headers in [&[][..], &[("content-length", "16777216")]] {
        let scene = Scene::of(deaf).await?;
        let mut client = H2::connect(scene.address(), false).await?;
        let mut stream = client.send("PATCH", SESSION, headers, false).await?;
        stream.push(&LARGE, true)?;
        let response = stream.response().await?;
        assert_eq!(response.status, 504);
        let body = String::from_utf8(response.read().await?)?;
        ensure!(body.contains("\"UNAVAILABLE\""), "{body}");
        scene.counted("upload_session", "504").await?;
    }
    Ok(())
}

/// Sends pieces of an upload until the proxy reads no more of them. Its socket has free space then,
/// so that it can learn of whatever the client does next.
async fn fill(scene: &Scene, client: &mut TcpStream, is_chunked: bool) -> Result<()> {
    let taken = metric("octoserve_http_request_body_bytes_total");
    let mut sent = 0.0;
    for _ in 0..LENGTH / PIECE.len() {
        if is_chunked {
            client.write_all(b"4000\r\n").await?;
        }
        client.write_all(&PIECE).await?;
        if is_chunked {
            client.write_all(b"\r\n").await?;
        }
        sent += PIECE.len() as f64;
        let (mut last, mut same) = (None, 0);
        let is_taken = poll::until("the proxy reads, or does not", DEADLINE, async || {
            let now = scene.server.scrape().await?.sum(&taken);
            same = if now == last { same + 1 } else { 0 };
            last = now;
            Ok(match now {
                Some(bytes) if bytes >= sent => Some(true),
                _ => (same == 10).then_some(false),
            })
        });
        if !is_taken.await? {
            return Ok(());
        }
    }
    bail!("the proxy read all of {sent} bytes")
}

#[tokio::test]
async fn a_client_that_leaves_an_upstream_which_reads_no_body_is_499() -> Result<()> {
    for (framing, reset) in [
        (format!("Content-Length: {LENGTH}"), true),
        (format!("Content-Length: {LENGTH}"), false),
        ("Transfer-Encoding: chunked".to_owned(), true),
        ("Transfer-Encoding: chunked".to_owned(), false),
    ] {
        let scene = deaf_for_long().await?;
        let head = format!("PATCH {SESSION} HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n");
        let mut client = scene.raw(&head).await?;
        fill(&scene, &mut client, framing.contains("chunked")).await?;
        if reset {
            client.set_zero_linger()?;
        }
        drop(client);
        let counted = scene.counted("upload_session", "499").await;
        counted.with_context(|| format!("{framing}, reset: {reset}"))?;
    }
    Ok(())
}

#[tokio::test]
async fn a_client_that_leaves_an_upstream_which_reads_no_body_is_499_over_http2() -> Result<()> {
    for (cancels, reset) in [(true, false), (false, false), (false, true)] {
        let scene = deaf_for_long().await?;
        let mut client = H2::connect(scene.address(), reset).await?;
        let mut stream = client.send("PATCH", SESSION, &[], false).await?;
        stream.push(&LARGE, true)?;
        stalled(&scene).await?;
        if cancels {
            stream.cancel();
            scene.counted("upload_session", "499").await?;
        } else {
            drop((client, stream));
            scene.counted("upload_session", "499").await?;
            let open = metric("octoserve_connections_active");
            // The scrape itself has one.
            open.value(1).assert_in(&scene.server).await?;
        }
    }
    Ok(())
}

/// Waits until the proxy has taken some of the bodies, and takes no more.
pub(super) async fn stalled(scene: &Scene) -> Result<()> {
    let taken = metric("octoserve_http_request_body_bytes_total");
    let (mut last, mut same) = (None, 0);
    poll::until("the uploads stall", DEADLINE, async || {
        let now = scene.server.scrape().await?.sum(&taken);
        same = if now == last { same + 1 } else { 0 };
        last = now;
        Ok((same >= 10 && now > Some(0.0)).then_some(()))
    })
    .await
}

#[tokio::test]
async fn a_client_that_leaves_behind_a_pipelined_request_is_499() -> Result<()> {
    for length in [100, 30_000, 70_000] {
        for reset in [true, false] {
            leaves_behind(length, reset).await?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_client_that_resets_behind_a_long_pipelined_request_is_499() -> Result<()> {
    leaves_behind(1 << 20, true).await
}

/// A client sends a request behind one that the upstream does not respond to, and closes or resets.
async fn leaves_behind(length: usize, reset: bool) -> Result<()> {
    // The limit for stalled bodies is no way out.
    let scene = deaf_for_long().await?;
    let mut client = scene.raw(&get(BLOB)).await?;
    scene.heard(BLOB).await?;
    let head = format!("PUT {SESSION} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}");
    let pipelined = [head.as_bytes(), b"\r\n\r\n", &LARGE[..length]].concat();
    // The kernel takes as much as fits into the buffers.
    let _ = timeout(FITS, client.write_all(&pipelined)).await;
    if reset {
        client.set_zero_linger()?;
    }
    drop(client);
    let counted = scene.counted("blob", "499").await;
    counted.with_context(|| format!("{length} bytes, reset: {reset}"))
}

#[tokio::test]
async fn a_client_that_closes_its_sending_half_gets_its_response() -> Result<()> {
    let scene = Scene::of(|mut caller: Caller| async move {
        loop {
            let head = caller.head().await?;
            if head.contains("?slow") {
                sleep(Duration::from_millis(500)).await;
            }
            caller.send(OK).await?;
        }
    })
    .await?;
    for path in ["/v2/", "/v2/?slow"] {
        let mut client = scene.client().await?;
        client.send(get(path).as_bytes()).await?;
        client.finish().await?;
        let response = client.response("GET").await?;
        assert_eq!(
            (response.head.status, &response.body[..]),
            (200, &b"ok"[..])
        );
        ensure!(client.rest().await?.is_empty(), "more than one response");
    }
    let ended = metric("octoserve_http_requests_total");
    let ok = ended.clone().label("status", "200");
    ok.value(2).assert_in(&scene.server).await?;
    ended.value(2).assert_in(&scene.server).await
}

#[tokio::test]
async fn a_client_that_closes_its_sending_half_gets_all_its_responses() -> Result<()> {
    let scene = Scene::of(polite).await?;
    let mut client = scene.client().await?;
    let upload = format!("PUT {SESSION} HTTP/1.1\r\nHost: a\r\nContent-Length: 70000\r\n\r\n");
    let requests = [get("/v2/").as_bytes(), upload.as_bytes(), &LARGE[..70_000]].concat();
    client
        .send(&[&requests, get(BLOB).as_bytes()].concat())
        .await?;
    client.finish().await?;
    for method in ["GET", "PUT", "GET"] {
        let response = client.response(method).await.context(method)?;
        assert_eq!(
            (response.head.status, &response.body[..]),
            (200, &b"ok"[..])
        );
    }
    ensure!(client.rest().await?.is_empty(), "more than three responses");
    scene.nothing_in_flight().await
}

#[tokio::test]
async fn a_client_that_closes_its_sending_half_gets_a_long_response() -> Result<()> {
    let body = "x".repeat(8 << 20);
    let expected = body.clone();
    let scene = Scene::of(move |mut caller: Caller| {
        let said = ok(&body);
        async move {
            caller.head().await?;
            caller.send(said).await?;
            caller.closed().await
        }
    })
    .await?;
    let mut client = scene.client().await?;
    client.send(get(BLOB).as_bytes()).await?;
    client.finish().await?;
    let response = client.response("GET").await?;
    ensure!(
        response.body == expected.as_bytes(),
        "{} bytes",
        response.body.len()
    );
    scene.counted("blob", "200").await
}

#[tokio::test]
async fn an_upload_whose_client_closes_before_its_end_is_499_and_not_forwarded_as_whole()
-> Result<()> {
    let scene = Scene::before(Scripted::start(sulk).await?, "10m").await?;
    for (requests, framing) in [(1, "Content-Length: 9"), (2, "Transfer-Encoding: chunked")] {
        let mut client = scene.client().await?;
        let head = format!("PATCH {SESSION} HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n4\r\nsome");
        client.send(head.as_bytes()).await?;
        client.finish().await?;
        let left = metric("octoserve_http_requests_total").label("status", "499");
        left.value(requests).assert_in(&scene.server).await?;
        scene.nothing_in_flight().await?;
    }
    let heard = scene.upstream.heard().concat();
    ensure!(!heard.contains("0\r\n\r\n"), "{heard}");
    Ok(())
}
