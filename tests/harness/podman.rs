//! podman: a client without a daemon, with its own storage.

use anyhow::Result;
use tempfile::TempDir;

use crate::{content, tools};

/// podman with directories separate from the machine's. It never runs a container.
pub struct Podman {
    directory: TempDir,
}

impl Podman {
    /// Prepares it.
    ///
    /// # Errors
    /// If its policy cannot be written.
    pub fn new() -> Result<Self> {
        let directory = TempDir::with_prefix("octo-podman-")?;
        let policy = r#"{"default": [{"type": "insecureAcceptAnything"}]}"#;
        std::fs::write(directory.path().join("policy.json"), policy)?;
        Ok(Self { directory })
    }

    /// Makes the image `name`: one layer, a file of 64 KiB that depends on `seed`.
    ///
    /// # Errors
    /// If podman refuses.
    pub async fn image(&self, name: &str, architecture: &str, seed: u64) -> Result<()> {
        let work = TempDir::new_in(self.directory.path())?;
        let file = format!("file-{seed}");
        std::fs::write(work.path().join(&file), content::bytes(seed, 65536))?;
        let tar = self.path("layer.tar");
        let directory = work.path().display().to_string();
        tools::run("tar", &["-C", &directory, "-cf", &tar, &file]).await?;
        let architecture = format!("--arch={architecture}");
        self.run(&["import", "--quiet", &architecture, &tar, name])
            .await?;
        Ok(())
    }

    /// Has buildah build the image `name`, one layer of a file that depends on `seed`, push it, forget it, and
    /// pull it again.
    ///
    /// # Errors
    /// If buildah is missing or refuses.
    pub async fn buildah(&self, name: &str, seed: u64) -> Result<()> {
        let file = self.path("built");
        std::fs::write(&file, content::bytes(seed, 65536))?;
        let (root, run) = (self.path("buildah"), self.path("buildah-run"));
        let own = ["--storage-driver=vfs", "--root", &root, "--runroot", &run];
        let buildah =
            async |words: &[&str]| tools::run("buildah", &[&own[..], words].concat()).await;
        let container = buildah(&["from", "scratch"]).await?;
        let container = container.trim();
        buildah(&["copy", container, &file, "/"]).await?;
        buildah(&["commit", "--rm", container, name]).await?;
        let policy = self.path("policy.json");
        let client = ["--tls-verify=false", "--signature-policy", &policy];
        buildah(&[&["push"], &client[..], &[name]].concat()).await?;
        buildah(&["rmi", "--force", name]).await?;
        buildah(&[&["pull"], &client[..], &[name]].concat()).await?;
        Ok(())
    }

    /// Logs in at a registry.
    ///
    /// # Errors
    /// If the registry refuses the password.
    pub async fn login(&self, host: &str, user: &str, password: &str) -> Result<()> {
        let own = ["login", "--tls-verify=false", "--username", user];
        let credentials = ["--password", password, &self.logins()?, host];
        self.run(&[&own[..], &credentials].concat()).await?;
        Ok(())
    }

    /// Pushes an image to the registry in its name.
    ///
    /// # Errors
    /// If it fails, with podman's output.
    pub async fn push(&self, name: &str) -> Result<()> {
        let policy = self.path("policy.json");
        let own = ["push", "--tls-verify=false", "--signature-policy", &policy];
        self.run(&[&own[..], &[&self.logins()?, name]].concat())
            .await?;
        Ok(())
    }

    /// Pulls an image that podman does not have, and returns its identifier: the digest of its
    /// configuration.
    ///
    /// # Errors
    /// If it fails, with podman's output.
    pub async fn pull(&self, name: &str, extra: &[&str]) -> Result<String> {
        let policy = self.path("policy.json");
        let own = ["pull", "--quiet", "--tls-verify=false"];
        let policy = ["--signature-policy", &policy, &self.logins()?];
        let id = self
            .run(&[&own[..], &policy, extra, &[name]].concat())
            .await?;
        Ok(id.trim().to_owned())
    }

    /// Makes an index of pushed images and pushes it with them.
    ///
    /// # Errors
    /// If it fails, with podman's output.
    pub async fn index(&self, name: &str, images: &[&str]) -> Result<()> {
        self.run(&["manifest", "create", name]).await?;
        for image in images {
            let image = format!("docker://{image}");
            let add = ["manifest", "add", "--tls-verify=false", name, &image];
            self.run(&add).await?;
        }
        let to = format!("docker://{name}");
        let push = ["manifest", "push", "--all", "--tls-verify=false", name, &to];
        self.run(&push).await?;
        self.run(&["manifest", "rm", name]).await?;
        Ok(())
    }

    /// Removes images, so that a pull has to fetch them again.
    ///
    /// # Errors
    /// If one does not exist.
    pub async fn forget(&self, names: &[&str]) -> Result<()> {
        self.run(&[&["rmi", "--force"], names].concat()).await?;
        Ok(())
    }

    /// The flag that names the file of its own logins.
    fn logins(&self) -> Result<String> {
        let file = self.directory.path().join("auth.json");
        // The flag needs a file, also before the first login.
        if !file.exists() {
            std::fs::write(&file, "{}")?;
        }
        Ok(format!("--authfile={}", file.display()))
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    async fn run(&self, arguments: &[&str]) -> Result<String> {
        let (root, run) = (self.path("root"), self.path("run"));
        // These drivers work on any file system and without systemd, also within a container.
        let own = ["--storage-driver=vfs", "--cgroup-manager=cgroupfs"];
        let places = ["--root", &root, "--runroot", &run, "--events-backend=none"];
        tools::run("podman", &[&own[..], &places, arguments].concat()).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_built_image_exists_until_it_is_removed() {
        let podman = Podman::new().unwrap();
        podman.image("localhost/one:1", "amd64", 1).await.unwrap();
        let seen = podman.run(&["images", "--quiet"]).await.unwrap();
        assert_eq!(seen.lines().count(), 1, "{seen}");
        podman.forget(&["localhost/one:1"]).await.unwrap();
        assert_eq!(podman.run(&["images", "--quiet"]).await.unwrap(), "");
    }
}
