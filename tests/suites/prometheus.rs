//! A real Prometheus scrapes octoserve while a client sends known requests; PromQL must return the
//! resulting counts.

use std::time::Duration;

use anyhow::{Result, ensure};
use harness::prometheus::Prometheus;
use reqwest::{Method, StatusCode};

use crate::Front;

const REPOSITORIES: u32 = 3;
const PULLS: u32 = 5;
const RESOLVES: u32 = 2;
const MISSES: u32 = 4;
/// Two layers and the configuration.
const BLOBS: u32 = 3;

#[tokio::test]
async fn promql_counts_match_the_clients_of_the_embedded_registry() -> Result<()> {
    let front = Front::embedded().await?;
    let prometheus = traffic_under_observation(&front).await?;
    // The registry counts forwarded requests, and the collector counts stored content.
    let seen = "sum(octoserve_registry_http_requests_total{endpoint='manifest',method='GET'})";
    prometheus
        .expect(seen, f64::from(REPOSITORIES * PULLS + MISSES))
        .await?;
    prometheus
        .expect("octoserve_repositories", f64::from(REPOSITORIES))
        .await?;
    prometheus
        .expect("octoserve_tags", f64::from(REPOSITORIES))
        .await?;
    prometheus
        .expect("octoserve_blobs", f64::from(REPOSITORIES * BLOBS))
        .await?;
    prometheus
        .expect("sum(octoserve_manifests)", f64::from(REPOSITORIES))
        .await?;
    prometheus.expect("octoserve_aggregate_up", 1.0).await?;
    let written = "sum(octoserve_storage_operation_duration_seconds_count\
                   {operation='upload_commit',status='success'})";
    prometheus
        .expect(written, f64::from(REPOSITORIES * BLOBS))
        .await
}

#[tokio::test]
async fn promql_counts_match_the_clients_of_a_foreign_registry() -> Result<()> {
    traffic_under_observation(&Front::foreign().await?).await?;
    Ok(())
}

async fn traffic_under_observation(front: &Front) -> Result<Prometheus> {
    let prometheus = Prometheus::scraping(&[front.server.metrics_address()]).await?;
    prometheus.expect("up{job='octoserve'}", 1.0).await?;

    let mut sent_in_blobs = 0;
    for number in 0..REPOSITORIES {
        let repository = format!("team/app-{number}");
        let seed = u64::from(number) * 10;
        let pushed = front
            .client
            .push_image(&repository, "1", &[seed, seed + 1])
            .await?;
        for _ in 0..PULLS {
            front.client.pull_image(&repository, "1").await?;
        }
        for _ in 0..RESOLVES {
            let path = format!("/v2/{repository}/manifests/1");
            let headers = [("Accept", harness::client::MANIFEST)];
            let response = front.client.send(Method::HEAD, &path, &headers, "").await?;
            ensure!(
                response.status() == StatusCode::OK,
                "HEAD: {}",
                response.status()
            );
        }
        for digest in pushed.layers.iter().chain([&pushed.config]) {
            let blob = front
                .client
                .read(&format!("/v2/{repository}/blobs/{digest}"))
                .await?;
            sent_in_blobs += u32::try_from(blob.len())? * (PULLS + 1);
        }
    }
    for _ in 0..MISSES {
        let response = front.client.get("/v2/team/app-0/manifests/nope").await?;
        ensure!(
            response.status() == StatusCode::NOT_FOUND,
            "a miss: {}",
            response.status()
        );
    }

    for ((endpoint, method, status), count) in [
        (("upload_start", "POST", "202"), REPOSITORIES * BLOBS),
        (("upload_session", "PUT", "201"), REPOSITORIES * BLOBS),
        (("manifest", "PUT", "201"), REPOSITORIES),
        (("manifest", "GET", "200"), REPOSITORIES * PULLS),
        (("manifest", "HEAD", "200"), REPOSITORIES * RESOLVES),
        (("manifest", "GET", "404"), MISSES),
        (("blob", "GET", "200"), REPOSITORIES * BLOBS * (PULLS + 1)),
    ] {
        let labels = format!("endpoint='{endpoint}',method='{method}',status='{status}'");
        let expression = format!("octoserve_http_requests_total{{{labels}}}");
        prometheus.expect(&expression, f64::from(count)).await?;
    }
    let timed = "octoserve_http_request_duration_seconds_count{endpoint='manifest',method='GET'}";
    prometheus
        .expect(timed, f64::from(REPOSITORIES * PULLS + MISSES))
        .await?;
    let bytes = "octoserve_http_response_body_bytes_total{endpoint='blob',method='GET'}";
    prometheus.expect(bytes, f64::from(sent_in_blobs)).await?;
    prometheus
        .expect("sum(octoserve_http_requests_in_flight)", 0.0)
        .await?;
    Ok(prometheus)
}

#[tokio::test]
async fn prometheus_keeps_scraping_while_a_registry_restarts() -> Result<()> {
    let mut registry = harness::foreign::ForeignRegistry::start().await?;
    let server = harness::octoserve::Launch::in_front_of(&registry.url())
        .start()
        .await?;
    let prometheus = Prometheus::scraping(&[server.metrics_address()]).await?;
    prometheus.expect("up", 1.0).await?;
    registry.process().kill()?;
    let client = harness::client::Client::new(&server.url(""))?;
    let response = client.get("/v2/").await?;
    ensure!(
        response.status() == StatusCode::BAD_GATEWAY,
        "{}",
        response.status()
    );
    let failed = "octoserve_http_requests_total{endpoint='base',status='502'}";
    prometheus.expect(failed, 1.0).await?;
    // No scrape failed meanwhile.
    prometheus.expect("min_over_time(up[1m])", 1.0).await?;
    registry.process().exited(Duration::from_secs(5)).await?;
    Ok(())
}
