//! Responses and metrics of the proxy when its upstream or a source fails.

use anyhow::{Result, ensure};
use harness::client::Client;
use harness::foreign::ForeignRegistry;
use harness::octoserve::Launch;
use harness::scrape::metric;
use harness::wire;
use serde_json::Value;

/// An address without a listener: the discard port, which only root can bind.
const NOBODY: &str = "http://127.0.0.1:9";

#[tokio::test]
async fn an_upstream_that_is_down_is_a_502_with_an_oci_body() -> Result<()> {
    let server = Launch::in_front_of(NOBODY).start().await?;
    for (method, path) in [("GET", "/v2/"), ("PUT", "/v2/team/app/manifests/1")] {
        let request = wire::request(method, path, &[], b"");
        let response = wire::exchange(server.address(), method, &request).await?;
        assert_eq!(response.head.status, 502, "{method} {path}");
        assert_eq!(
            response.error_code().as_deref(),
            Some("UNAVAILABLE"),
            "{method} {path}"
        );
        assert_eq!(
            response.head.header("content-type"),
            Some("application/json")
        );
    }
    let request = wire::request("HEAD", "/v2/", &[], b"");
    let head = wire::exchange(server.address(), "HEAD", &request).await?;
    assert_eq!(head.head.status, 502);
    let failed = metric("octoserve_http_requests_total").label("status", "502");
    failed.clone().value(3).assert_in(&server).await?;
    failed
        .label("endpoint", "manifest")
        .value(1)
        .assert_in(&server)
        .await
}

#[tokio::test]
async fn an_upstream_that_comes_back_is_used_again() -> Result<()> {
    let mut registry = ForeignRegistry::start().await?;
    let server = Launch::in_front_of(&registry.url()).start().await?;
    let client = Client::new(&server.url(""))?;
    client.push_image("team/app", "1", &[1]).await?;
    registry.process().kill()?;
    ensure!(client.get("/v2/team/app/manifests/1").await?.status() == 502);
    registry.restart().await?;
    client.pull_image("team/app", "1").await?;
    Ok(())
}

#[tokio::test]
async fn a_source_that_is_down_does_not_fail_the_scrape() -> Result<()> {
    let registry = ForeignRegistry::start().await?;
    let server = Launch::configured(&format!(
        "upstreams:\n\
         - name: main\n  replicas: ['{}']\n  metrics: [{{source: gone, url: '{NOBODY}/metrics'}}]\n",
        registry.url()
    ));
    let server = server.start().await?;
    let client = Client::new(&server.url(""))?;
    client.push_image("team/app", "1", &[1]).await?;
    metric("octoserve_aggregate_up")
        .label("source", "gone")
        .value(0)
        .assert_in(&server)
        .await?;
    metric("octoserve_http_requests_total")
        .label("endpoint", "manifest")
        .value(1)
        .assert_in(&server)
        .await
}

#[tokio::test]
async fn a_foreign_registrys_own_metrics_have_a_source_label() -> Result<()> {
    // Any exposition serves as a source, so the upstream is our own registry.
    let registry = Launch::registry().start().await?;
    let server = Launch::configured(&format!(
        "upstreams:\n\
         - name: main\n  replicas: ['{}']\n  metrics: [{{source: back, url: 'http://{}/metrics'}}]\n",
        registry.url(""),
        registry.metrics_address()
    ));
    let server = server.start().await?;
    Client::new(&server.url(""))?
        .push_image("team/app", "1", &[1])
        .await?;
    metric("octoserve_aggregate_up")
        .label("source", "back")
        .value(1)
        .assert_in(&server)
        .await?;
    metric("octoserve_repositories")
        .label("source", "back")
        .value(1)
        .assert_in(&server)
        .await?;
    // The proxy's own samples have no source, even if a source has the same family.
    let scrape = server.scrape().await?;
    let own = metric("octoserve_build_info").label("source", "back");
    ensure!(
        scrape.sum(&own).is_some(),
        "the source's build_info is missing"
    );
    ensure!(
        scrape.text().contains("octoserve_build_info{revision="),
        "{}",
        scrape.text()
    );
    Ok(())
}

#[tokio::test]
async fn probes_respond_while_the_upstream_is_down() -> Result<()> {
    let server = Launch::in_front_of(NOBODY).start().await?;
    let client = Client::new(&server.url(""))?;
    ensure!(client.get("/livez").await?.status() == 200, "/livez");
    let ready = client.get("/readyz").await?;
    ensure!(
        ready.status() == 200 || ready.status() == 503,
        "/readyz: {}",
        ready.status()
    );
    let body: Value = serde_json::from_slice(&client.get("/v2/").await?.bytes().await?)?;
    ensure!(body["errors"][0]["message"].is_string(), "{body}");
    Ok(())
}
