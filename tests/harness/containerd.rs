//! containerd: a daemon of our own, separate from the machine's, and its client `ctr`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::process::Process;
use crate::{poll, tools};

/// How long the daemon may take to respond and to exit.
const DEADLINE: Duration = Duration::from_mins(1);

/// A running containerd. Dropping it stops it and removes its directory.
pub struct Containerd {
    // Fields are dropped in this order: the daemon must stop before its directory is removed.
    process: Process,
    socket: PathBuf,
    /// How it reaches registries: flags of `ctr`.
    transport: Vec<String>,
    /// What `--hosts-dir` names.
    _hosts: Option<TempDir>,
    _directory: TempDir,
}

impl Containerd {
    /// Starts one that speaks plain HTTP with registries.
    ///
    /// # Errors
    /// If containerd is not installed, or does not start, for instance without root.
    pub async fn start() -> Result<Self> {
        Self::reaching(&["--plain-http"], None).await
    }

    /// Starts one that speaks TLS with this host, and trusts this certificate.
    ///
    /// # Errors
    /// If containerd is not installed, or does not start, for instance without root.
    pub async fn trusting(host: &str, certificate: &Path) -> Result<Self> {
        let hosts = TempDir::with_prefix("octo-hosts-")?;
        let own = hosts.path().join(host);
        std::fs::create_dir(&own)?;
        std::fs::copy(certificate, own.join("ca.crt"))?;
        // With `localhost` it speaks plain HTTP unless this file says otherwise.
        let file = format!("server = \"https://{host}\"\nca = \"ca.crt\"\n[host]\n");
        std::fs::write(own.join("hosts.toml"), file)?;
        let directory = hosts.path().display().to_string();
        Self::reaching(&["--hosts-dir", &directory], Some(hosts)).await
    }

    /// Starts one that asks this server, by plain HTTP, for the images of these registries.
    ///
    /// # Errors
    /// If containerd is not installed, or does not start, for instance without root.
    pub async fn mirroring(registries: &[&str], server: &str) -> Result<Self> {
        let hosts = TempDir::with_prefix("octo-hosts-")?;
        for registry in registries {
            let own = hosts.path().join(registry);
            std::fs::create_dir(&own)?;
            let file = format!(
                "server = \"https://{registry}\"\n[host.\"http://{server}\"]\n\
                 capabilities = [\"pull\", \"resolve\"]\n"
            );
            std::fs::write(own.join("hosts.toml"), file)?;
        }
        let directory = hosts.path().display().to_string();
        Self::reaching(&["--hosts-dir", &directory], Some(hosts)).await
    }

    /// Starts one with this `hosts.toml` for a registry.
    ///
    /// # Errors
    /// If containerd is not installed, or does not start, for instance without root.
    pub async fn with_hosts(registry: &str, text: &str) -> Result<Self> {
        let hosts = TempDir::with_prefix("octo-hosts-")?;
        let own = hosts.path().join(registry);
        std::fs::create_dir(&own)?;
        std::fs::write(own.join("hosts.toml"), text)?;
        let directory = hosts.path().display().to_string();
        Self::reaching(&["--hosts-dir", &directory], Some(hosts)).await
    }

    async fn reaching(transport: &[&str], hosts: Option<TempDir>) -> Result<Self> {
        ensure!(
            rustix::process::geteuid().is_root(),
            "containerd needs root: run the tests as root, or leave its suite out"
        );
        // A short path, because the kernel limits a socket's path to 107 bytes.
        let directory = TempDir::with_prefix("octo-ctr-")?;
        let path = |name: &str| directory.path().join(name);
        let socket = path("ctr.sock");
        // The plug-in for Kubernetes is not used here and needs a network.
        let configuration = format!(
            "version = 2\nroot = '{}'\nstate = '{}'\n\
             disabled_plugins = ['io.containerd.grpc.v1.cri']\n\
             [grpc]\naddress = '{}'\n[ttrpc]\naddress = '{}'\n",
            path("root").display(),
            path("state").display(),
            socket.display(),
            path("ttrpc.sock").display()
        );
        std::fs::write(path("config.toml"), configuration)?;
        let mut command = Command::new(tools::find("containerd")?);
        command.arg("--config").arg(path("config.toml"));
        let process = Process::start("containerd", command, directory.path())?.with_grace(DEADLINE);
        let mut containerd = Self {
            process,
            socket,
            transport: transport.iter().map(|&flag| flag.to_owned()).collect(),
            _hosts: hosts,
            _directory: directory,
        };
        let response = poll::until("containerd responds", DEADLINE, async || {
            ensure!(containerd.process.is_running()?, "the daemon has ended");
            Ok(containerd.run(&["version"]).await.ok())
        });
        response
            .await
            .with_context(|| containerd.process.last_words())?;
        Ok(containerd)
    }

    /// Pulls an image and unpacks it, which checks every digest.
    ///
    /// # Errors
    /// If it fails, with ctr's output.
    pub async fn pull(&self, name: &str, extra: &[&str]) -> Result<()> {
        // The native snapshotter works on any file system, also within a container.
        let own = ["images", "pull", "--snapshotter", "native"];
        let transport = self.transport();
        self.run(&[&own[..], &transport, extra, &[name]].concat())
            .await?;
        Ok(())
    }

    /// Fetches an image's content, and unpacks nothing.
    ///
    /// # Errors
    /// If it fails, with ctr's output.
    pub async fn fetch(&self, name: &str, extra: &[&str]) -> Result<()> {
        let own = ["content", "fetch"];
        self.run(&[&own[..], &self.transport(), extra, &[name]].concat())
            .await?;
        Ok(())
    }

    /// Pushes an image with all its local platforms to the registry in its name.
    ///
    /// # Errors
    /// If it fails, with ctr's output.
    pub async fn push(&self, name: &str, extra: &[&str]) -> Result<()> {
        let own = ["images", "push"];
        let transport = self.transport();
        self.run(&[&own[..], &transport, extra, &[name]].concat())
            .await?;
        Ok(())
    }

    /// Gives an image a second name.
    ///
    /// # Errors
    /// If there is no such image.
    pub async fn tag(&self, name: &str, other: &str) -> Result<()> {
        self.run(&["images", "tag", name, other]).await?;
        Ok(())
    }

    /// Removes an image and its unshared content, so that a pull has to fetch it again.
    ///
    /// # Errors
    /// If there is no such image.
    pub async fn forget(&self, name: &str) -> Result<()> {
        self.run(&["images", "rm", "--sync", name]).await?;
        Ok(())
    }

    fn transport(&self) -> Vec<&str> {
        self.transport.iter().map(String::as_str).collect()
    }

    async fn run(&self, arguments: &[&str]) -> Result<String> {
        let socket = self.socket.display().to_string();
        let own = ["--address", &socket, "--namespace", "octoserve"];
        tools::run("ctr", &[&own[..], arguments].concat()).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_new_daemon_has_no_images() {
        let containerd = Containerd::start().await.unwrap();
        let images = containerd.run(&["images", "ls", "--quiet"]).await.unwrap();
        assert_eq!(images, "");
    }
}
