//! A truncated blob on disk is refused, counted, and repaired by a push.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use harness::client::Client;
use harness::content;
use harness::octoserve::{Launch, Server};
use harness::scrape::metric;
use reqwest::Method;

const SIZE: u64 = 100_000;

fn hex(digest: &str) -> Result<&str> {
    digest.strip_prefix("sha256:").context("no digest")
}

fn content_of(data: &Path, digest: &str) -> Result<PathBuf> {
    let hex = hex(digest)?;
    Ok(data.join("blobs/sha256").join(&hex[..2]).join(hex))
}

/// The counted failures of an operation.
async fn failures(server: &Server, operation: &str) -> Result<()> {
    metric("octoserve_storage_errors_total")
        .label("operation", operation)
        .label("error_type", "io")
        .value(1.0)
        .assert_in(server)
        .await
}

#[tokio::test]
async fn a_truncated_blob_is_refused_until_it_is_pushed_again() -> Result<()> {
    for launch in [Launch::registry(), Launch::all_in_one()] {
        let server = launch.start().await?;
        let client = Client::new(&server.url(""))?;
        let bytes = content::bytes(1, SIZE);
        let digest = client.push_blob("team/app", &bytes).await?;
        let path = format!("/v2/team/app/blobs/{digest}");
        ensure!(client.read(&path).await? == bytes, "other bytes");
        let file = content_of(server.data(), &digest)?;
        let file = OpenOptions::new().write(true).open(file)?;
        file.set_len(SIZE / 2)?;
        drop(file);

        let mount = format!("/v2/team/copy/blobs/uploads/?mount={digest}&from=team/app");
        for (method, path) in [(Method::GET, &path), (Method::HEAD, &path)] {
            let response = client.send(method.clone(), path, &[], "").await?;
            ensure!(response.status() == 500, "{method}: {}", response.status());
            let is_named = response.headers().contains_key("docker-content-digest");
            ensure!(!is_named, "{method}: a digest goes with it");
        }
        // A failed mount opens an upload session, so the push can continue.
        let response = client.send(Method::POST, &mount, &[], "").await?;
        ensure!(response.status() == 202, "mount: {}", response.status());
        for operation in ["blob_read", "blob_stat", "blob_mount"] {
            failures(&server, operation).await?;
        }

        client.push_blob("team/other", &bytes).await?;
        ensure!(client.read(&path).await? == bytes, "other bytes");
    }
    Ok(())
}

#[tokio::test]
async fn an_older_data_directory_is_served_and_its_sizes_are_added() -> Result<()> {
    let server = Launch::registry().start().await?;
    let client = Client::new(&server.url(""))?;
    let bytes = content::bytes(1, SIZE);
    let digest = client.push_blob("team/app", &bytes).await?;
    let links = server.data().join("repositories/team/app/_blobs");
    let link = links.join(format!("sha256-{}", hex(&digest)?));
    std::fs::write(&link, "")?;
    let path = format!("/v2/team/app/blobs/{digest}");
    ensure!(client.read(&path).await? == bytes, "other bytes");
    client.push_blob("team/app", &bytes).await?;
    ensure!(std::fs::read_to_string(&link)? == format!("{SIZE}\n"));
    Ok(())
}
