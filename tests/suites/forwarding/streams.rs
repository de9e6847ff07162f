//! The streams of HTTP/2: their windows, their memory, and the end of their connection.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::frames::{Frames, Outcome};
use harness::h2::H2;
use harness::octoserve::{Launch, Server};
use harness::poll;
use harness::process::{OutputStream, Signal};
use harness::scrape::metric;
use harness::scripted::{Caller, Scripted};
use harness::wire;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Notify;
use tokio::time::timeout;

use super::departures::stalled;
use super::{OK, SOON, nothing_in_flight, polite};
use crate::scene::{BLOB, DEADLINE, Holdings, SESSION, Scene};
use crate::stalls::{self, ALONE};

/// As much as the window of a stream.
static LARGE: [u8; 8 << 20] = [b'x'; 8 << 20];

/// The uploads that one connection resets.
const UPLOADS: usize = 16;

/// The bound of the memory of a stream that is not read.
const EACH: u64 = 300 << 10;

/// Reads a request whole and responds, or only its head.
async fn deaf_if_told(mut caller: Caller) -> Result<()> {
    loop {
        let head = caller.head().await?.to_ascii_lowercase();
        if head.contains("?deaf") {
            return std::future::pending().await;
        }
        if head.contains("content-length: 1048576") {
            caller.exactly(1 << 20).await?;
        }
        caller.send(OK).await?;
    }
}

#[tokio::test]
async fn a_reset_upload_gives_its_window_back() -> Result<()> {
    let scene = Scene::before(Scripted::start(deaf_if_told).await?, "10m").await?;
    let mut client = H2::connect(scene.address(), false).await?;
    let left = metric("octoserve_http_requests_total").label("status", "499");
    for number in 1..=UPLOADS {
        let path = format!("{SESSION}?deaf");
        let mut stream = client.send("PATCH", &path, &[], false).await?;
        stream.push(&LARGE, false)?;
        poll::until("the upstream has the upload", DEADLINE, async || {
            Ok((scene.upstream.heard().len() == number).then_some(()))
        })
        .await?;
        stalled(&scene).await?;
        stream.cancel();
        let left = left.clone().value(u32::try_from(number)?);
        left.assert_in(&scene.server).await?;
    }
    scene.nothing_in_flight().await?;
    for _ in 0..2 {
        let headers = [("content-length", "1048576")];
        let mut stream = client.send("PUT", SESSION, &headers, false).await?;
        stream.push(&LARGE[..1 << 20], true)?;
        let response = stream.response().await?;
        assert_eq!(response.status, 200);
        assert_eq!(response.read().await?, b"ok");
    }
    let all = metric("octoserve_http_requests_total");
    let all = all.value(u32::try_from(UPLOADS)? + 2);
    all.assert_in(&scene.server).await?;
    scene.nothing_in_flight().await
}

#[tokio::test]
async fn uploads_of_a_closed_connection_leave_nothing() -> Result<()> {
    for reset in [false, true] {
        let mut scene = Scene::before(Scripted::start(deaf_if_told).await?, "10m").await?;
        let mut warm = H2::connect(scene.address(), false).await?;
        let response = warm.send("GET", "/v2/", &[], true).await?;
        assert_eq!(response.response().await?.status, 200);
        drop(warm);
        scene.nothing_in_flight().await?;
        let before = scene.holdings()?;
        let mut clients = Vec::new();
        for _ in 0..4 {
            let mut client = H2::connect(scene.address(), reset).await?;
            let mut streams = Vec::new();
            for _ in 0..8 {
                let path = format!("{SESSION}?deaf");
                let mut stream = client.send("PATCH", &path, &[], false).await?;
                stream.push(&LARGE, false)?;
                streams.push(stream);
            }
            clients.push((client, streams));
        }
        let in_flight = metric("octoserve_http_requests_in_flight");
        in_flight.value(32).assert_in(&scene.server).await?;
        stalled(&scene).await?;
        drop(clients);
        let left = metric("octoserve_http_requests_total").label("status", "499");
        left.value(32).assert_in(&scene.server).await?;
        scene.nothing_in_flight().await?;
        // The scrape's own.
        let open = metric("octoserve_connections_active");
        open.value(1).assert_in(&scene.server).await?;
        before.regained(&mut scene.server).await?;
    }
    Ok(())
}

#[tokio::test]
async fn streams_that_are_never_read_use_bounded_memory_and_leave_nothing() -> Result<()> {
    const CONNECTIONS: u32 = 10;
    const STREAMS: u32 = 50;
    let _alone = ALONE.lock().await;
    let (mut server, _upstream) = stalls::stage().await?;
    let before = Holdings::of(&mut server)?;
    let resident = server.process().memory()?.resident;
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut client = Frames::over(stalls::client(&server).await?).await?;
        for _ in 0..STREAMS {
            client.get(BLOB).await?;
        }
        clients.push(client);
    }
    let all = CONNECTIONS * STREAMS;
    let sent = "octoserve_http_response_body_bytes_total";
    stalls::settled(&server, all, sent).await?;
    let now = server.process().memory()?.resident;
    let each = now.saturating_sub(resident) / u64::from(all);
    harness::report(&format!(
        "{all} HTTP/2 streams that are never read: {} KiB each",
        each >> 10
    ));
    ensure!(each < EACH, "{each} bytes each");
    stalls::serves(&server).await?;
    drop(clients);
    stalls::over(&mut server, &before).await
}

#[tokio::test]
async fn the_metrics_listener_responds_whatever_descriptors_stalled_streams_use() -> Result<()> {
    let _alone = ALONE.lock().await;
    let upstream = Scripted::start(|mut caller: Caller| async move {
        caller.head().await?;
        let length = 256 << 20;
        caller
            .send(format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n"
            ))
            .await?;
        while caller.send(&LARGE[..64 << 10]).await.is_ok() {}
        Ok(())
    });
    let upstream = upstream.await?;
    let limited = ["sh", "-c", "ulimit -n 256; exec \"$0\" \"$@\""];
    let mut server = Launch::in_front_of(&upstream.url())
        .under(limited.map(Into::into).to_vec())
        .metrics_listener()
        .environment("OCTOSERVE_LIMITS_BODY_STALL", "10m")
        .start()
        .await?;
    let mut clients = Vec::new();
    for _ in 0..12 {
        // The kernel accepts it, even if the proxy does not any more.
        let Ok(mut client) = Frames::connect(server.address()).await else {
            continue;
        };
        for _ in 0..100 {
            // The proxy may close it.
            if client.get(BLOB).await.is_err() {
                break;
            }
        }
        clients.push(client);
    }
    let mut most = 0;
    let (mut last, mut same) = (0, 0);
    poll::until("no more descriptors are opened", DEADLINE, async || {
        let now = server.process().descriptors()?;
        most = most.max(now);
        same = if now == last { same + 1 } else { 0 };
        last = now;
        Ok((same == 30).then_some(()))
    })
    .await?;
    harness::report(&format!(
        "{} connections of 100 streams: {most} of 256 descriptors",
        clients.len()
    ));
    for path in ["/livez", "/metrics", "/livez", "/metrics"] {
        let request = wire::request("GET", path, &[], b"");
        let asked = wire::exchange(server.metrics_address(), "GET", &request);
        let response = timeout(SOON, asked).await.context(path)??;
        assert_eq!(response.head.status, 200, "{path}");
    }
    let scrape = server.scrape().await?;
    let in_flight = scrape.sum(&metric("octoserve_http_requests_in_flight"));
    ensure!(in_flight > Some(50.0), "{in_flight:?} in flight");
    drop(clients);
    let in_flight = metric("octoserve_http_requests_in_flight");
    in_flight.value(0).assert_in(&server).await
}

/// In front of this upstream, with a limit for requests in flight at the shutdown which no test
/// waits for.
async fn draining_for_long(upstream: &Scripted) -> Result<Server> {
    Launch::in_front_of(&upstream.url())
        .environment("OCTOSERVE_LIMITS_DRAIN", "10m")
        .start()
        .await
}

#[tokio::test]
async fn an_idle_connection_that_ignores_goaway_does_not_delay_the_exit() -> Result<()> {
    let upstream = Scripted::start(polite).await?;
    for requests in [0, 1] {
        let mut server = draining_for_long(&upstream).await?;
        let mut client = Frames::connect(server.address()).await?;
        client.settings().await?;
        for _ in 0..requests {
            let stream = client.get(BLOB).await?;
            assert_eq!(client.response(stream).await?, Outcome::Status(200));
        }
        nothing_in_flight(&server).await?;
        let open = metric("octoserve_connections_active");
        // The scrape has one, too.
        open.value(2).assert_in(&server).await?;
        let status = server.terminate(SOON).await?;
        assert_eq!(status.code(), Some(0));
        drop(client);
    }
    Ok(())
}

/// What fits into the buffers of a socket.
const IN_THE_KERNEL: usize = 512 << 10;

#[tokio::test]
async fn a_client_that_lags_gets_the_rest_of_its_response_at_a_shutdown() -> Result<()> {
    let upstream = Scripted::start(|mut caller: Caller| async move {
        caller.head().await?;
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {IN_THE_KERNEL}\r\n\r\n");
        caller.send(head).await?;
        caller.send(&LARGE[..IN_THE_KERNEL]).await?;
        caller.closed().await
    });
    let upstream = upstream.await?;
    let mut server = draining_for_long(&upstream).await?;
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(16 << 10)?;
    let mut client = Frames::over(socket.connect(server.address()).await?).await?;
    client.settings().await?;
    let stream = client.get(BLOB).await?;
    // The proxy has nothing left of it.
    let requests = metric("octoserve_http_requests_total");
    requests.value(1).assert_in(&server).await?;
    server.process().signal(Signal::TERM)?;
    let mut goodbye = String::new();
    poll::until("the shutdown has begun", DEADLINE, async || {
        goodbye = server.process().output(OutputStream::Stderr)?;
        Ok(goodbye.contains("draining").then_some(()))
    })
    .await?;
    // Longer than the proxy waits for a client that says nothing.
    let read = client.body(stream, Duration::from_millis(100)).await?;
    assert_eq!(read, IN_THE_KERNEL);
    drop(client);
    assert_eq!(server.process().exited(SOON).await?.code(), Some(0));
    Ok(())
}

#[tokio::test]
async fn a_shutdown_waits_for_streams_and_not_for_their_connection() -> Result<()> {
    let go_on = Arc::new(Notify::new());
    let notified = Arc::clone(&go_on);
    let upstream = Scripted::start(move |mut caller: Caller| {
        let go_on = Arc::clone(&notified);
        async move {
            caller.head().await?;
            go_on.notified().await;
            caller.send(OK).await?;
            caller.closed().await
        }
    })
    .await?;
    let mut server = draining_for_long(&upstream).await?;
    let mut client = Frames::connect(server.address()).await?;
    let stream = client.get(BLOB).await?;
    let in_flight = metric("octoserve_http_requests_in_flight");
    in_flight.value(1).assert_in(&server).await?;
    server.process().signal(Signal::TERM)?;
    let address = server.address();
    poll::until("new connections are refused", DEADLINE, async || {
        Ok(TcpStream::connect(address).await.is_err().then_some(()))
    })
    .await?;
    ensure!(
        server.process().is_running()?,
        "it did not wait for the stream"
    );
    go_on.notify_one();
    assert_eq!(client.response(stream).await?, Outcome::Status(200));
    let status = server.process().exited(SOON).await?;
    assert_eq!(status.code(), Some(0));
    Ok(())
}
