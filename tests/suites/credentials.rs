//! The proxy's own credentials for its upstream: with which requests they go, and to whom.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::client::Client;
use harness::foreign::{AUTHORIZATION, ForeignRegistry, USER};
use harness::octoserve::{Launch, Program, Server};
use harness::process::OutputStream;
use harness::scrape::metric;
use harness::scripted::{Caller, Scripted};
use harness::token_server::TokenServer;
use harness::wire;

/// The variable that holds the password.
const VARIABLE: &str = "REGISTRY_PASSWORD";

/// A proxy in front of a URL, with these keys beside the password.
async fn proxy(url: &str, keys: &str) -> Result<Server> {
    let (name, password) = USER;
    let configuration = format!(
        "upstreams: [{{replicas: ['{url}'], \
         credentials: {{username: {name}, password_env: {VARIABLE}{keys}}}}}]\n\
         logging: {{level: debug}}\n"
    );
    let launch = Launch::configured(&configuration).environment(VARIABLE, password);
    launch.start().await
}

/// Neither the log nor the metrics have a secret.
async fn keeps_secrets(server: &mut Server, tokens: Option<&TokenServer>) -> Result<()> {
    let basic = AUTHORIZATION.trim_start_matches("Basic ");
    let mut secrets = vec![USER.1.to_owned(), basic.to_owned()];
    secrets.extend(
        tokens
            .into_iter()
            .flat_map(TokenServer::issued)
            .map(|issued| issued.token),
    );
    let request = wire::request("GET", "/metrics", &[], b"");
    let metrics = wire::exchange(server.address(), "GET", &request).await?;
    let metrics = String::from_utf8(metrics.body)?;
    let mut shown = vec![metrics];
    for stream in [OutputStream::Stdout, OutputStream::Stderr] {
        shown.push(server.process().output(stream)?);
    }
    for secret in &secrets {
        ensure!(
            !shown.iter().any(|text| text.contains(secret)),
            "{secret} is shown"
        );
    }
    Ok(())
}

async fn status(
    server: &Server,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> Result<u16> {
    let request = wire::request(method, path, headers, b"");
    Ok(wire::exchange(server.address(), method, &request)
        .await?
        .head
        .status)
}

/// A repository with an image, pushed by somebody who has the password.
async fn pushed(registry: &ForeignRegistry) -> Result<()> {
    let server = proxy(&registry.url(), ", allow_push: true").await?;
    Client::new(&server.url(""))?
        .push_image("team/app", "1", &[1, 2])
        .await?;
    Ok(())
}

#[tokio::test]
async fn clients_without_a_password_pull_and_cannot_push() -> Result<()> {
    let registry = ForeignRegistry::start_with_password().await?;
    pushed(&registry).await?;
    let mut server = proxy(&registry.url(), "").await?;
    let client = Client::new(&server.url(""))?;
    client.pull_image("team/app", "1").await?;
    assert_eq!(status(&server, "GET", "/v2/", &[]).await?, 200);
    assert_eq!(status(&server, "GET", "/v2/_catalog", &[]).await?, 200);
    for (method, path) in [
        ("POST", "/v2/team/app/blobs/uploads/"),
        ("DELETE", "/v2/team/app/manifests/1"),
        ("PUT", "/v2/team/app/manifests/2"),
    ] {
        assert_eq!(status(&server, method, path, &[]).await?, 401, "{method}");
    }
    // What the client says counts, though it is wrong.
    let wrong = [("Authorization", "Basic bm9ib2R5OndpdGhvdXQ=")];
    assert_eq!(status(&server, "GET", "/v2/", &wrong).await?, 401);
    let anonymous = metric("octoserve_http_requests_total").label("status", "200");
    ensure!(
        server.scrape().await?.sum(&anonymous) >= Some(2.0),
        "not counted"
    );
    keeps_secrets(&mut server, None).await
}

#[tokio::test]
async fn clients_without_a_password_push_where_that_is_configured() -> Result<()> {
    let registry = ForeignRegistry::start_with_password().await?;
    let mut server = proxy(&registry.url(), ", allow_push: true").await?;
    let client = Client::new(&server.url(""))?;
    client.push_image("team/app", "1", &[1, 2]).await?;
    client.pull_image("team/app", "1").await?;
    let delete = status(&server, "DELETE", "/v2/team/app/manifests/1", &[]).await?;
    assert_eq!(delete, 401, "a delete is no push");
    keeps_secrets(&mut server, None).await
}

#[tokio::test]
async fn clients_without_a_token_pull_with_ours() -> Result<()> {
    let tokens = TokenServer::start(AUTHORIZATION, 600).await?;
    let registry = ForeignRegistry::start_with_tokens(&tokens).await?;
    let realm = format!(", realm: '{}'", tokens.realm());
    {
        let server = proxy(&registry.url(), &format!("{realm}, allow_push: true")).await?;
        let client = Client::new(&server.url(""))?;
        client.push_image("team/app", "1", &[1, 2]).await?;
    }
    let before = tokens.issued().len();
    let mut server = proxy(&registry.url(), &realm).await?;
    let client = Client::new(&server.url(""))?;
    for _ in 0..3 {
        client.pull_image("team/app", "1").await?;
    }
    assert_eq!(status(&server, "GET", "/v2/", &[]).await?, 200);
    assert_eq!(status(&server, "GET", "/v2/_catalog", &[]).await?, 200);
    assert_eq!(
        status(&server, "POST", "/v2/team/app/blobs/uploads/", &[]).await?,
        401
    );
    // One for each scope, however often it is needed.
    let issued: Vec<_> = tokens.issued().split_off(before);
    let asked: Vec<_> = issued.iter().map(|issued| issued.target.as_str()).collect();
    let scopes: BTreeSet<_> = asked.iter().collect();
    assert_eq!(scopes.len(), asked.len(), "{asked:?}");
    let service = "/auth/token?service=octoserve-tests";
    for scope in [
        "&scope=repository%3Ateam%2Fapp%3Apull",
        "",
        "&scope=registry%3Acatalog%3A*",
    ] {
        let target = format!("{service}{scope}");
        ensure!(
            asked.contains(&target.as_str()),
            "{target} is not in {asked:?}"
        );
    }
    keeps_secrets(&mut server, Some(&tokens)).await
}

#[tokio::test]
async fn a_token_server_that_is_not_configured_gets_no_password() -> Result<()> {
    let tokens = TokenServer::start(AUTHORIZATION, 600).await?;
    let registry = ForeignRegistry::start_with_tokens(&tokens).await?;
    let mut server = proxy(&registry.url(), "").await?;
    for _ in 0..3 {
        assert_eq!(
            status(&server, "GET", "/v2/team/app/tags/list", &[]).await?,
            401
        );
    }
    ensure!(tokens.issued().is_empty(), "it got the password");
    let log = server.process().output(OutputStream::Stderr)?;
    let lines: Vec<_> = log
        .lines()
        .filter(|line| line.contains("set credentials.realm"))
        .collect();
    assert_eq!(lines.len(), 1, "{log}");
    keeps_secrets(&mut server, None).await
}

#[tokio::test]
async fn an_expired_token_is_replaced() -> Result<()> {
    let tokens = TokenServer::start(AUTHORIZATION, 0).await?;
    let registry = ForeignRegistry::start_with_tokens(&tokens).await?;
    let server = proxy(&registry.url(), &format!(", realm: '{}'", tokens.realm())).await?;
    for issued in 1..4 {
        assert_eq!(status(&server, "GET", "/v2/", &[]).await?, 200);
        assert_eq!(tokens.issued().len(), issued);
    }
    Ok(())
}

/// An upstream that asks everybody for a password, and counts nothing as right.
async fn asking() -> Result<Scripted> {
    Scripted::start_beside(|mut caller: Caller| async move {
        loop {
            caller.head().await?;
            let challenge = "WWW-Authenticate: Basic realm=\"x\"\r\nContent-Length: 0\r\n\r\n";
            caller
                .send(format!("HTTP/1.1 401 Unauthorized\r\n{challenge}"))
                .await?;
        }
    })
    .await
}

#[tokio::test]
async fn only_reads_of_the_registry_go_with_our_password() -> Result<()> {
    let upstream = asking().await?;
    let server = proxy(&upstream.url(), "").await?;
    let digest = format!("sha256:{}", "0".repeat(64));
    let blob = format!("/v2/a/blobs/{digest}");
    for (method, path, with) in [
        ("GET", "/v2/", true),
        ("HEAD", &*blob, true),
        ("GET", "/v2/a/tags/list", true),
        ("GET", "/v2/a/referrers/x", true),
        ("GET", "/token?service=x", false),
        ("GET", "/v2/token", false),
        ("GET", "/", false),
        ("GET", "/api/v2.0/users", false),
        ("GET", "/v2/a/../../api/manifests/latest", false),
        ("GET", "/v2/a/%2e%2e/%2e%2e/api/manifests/latest", false),
        ("POST", "/v2/a/blobs/uploads/", false),
        ("DELETE", "/v2/a/manifests/latest", false),
        ("OPTIONS", "/v2/", false),
    ] {
        let marker = [("X-Marker", method), ("Accept", "text/html")];
        let request = wire::request(method, path, &marker, b"");
        wire::exchange(server.address(), method, &request).await?;
        let all = upstream.heard().concat();
        let line = format!("{method} {path} HTTP/1.1\r\n");
        // The request of the proxy itself for the challenge has the same first line as the first one.
        let head = all.rsplit_once(&line).context("not forwarded")?.1;
        let head = head.split("\r\n\r\n").next().unwrap_or_default();
        let sent = head.contains(&format!("authorization: {AUTHORIZATION}"));
        assert_eq!(sent, with, "{line}{head}");
        ensure!(
            with || !head.to_lowercase().contains("authorization"),
            "{head}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_password_that_is_refused_is_logged_once_and_the_client_sees_the_refusal() -> Result<()> {
    let upstream = asking().await?;
    let mut server = proxy(&upstream.url(), "").await?;
    for _ in 0..5 {
        let request = wire::request("GET", "/v2/a/tags/list", &[], b"");
        let response = wire::exchange(server.address(), "GET", &request).await?;
        assert_eq!(response.head.status, 401);
        assert_eq!(
            response.head.header("www-authenticate"),
            Some("Basic realm=\"x\"")
        );
    }
    keeps_secrets(&mut server, None).await?;
    // The log is written behind the responses, and whole once the process has ended.
    server.terminate(Duration::from_secs(30)).await?;
    let log = server.process().output(OutputStream::Stderr)?;
    let refused = "the upstream refuses the user name or the password";
    assert_eq!(log.matches(refused).count(), 1, "{log}");
    Ok(())
}

#[tokio::test]
async fn credentials_that_would_be_open_to_others_stop_the_start() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("octoserve.yaml");
    for (listen, keys, message) in [
        ("'0.0.0.0:0'", "", "set anonymous: pull"),
        (
            "'0.0.0.0:0'",
            ", anonymous: pull, allow_push: true",
            "require client certificates there",
        ),
        (
            "'127.0.0.1:0'",
            ", realm: 'http://auth.example/'",
            "without TLS",
        ),
    ] {
        let text = format!(
            "listen: [{listen}]\nupstreams:\n  - replicas: ['http://127.0.0.1:1']\n    \
             credentials: {{username: a, password_env: {VARIABLE}{keys}}}\n"
        );
        std::fs::write(&path, text)?;
        let mut command = std::process::Command::new(Program::Octoserve.path()?);
        command
            .arg("--check")
            .arg("--config")
            .arg(&path)
            .env(VARIABLE, "hunter2");
        let output = command.output()?;
        assert_eq!(output.status.code(), Some(64), "{keys}");
        let error = String::from_utf8(output.stderr)?;
        ensure!(error.contains(":4: upstreams[0].credentials"), "{error}");
        ensure!(
            error.contains(message) && !error.contains("hunter2"),
            "{error}"
        );
    }
    Ok(())
}
