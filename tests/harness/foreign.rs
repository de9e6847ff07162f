//! A registry that is not ours: Debian's docker-registry, with deletion enabled.

use std::net::SocketAddr;
use std::process::Command;

use anyhow::Result;
use tempfile::TempDir;

use crate::process::{Process, Stream};
use crate::tools;

/// A running docker-registry. Dropping it kills it and removes its folder.
pub struct ForeignRegistry {
    process: Process,
    address: SocketAddr,
    _folder: TempDir,
}

impl ForeignRegistry {
    /// Starts one on a free port, with a folder of its own.
    ///
    /// # Errors
    /// If docker-registry is not installed or does not start.
    pub async fn start() -> Result<Self> {
        let folder = TempDir::with_prefix("octoserve-foreign-")?;
        let configuration = folder.path().join("config.yml");
        let text = format!(
            "version: 0.1\n\
             log: {{level: info}}\n\
             storage:\n  filesystem: {{rootdirectory: {}}}\n  delete: {{enabled: true}}\n\
             http: {{addr: '127.0.0.1:0', secret: of-the-tests}}\n",
            folder.path().join("data").display()
        );
        std::fs::write(&configuration, text)?;
        let mut command = Command::new(tools::find("docker-registry")?);
        // Not more verbose for a variable of the machine's.
        command
            .env_remove("REGISTRY_LOG_LEVEL")
            .arg("serve")
            .arg(&configuration);
        let mut process = Process::start("docker-registry", command, folder.path())?;
        let parse = |line: &str| {
            let rest = line.split_once("listening on ")?.1;
            rest.split(['"', ' ']).next()?.parse().ok()
        };
        let address = process
            .announced(Stream::Stderr, "its address", parse)
            .await?;
        Ok(Self {
            process,
            address,
            _folder: folder,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What `--upstream` wants.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The child process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire;

    #[tokio::test]
    async fn it_answers_as_a_registry() {
        let registry = ForeignRegistry::start().await.unwrap();
        let request = wire::request("GET", "/v2/", &[], b"");
        let answer = wire::exchange(registry.address(), "GET", &request)
            .await
            .unwrap();
        assert_eq!(answer.head.status, 200);
    }
}
