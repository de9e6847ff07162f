//! skopeo: the client of podman's family that needs no daemon and no storage.

use std::path::Path;

use anyhow::Result;
use serde_json::Value;
use tempfile::TempDir;

use crate::{content, tools};

/// skopeo with its own signature policy, which accepts anything.
pub struct Skopeo {
    directory: TempDir,
}

impl Skopeo {
    /// Prepares it.
    ///
    /// # Errors
    /// If its policy cannot be written.
    pub fn new() -> Result<Self> {
        let directory = TempDir::with_prefix("octoserve-skopeo-")?;
        let policy = r#"{"default": [{"type": "insecureAcceptAnything"}]}"#;
        std::fs::write(directory.path().join("policy.json"), policy)?;
        Ok(Self { directory })
    }

    /// Copies an image from one skopeo reference to another.
    ///
    /// # Errors
    /// If it fails, with its output.
    pub async fn copy(&self, from: &str, to: &str, extra: &[&str]) -> Result<()> {
        let verify = ["--src-tls-verify=false", "--dest-tls-verify=false"];
        self.run(&[&["copy"], &verify[..], extra, &[from, to]].concat())
            .await?;
        Ok(())
    }

    /// Copies an image, and verifies the certificates of registries.
    ///
    /// # Errors
    /// If it fails, with its output.
    pub async fn copy_verified(&self, from: &str, to: &str, extra: &[&str]) -> Result<()> {
        self.run(&[&["copy"], extra, &[from, to]].concat()).await?;
        Ok(())
    }

    /// The output of `skopeo inspect` for an image.
    ///
    /// # Errors
    /// If it fails, with its output.
    pub async fn inspect(&self, image: &str) -> Result<Value> {
        let text = self.run(&["inspect", "--tls-verify=false", image]).await?;
        Ok(serde_json::from_str(&text)?)
    }

    /// The image's manifest, byte for byte.
    ///
    /// # Errors
    /// If it fails, with its output.
    pub async fn manifest(&self, image: &str) -> Result<String> {
        self.run(&["inspect", "--raw", "--tls-verify=false", image])
            .await
    }

    /// The manifest of an image that this `registries.conf` leads to.
    ///
    /// # Errors
    /// If it fails, with its output.
    pub async fn configured_manifest(&self, configuration: &Path, image: &str) -> Result<String> {
        let configuration = configuration.display().to_string();
        let own = ["--registries-conf", &configuration, "inspect", "--raw"];
        self.run(&[&own[..], &[image]].concat()).await
    }

    /// The manifest, fetched with the credentials `user:password`.
    ///
    /// # Errors
    /// If it fails, with its output.
    pub async fn manifest_as(&self, image: &str, credentials: &str) -> Result<String> {
        let own = ["inspect", "--raw", "--tls-verify=false", "--creds"];
        self.run(&[&own[..], &[credentials, image]].concat()).await
    }

    /// Deletes an image: skopeo resolves its digest, then deletes by digest.
    ///
    /// # Errors
    /// If it fails, with its output.
    pub async fn delete(&self, image: &str) -> Result<()> {
        self.run(&["delete", "--tls-verify=false", image]).await?;
        Ok(())
    }

    /// The tags of a repository, such as `docker://host/name`.
    ///
    /// # Errors
    /// If it fails, with its output.
    pub async fn tags(&self, repository: &str) -> Result<Vec<String>> {
        let text = self
            .run(&["list-tags", "--tls-verify=false", repository])
            .await?;
        let mut response: Value = serde_json::from_str(&text)?;
        Ok(serde_json::from_value(response["Tags"].take())?)
    }

    /// Writes an OCI layout with one image, tagged `latest`, that has a layer for each seed, and
    /// returns its skopeo reference.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn layout(&self, name: &str, seeds: &[u64]) -> Result<String> {
        let root = self.directory.path().join(name);
        std::fs::create_dir_all(root.join("blobs/sha256"))?;
        let descriptor = |media_type: &str, bytes: &[u8]| -> Result<Value> {
            let digest = content::digest(bytes);
            std::fs::write(root.join("blobs").join(digest.replace(':', "/")), bytes)?;
            Ok(serde_json::json!({
                "mediaType": media_type, "digest": digest, "size": bytes.len(),
            }))
        };
        let mut layers = Vec::new();
        let mut digests = Vec::new();
        for &seed in seeds {
            let bytes = content::bytes(seed, 64 * 1024);
            digests.push(content::digest(&bytes));
            layers.push(descriptor(
                "application/vnd.oci.image.layer.v1.tar",
                &bytes,
            )?);
        }
        let config = serde_json::json!({
            "architecture": "amd64", "os": "linux", "config": {},
            "rootfs": {"type": "layers", "diff_ids": digests},
        });
        let config = config.to_string();
        let config = descriptor(
            "application/vnd.oci.image.config.v1+json",
            config.as_bytes(),
        )?;
        let manifest_type = "application/vnd.oci.image.manifest.v1+json";
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": manifest_type, "config": config, "layers": layers,
        });
        let mut manifest = descriptor(manifest_type, manifest.to_string().as_bytes())?;
        manifest["annotations"] =
            serde_json::json!({"org.opencontainers.image.ref.name": "latest"});
        let index = serde_json::json!({"schemaVersion": 2, "manifests": [manifest]});
        std::fs::write(root.join("index.json"), index.to_string())?;
        std::fs::write(root.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
        Ok(format!("oci:{}:latest", root.display()))
    }

    /// A directory that lives as long as this value, for layouts to copy into.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    async fn run(&self, arguments: &[&str]) -> Result<String> {
        let policy = self
            .directory
            .path()
            .join("policy.json")
            .display()
            .to_string();
        // This excludes the machine's registries.d, mirrors and credentials.
        let own = ["--policy", &policy, "--registries.d", "/nonexistent"];
        tools::run("skopeo", &[&own[..], arguments].concat()).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn skopeo_reads_a_layout_as_an_image() {
        let skopeo = Skopeo::new().unwrap();
        let image = skopeo.layout("one", &[1, 2]).unwrap();
        let seen = skopeo.inspect(&image).await.unwrap();
        assert_eq!(
            seen["Layers"][1],
            content::digest(&content::bytes(2, 65536))
        );
    }
}
