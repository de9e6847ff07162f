//! containerd, the client of Kubernetes: it resolves a tag by HEAD, pulls by digest, unpacks the
//! image, and pushes it elsewhere.

use anyhow::{Result, ensure};
use harness::containerd::Containerd;
use harness::scrape::metric;

use crate::Front;
use crate::content::{Moved, PUSHED_INDEX, push_index};

#[tokio::test]
async fn containerd_works_with_the_embedded_registry() -> Result<()> {
    let front = Front::embedded().await?;
    day_of_an_index(&front).await?;
    let requests = metric("octoserve_http_requests_total").label("endpoint", "manifest");
    let resolved = requests.label("method", "HEAD").label("status", "200");
    let scrape = front.server.scrape().await?;
    ensure!(scrape.sum(&resolved) >= Some(2.0), "{}", scrape.text());
    Ok(())
}

#[tokio::test]
async fn containerd_works_with_the_registry_alone() -> Result<()> {
    day_of_an_index(&Front::registry().await?).await
}

async fn day_of_an_index(front: &Front) -> Result<()> {
    let digest = push_index(front, "team/multi", 41).await?;
    let containerd = Containerd::start().await?;
    let (multi, copy) = (front.image("team/multi:1"), front.image("team/copy:1"));
    containerd.pull(&multi, &[]).await?;
    containerd.forget(&multi).await?;
    let by_digest = format!("{}@{digest}", front.image("team/multi"));
    containerd.pull(&by_digest, &["--all-platforms"]).await?;
    containerd.tag(&by_digest, &copy).await?;
    containerd.push(&copy, &[]).await?;

    let original = front.client.read("/v2/team/multi/manifests/1").await?;
    let copied = front.client.read("/v2/team/copy/manifests/1").await?;
    ensure!(original == copied, "the copy is another index");
    containerd.forget(&by_digest).await?;
    containerd.forget(&copy).await?;
    containerd.pull(&copy, &["--all-platforms"]).await
}

#[tokio::test]
async fn each_containerd_image_counts_as_one_pull_or_push() -> Result<()> {
    let front = Front::embedded().await?;
    push_index(&front, "team/multi", 51).await?;
    let image = front.client.push_image("team/one", "1", &[]).await?;
    let containerd = Containerd::start().await?;
    let multi = front.image("team/multi:1");
    containerd.pull(&multi, &["--platform=linux/amd64"]).await?;
    let mut moved = Moved {
        index_pull: 1,
        pull: 1,
        blob_pull: 3,
        ..PUSHED_INDEX
    };
    moved.assert_in(&front, "team/multi").await?;
    containerd.forget(&multi).await?;
    containerd.pull(&multi, &["--all-platforms"]).await?;
    moved.index_pull += 1;
    moved.pull += 2;
    moved.blob_pull += 6;
    moved.assert_in(&front, "team/multi").await?;

    // It already has everything, including the manifests, and only resolves the tag.
    containerd.pull(&multi, &["--all-platforms"]).await?;
    moved.assert_in(&front, "team/multi").await?;

    let copy = front.image("team/copy:1");
    containerd.tag(&multi, &copy).await?;
    containerd.push(&copy, &[]).await?;
    PUSHED_INDEX
        .assert_manifests_in(&front, "team/copy")
        .await?;

    let one = format!("{}@{}", front.image("team/one"), image.digest);
    containerd.pull(&one, &[]).await?;
    let moved = Moved {
        push: 1,
        blob_push: 1,
        pull: 1,
        blob_pull: 1,
        ..Moved::default()
    };
    moved.assert_in(&front, "team/one").await
}
