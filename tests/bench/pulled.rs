//! The content that is pulled: one manifest and one blob, in every registry and as files.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use harness::client::Client;
use harness::content::Content;
use tempfile::TempDir;

use crate::peers::Subject;

/// The repository of the content.
pub(crate) const REPOSITORY: &str = "team/app/web";

/// The content, on disk and in every registry.
pub(crate) struct Pulled {
    /// The manifest, byte for byte.
    pub(crate) manifest: String,
    /// The blob's digest.
    pub(crate) blob: String,
    /// The blob's length, in bytes.
    pub(crate) length: u64,
    /// The directory for nginx.
    pub(crate) directory: TempDir,
}

impl Pulled {
    /// Pushes the same image and the same blob to all registries, and writes them as files.
    pub(crate) async fn push_to(registries: &[Subject], length: u64) -> Result<Self> {
        let directory = TempDir::with_prefix("octoserve-bench-")?;
        let mut manifest = None;
        for registry in registries {
            let client = Client::new(&registry.url(""))?;
            let pushed = client.push_image(REPOSITORY, "latest", &[1]).await?;
            manifest = Some(pushed.manifest);
        }
        let manifest = manifest.context("no registries")?;
        let path = directory.path().join(&Self::manifest_path()[1..]);
        std::fs::create_dir_all(path.parent().context("a file in no directory")?)?;
        std::fs::write(&path, &manifest)?;
        let blobs = directory.path().join(format!("v2/{REPOSITORY}/blobs"));
        std::fs::create_dir_all(&blobs)?;
        let unnamed = blobs.join("unnamed");
        let blob = write(&unnamed, 1, length)?;
        let bytes = std::fs::read(&unnamed)?;
        for registry in registries {
            Client::new(&registry.url(""))?
                .push_blob(REPOSITORY, &bytes)
                .await?;
        }
        std::fs::rename(unnamed, blobs.join(&blob))?;
        Ok(Self {
            manifest,
            blob,
            length,
            directory,
        })
    }

    pub(crate) fn manifest_path() -> String {
        format!("/v2/{REPOSITORY}/manifests/latest")
    }

    pub(crate) fn blob_path(&self) -> String {
        Self::path_of(&self.blob)
    }

    /// The path of the blob with this digest.
    pub(crate) fn path_of(digest: &str) -> String {
        format!("/v2/{REPOSITORY}/blobs/{digest}")
    }

    /// The file of the blob with this digest.
    pub(crate) fn file(&self, digest: &str) -> PathBuf {
        self.directory.path().join(&Self::path_of(digest)[1..])
    }

    /// Adds a blob to the files only and returns its digest.
    pub(crate) fn small_blob(&self, length: u64) -> Result<String> {
        let unnamed = self.directory.path().join("unnamed");
        let digest = write(&unnamed, 2, length)?;
        std::fs::rename(unnamed, self.file(&digest))?;
        Ok(digest)
    }
}

/// Writes reproducible bytes and returns their digest.
pub(crate) fn write(path: &Path, seed: u64, length: u64) -> Result<String> {
    let mut content = Content::new(seed, length);
    let mut file = std::fs::File::create(path)?;
    for piece in content.by_ref() {
        file.write_all(&piece)?;
    }
    Ok(content.digest())
}
