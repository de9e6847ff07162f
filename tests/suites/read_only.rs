//! An upstream that is to be read only: pulls pass, and nothing else gets there.

use anyhow::{Result, ensure};
use harness::client::Client;
use harness::octoserve::Launch;
use harness::scrape::metric;
use harness::wire;
use serde_json::Value;

#[tokio::test]
async fn pulls_pass_and_changes_are_refused() -> Result<()> {
    let registry = Launch::registry().start().await?;
    let filled = Client::new(&registry.url(""))?;
    filled.push_image("team/app", "1", &[1, 2]).await?;
    let configuration = format!(
        "upstreams: [{{replicas: ['{}'], read_only: true}}]\n",
        registry.url("")
    );
    let server = Launch::configured(&configuration).start().await?;
    let client = Client::new(&server.url(""))?;
    client.pull_image("team/app", "1").await?;
    ensure!(client.push_image("team/app", "2", &[3]).await.is_err());
    for (method, path, status) in [
        ("HEAD", "/v2/team/app/manifests/1", 200),
        ("OPTIONS", "/v2/", 405),
        ("DELETE", "/v2/team/app/manifests/1", 405),
        ("PUT", "/v2/team/app/manifests/2", 405),
        ("POST", "/v2/team/app/blobs/uploads/", 405),
        ("PATCH", "/v2/team/app/blobs/uploads/1", 405),
        ("BREW", "/elsewhere", 405),
        // A token changes nothing; this registry has none.
        ("POST", "/token", 404),
    ] {
        let request = wire::request(method, path, &[], b"");
        let response = wire::exchange(server.address(), method, &request).await?;
        assert_eq!(response.head.status, status, "{method} {path}");
        if status == 405 && method != "OPTIONS" {
            assert_eq!(response.error_code().as_deref(), Some("UNSUPPORTED"));
            assert_eq!(response.head.header("allow"), Some("GET, HEAD"));
        }
    }
    // None of them reached the registry.
    filled.pull_image("team/app", "1").await?;
    let tags = wire::request("GET", "/v2/team/app/tags/list", &[], b"");
    let tags = wire::exchange(registry.address(), "GET", &tags).await?;
    let tags: Value = serde_json::from_slice(&tags.body)?;
    assert_eq!(tags["tags"], serde_json::json!(["1"]));
    let refused = metric("octoserve_http_requests_total")
        .label("method", "DELETE")
        .label("status", "405");
    refused.value(1).assert_in(&server).await
}
