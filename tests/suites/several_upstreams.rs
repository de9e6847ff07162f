//! Several upstreams: which of them a request is for, by host, by the first component of the repository
//! and by containerd's `?ns=`, and that each has its own metrics, sources, rules and credentials.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::client::Client;
use harness::foreign::{ForeignRegistry, USER};
use harness::octoserve::{Launch, Server};
use harness::poll;
use harness::process::OutputStream;
use harness::scrape::{Metric, metric};
use harness::scripted::{Caller, Scripted};
use harness::wire::{self, Response};
use reqwest::Method;

mod clients;
mod naming;
mod uploads;

const DEADLINE: Duration = Duration::from_secs(30);

/// The address of nobody: only root can bind the discard port.
const NOBODY: &str = "http://127.0.0.1:9";

/// A file with these upstreams: the name, the URL and further keys of each.
fn configuration(upstreams: &[(&str, &str, &str)]) -> String {
    let entry = |(name, url, keys): &(&str, &str, &str)| {
        format!("- {{name: {name}, replicas: ['{url}'], {keys}}}\n")
    };
    let entries: String = upstreams.iter().map(entry).collect();
    format!("upstreams:\n{entries}logging: {{level: debug}}\n")
}

async fn proxy(upstreams: &[(&str, &str, &str)]) -> Result<Server> {
    Launch::configured(&configuration(upstreams)).start().await
}

/// The response to a request for a host, without a body.
async fn ask(server: &Server, method: &str, host: &str, target: &str) -> Result<Response> {
    let request = format!(
        "{method} {target} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    wire::exchange(server.address(), method, request.as_bytes()).await
}

/// An upstream that responds to everything with these lines of a head, in which `UPSTREAM` is its address.
async fn responding(head: impl Into<String>) -> Result<Scripted> {
    let head = head.into();
    Scripted::start(move |mut caller: Caller| {
        let head = head.clone();
        async move {
            let head = head.replace("UPSTREAM", &caller.address()?.to_string());
            let head = format!("HTTP/1.1 {head}\r\nContent-Length: 0\r\n\r\n");
            loop {
                caller.head().await?;
                caller.send(&head).await?;
            }
        }
    })
    .await
}

/// Who responds to a request: each upstream of [`responding`] says it in this header.
fn responder(response: &Response) -> Result<&str> {
    response.head.header("x-name").context("nobody")
}

fn responses_of(upstream: &str) -> Metric {
    metric("octoserve_upstream_request_duration_seconds_count").label("upstream", upstream)
}

async fn by_name(name: &str) -> Result<Scripted> {
    responding(format!("200 OK\r\nX-Name: {name}")).await
}

#[tokio::test]
async fn each_way_of_choosing_reaches_its_upstream_and_is_counted_there() -> Result<()> {
    let [host, team, hub, rest] = ["host", "team", "hub", "rest"];
    let (a, b, c, d) = (
        by_name(host).await?,
        by_name(team).await?,
        by_name(hub).await?,
        by_name(rest).await?,
    );
    let server = proxy(&[
        (
            host,
            &a.url(),
            "match: {hosts: ['a.example', 'b.example:5000']}",
        ),
        (team, &b.url(), "match: {prefixes: [team]}"),
        (hub, &c.url(), "match: {ns: ['docker.io']}"),
        (rest, &d.url(), ""),
    ])
    .await?;
    let requests = [
        ("A.example:1", "/v2/team/app/tags/list", host),
        ("b.example:5000", "/ui", host),
        ("b.example", "/v2/", rest),
        ("c", "/v2/team/app/manifests/1", team),
        ("c", "/v2/t%65am/app/blobs/uploads/1?x", team),
        ("c", "/token?scope=repository%3Ateam/app%3Apull", team),
        ("c", "/token?scope=repository:app:pull", rest),
        ("c", "/v2/_catalog", rest),
        ("c", "/elsewhere", rest),
        ("c", "/v2/team/app/manifests/1?ns=docker.io", hub),
        ("a.example", "/v2/?ns=Docker.io", hub),
    ];
    for (asked, target, name) in requests {
        let response = ask(&server, "GET", asked, target).await?;
        assert_eq!(responder(&response)?, name, "{asked} {target}");
    }
    for name in [host, team, hub, rest] {
        let sent = requests.iter().filter(|(_, _, to)| *to == name).count();
        let sent = u32::try_from(sent)?;
        responses_of(name).value(sent).assert_in(&server).await?;
    }
    // A client that a trusted proxy speaks for is known by what it asked that proxy for.
    let upstreams = [
        (host, &*a.url(), "match: {hosts: [a.example]}"),
        (rest, &d.url(), ""),
    ];
    for (trusted, name) in [("'127.0.0.1'", host), ("", rest)] {
        let trusting = format!("trust_forwarded_from: [{trusted}]\n");
        let launch = Launch::configured(&(configuration(&upstreams) + &trusting));
        let server = launch.start().await?;
        let headers = [("X-Forwarded-Host", "a.example")];
        let request = wire::request("GET", "/v2/", &headers, b"");
        let response = wire::exchange(server.address(), "GET", &request).await?;
        assert_eq!(responder(&response)?, name);
    }
    Ok(())
}

#[tokio::test]
async fn what_no_upstream_is_for_is_refused_counted_and_logged() -> Result<()> {
    let (a, b) = (by_name("a").await?, by_name("b").await?);
    let mut server = proxy(&[
        (
            "team",
            &a.url(),
            "match: {hosts: [us], prefixes: [team], strip_prefix: true}",
        ),
        ("hub", &b.url(), "match: {hosts: [us], ns: [docker.io]}"),
    ])
    .await?;
    let long = format!("/v2/{}/tags/list", "x".repeat(20_000));
    let long_ns = format!("/v2/?ns={}", "docker.io".repeat(2_000));
    let requests = [
        ("else", "/v2/", "NAME_UNKNOWN"),
        ("us.", "/v2/", "NAME_UNKNOWN"),
        ("us", "/v2/other/app/manifests/1", "NAME_UNKNOWN"),
        (
            "us",
            "/token?scope=repository:other/app:pull",
            "NAME_UNKNOWN",
        ),
        ("us", "/v2/TEAM/app/manifests/1", "NAME_UNKNOWN"),
        ("us", "/v2/team%2Fapp/manifests/1", "NAME_UNKNOWN"),
        ("us", "/v2/x/../team/app/manifests/1", "NAME_UNKNOWN"),
        ("us", "/v2/x/%2e%2e/team/app/manifests/1", "NAME_UNKNOWN"),
        ("us", "/v2/team;x/app/manifests/1", "NAME_UNKNOWN"),
        ("us", "/v2//team/app/manifests/1", "NAME_UNKNOWN"),
        // Nothing is left of these names.
        ("us", "/v2/team/manifests/1", "NAME_UNKNOWN"),
        ("us", "/v2/team/_catalog", "NAME_UNKNOWN"),
        ("us", "/v2/team/token", "NAME_UNKNOWN"),
        ("us", "/v2/team/", "NAME_UNKNOWN"),
        ("us", "/v2/_catalog", "UNSUPPORTED"),
        ("us", "/v2/team/app/manifests/1?ns=quay.io", "NAME_UNKNOWN"),
        ("us", "/v2/team/app/manifests/1?ns=", "NAME_UNKNOWN"),
        ("us", "/v2/?ns=docker.io&ns=quay.io", "NAME_UNKNOWN"),
        ("us", "/v2/?ns=docker.io%00", "NAME_UNKNOWN"),
        ("us", &long, "NAME_UNKNOWN"),
        ("us", &long_ns, "NAME_UNKNOWN"),
    ];
    for (host, target, code) in requests {
        for method in ["GET", "PUT"] {
            let response = ask(&server, method, host, target).await?;
            assert_eq!(response.head.status, 404, "{method} {host} {target}");
            assert_eq!(response.error_code().as_deref(), Some(code), "{target}");
        }
    }
    ensure!(a.heard().is_empty() && b.heard().is_empty());
    let refused = metric("octoserve_http_requests_total").label("status", "404");
    let sent = u32::try_from(2 * requests.len())?;
    refused.value(sent).assert_in(&server).await?;
    let scrape = server.scrape().await?;
    let labels = scrape.label_values();
    let mut upstreams = labels["upstream"].clone();
    upstreams.sort();
    assert_eq!(upstreams, ["hub", "team"]);
    // None was sent, so there is no series yet.
    let counted = scrape.sum(&metric("octoserve_upstream_request_duration_seconds_count"));
    assert_eq!(counted, None);
    server.terminate(DEADLINE).await?;
    let lines = server.process().output(OutputStream::Stderr)?;
    for reason in [
        "no registry behind this proxy has this name",
        "the registry that ?ns= names is not configured",
        "there is no catalog here",
    ] {
        ensure!(lines.contains(reason), "{reason}:\n{lines}");
    }
    Ok(())
}

#[tokio::test]
async fn an_unknown_ns_goes_on_where_no_upstream_has_any() -> Result<()> {
    let (a, b) = (by_name("a").await?, by_name("b").await?);
    let server = proxy(&[
        ("team", &a.url(), "match: {prefixes: [team]}"),
        ("rest", &b.url(), ""),
    ])
    .await?;
    let target = "/v2/team/app/tags/list?ns=quay.io&n=1";
    assert_eq!(responder(&ask(&server, "GET", "us", target).await?)?, "a");
    let heard = a.heard().concat();
    ensure!(
        heard.contains(&format!("GET {target} HTTP/1.1\r\n")),
        "{heard}"
    );
    Ok(())
}

#[tokio::test]
async fn each_upstream_has_sources_rules_and_credentials_of_its_own() -> Result<()> {
    let open = Launch::registry().start().await?;
    let closed = ForeignRegistry::start_with_password().await?;
    let (user, password) = USER;
    let team = format!(
        "match: {{prefixes: [team], strip_prefix: true}}, \
         credentials: {{username: {user}, password_env: REGISTRY_PASSWORD, allow_push: true}}"
    );
    let frozen = "match: {prefixes: [frozen]}, read_only: true";
    let main = format!(
        "metrics: [{{source: open, url: 'http://{}/metrics'}}]",
        open.metrics_address()
    );
    let upstreams = [
        ("team", &*closed.url(), &*team),
        ("frozen", &open.url(""), frozen),
        ("main", &open.url(""), &main),
    ];
    let origins = "cors: {origins: ['https://ui.example']}\n";
    let server = Launch::configured(&(configuration(&upstreams) + origins))
        .environment("REGISTRY_PASSWORD", password)
        .start()
        .await?;
    let client = Client::new(&server.url(""))?;
    // With the upstream's own name in the scope, which has no prefix.
    client.push_image("team/app", "1", &[7101]).await?;
    client.pull_image("team/app", "1").await?;
    client.push_image("lib/app", "1", &[7102]).await?;
    Client::new(&open.url(""))?
        .push_image("frozen/app", "1", &[7103])
        .await?;
    client.pull_image("frozen/app", "1").await?;
    let refused = client.push_image("frozen/app", "2", &[7104]).await;
    ensure!(format!("{refused:?}").contains("405"), "{refused:?}");
    // A second way to write the name is no way around it.
    for path in [
        "/v2/froz%65n/app/manifests/1",
        "/v2/x/../frozen/app/manifests/1",
    ] {
        let status = ask(&server, "DELETE", "us", path).await?.head.status;
        ensure!(status == 405 || status == 404, "{path}: {status}");
    }
    client.pull_image("frozen/app", "1").await?;
    let repositories = metric("octoserve_repositories").label("source", "open");
    repositories.value(2).assert_in(&server).await?;
    for (name, least) in [("team", 8.0), ("frozen", 3.0), ("main", 5.0)] {
        let sent = server.scrape().await?.sum(&responses_of(name));
        ensure!(sent >= Some(least), "{name}: {sent:?}");
        let replicas = metric("octoserve_upstream_replicas").label("upstream", name);
        replicas.value(1).assert_in(&server).await?;
    }
    let headers = [("Origin", "https://ui.example")];
    for path in ["/v2/team/app/tags/list", "/v2/team/manifests/1"] {
        let response = client.send(Method::GET, path, &headers, "").await?;
        let allowed = response.headers().get("access-control-allow-origin");
        ensure!(
            allowed.is_some_and(|origin| origin == "https://ui.example"),
            "{path}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn the_proxy_is_ready_while_one_upstream_is_healthy() -> Result<()> {
    let there = by_name("there").await?;
    let server = proxy(&[
        ("gone", NOBODY, "match: {hosts: [gone]}"),
        ("there", &there.url(), ""),
    ])
    .await?;
    let ready = async |status: u16| {
        poll::until("/readyz changes", DEADLINE, async || {
            let response = ask(&server, "GET", "us", "/readyz").await?;
            Ok((response.head.status == status).then_some(()))
        })
        .await
    };
    let healthy = async |name: &str, count: u32| {
        let gauge = metric("octoserve_upstream_replicas_healthy").label("upstream", name);
        poll::until("the health is known", DEADLINE, async || {
            let seen = server.scrape().await?.sum(&gauge);
            Ok((seen == Some(f64::from(count))).then_some(()))
        })
        .await
    };
    healthy("there", 1).await?;
    healthy("gone", 0).await?;
    ready(200).await?;
    assert_eq!(ask(&server, "GET", "gone", "/v2/").await?.head.status, 502);
    let failed = async |name: &str| {
        let errors = metric("octoserve_upstream_errors_total").label("upstream", name);
        anyhow::Ok(server.scrape().await?.sum(&errors))
    };
    ensure!(failed("gone").await? >= Some(1.0));
    assert_eq!(failed("there").await?, Some(0.0));
    assert_eq!(
        responder(&ask(&server, "GET", "us", "/v2/").await?)?,
        "there"
    );
    drop(there);
    ready(503).await
}

#[tokio::test]
async fn a_request_that_comes_back_is_a_loop_whichever_upstream_it_is_for() -> Result<()> {
    let upstream = by_name("a").await?;
    let server = proxy(&[
        (
            "team",
            &upstream.url(),
            "match: {prefixes: [team], strip_prefix: true}",
        ),
        ("rest", &upstream.url(), ""),
    ])
    .await?;
    ask(&server, "GET", "us", "/v2/").await?;
    let heard = upstream.heard().concat();
    let via = heard.lines().find_map(|line| line.strip_prefix("via: "));
    let via = via.context("no via")?.to_owned();
    for path in ["/v2/team/app/tags/list", "/v2/"] {
        let request = wire::request("GET", path, &[("Via", &via)], b"");
        let response = wire::exchange(server.address(), "GET", &request).await?;
        assert_eq!(response.head.status, 508, "{path}");
    }
    Ok(())
}
