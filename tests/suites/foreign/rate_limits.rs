//! Rate limits as Docker Hub has them: the headers pass unchanged, the metric follows, and clients show
//! the registry's own message.

use anyhow::{Result, ensure};
use harness::client::MANIFEST;
use harness::content;
use harness::docker::Docker;
use harness::octoserve::{Launch, Server};
use harness::scrape::metric;
use harness::scripted::{Caller, Scripted};
use harness::skopeo::Skopeo;
use harness::wire;

/// As Docker Hub has it.
const MESSAGE: &str =
    "You have reached your pull rate limit. You may increase the limit by authenticating";

/// Has the limit of an address in each of its responses to requests for manifests: a HEAD does not count,
/// and the limit is used up after so many GETs.
async fn hub(pulls: u32) -> Result<Scripted> {
    let left = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(pulls));
    Scripted::start(move |mut caller: Caller| {
        let left = std::sync::Arc::clone(&left);
        async move {
            loop {
                let head = caller.head().await?;
                let is_pull = head.starts_with("GET /v2/library/");
                let now = left.load(std::sync::atomic::Ordering::SeqCst);
                let is_refused = is_pull && now == 0;
                if is_pull && !is_refused {
                    left.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                }
                let left = left.load(std::sync::atomic::Ordering::SeqCst);
                let limits = format!(
                    "ratelimit-limit: 100;w=21600\r\nratelimit-remaining: {left};w=21600\r\n\
                     docker-ratelimit-source: 203.0.113.7\r\n"
                );
                let said = if is_refused {
                    let body = format!(
                        r#"{{"errors":[{{"code":"TOOMANYREQUESTS","message":"{MESSAGE}"}}]}}"#
                    );
                    super::response(
                        "429 Too Many Requests",
                        &format!("{limits}Retry-After: 1\r\nContent-Type: application/json\r\n"),
                        &body,
                    )
                } else if head.contains(" /v2/library/") {
                    let manifest = super::manifest();
                    let digest = content::digest(manifest.as_bytes());
                    let headers = format!(
                        "{limits}Content-Type: {MANIFEST}\r\nDocker-Content-Digest: {digest}\r\n"
                    );
                    let whole = super::response("200 OK", &headers, &manifest);
                    if head.starts_with("HEAD ") {
                        whole.trim_end_matches(&manifest).to_owned()
                    } else {
                        whole
                    }
                } else {
                    super::response("200 OK", "", "")
                };
                caller.send(said).await?;
            }
        }
    })
    .await
}

async fn remaining(server: &Server) -> Result<Option<f64>> {
    let gauge = metric("octoserve_upstream_ratelimit_remaining").label("upstream", "main");
    Ok(server.scrape().await?.sum(&gauge))
}

#[tokio::test]
async fn the_headers_of_a_rate_limit_pass_unchanged_and_the_metric_follows() -> Result<()> {
    let path = "/v2/library/busybox/manifests/latest";
    let (direct, upstream) = (hub(2).await?, hub(2).await?);
    let server = Launch::in_front_of(&upstream.url()).start().await?;
    assert_eq!(remaining(&server).await?, None);
    for (method, status, left) in [
        ("HEAD", 200, 2.0),
        ("GET", 200, 1.0),
        ("HEAD", 200, 1.0),
        ("GET", 200, 0.0),
        ("HEAD", 200, 0.0),
        ("GET", 429, 0.0),
        ("GET", 429, 0.0),
    ] {
        // The script takes only the proxy's requests for a client's.
        let request = wire::request(method, path, &[("Via", "1.1 test")], b"");
        let expected = wire::exchange(direct.address(), method, &request).await?;
        let request = wire::request(method, path, &[], b"");
        let got = wire::exchange(server.address(), method, &request).await?;
        assert_eq!(got.head.status, status);
        assert_eq!(got.body, expected.body);
        let headers = |response: &wire::Response| -> Vec<(String, String)> {
            let headers = response.head.headers();
            let headers = headers.filter(|(name, _)| *name != "connection");
            headers
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect()
        };
        assert_eq!(headers(&got), headers(&expected), "{method}");
        assert_eq!(remaining(&server).await?, Some(left), "{method}");
    }
    let refused = metric("octoserve_http_requests_total").label("status", "429");
    refused.value(2).assert_in(&server).await?;
    let scrape = server.scrape().await?;
    // The upstream has answered: it has not failed.
    metric("octoserve_upstream_errors_total")
        .value(0)
        .assert(&scrape)
}

#[tokio::test]
async fn clients_show_the_registrys_own_message() -> Result<()> {
    let upstream = hub(0).await?;
    let server = Launch::in_front_of(&upstream.url()).start().await?;
    let image = format!("{}/library/busybox:latest", server.host());
    let docker = Docker::shared().await?;
    let error = docker.run(&["pull", &image]).await;
    let error = format!(
        "{:#}",
        error.err().unwrap_or_else(|| anyhow::anyhow!("pulled"))
    );
    ensure!(error.contains(MESSAGE), "{error}");
    // It waits as long as it is told, and asks again a few times.
    let error = Skopeo::new()?.manifest(&format!("docker://{image}")).await;
    let error = format!(
        "{:#}",
        error.err().unwrap_or_else(|| anyhow::anyhow!("pulled"))
    );
    ensure!(error.contains(MESSAGE), "{error}");
    let refused = metric("octoserve_http_requests_total").label("status", "429");
    let refused = server.scrape().await?.sum(&refused);
    ensure!(refused >= Some(2.0), "{refused:?}");
    Ok(())
}
