//! Each side aborts at every phase of a request; upstreams die, freeze, return and send garbage;
//! file descriptors run out. Checks the client's response, the metrics, and that the proxy holds
//! nothing afterwards.

use anyhow::{Context, Result, ensure};
use harness::client::Client;
use harness::content;
use harness::foreign::ForeignRegistry;
use harness::octoserve::{Launch, Server};
use harness::process::{OutputStream, Signal};
use harness::scrape::metric;
use harness::scripted::{Caller, Scripted};
use harness::wire::{self, Wire};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::scene::{BLOB, DEADLINE, Holdings, LENGTH, SESSION, Scene, get, response, upload};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// An upstream that follows the request's query.
async fn obedient(mut caller: Caller) -> Result<()> {
    loop {
        let head = caller.head().await?;
        let target = head.split(' ').nth(1).unwrap_or_default();
        let orders = target.split_once('?').map_or("", |(_, orders)| orders);
        let (order, ending) = orders.split_once('&').unwrap_or((orders, ""));
        match order {
            "wait" => return caller.closed().await,
            "pour" => {
                caller.send(response("200 OK", LENGTH, "")).await?;
                let piece = vec![b'x'; 1 << 20];
                for _ in 0..LENGTH / piece.len() {
                    caller.send(&piece).await?;
                }
                return caller.closed().await;
            }
            "break" => {
                let said = BROKEN.iter().find(|(name, _)| ending.starts_with(name));
                caller.send(said.map_or("", |(_, said)| said)).await?;
                if ending.ends_with("reset") {
                    caller.reset()?;
                }
                return Ok(());
            }
            _ => {
                if head.starts_with("PATCH ") {
                    caller.exactly(4).await?;
                }
                caller.send(OK).await?;
            }
        }
    }
}

/// What an upstream has sent when it aborts.
const BROKEN: &[(&str, &str)] = &[
    ("before-the-head", ""),
    ("in-the-status-line", "HTTP/1.1 200 O"),
    ("in-the-headers", "HTTP/1.1 200 OK\r\nContent-Le"),
    ("after-an-interim-head", "HTTP/1.1 100 Continue\r\n\r\n"),
    (
        "in-the-body",
        "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nsome",
    ),
    (
        "between-chunks",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
    ),
    (
        "in-a-chunk",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\na\r\nabc",
    ),
];

/// The requests to an upstream that aborts.
fn requests(orders: &str) -> [(&'static str, String); 3] {
    let path = format!("{SESSION}?{orders}");
    let head = format!("PATCH {path} HTTP/1.1\r\nHost: a\r\nContent-Length");
    [
        ("GET", get(&format!("{BLOB}?{orders}"))),
        ("PATCH", format!("{head}: 4\r\n\r\nsome")),
        // The client has not sent the rest of this body yet.
        ("PATCH", format!("{head}: 1000\r\n\r\nsome")),
    ]
}

#[tokio::test]
async fn an_upstream_abort_at_any_phase_is_502_or_a_cut_response() -> Result<()> {
    let mut scene = Scene::of(obedient).await?;
    warm(&scene).await?;
    let before = scene.holdings()?;
    for (phase, said) in BROKEN {
        for ending in ["end", "reset"] {
            for (method, request) in requests(&format!("break&{phase}-{ending}")) {
                let case = format!("{phase}, {ending}, {request:?}");
                let all = scene.ended(None).await?;
                let broken = scene.ended(Some("502")).await?;
                let mut client = scene.client().await?;
                client.send(request.as_bytes()).await?;
                // A reset may overtake the bytes sent before it, also those already forwarded.
                let may_begin = said.contains("\r\n\r\n") && !said.contains("100 Continue");
                let must_begin = may_begin && ending == "end";
                let head = client.head().await;
                let status = head.as_ref().map_or(200, |head| head.status);
                if status == 200 {
                    ensure!(may_begin, "{case}: the response has not begun");
                    ensure!(head.is_ok() || !must_begin, "{case}: {head:?}");
                    let chunked = head.is_ok_and(|head| head.header("transfer-encoding").is_some());
                    ensure!(
                        !is_whole(&mut client, chunked).await,
                        "{case}: the body is complete"
                    );
                } else {
                    ensure!(!must_begin, "{case}: {status}");
                    assert_eq!(status, 502, "{case}");
                    let head = head?;
                    let length = head.header("content-length").context("no length")?;
                    let body = client.exactly(length.parse()?).await?;
                    let body = String::from_utf8(body)?;
                    ensure!(body.contains("\"UNAVAILABLE\""), "{case}: {body}");
                }
                let counted = if status == 502 { broken + 1.0 } else { broken };
                let requests = metric("octoserve_http_requests_total");
                let shown = requests.clone().value(all + 1.0);
                shown.assert_in(&scene.server).await.context(case.clone())?;
                let now = scene.ended(Some("502")).await?;
                ensure!((now - counted).abs() < 0.5, "{case}: {method} {status}");
            }
        }
    }
    // None of these is the client's fault.
    let left = scene.ended(Some("499")).await? + scene.ended(Some("408")).await?;
    ensure!(left == 0.0, "{left} are blamed on clients");
    after(&mut scene, &before).await
}

#[tokio::test]
async fn a_response_that_aborts_in_its_body_arrives_up_to_the_abort() -> Result<()> {
    let scene = Scene::of(obedient).await?;
    // The race does not occur at every attempt.
    for _ in 0..50 {
        let mut client = scene.client().await?;
        let request = get(&format!("{BLOB}?break&in-the-body-end"));
        client.send(request.as_bytes()).await?;
        assert_eq!(client.head().await?.status, 200);
        assert_eq!(client.exactly(4).await?, b"some");
        ensure!(client.exactly(1).await.is_err(), "unexpected bytes follow");
    }
    Ok(())
}

/// Whether a body of a thousand bytes, or a chunked one, arrives complete.
async fn is_whole(client: &mut Wire, chunked: bool) -> bool {
    if !chunked {
        return client.exactly(1000).await.is_ok();
    }
    loop {
        match client.chunk().await {
            Ok(chunk) if chunk.is_empty() => return true,
            Ok(_) => {}
            Err(_) => return false,
        }
    }
}

/// How a client disconnects.
#[derive(Clone, Copy, Debug)]
enum Leaving {
    /// It closes only its sending half.
    Half,
    Closing,
    Resetting,
}

#[tokio::test]
async fn a_client_abort_at_any_phase_is_counted_and_leaves_nothing_in_flight() -> Result<()> {
    let mut scene = Scene::of(obedient).await?;
    warm(&scene).await?;
    let before = scene.holdings()?;
    let unseen = ["", "GET /v2/ HT", "GET /v2/ HTTP/1.1\r\nHost: a\r\nX: "];
    for leaving in [Leaving::Half, Leaving::Closing, Leaving::Resetting] {
        let all = scene.ended(None).await?;
        for request in unseen {
            leave(scene.raw(request).await?, leaving).await?;
        }
        let body = format!("the body of one {leaving:?}");
        let waits = format!("?wait&{leaving:?}");
        let pours = format!("?pour&{leaving:?}");
        for (request, heard, status) in [
            (
                upload(1000, &body).replace(SESSION, &format!("{SESSION}{waits}")),
                &body,
                "499",
            ),
            (
                get(&format!("{BLOB}{waits}")),
                &format!("{BLOB}{waits}"),
                "499",
            ),
            (get(&format!("{BLOB}{pours}")), &pours, "200"),
        ] {
            let ended = scene.ended(Some(status)).await?;
            let client = scene.raw(&request).await?;
            scene.heard(heard).await?;
            if status == "200" {
                client.readable().await?;
            }
            leave(client, leaving).await?;
            let requests = metric("octoserve_http_requests_total").label("status", status);
            let shown = requests.value(ended + 1.0).assert_in(&scene.server).await;
            shown.context(request)?;
        }
        scene.nothing_in_flight().await?;
        let now = scene.ended(None).await?;
        ensure!((now - all - 3.0).abs() < 0.5, "{leaving:?}: {now}, {all}");
    }
    let log = scene.server.process().output(OutputStream::Stderr)?;
    ensure!(!log.contains("upstream failed"), "{log}");
    after(&mut scene, &before).await
}

/// Disconnects, and waits for the end of the connection if the client still can.
async fn leave(mut client: TcpStream, leaving: Leaving) -> Result<()> {
    match leaving {
        Leaving::Half => {
            client.shutdown().await?;
            // The rest of the response is read until the connection ends in any way.
            let mut sink = tokio::io::sink();
            let ended = tokio::io::copy(&mut client, &mut sink);
            tokio::time::timeout(DEADLINE, ended).await?.ok();
        }
        Leaving::Closing => {}
        Leaving::Resetting => client.set_zero_linger()?,
    }
    Ok(())
}

/// The first requests allocate memory that stays, which belongs to the start.
async fn warm(scene: &Scene) -> Result<()> {
    for _ in 0..3 {
        let request = wire::request("GET", "/v2/", &[], b"");
        let response = wire::exchange(scene.address(), "GET", &request).await?;
        ensure!(response.head.status == 200);
    }
    scene.nothing_in_flight().await
}

/// The proxy holds no more than before, and serves requests.
async fn after(scene: &mut Scene, before: &Holdings) -> Result<()> {
    scene.nothing_in_flight().await?;
    warm(scene).await?;
    before.regained(&mut scene.server).await
}

/// Responses that are not HTTP.
const NONSENSE: &[&str] = &[
    "220 welcome to this mail server\r\n\r\n",
    "\0\0\0\x04\0\0\0\0\0",
    "HTTP/2.0 200 OK\r\n\r\n",
    "HTTP/1.1 abc OK\r\n\r\n",
    "HTTP/1.1 20 OK\r\n\r\n",
    "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
    "HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nabc",
    "HTTP/1.1 200 OK\r\nContent-Length: 1, 2\r\n\r\nabc",
    "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nabc",
];

#[tokio::test]
async fn an_upstream_that_sends_garbage_is_502_and_the_next_request_is_served() -> Result<()> {
    let scene = Scene::of(|mut caller: Caller| async move {
        loop {
            let head = caller.head().await?;
            match head.split_once("?n=").and_then(|(_, n)| n.split_once(' ')) {
                Some((number, _)) => caller.send(NONSENSE[number.parse::<usize>()?]).await?,
                None => caller.send(OK).await?,
            }
            if head.contains("?n=") {
                return caller.closed().await;
            }
        }
    });
    let scene = scene.await?;
    for (number, nonsense) in NONSENSE.iter().enumerate() {
        let path = format!("{BLOB}?n={number}");
        let request = wire::request("GET", &path, &[], b"");
        let response = wire::exchange(scene.address(), "GET", &request).await;
        let response = response.with_context(|| format!("{nonsense:?}"))?;
        assert_eq!(response.head.status, 502, "{nonsense:?}");
        assert_eq!(response.error_code().as_deref(), Some("UNAVAILABLE"));
        warm(&scene).await?;
    }
    let broken = metric("octoserve_http_requests_total").label("status", "502");
    let count = u32::try_from(NONSENSE.len())?;
    broken.value(count).assert_in(&scene.server).await
}

#[tokio::test]
async fn an_endless_response_head_is_aborted_in_bounded_memory() -> Result<()> {
    let mut scene = Scene::of(|mut caller: Caller| async move {
        let head = caller.head().await?;
        if !head.contains("?endless") {
            return caller.send(OK).await;
        }
        caller.send("HTTP/1.1 200 OK\r\n").await?;
        let line = format!("X-Line: {}\r\n", "x".repeat(8000));
        for _ in 0..LENGTH / line.len() {
            caller.send(&line).await?;
        }
        caller.closed().await
    })
    .await?;
    warm(&scene).await?;
    let before = scene.holdings()?;
    let path = format!("{BLOB}?endless");
    let request = wire::request("GET", &path, &[], b"");
    let response = wire::exchange(scene.address(), "GET", &request).await?;
    assert_eq!(response.head.status, 502);
    assert_eq!(response.error_code().as_deref(), Some("UNAVAILABLE"));
    after(&mut scene, &before).await
}

#[tokio::test]
async fn bytes_after_a_response_are_not_taken_for_the_next_response() -> Result<()> {
    let scene = Scene::of(|mut caller: Caller| async move {
        caller.head().await?;
        let stray = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nstray";
        caller.send(format!("{OK}{stray}")).await?;
        caller.closed().await
    })
    .await?;
    let mut client = scene.client().await?;
    for _ in 0..5 {
        client.send(get("/v2/").as_bytes()).await?;
        assert_eq!(client.response("GET").await?.body, b"ok");
    }
    Ok(())
}

#[tokio::test]
async fn a_body_with_a_bad_chunk_is_cut_and_never_looks_whole() -> Result<()> {
    for chunks in [
        "3\r\nabc\r\nzz\r\nabc\r\n0\r\n\r\n",
        "3\r\nabcd\r\n0\r\n\r\n",
        "-3\r\nabc\r\n0\r\n\r\n",
        "ffffffffffffffffff\r\nabc",
    ] {
        let scene = Scene::of(move |mut caller: Caller| async move {
            caller.head().await?;
            let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
            caller.send(format!("{head}{chunks}")).await?;
            caller.closed().await
        })
        .await?;
        let mut client = scene.client().await?;
        client.send(get(BLOB).as_bytes()).await?;
        let response = client.response("GET").await;
        let whole = response
            .as_ref()
            .is_ok_and(|response| response.head.status == 200);
        ensure!(!whole, "{chunks:?} is complete: {response:?}");
        let all = metric("octoserve_http_requests_total").value(1);
        all.assert_in(&scene.server).await?;
        scene.nothing_in_flight().await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_refusal_by_the_proxy_reaches_a_client_that_is_still_sending() -> Result<()> {
    // Nobody listens on the discard port.
    let server = Launch::in_front_of("http://127.0.0.1:9").start().await?;
    let head = format!("PATCH {SESSION} HTTP/1.1\r\nHost: a\r\nContent-Length: {LENGTH}\r\n\r\n");
    for _ in 0..5 {
        let mut client = Wire::connect(server.address()).await?;
        client.send(head.as_bytes()).await?;
        let piece = vec![b'x'; 1 << 20];
        // Like a client that reads the response only after sending fails.
        for _ in 0..LENGTH / piece.len() {
            if client.send(&piece).await.is_err() {
                break;
            }
        }
        let response = client.response("PATCH").await?;
        assert_eq!(response.head.status, 502);
        assert_eq!(response.error_code().as_deref(), Some("UNAVAILABLE"));
    }
    Ok(())
}

/// docker-registry behind the proxy, with one blob larger than all socket buffers in between.
async fn registry_with_a_blob() -> Result<(ForeignRegistry, Server, Client, String)> {
    let registry = ForeignRegistry::start().await?;
    let server = Launch::in_front_of(&registry.url()).start().await?;
    let client = Client::new(&server.url(""))?;
    let bytes = content::bytes(31, LENGTH as u64);
    let digest = client.push_blob("team/app", &bytes).await?;
    let path = format!("/v2/team/app/blobs/{digest}");
    Ok((registry, server, client, path))
}

#[tokio::test]
async fn a_killed_registry_cuts_requests_in_flight_and_is_used_again_after_its_restart()
-> Result<()> {
    let (mut registry, mut server, client, path) = registry_with_a_blob().await?;
    let before = Holdings::of(&mut server)?;
    let mut download = Wire::connect(server.address()).await?;
    download.send(get(&path).as_bytes()).await?;
    ensure!(download.head().await?.status == 200);
    let location = client.open_upload("team/app").await?;
    let location = location.trim_start_matches(&server.url(""));
    let whole = wire::request("PATCH", location, &[], &content::bytes(32, 1 << 20));
    let mut upload = Wire::connect(server.address()).await?;
    upload.send(&whole[..whole.len() / 2]).await?;
    let in_flight = metric("octoserve_http_requests_in_flight");
    in_flight.value(2).assert_in(&server).await?;

    registry.process().kill()?;
    let response = upload.response("PATCH").await?;
    assert_eq!(response.head.status, 502);
    assert_eq!(response.error_code().as_deref(), Some("UNAVAILABLE"));
    ensure!(download.exactly(LENGTH).await.is_err(), "it is whole");
    for (endpoint, method, status) in [("upload_session", "PATCH", "502"), ("blob", "GET", "200")] {
        let requests = metric("octoserve_http_requests_total").label("endpoint", endpoint);
        let requests = requests.label("method", method).label("status", status);
        requests.value(1).assert_in(&server).await?;
    }
    let in_flight = metric("octoserve_http_requests_in_flight");
    in_flight.value(0).assert_in(&server).await?;
    drop((upload, download));

    // A request that cannot be retried does not use a connection that the old process closed.
    for _ in 0..3 {
        registry.restart().await?;
        client.open_upload("team/app").await?;
        client.push_image("team/app", "1", &[1]).await?;
        client.pull_image("team/app", "1").await?;
        registry.process().kill()?;
    }
    drop(client);
    before.regained(&mut server).await
}

#[tokio::test]
async fn a_request_to_a_frozen_registry_completes_when_it_thaws() -> Result<()> {
    let (mut registry, server, client, path) = registry_with_a_blob().await?;
    let mut download = Wire::connect(server.address()).await?;
    download.send(get(&path).as_bytes()).await?;
    ensure!(download.head().await?.status == 200);
    let mut received = download.exactly(1000).await?;

    registry.process().freeze().await?;
    // One client disconnects while the registry is frozen; others wait, and new ones arrive.
    let leaver = {
        let mut wire = Wire::connect(server.address()).await?;
        wire.send(get("/v2/team/app/tags/list").as_bytes()).await?;
        wire
    };
    let base = tokio::spawn(async move { client.read("/v2/").await });
    let in_flight = metric("octoserve_http_requests_in_flight");
    in_flight.clone().value(3).assert_in(&server).await?;
    drop(leaver);
    let left = metric("octoserve_http_requests_total").label("status", "499");
    left.value(1).assert_in(&server).await?;
    ensure!(!base.is_finished(), "a frozen registry has responded");

    registry.process().signal(Signal::CONT)?;
    base.await??;
    received.extend(download.exactly(LENGTH - 1000).await?);
    ensure!(received == content::bytes(31, LENGTH as u64), "other bytes");
    in_flight.value(0).assert_in(&server).await
}

#[tokio::test]
async fn a_post_after_the_upstreams_restart_uses_a_new_connection() -> Result<()> {
    let script = |mut caller: Caller| async move {
        loop {
            caller.head().await?;
            caller.send(OK).await?;
        }
    };
    let upstream = Scripted::start(script).await?;
    let address = upstream.address();
    let server = Launch::in_front_of(&upstream.url()).start().await?;
    let mut upstream = Some(upstream);
    let mut client = Wire::connect(server.address()).await?;
    let post = "POST /v2/a/blobs/uploads/ HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n";
    for _ in 0..20 {
        client.send(post.as_bytes()).await?;
        ensure!(client.response("POST").await?.head.status == 200);
        // This also closes the connections that the proxy keeps in its pool.
        drop(upstream.take());
        upstream = Some(Scripted::listening(&address.to_string(), script).await?);
    }
    let requests = metric("octoserve_http_requests_total").label("status", "200");
    requests.value(20).assert_in(&server).await
}

#[tokio::test]
async fn without_free_descriptors_requests_are_503_or_wait() -> Result<()> {
    let upstream = Scripted::start(|mut caller: Caller| async move {
        caller.head().await?;
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close";
        caller.send(format!("{head}\r\n\r\nok")).await
    });
    let upstream = upstream.await?;
    let mut server = Launch::in_front_of(&upstream.url()).start().await?;
    let plenty = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let plenty = plenty.current.context("no limit")?;
    let mut known = Wire::connect(server.address()).await?;
    known.send(get("/v2/").as_bytes()).await?;
    ensure!(known.response("GET").await?.head.status == 200);

    // All lower descriptor numbers are in use.
    server.process().limit_descriptors(4)?;
    let mut waiting = Wire::connect(server.address()).await?;
    waiting.send(get("/v2/").as_bytes()).await?;
    let post = "POST /v2/ HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n";
    known.send(post.as_bytes()).await?;
    let response = known.response("POST").await?;
    assert_eq!(response.head.status, 503);
    assert_eq!(response.error_code().as_deref(), Some("UNAVAILABLE"));
    server.process().limit_descriptors(plenty)?;
    ensure!(waiting.response("GET").await?.head.status == 200);
    for (status, count) in [("503", 1), ("200", 2)] {
        let requests = metric("octoserve_http_requests_total").label("status", status);
        requests.value(count).assert_in(&server).await?;
    }
    let in_flight = metric("octoserve_http_requests_in_flight");
    in_flight.value(0).assert_in(&server).await
}

#[tokio::test]
async fn without_free_descriptors_the_embedded_registry_refuses_and_recovers() -> Result<()> {
    let mut server = Launch::all_in_one().start().await?;
    let plenty = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let plenty = plenty.current.context("no limit")?;
    let client = Client::new(&server.url(""))?;
    let pushed = client.push_image("team/app", "1", &[1]).await?;
    let blob = format!("/v2/team/app/blobs/{}", pushed.layers[0]);
    let mut known = Wire::connect(server.address()).await?;
    known.send(get(&blob).as_bytes()).await?;
    ensure!(known.response("GET").await?.head.status == 200);

    server.process().limit_descriptors(4)?;
    known.send(get(&blob).as_bytes()).await?;
    let response = known.response("GET").await?;
    ensure!(
        matches!(response.head.status, 500 | 503),
        "{}",
        response.head.status
    );
    ensure!(response.error_code().is_some(), "{:?}", response.body);

    server.process().limit_descriptors(plenty)?;
    client.pull_image("team/app", "1").await?;
    let in_flight = metric("octoserve_http_requests_in_flight");
    in_flight.value(0).assert_in(&server).await
}
