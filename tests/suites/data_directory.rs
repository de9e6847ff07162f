//! The data directory is moved away while the registry runs: nothing is reported as unknown,
//! nothing is written, and probes report the reason.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::client::{Client, Pushed};
use harness::octoserve::{Launch, Server};
use harness::poll;
use harness::scrape::metric;
use harness::wire;
use reqwest::Method;

const DEADLINE: Duration = Duration::from_secs(30);

async fn ready_says(server: &Server, status: u16, words: &str) -> Result<()> {
    let what = format!("/readyz says {status} {words:?}");
    poll::until(&what, DEADLINE, async || {
        let request = wire::request("GET", "/readyz", &[], b"");
        let response = wire::exchange(server.metrics_address(), "GET", &request).await?;
        let body = String::from_utf8(response.body)?;
        Ok((response.head.status == status && body.contains(words)).then_some(()))
    })
    .await
}

/// Whether the statistics show one repository.
async fn counts_one_repository(server: &Server) -> Result<bool> {
    let counted = server
        .scrape()
        .await?
        .sum(&metric("octoserve_repositories"));
    Ok(counted == Some(1.0))
}

async fn all_is_unavailable(client: &Client, image: &Pushed) -> Result<()> {
    let blob = format!("/v2/team/app/blobs/{}", image.layers[0]);
    let by_digest = format!("/v2/team/app/manifests/{}", image.digest);
    let referrers = format!("/v2/team/app/referrers/{}", image.digest);
    let mount = format!("/v2/team/copy/blobs/uploads/?mount={}", image.layers[0]);
    for (method, path) in [
        (Method::GET, "/v2/"),
        (Method::GET, &blob),
        (Method::HEAD, &blob),
        (Method::GET, "/v2/team/app/manifests/1"),
        (Method::GET, &by_digest),
        (Method::GET, "/v2/team/other/manifests/1"),
        (Method::GET, "/v2/team/app/tags/list"),
        (Method::GET, "/v2/_catalog"),
        (Method::GET, &referrers),
        (Method::POST, "/v2/team/app/blobs/uploads/"),
        (Method::POST, &mount),
        (Method::DELETE, &by_digest),
        (Method::DELETE, &blob),
    ] {
        let response = client.send(method.clone(), path, &[], "").await?;
        let status = response.status();
        ensure!(status == 503, "{method} {path}: {status}");
        let body = response.text().await?;
        let has_code = method == Method::HEAD || body.contains("UNAVAILABLE");
        ensure!(has_code, "{method} {path}: {body}");
    }
    Ok(())
}

async fn is_lost_and_found(launch: Launch, parent: &Path) -> Result<()> {
    let (data, aside) = (parent.join("data"), parent.join("aside"));
    let server = launch.data(&data).start().await?;
    let client = Client::new(&server.url(""))?;
    let image = client.push_image("team/app", "1", &[1, 2]).await?;
    client.pull_image("team/app", "1").await?;
    ready_says(&server, 200, "ok").await?;
    poll::until("the repository is counted", DEADLINE, async || {
        Ok(counts_one_repository(&server).await?.then_some(()))
    })
    .await?;

    std::fs::rename(&data, &aside)?;
    // The first request arrives before the registry has checked the directory.
    let catalog = client.get("/v2/_catalog").await?;
    ensure!(catalog.status() == 503, "{}", catalog.status());
    all_is_unavailable(&client, &image).await?;
    ready_says(&server, 503, "the data directory is gone").await?;
    ensure!(!data.exists(), "a request made the directory again");

    let second = Launch::registry().data(&aside).start().await;
    ensure!(second.is_err(), "a second registry uses the directory");
    std::fs::create_dir(&data)?;
    ready_says(&server, 503, "not the one that was opened").await?;
    all_is_unavailable(&client, &image).await?;
    ensure!(
        std::fs::read_dir(&data)?.next().is_none(),
        "it was written to"
    );
    ensure!(
        counts_one_repository(&server).await?,
        "the figures are lost"
    );

    std::fs::remove_dir(&data)?;
    std::fs::rename(&aside, &data)?;
    ready_says(&server, 200, "ok").await?;
    client.pull_image("team/app", "1").await?;
    client.push_image("team/app", "2", &[3]).await?;
    let catalog = client.read("/v2/_catalog").await?;
    let catalog = String::from_utf8(catalog.to_vec())?;
    ensure!(catalog.contains("team/app"), "{catalog}");
    Ok(())
}

#[tokio::test]
async fn the_registry_serves_nothing_while_its_directory_is_gone() -> Result<()> {
    let parent = tempfile::tempdir()?;
    is_lost_and_found(Launch::registry(), parent.path())
        .await
        .context("octoserve-registry")
}

#[tokio::test]
async fn the_all_in_one_serves_nothing_while_its_directory_is_gone() -> Result<()> {
    let parent = tempfile::tempdir()?;
    is_lost_and_found(Launch::all_in_one(), parent.path())
        .await
        .context("octoserve")
}
