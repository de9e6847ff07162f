//! Checks of a repository's operation metrics: they count images and other content, whatever
//! requests a client needs for them. Also pushes content that is not a plain image.

use anyhow::Result;
use harness::client::{INDEX, MANIFEST, descriptor};
use harness::scrape::metric;
use harness::{content, tools};
use serde_json::json;
use tempfile::TempDir;

use crate::Front;

/// The operations of a repository so far.
#[derive(Clone, Copy, Default)]
pub(crate) struct Moved {
    pub(crate) pull: u32,
    pub(crate) push: u32,
    pub(crate) index_pull: u32,
    pub(crate) index_push: u32,
    pub(crate) blob_pull: u32,
    pub(crate) blob_push: u32,
}

impl Moved {
    /// Waits until exactly these operations are counted.
    pub(crate) async fn assert_in(self, front: &Front, repository: &str) -> Result<()> {
        self.assert_manifests_in(front, repository).await?;
        count(front, repository, "blob_pull", self.blob_pull).await?;
        count(front, repository, "blob_push", self.blob_push).await
    }

    /// Waits until these are counted, except for blobs, some of which a client may mount from
    /// another repository.
    pub(crate) async fn assert_manifests_in(self, front: &Front, repository: &str) -> Result<()> {
        count(front, repository, "pull", self.pull).await?;
        count(front, repository, "push", self.push).await?;
        count(front, repository, "index_pull", self.index_pull).await?;
        count(front, repository, "index_push", self.index_push).await
    }
}

async fn count(front: &Front, repository: &str, operation: &str, count: u32) -> Result<()> {
    metric("octoserve_repository_operations_total")
        .label("repository", repository)
        .label("operation", operation)
        .value(count)
        .assert_in(&front.server)
        .await
}

/// Pushes images for two platforms, each with two valid layers, and their index with the tag `1`.
/// Returns the index's digest.
pub(crate) async fn push_index(front: &Front, repository: &str, seed: u64) -> Result<String> {
    let client = &front.client;
    let mut manifests = Vec::new();
    for (seed, architecture) in [(seed, "amd64"), (seed + 2, "arm64")] {
        let layers = [tar(seed).await?, tar(seed + 1).await?];
        let config = json!({
            "architecture": architecture, "os": "linux", "config": {},
            "rootfs": {"type": "layers", "diff_ids": layers.each_ref().map(|layer| content::digest(layer))},
        });
        let config = config.to_string();
        for layer in &layers {
            client.push_blob(repository, layer).await?;
        }
        client.push_blob(repository, config.as_bytes()).await?;
        let config_type = "application/vnd.oci.image.config.v1+json";
        let layer_type = "application/vnd.oci.image.layer.v1.tar";
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": descriptor(config_type, config.as_bytes()),
            "layers": layers.each_ref().map(|layer| descriptor(layer_type, layer)),
        });
        let manifest = manifest.to_string();
        let digest = content::digest(manifest.as_bytes());
        client
            .push_manifest(repository, &digest, MANIFEST, &manifest)
            .await?;
        let mut entry = descriptor(MANIFEST, manifest.as_bytes());
        entry["platform"] = json!({"architecture": architecture, "os": "linux"});
        manifests.push(entry);
    }
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests});
    client
        .push_manifest(repository, "1", INDEX, &index.to_string())
        .await
}

/// The operations of [`push_index`].
pub(crate) const PUSHED_INDEX: Moved = Moved {
    push: 2,
    index_push: 1,
    blob_push: 6,
    pull: 0,
    index_pull: 0,
    blob_pull: 0,
};

/// Pushes a manifest that differs from an image only by its layer's media type: a signature of
/// cosign, an attestation of buildkit.
pub(crate) async fn push_about_an_image(
    front: &Front,
    repository: &str,
    tag: &str,
    layer_type: &str,
) -> Result<()> {
    let client = &front.client;
    let (layer, config) = (format!("{{\"of\":\"{tag}\"}}"), "{}");
    for blob in [&layer, config] {
        client.push_blob(repository, blob.as_bytes()).await?;
    }
    let config_type = "application/vnd.oci.image.config.v1+json";
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": descriptor(config_type, config.as_bytes()),
        "layers": [descriptor(layer_type, layer.as_bytes())],
    });
    client
        .push_manifest(repository, tag, MANIFEST, &manifest.to_string())
        .await?;
    Ok(())
}

/// A layer: one file.
async fn tar(seed: u64) -> Result<Vec<u8>> {
    let work = TempDir::new()?;
    let file = format!("file-{seed}");
    std::fs::write(work.path().join(&file), content::bytes(seed, 65536))?;
    let directory = work.path().display().to_string();
    let tar = format!("{directory}/layer.tar");
    tools::run("tar", &["-C", &directory, "-cf", &tar, &file]).await?;
    Ok(std::fs::read(tar)?)
}
