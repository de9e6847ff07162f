//! podman, a client without a daemon: push, pull by tag and by digest, and pull of one platform of
//! an index.

use anyhow::{Result, ensure};
use harness::content;
use harness::podman::Podman;
use harness::scrape::metric;

use crate::Front;
use crate::content::{Moved, PUSHED_INDEX, push_index};

#[tokio::test]
async fn podman_works_with_the_embedded_registry() -> Result<()> {
    let front = Front::embedded().await?;
    days_of_two_platforms(&front).await?;
    let manifests = metric("octoserve_http_requests_total").label("endpoint", "manifest");
    // Two images, and their index, with which podman pushes the images again.
    let pushed = manifests.label("method", "PUT").label("status", "201");
    let scrape = front.server.scrape().await?;
    ensure!(scrape.sum(&pushed) >= Some(3.0), "{}", scrape.text());
    Ok(())
}

#[tokio::test]
async fn podman_works_with_the_registry_alone() -> Result<()> {
    days_of_two_platforms(&Front::registry().await?).await
}

#[tokio::test]
async fn buildah_pushes_what_it_builds_and_pulls_it() -> Result<()> {
    let front = Front::embedded().await?;
    Podman::new()?
        .buildah(&front.image("team/built:1"), 36)
        .await?;
    let moved = Moved {
        push: 1,
        pull: 1,
        blob_push: 2,
        blob_pull: 2,
        ..Moved::default()
    };
    moved.assert_in(&front, "team/built").await?;
    let requests = metric("octoserve_client_requests_total").label("client", "containers");
    let scrape = front.server.scrape().await?;
    ensure!(scrape.sum(&requests) > Some(0.0), "{}", scrape.text());
    Ok(())
}

#[tokio::test]
async fn each_podman_image_counts_as_one_pull_or_push() -> Result<()> {
    let front = Front::embedded().await?;
    let podman = Podman::new()?;
    let one = front.image("team/one:1");
    podman.image(&one, "amd64", 33).await?;
    podman.push(&one).await?;
    let mut moved = Moved {
        push: 1,
        blob_push: 2,
        ..Moved::default()
    };
    moved.assert_in(&front, "team/one").await?;
    podman.forget(&[&one]).await?;
    podman.pull(&one, &[]).await?;
    moved.pull = 1;
    moved.blob_pull = 2;
    moved.assert_in(&front, "team/one").await?;
    // It already has the layers, and fetches the manifest and the configuration again.
    podman.pull(&one, &[]).await?;
    moved.pull = 2;
    moved.blob_pull = 3;
    moved.assert_in(&front, "team/one").await?;

    push_index(&front, "team/multi", 34).await?;
    let multi = front.image("team/multi:1");
    podman.pull(&multi, &["--arch=amd64"]).await?;
    let moved = Moved {
        index_pull: 1,
        pull: 1,
        blob_pull: 3,
        ..PUSHED_INDEX
    };
    moved.assert_in(&front, "team/multi").await
}

async fn days_of_two_platforms(front: &Front) -> Result<()> {
    let podman = Podman::new()?;
    let (amd64, arm64) = (
        front.image("team/tool:amd64"),
        front.image("team/tool:arm64"),
    );
    podman.image(&amd64, "amd64", 31).await?;
    podman.image(&arm64, "arm64", 32).await?;
    podman.push(&amd64).await?;
    podman.push(&arm64).await?;
    podman.forget(&[&amd64, &arm64]).await?;

    let id = podman.pull(&amd64, &[]).await?;
    let manifest = front.client.read("/v2/team/tool/manifests/amd64").await?;
    let by_digest = format!(
        "{}@{}",
        front.image("team/tool"),
        content::digest(&manifest)
    );
    podman.forget(&[&amd64]).await?;
    ensure!(podman.pull(&by_digest, &[]).await? == id, "another image");
    podman.forget(&[&by_digest]).await?;

    let index = front.image("team/multi:1");
    podman.index(&index, &[&amd64, &arm64]).await?;
    let text = front.client.read("/v2/team/multi/manifests/1").await?;
    let text: serde_json::Value = serde_json::from_slice(&text)?;
    let platforms = text["manifests"].as_array().map(Vec::len);
    ensure!(platforms == Some(2), "{text}");
    let mine = podman.pull(&index, &["--arch=amd64"]).await?;
    ensure!(mine == id, "another image by the index");
    podman.forget(&[&index]).await?;
    let other = podman.pull(&index, &["--arch=arm64"]).await?;
    ensure!(other != id, "the same image for another platform");
    Ok(())
}
