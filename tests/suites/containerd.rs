//! containerd, which Kubernetes pulls by: it resolves a tag by HEAD and pulls by digest, unpacks what
//! it got, and pushes it elsewhere.

use anyhow::{Result, ensure};
use harness::client::{MANIFEST, descriptor};
use harness::containerd::Containerd;
use harness::scrape::metric;
use harness::{content, tools};
use serde_json::json;
use tempfile::TempDir;

use crate::Front;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";

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
    let digest = push_index(front).await?;
    let containerd = Containerd::start().await?;
    let (multi, copy) = (front.image("team/multi:1"), front.image("team/copy:1"));
    containerd.pull(&multi, &[]).await?;
    containerd.forget(&multi).await?;
    let by_digest = format!("{}@{digest}", front.image("team/multi"));
    containerd.pull(&by_digest, &["--all-platforms"]).await?;
    containerd.tag(&by_digest, &copy).await?;
    containerd.push(&copy).await?;

    let original = front.client.read("/v2/team/multi/manifests/1").await?;
    let copied = front.client.read("/v2/team/copy/manifests/1").await?;
    ensure!(original == copied, "the copy is another index");
    containerd.forget(&by_digest).await?;
    containerd.forget(&copy).await?;
    containerd.pull(&copy, &["--all-platforms"]).await
}

/// Pushes an image for each of two platforms, with layers that can be unpacked, and their index.
async fn push_index(front: &Front) -> Result<String> {
    let mut manifests = Vec::new();
    for (seed, architecture) in [(41, "amd64"), (42, "arm64")] {
        let layer = tar(seed).await?;
        let config = json!({
            "architecture": architecture, "os": "linux", "config": {},
            "rootfs": {"type": "layers", "diff_ids": [content::digest(&layer)]},
        });
        let config = config.to_string();
        front.client.push_blob("team/multi", &layer).await?;
        let repository = "team/multi";
        front
            .client
            .push_blob(repository, config.as_bytes())
            .await?;
        let config_type = "application/vnd.oci.image.config.v1+json";
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": descriptor(config_type, config.as_bytes()),
            "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer)],
        });
        let manifest = manifest.to_string();
        let digest = content::digest(manifest.as_bytes());
        front
            .client
            .push_manifest(repository, &digest, MANIFEST, &manifest)
            .await?;
        let mut entry = descriptor(MANIFEST, manifest.as_bytes());
        entry["platform"] = json!({"architecture": architecture, "os": "linux"});
        manifests.push(entry);
    }
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests});
    front
        .client
        .push_manifest("team/multi", "1", INDEX, &index.to_string())
        .await
}

/// A layer: one file.
async fn tar(seed: u64) -> Result<Vec<u8>> {
    let work = TempDir::new()?;
    std::fs::write(work.path().join("file"), content::bytes(seed, 65536))?;
    let folder = work.path().display().to_string();
    let tar = format!("{folder}/layer.tar");
    tools::run("tar", &["-C", &folder, "-cf", &tar, "file"]).await?;
    Ok(std::fs::read(tar)?)
}
