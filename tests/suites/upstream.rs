//! Metrics of the upstream and of connections, fault by fault: each fault is counted once, by
//! reason and under the upstream's name, and nothing else is.

use anyhow::{Result, ensure};
use harness::client::Client;
use harness::octoserve::{Launch, Server};
use harness::scrape::{Metric, Scrape, metric};
use harness::scripted::Caller;
use harness::wire::{self, Wire};

use crate::scene::{BLOB, Scene, get, response, sulk, upload};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn errors(reason: &str) -> Metric {
    of("octoserve_upstream_errors_total").label("reason", reason)
}

/// The requests sent to the upstream with this outcome.
fn outcome(outcome: &str) -> Metric {
    of("octoserve_upstream_request_duration_seconds_count").label("outcome", outcome)
}

fn of(name: &str) -> Metric {
    metric(name).label("upstream", "main")
}

fn connected() -> Metric {
    of("octoserve_upstream_connect_duration_seconds_count")
}

fn reused() -> Metric {
    of("octoserve_upstream_connections_reused_total")
}

/// Waits until the upstream has failed this many times, only for this reason, and checks the
/// outcomes of the requests sent to it: ok, error and timeout.
async fn failed(server: &Server, reason: &str, times: u32, sent: [u32; 3]) -> Result<()> {
    errors(reason).value(times).assert_in(server).await?;
    let scrape = server.scrape().await?;
    let all = metric("octoserve_upstream_errors_total");
    all.value(times).assert(&scrape)?;
    came_to(&scrape, sent)
}

/// Checks the outcomes of requests: ok, error and timeout.
fn came_to(scrape: &Scrape, sent: [u32; 3]) -> Result<()> {
    for (name, expected) in ["ok", "error", "timeout"].into_iter().zip(sent) {
        let seen = scrape.sum(&outcome(name)).unwrap_or_default();
        ensure!(
            (seen - f64::from(expected)).abs() < 0.5,
            "{name}: {seen}, not {expected}"
        );
    }
    Ok(())
}

async fn status(server: &Server, request: &str) -> Result<u16> {
    let method = request.split(' ').next().unwrap_or_default();
    let response = wire::exchange(server.address(), method, request.as_bytes()).await?;
    Ok(response.head.status)
}

#[tokio::test]
async fn each_refused_connection_is_a_connect_error() -> Result<()> {
    // No one listens on the discard port, which only root can bind.
    let server = Launch::in_front_of("http://127.0.0.1:9").start().await?;
    assert_eq!(status(&server, &get("/v2/")).await?, 502);
    failed(&server, "connect", 2, [0; 3]).await?;
    let scrape = server.scrape().await?;
    reused().value(0).assert(&scrape)?;
    ensure!(scrape.sum(&connected()).is_none(), "a connection was made");
    Ok(())
}

#[tokio::test]
async fn an_upstream_name_without_an_address_is_a_dns_error() -> Result<()> {
    let server = Launch::configured(
        "upstreams:\n- name: away\n  replicas: ['http://registry.invalid:5000']\n",
    );
    let server = server.start().await?;
    assert_eq!(status(&server, &get("/v2/")).await?, 502);
    let errors = metric("octoserve_upstream_errors_total");
    let away = errors.clone().label("upstream", "away");
    let dns = away.label("reason", "dns");
    dns.value(1).assert_in(&server).await?;
    let scrape = server.scrape().await?;
    errors.value(1).assert(&scrape)?;
    came_to(&scrape, [0; 3])?;
    let names = scrape.label_values().remove("upstream");
    assert_eq!(names.as_deref(), Some(&["away".to_owned()][..]));
    Ok(())
}

#[tokio::test]
async fn an_upstream_that_closes_instead_of_responding_is_a_reset() -> Result<()> {
    for reset in [false, true] {
        let scene = Scene::of(move |mut caller: Caller| async move {
            caller.until("some").await?;
            if reset {
                caller.reset()?;
            }
            Ok(())
        });
        let scene = scene.await?;
        assert_eq!(status(&scene.server, &upload(4, "some")).await?, 502);
        failed(&scene.server, "reset", 1, [0, 1, 0]).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_cut_response_body_is_a_reset_error_and_an_ok_request() -> Result<()> {
    let scene = Scene::of(|mut caller: Caller| async move {
        caller.head().await?;
        caller.send(response("200 OK", 1000, "some")).await
    });
    let scene = scene.await?;
    let mut client = scene.client().await?;
    client.send(get(BLOB).as_bytes()).await?;
    assert_eq!(client.head().await?.status, 200);
    ensure!(
        client.exactly(1000).await.is_err(),
        "a cut body looks complete"
    );
    failed(&scene.server, "reset", 1, [1, 0, 0]).await
}

#[tokio::test]
async fn a_response_that_is_not_http_is_a_protocol_error() -> Result<()> {
    let scene = Scene::of(|mut caller: Caller| async move {
        caller.head().await?;
        let nonsense = "220 welcome to this mail server\r\n\r\n";
        caller.send(nonsense).await?;
        caller.closed().await
    });
    let scene = scene.await?;
    assert_eq!(status(&scene.server, &get("/v2/")).await?, 502);
    failed(&scene.server, "protocol", 1, [0, 1, 0]).await
}

#[tokio::test]
async fn a_clients_failure_is_not_counted_as_the_upstreams() -> Result<()> {
    let scene = Scene::of(sulk).await?;
    // One client disconnects before the response, one stops sending, and one is refused.
    let leaver = scene.raw(&get(BLOB)).await?;
    scene.heard("\r\n\r\n").await?;
    drop(leaver);
    assert_eq!(status(&scene.server, &upload(1000, "some")).await?, 408);
    assert_eq!(
        status(&scene.server, "GET /v2/ HTTP/1.1\r\n\r\n").await?,
        400
    );
    let requests = metric("octoserve_http_requests_total");
    requests.value(3).assert_in(&scene.server).await?;
    failed(&scene.server, "reset", 0, [0; 3]).await
}

#[tokio::test]
async fn upstream_duration_ends_with_the_final_response_head() -> Result<()> {
    let scene = Scene::of(|mut caller: Caller| async move {
        caller.head().await?;
        caller.send("HTTP/1.1 103 Early Hints\r\n\r\n").await?;
        caller.exactly(4).await?;
        let head = "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 4\r\n\r\n";
        caller.send(head).await?;
        caller.exactly(4).await?;
        caller.send("none").await
    });
    let scene = scene.await?;
    let mut client = scene.client().await?;
    client.send(upload(8, "").as_bytes()).await?;
    assert_eq!(client.interim().await?.status, 103);
    came_to(&scene.server.scrape().await?, [0; 3])?;
    client.send(b"some").await?;
    assert_eq!(client.interim().await?.status, 500);
    // Neither body is complete yet.
    failed(&scene.server, "reset", 0, [1, 0, 0]).await?;
    client.send(b"more").await?;
    assert_eq!(client.exactly(4).await?, b"none");
    scene.counted("upload_session", "500").await?;
    came_to(&scene.server.scrape().await?, [1, 0, 0])
}

#[tokio::test]
async fn a_connection_is_opened_once_and_then_reused() -> Result<()> {
    let scene = Scene::of(|mut caller: Caller| async move {
        loop {
            let head = caller.head().await?;
            if head.contains("?last") {
                let head = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close";
                return caller.send(format!("{head}\r\n\r\nok")).await;
            }
            caller.send(OK).await?;
        }
    });
    let scene = scene.await?;
    let mut client = scene.client().await?;
    for (path, made, used_again) in [
        ("/v2/", 1, 0),
        ("/v2/", 1, 1),
        ("/v2/?last", 1, 2),
        ("/v2/", 2, 2),
        ("/v2/", 2, 3),
    ] {
        client.send(get(path).as_bytes()).await?;
        assert_eq!(client.response("GET").await?.body, b"ok");
        connected().value(made).assert_in(&scene.server).await?;
        reused().value(used_again).assert_in(&scene.server).await?;
    }
    failed(&scene.server, "reset", 0, [5, 0, 0]).await
}

#[tokio::test]
async fn the_embedded_registry_needs_no_connections() -> Result<()> {
    let server = Launch::all_in_one().start().await?;
    let client = Client::new(&server.url(""))?;
    client.push_image("team/app", "1", &[1, 2]).await?;
    client.pull_image("team/app", "1").await?;
    let named = |name: &str| metric(name).label("upstream", "registry");
    let scrape = server.scrape().await?;
    for name in [
        "octoserve_upstream_connect_duration_seconds_count",
        "octoserve_upstream_connections_reused_total",
    ] {
        let seen = scrape.sum(&named(name)).unwrap_or_default();
        ensure!(seen == 0.0, "{name}: {seen}");
    }
    let ok_requests =
        named("octoserve_upstream_request_duration_seconds_count").label("outcome", "ok");
    let requests = scrape.sum(&metric("octoserve_http_requests_total"));
    assert_eq!(scrape.sum(&ok_requests), requests);
    Ok(())
}

#[tokio::test]
async fn the_rate_limit_gauge_is_the_last_header_of_the_upstream() -> Result<()> {
    let scene = Scene::of(|mut caller: Caller| async move {
        loop {
            let head = caller.head().await?;
            let target = head.split(' ').nth(1).unwrap_or_default();
            let header = match target.split_once("?left=") {
                Some((_, left)) => format!("RateLimit-Remaining: {left}\r\n"),
                None => String::new(),
            };
            let head = format!("HTTP/1.1 200 OK\r\n{header}Content-Length: 0\r\n\r\n");
            caller.send(head).await?;
        }
    });
    let scene = scene.await?;
    for (path, left) in [
        ("/v2/", None),
        ("/v2/?left=76;w=21600", Some(76.0)),
        ("/v2/?left=75", Some(75.0)),
        ("/v2/", Some(75.0)),
        ("/v2/?left=0;w=21600", Some(0.0)),
        ("/v2/?left=100;w=21600", Some(100.0)),
    ] {
        assert_eq!(status(&scene.server, &get(path)).await?, 200);
        let gauge = of("octoserve_upstream_ratelimit_remaining");
        assert_eq!(scene.server.scrape().await?.sum(&gauge), left, "{path}");
    }
    Ok(())
}

fn rejected(reason: &str) -> Metric {
    metric("octoserve_connections_rejected_total").label("reason", reason)
}

#[tokio::test]
async fn connections_beyond_the_limit_are_counted_only_as_rejected() -> Result<()> {
    let server = Launch::all_in_one()
        .environment("OCTOSERVE_LIMITS_CONNECTIONS", "2")
        .metrics_listener()
        .start()
        .await?;
    let api = Client::new(&server.url(""))?;
    let location = api.open_upload("team/app").await?;
    let other = api.open_upload("team/app").await?;
    drop(api);
    let active = metric("octoserve_connections_active");
    let total = metric("octoserve_connections_total");
    active.clone().value(0).assert_in(&server).await?;
    let before = server.scrape().await?.sum(&total).unwrap_or_default();
    let mut clients = Vec::new();
    for location in [location, other] {
        let mut client = Wire::connect(server.address()).await?;
        let head = format!("PATCH {location} HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n");
        client.send(head.as_bytes()).await?;
        clients.push(client);
    }
    let in_flight = metric("octoserve_http_requests_in_flight");
    in_flight.value(2).assert_in(&server).await?;
    active.clone().value(2).assert_in(&server).await?;
    rejected("limit").value(0).assert_in(&server).await?;
    for refused in 1..=3 {
        let mut more = Wire::connect(server.address()).await?;
        ensure!(more.rest().await.unwrap_or_default().is_empty());
        rejected("limit").value(refused).assert_in(&server).await?;
    }
    let scrape = server.scrape().await?;
    rejected("timeout").value(0).assert(&scrape)?;
    active.clone().value(2).assert(&scrape)?;
    assert_eq!(scrape.sum(&total), Some(before + 2.0));
    for client in &mut clients {
        client.send(b"some").await?;
        ensure!(client.response("PATCH").await?.head.status == 202);
    }
    // The number of requests on a connection does not matter.
    for client in &mut clients {
        client.send(get("/v2/").as_bytes()).await?;
        ensure!(client.response("GET").await?.head.status == 200);
    }
    drop(clients);
    active.value(0).assert_in(&server).await?;
    assert_eq!(server.scrape().await?.sum(&total), Some(before + 2.0));
    Ok(())
}

#[tokio::test]
async fn a_header_timeout_is_a_rejected_connection_and_an_idle_timeout_is_not() -> Result<()> {
    let server = Launch::all_in_one()
        .environment("OCTOSERVE_LIMITS_HEADER_TIMEOUT", "1s")
        .environment("OCTOSERVE_LIMITS_IDLE_TIMEOUT", "1s")
        .metrics_listener()
        .start()
        .await?;
    let begun = "GET /v2/ HTTP/1.1\r\nHost: a\r\nX: ";
    for (is_served, sent, refused) in [
        (false, "", 1),
        (false, begun, 2),
        (true, "", 2),
        (true, begun, 3),
    ] {
        let mut client = Wire::connect(server.address()).await?;
        if is_served {
            client.send(get("/v2/").as_bytes()).await?;
            ensure!(client.response("GET").await?.head.status == 200);
        }
        client.send(sent.as_bytes()).await?;
        assert_eq!(client.rest().await?, b"", "{is_served} {sent:?}");
        let active = metric("octoserve_connections_active");
        active.value(0).assert_in(&server).await?;
        let scrape = server.scrape().await?;
        rejected("timeout").value(refused).assert(&scrape)?;
        rejected("limit").value(0).assert(&scrape)?;
    }
    let total = metric("octoserve_connections_total");
    total.value(4).assert_in(&server).await
}
