//! Several replicas of one upstream: how requests are spread over them, what happens when one fails,
//! how many requests wait, and how an upload session stays at the replica that opened it.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::client::Client;
use harness::content;
use harness::foreign::ForeignRegistry;
use harness::octoserve::{Launch, Server};
use harness::poll;
use harness::scrape::{Metric, metric};
use harness::scripted::{Caller, Scripted};
use harness::skopeo::Skopeo;
use harness::wire::{self, Wire};
use reqwest::Method;
use tempfile::TempDir;

use crate::scene::get;

const DEADLINE: Duration = Duration::from_secs(30);

/// The address of nobody: only root can bind the discard port.
const NOBODY: &str = "http://127.0.0.1:9";

const SESSION: &str = "/v2/team/app/blobs/uploads/1";

/// A configuration with these replicas and other keys of the upstream.
fn configuration(replicas: &[&str], keys: &str) -> String {
    let mut yaml = "upstreams:\n- name: main\n  replicas:\n".to_owned();
    for replica in replicas {
        let _ = writeln!(yaml, "  - {replica}");
    }
    yaml + keys
}

async fn proxy(replicas: &[&str], keys: &str) -> Result<Server> {
    Launch::configured(&configuration(replicas, keys))
        .start()
        .await
}

fn of(name: &str) -> Metric {
    metric(name).label("upstream", "main")
}

/// Waits until so many replicas are healthy.
async fn healthy(server: &Server, replicas: u32) -> Result<()> {
    let gauge = of("octoserve_upstream_replicas_healthy");
    poll::until("the replicas' health is known", DEADLINE, async || {
        let seen = server.scrape().await?.sum(&gauge);
        Ok((seen == Some(f64::from(replicas))).then_some(()))
    })
    .await
}

async fn ready(server: &Server, status: u16) -> Result<()> {
    poll::until("/readyz changes", DEADLINE, async || {
        let response = wire::exchange(server.address(), "GET", get("/readyz").as_bytes()).await?;
        Ok((response.head.status == status).then_some(()))
    })
    .await
}

/// Responds to every request with a text.
async fn say(mut caller: Caller, text: &'static str) -> Result<()> {
    loop {
        caller.head().await?;
        let length = text.len();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{text}");
        caller.send(head).await?;
    }
}

async fn named(name: &'static str) -> Result<Scripted> {
    Scripted::start(move |caller: Caller| say(caller, name)).await
}

/// Which replica responds to a request.
async fn asked(server: &Server, path: &str) -> Result<String> {
    let response = wire::exchange(server.address(), "GET", get(path).as_bytes()).await?;
    ensure!(response.head.status == 200, "{}", response.head.status);
    Ok(String::from_utf8(response.body)?)
}

#[tokio::test]
async fn round_robin_asks_each_replica_in_turn() -> Result<()> {
    let (a, b) = (named("a").await?, named("b").await?);
    let server = proxy(&[&a.url(), &b.url()], "  balance: round_robin\n").await?;
    healthy(&server, 2).await?;
    let mut order = String::new();
    for _ in 0..6 {
        order += &asked(&server, "/v2/").await?;
    }
    ensure!(order == "ababab" || order == "bababa", "{order}");
    Ok(())
}

#[tokio::test]
async fn least_connections_passes_over_a_replica_that_is_busy() -> Result<()> {
    let busy = Scripted::start(crate::scene::sulk).await?;
    let free = named("free").await?;
    let server = proxy(&[&busy.url(), &free.url()], "").await?;
    healthy(&server, 2).await?;
    // Until one is stuck at the busy replica.
    let mut stuck = Vec::new();
    while busy.heard().is_empty() {
        ensure!(stuck.len() < 20, "the busy replica is never asked");
        let mut client = Wire::connect(server.address()).await?;
        client.send(get("/v2/").as_bytes()).await?;
        let _ = tokio::time::timeout(Duration::from_millis(200), client.response("GET")).await;
        stuck.push(client);
    }
    for _ in 0..6 {
        assert_eq!(asked(&server, "/v2/").await?, "free");
    }
    assert_eq!(busy.heard().len(), 1);
    Ok(())
}

#[tokio::test]
async fn a_replica_that_cannot_be_connected_is_left_without_the_client_noticing() -> Result<()> {
    let there = named("there").await?;
    for balance in ["round_robin", "least_connections"] {
        let keys = format!("  balance: {balance}\n");
        let server = proxy(
            &[NOBODY, "http://registry.invalid:5000", &there.url()],
            &keys,
        )
        .await?;
        // Before and after the health is known.
        for _ in 0..6 {
            assert_eq!(asked(&server, "/v2/").await?, "there");
        }
        healthy(&server, 1).await?;
        let errors = of("octoserve_upstream_errors_total");
        let before = server.scrape().await?.sum(&errors);
        for _ in 0..6 {
            assert_eq!(asked(&server, "/v2/").await?, "there");
        }
        assert_eq!(
            server.scrape().await?.sum(&errors),
            before,
            "it is not tried"
        );
        let requests = metric("octoserve_http_requests_total").label("status", "200");
        requests.value(12).assert_in(&server).await?;
    }
    let server = proxy(&[NOBODY, "http://127.0.0.1:10"], "").await?;
    let response = wire::exchange(server.address(), "GET", get("/v2/").as_bytes()).await?;
    assert_eq!(response.head.status, 502);
    Ok(())
}

#[tokio::test]
async fn health_is_shown_by_metrics_readiness_and_log() -> Result<()> {
    let upstream = named("a").await?;
    let address = upstream.address().to_string();
    let mut server = proxy(&[&upstream.url(), NOBODY], "").await?;
    healthy(&server, 1).await?;
    ready(&server, 200).await?;
    let replicas = of("octoserve_upstream_replicas");
    replicas.value(2).assert_in(&server).await?;
    drop(upstream);
    healthy(&server, 0).await?;
    ready(&server, 503).await?;
    let _again = Scripted::listening(&address, |caller: Caller| say(caller, "again")).await?;
    healthy(&server, 1).await?;
    ready(&server, 200).await?;
    assert_eq!(asked(&server, "/v2/").await?, "again");
    let scrape = server.scrape().await?;
    ensure!(!scrape.text().contains(&address), "an address is a label");
    let log = server
        .process()
        .output(harness::process::OutputStream::Stderr)?;
    let url = format!("http://{address}");
    for (event, replica) in [
        ("upstream unhealthy", NOBODY),
        ("upstream unhealthy", url.as_str()),
        ("upstream healthy", url.as_str()),
    ] {
        let lines = log
            .lines()
            .filter(|line| line.contains(event) && line.contains(replica));
        assert_eq!(lines.count(), 1, "{event} {replica}:\n{log}");
    }
    Ok(())
}

#[tokio::test]
async fn requests_beyond_the_maximum_wait_and_beyond_the_queue_get_503() -> Result<()> {
    // Responds once it is told to, by the end of the body.
    let script = |mut caller: Caller| async move {
        loop {
            caller.head().await?;
            caller.exactly(1).await?;
            caller
                .send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                .await?;
        }
    };
    let (a, b) = (
        Scripted::start(script).await?,
        Scripted::start(script).await?,
    );
    let keys = "  max_connections: 1\n  queue: {length: 2, timeout: 30s}\n";
    let server = proxy(&[&a.url(), &b.url()], keys).await?;
    healthy(&server, 2).await?;
    let queue = of("octoserve_upstream_queue_length");
    queue.clone().value(0).assert_in(&server).await?;
    let begin = async || {
        let mut client = Wire::connect(server.address()).await?;
        let head = "PUT /v2/ HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n";
        client.send(head.as_bytes()).await?;
        anyhow::Ok(client)
    };
    let mut first = [begin().await?, begin().await?];
    poll::until("both are busy", DEADLINE, async || {
        Ok((a.heard().len() == 1 && b.heard().len() == 1).then_some(()))
    })
    .await?;
    let leaving = begin().await?;
    queue.clone().value(1).assert_in(&server).await?;
    let mut waiting = begin().await?;
    queue.clone().value(2).assert_in(&server).await?;
    let mut refused = begin().await?;
    let response = refused.response("PUT").await?;
    assert_eq!(response.head.status, 503);
    assert_eq!(response.head.header("retry-after"), Some("1"));
    assert_eq!(response.error_code().as_deref(), Some("UNAVAILABLE"));
    drop(leaving);
    queue.clone().value(1).assert_in(&server).await?;
    for client in &mut first {
        client.send(b"x").await?;
        assert_eq!(client.response("PUT").await?.head.status, 200);
    }
    waiting.send(b"x").await?;
    assert_eq!(waiting.response("PUT").await?.head.status, 200);
    queue.value(0).assert_in(&server).await?;
    let in_flight = metric("octoserve_http_requests_in_flight");
    in_flight.value(0).assert_in(&server).await
}

#[tokio::test]
async fn a_request_that_waits_too_long_gets_503() -> Result<()> {
    let upstream = Scripted::start(crate::scene::sulk).await?;
    let keys = "  max_connections: 1\n  queue: {length: 2, timeout: 1s}\n";
    let server = proxy(&[&upstream.url()], keys).await?;
    let mut first = Wire::connect(server.address()).await?;
    first.send(get("/v2/").as_bytes()).await?;
    poll::until("it is busy", DEADLINE, async || {
        Ok((upstream.heard().len() == 1).then_some(()))
    })
    .await?;
    let response = wire::exchange(server.address(), "GET", get("/v2/").as_bytes()).await?;
    assert_eq!(response.head.status, 503);
    assert_eq!(response.head.header("retry-after"), Some("1"));
    let queue = of("octoserve_upstream_queue_length");
    queue.value(0).assert_in(&server).await
}

fn key_in(directory: &Path, key: &str) -> Result<String> {
    let path = directory.join(key);
    std::fs::write(&path, key.repeat(32))?;
    Ok(format!("  session_key_file: {}\n", path.display()))
}

async fn status(client: &Client, method: Method, path: &str, body: &'static str) -> Result<u16> {
    Ok(client
        .send(method, path, &[], body)
        .await?
        .status()
        .as_u16())
}

/// Uploads a blob in chunks, with the status asked for between them. Each Location is followed as it
/// is, at each of the proxies in turn.
async fn upload_in_chunks(proxies: &[&Server], chunks: &[&'static str]) -> Result<()> {
    let mut proxies = proxies.iter().cycle();
    let mut next = || Client::new(&proxies.next().context("no proxy")?.url(""));
    let mut location = relative(&next()?.open_upload("team/app").await?)?;
    for chunk in chunks {
        let patched = next()?.send(Method::PATCH, &location, &[], *chunk).await?;
        ensure!(
            patched.status() == 202,
            "PATCH {location}: {}",
            patched.status()
        );
        location = relative(patched.headers()["location"].to_str()?)?;
        let asked = next()?.get(&location).await?;
        ensure!(asked.status() == 204, "GET {location}: {}", asked.status());
        location = relative(asked.headers()["location"].to_str()?)?;
    }
    let digest = content::digest(chunks.concat().as_bytes());
    let put = format!("{location}&digest={digest}");
    let put = status(&next()?, Method::PUT, &put, "").await?;
    ensure!(put == 201, "PUT {location}: {put}");
    Ok(())
}

/// What follows the proxy's own address.
fn relative(location: &str) -> Result<String> {
    let local = location.strip_prefix("http://").context("not absolute")?;
    let slash = local.find('/').context("no path")?;
    Ok(local[slash..].to_owned())
}

#[tokio::test]
async fn an_upload_session_stays_at_its_replica_whichever_proxy_gets_its_requests() -> Result<()> {
    // They share nothing.
    let (a, b) = (
        ForeignRegistry::start().await?,
        ForeignRegistry::start().await?,
    );
    let directory = TempDir::new()?;
    let keys = key_in(directory.path(), "k")? + "  balance: round_robin\n";
    let first = proxy(&[&a.url(), &b.url()], &keys).await?;
    let second = proxy(&[&b.url(), &a.url()], &keys).await?;
    for server in [&first, &second] {
        healthy(server, 2).await?;
    }
    for chunks in [
        &["some", "more"][..],
        &["one"],
        &["another"],
        &["1", "2", "3"],
    ] {
        upload_in_chunks(&[&first], chunks).await?;
        upload_in_chunks(&[&first, &second], chunks).await?;
    }
    // The table of sessions knows them without their tags.
    let sessions = |event: &str| metric("octoserve_upload_sessions_total").label("event", event);
    let scrape = first.scrape().await?;
    assert_eq!(scrape.sum(&sessions("started")), Some(8.0));
    let unknown = scrape.sum(&sessions("unknown")).unwrap_or_default();
    ensure!(unknown < 0.5, "{}", scrape.text());
    // Another key is a stranger's.
    let keys = key_in(directory.path(), "x")?;
    let stranger = proxy(&[&a.url(), &b.url()], &keys).await?;
    let opened = Client::new(&first.url(""))?.open_upload("team/app").await?;
    let location = relative(&opened)?;
    ensure!(
        !opened.contains(&a.url()) && !opened.contains(&b.url()),
        "{opened}"
    );
    let response = Client::new(&stranger.url(""))?.get(&location).await?;
    assert_eq!(response.status().as_u16(), 404);
    let body = response.text().await?;
    ensure!(body.contains("BLOB_UPLOAD_UNKNOWN"), "{body}");
    Ok(())
}

#[tokio::test]
async fn a_replica_that_drains_keeps_its_sessions_and_gets_nothing_else() -> Result<()> {
    let (a, b) = (
        ForeignRegistry::start().await?,
        ForeignRegistry::start().await?,
    );
    let directory = TempDir::new()?;
    let keys = key_in(directory.path(), "k")? + "  balance: round_robin\n";
    let before = proxy(&[&a.url(), &b.url()], &keys).await?;
    healthy(&before, 2).await?;
    let client = Client::new(&before.url(""))?;
    let mut locations = Vec::new();
    for _ in 0..4 {
        locations.push(relative(&client.open_upload("team/app").await?)?);
    }
    let draining = format!("{{url: '{}', drain: true}}", b.url());
    let after = proxy(&[&a.url(), &draining], &keys).await?;
    healthy(&after, 2).await?;
    let client = Client::new(&after.url(""))?;
    for location in locations {
        let patched = status(&client, Method::PATCH, &location, "some").await?;
        assert_eq!(patched, 202, "{location}");
    }
    let mut digests = Vec::new();
    for seed in 0..4 {
        let blob = content::bytes(seed, 100);
        digests.push(client.push_blob("team/app", &blob).await?);
    }
    for digest in digests {
        let path = format!("/v2/team/app/blobs/{digest}");
        let direct = Client::new(&a.url())?;
        assert_eq!(direct.get(&path).await?.status().as_u16(), 200);
    }
    Ok(())
}

#[tokio::test]
async fn a_replica_that_is_killed_is_not_missed() -> Result<()> {
    let mut a = ForeignRegistry::start().await?;
    let b = a.replica().await?;
    let server = proxy(&[&a.url(), &b.url()], "  balance: round_robin\n").await?;
    healthy(&server, 2).await?;
    let client = Client::new(&server.url(""))?;
    // Both have idle connections now.
    for seed in 0..4 {
        let tag = format!("before-{seed}");
        client.push_image("team/app", &tag, &[seed]).await?;
        client.pull_image("team/app", &tag).await?;
    }
    a.process().kill()?;
    for seed in 4..8 {
        let tag = format!("after-{seed}");
        client.push_image("team/app", &tag, &[seed]).await?;
        client.pull_image("team/app", &tag).await?;
    }
    let skopeo = Skopeo::new()?;
    let image = format!("docker://{}/team/app:before-0", server.host());
    let copy = format!("docker://{}/team/copy:1", server.host());
    skopeo.copy(&image, &copy, &[]).await?;
    let failed = metric("octoserve_http_requests_total").label("status", "502");
    assert_eq!(server.scrape().await?.sum(&failed), None);
    Ok(())
}

/// A registry that opens upload sessions at this Location, and accepts every other request.
async fn opening(location: String) -> Result<Scripted> {
    Scripted::start(move |mut caller: Caller| {
        let location = location.clone();
        async move {
            loop {
                let head = caller.head().await?;
                let status = if head.starts_with("POST ") {
                    format!("202 Accepted\r\nLocation: {location}")
                } else {
                    "201 Created\r\nLocation: /v2/team/app/blobs/x".to_owned()
                };
                caller
                    .send(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n"))
                    .await?;
            }
        }
    })
    .await
}

/// The Location of the response to a request.
async fn location(server: &Server, method: &str, path: &str) -> Result<String> {
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: us:5000\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    let response = wire::exchange(server.address(), method, request.as_bytes()).await?;
    let location = response.head.header("location");
    Ok(location.context("no Location")?.to_owned())
}

#[tokio::test]
async fn everything_but_the_tag_goes_back_byte_for_byte() -> Result<()> {
    for (given, path, query) in [
        (SESSION, SESSION, ""),
        ("/v2/x?_state=a%3Db%2f&c", "/v2/x", "_state=a%3Db%2f&c"),
        ("/v2/x?", "/v2/x", ""),
        ("/v2/x?a#frag", "/v2/x", "a"),
        (
            "1?_octoserve=1",
            "/v2/team/app/blobs/uploads/1",
            "_octoserve=1",
        ),
        ("http://us:5000/elsewhere/%7Ex", "/elsewhere/%7Ex", ""),
        ("https://US:5000/elsewhere?a", "/elsewhere", "a"),
    ] {
        let (a, b) = (
            opening(given.to_owned()).await?,
            opening(given.to_owned()).await?,
        );
        let server = proxy(&[&a.url(), &b.url()], "  balance: round_robin\n").await?;
        healthy(&server, 2).await?;
        for _ in 0..3 {
            let tagged = location(&server, "POST", "/v2/team/app/blobs/uploads/").await?;
            let start = given.split('#').next().unwrap_or_default();
            let rest = tagged.strip_prefix(start).context(tagged.clone())?;
            let tag = rest.split('#').next().unwrap_or_default();
            ensure!(tag.len() == "?_octoserve=".len() + 40, "{tagged}");
            assert_eq!(rest.contains("#frag"), given.contains("#frag"), "{tagged}");
            let query_with_tag = tagged.split('#').next().unwrap_or_default();
            let query_with_tag = query_with_tag.split_once('?').context("no query")?.1;
            let opened = [&a, &b].map(|replica| replica.heard().concat());
            let target = format!("{path}?{query_with_tag}&digest=sha256:0");
            let stored = location(&server, "PUT", &target).await?;
            assert_eq!(stored, "/v2/team/app/blobs/x", "no session, no tag");
            let digest = match (query, given.contains('?')) {
                ("", true) => "&digest=sha256:0".to_owned(),
                ("", false) => "digest=sha256:0".to_owned(),
                _ => format!("{query}&digest=sha256:0"),
            };
            let expected = format!("PUT {path}?{digest} HTTP/1.1\r\n");
            let now = [&a, &b].map(|replica| replica.heard().concat());
            // The one that opened the last session got it, and no other.
            let got: Vec<_> = now
                .iter()
                .zip(&opened)
                .filter(|(now, before)| now[before.len()..].contains(&expected))
                .collect();
            assert_eq!(got.len(), 1, "{expected}\n{now:?}");
        }
        let all = [&a, &b].map(|replica| replica.heard().concat()).concat();
        let theirs = all.matches("_octoserve=").count();
        assert_eq!(
            theirs,
            if given.contains("_octoserve=1") { 3 } else { 0 },
            "{all}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_location_elsewhere_gets_no_tag() -> Result<()> {
    for given in [
        "http://else:5000/u?a",
        "//else/u",
        "http://us/u",
        "ftp://us:5000/u",
    ] {
        let (a, b) = (
            opening(given.to_owned()).await?,
            opening(given.to_owned()).await?,
        );
        let server = proxy(&[&a.url(), &b.url()], "").await?;
        healthy(&server, 2).await?;
        let seen = location(&server, "POST", "/v2/team/app/blobs/uploads/").await?;
        assert_eq!(seen, given);
    }
    Ok(())
}

#[tokio::test]
async fn a_tag_that_no_replica_made_is_404_and_reaches_none() -> Result<()> {
    let (a, b) = (named("a").await?, named("b").await?);
    let mut server = proxy(&[&a.url(), &b.url()], "").await?;
    healthy(&server, 2).await?;
    let zeros = "0".repeat(40);
    for path in [
        format!("{SESSION}?_octoserve={zeros}"),
        format!("{SESSION}?_state=x&_octoserve=&digest=sha256:0"),
        "/v2/?_octoserve".to_owned(),
    ] {
        let response = wire::exchange(server.address(), "GET", get(&path).as_bytes()).await?;
        assert_eq!(response.head.status, 404, "{path}");
        assert_eq!(
            response.error_code().as_deref(),
            Some("BLOB_UPLOAD_UNKNOWN")
        );
    }
    ensure!(a.heard().is_empty() && b.heard().is_empty());
    let log = server
        .process()
        .output(harness::process::OutputStream::Stderr)?;
    ensure!(!log.contains(&zeros), "{log}");
    // A client that drops the query reaches any replica.
    asked(&server, SESSION).await?;
    Ok(())
}

#[tokio::test]
async fn a_single_replica_gets_every_query_as_it_is_and_no_location_a_tag() -> Result<()> {
    let upstream = opening(SESSION.to_owned()).await?;
    let server = proxy(&[&upstream.url()], "").await?;
    assert_eq!(
        location(&server, "POST", "/v2/a/blobs/uploads/").await?,
        SESSION
    );
    location(&server, "PUT", "/v2/x?a&_octoserve=1&b").await?;
    let heard = upstream.heard().concat();
    ensure!(
        heard.contains("PUT /v2/x?a&_octoserve=1&b HTTP/1.1\r\n"),
        "{heard}"
    );
    Ok(())
}

#[tokio::test]
async fn a_random_key_is_warned_of_where_there_are_several_replicas() -> Result<()> {
    let warning = "set session_key_file";
    let directory = TempDir::new()?;
    let key = key_in(directory.path(), "k")?;
    for (replicas, keys, is_warned) in [
        (&[NOBODY][..], "", false),
        (&[NOBODY, "http://127.0.0.1:10"], "", true),
        (&[NOBODY, "http://127.0.0.1:10"], &key, false),
    ] {
        let mut server = proxy(replicas, keys).await?;
        // A process that has ended has written all of its log.
        server.terminate(DEADLINE).await?;
        let log = server
            .process()
            .output(harness::process::OutputStream::Stderr)?;
        assert_eq!(log.contains(warning), is_warned, "{log}");
    }
    Ok(())
}
