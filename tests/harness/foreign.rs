//! A foreign registry: Debian's docker-registry with deletion enabled, open to everyone or to one
//! user.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use tempfile::TempDir;

use crate::authority::SignedCertificate;
use crate::process::{OutputStream, Process};
use crate::token_server::TokenServer;
use crate::tools;

/// The user and password of a docker-registry with a password.
pub const USER: (&str, &str) = ("tester", "secret");

/// The `Authorization` header of [`USER`].
pub const AUTHORIZATION: &str = "Basic dGVzdGVyOnNlY3JldA==";

/// The htpasswd line of [`USER`], with bcrypt at its lowest cost.
const HTPASSWD: &str = "tester:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";

/// A running docker-registry. Dropping it kills it and removes its directory.
pub struct ForeignRegistry {
    // Fields are dropped in this order: the process must end before its directory is removed.
    process: Process,
    address: SocketAddr,
    directory: TempDir,
    data: PathBuf,
}

impl ForeignRegistry {
    /// Starts one on a free port, with a directory of its own.
    ///
    /// # Errors
    /// If docker-registry is not installed or does not start.
    pub async fn start() -> Result<Self> {
        Self::of(TempDir::with_prefix("octoserve-foreign-")?).await
    }

    /// Starts one that admits only [`USER`].
    ///
    /// # Errors
    /// If docker-registry is not installed or does not start.
    pub async fn start_with_password() -> Result<Self> {
        let directory = TempDir::with_prefix("octoserve-foreign-")?;
        std::fs::write(directory.path().join("htpasswd"), HTPASSWD)?;
        Self::of(directory).await
    }

    /// Starts another one that shares the content of this one, and its secret: a replica of it. This one
    /// may be killed and must not be dropped before.
    ///
    /// # Errors
    /// If it does not start.
    pub async fn replica(&self) -> Result<Self> {
        let directory = TempDir::with_prefix("octoserve-foreign-")?;
        // It speaks as this one does, and admits the same users.
        for file in ["htpasswd", "http", "keys"] {
            let own = self.directory.path().join(file);
            if own.exists() {
                std::fs::copy(own, directory.path().join(file))?;
            }
        }
        Self::on(directory, self.data.clone()).await
    }

    /// Starts one that speaks TLS with this certificate.
    ///
    /// # Errors
    /// If docker-registry is not installed or does not start.
    pub async fn start_with_tls(certificate: &SignedCertificate) -> Result<Self> {
        Self::start_with(&tls(certificate), "").await
    }

    /// Starts one whose paths all begin with this one.
    ///
    /// # Errors
    /// If docker-registry is not installed or does not start.
    pub async fn start_below(path: &str) -> Result<Self> {
        Self::start_with(&format!(", prefix: '{path}/'"), "").await
    }

    /// Starts one that admits clients with a token of this server.
    ///
    /// # Errors
    /// If docker-registry is not installed or does not start.
    pub async fn start_with_tokens(tokens: &TokenServer) -> Result<Self> {
        Self::start_with("", &tokens.configuration()).await
    }

    /// Starts one that speaks TLS with this certificate, and admits clients with a token of this server.
    ///
    /// # Errors
    /// If docker-registry is not installed or does not start.
    pub async fn start_with_tls_and_tokens(
        certificate: &SignedCertificate,
        tokens: &TokenServer,
    ) -> Result<Self> {
        Self::start_with(&tls(certificate), &tokens.configuration()).await
    }

    /// Starts one that serves its own metrics at this address.
    ///
    /// # Errors
    /// If docker-registry is not installed or does not start.
    pub async fn start_with_metrics(address: SocketAddr) -> Result<Self> {
        let metrics = "prometheus: {enabled: true, path: /metrics}";
        Self::start_with(&format!(", debug: {{addr: '{address}', {metrics}}}"), "").await
    }

    /// Starts one whose upload locations are paths, and not URLs.
    ///
    /// # Errors
    /// If docker-registry is not installed or does not start.
    pub async fn start_with_relative_locations() -> Result<Self> {
        Self::start_with(", relativeurls: true", "").await
    }

    /// Starts one with more keys of `http`, and more keys beside.
    async fn start_with(http: &str, keys: &str) -> Result<Self> {
        let directory = TempDir::with_prefix("octoserve-foreign-")?;
        std::fs::write(directory.path().join("http"), http)?;
        std::fs::write(directory.path().join("keys"), keys)?;
        Self::of(directory).await
    }

    async fn of(directory: TempDir) -> Result<Self> {
        let data = directory.path().join("data");
        Self::on(directory, data).await
    }

    async fn on(directory: TempDir, data: PathBuf) -> Result<Self> {
        let (process, address) = run(directory.path(), &data, "127.0.0.1:0").await?;
        Ok(Self {
            process,
            address,
            directory,
            data,
        })
    }

    /// Starts it again after it was killed, on the same port and with the same content.
    ///
    /// # Errors
    /// If it does not start, for instance because the port has been taken.
    pub async fn restart(&mut self) -> Result<()> {
        (self.process, self.address) =
            run(self.directory.path(), &self.data, &self.address.to_string()).await?;
        Ok(())
    }

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its URL, for `--upstream`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How many requests it has served since it was started.
    ///
    /// # Errors
    /// If its log cannot be read.
    pub fn served(&self) -> Result<usize> {
        let log = self.process.output(OutputStream::Stdout)?;
        Ok(log.matches(" HTTP/1.1\" ").count())
    }

    /// The child process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

/// The key of `http` that names a certificate.
fn tls(certificate: &SignedCertificate) -> String {
    format!(
        ", tls: {{certificate: '{}', key: '{}'}}",
        certificate.certificate.display(),
        certificate.key.display()
    )
}

async fn run(directory: &Path, data: &Path, listen: &str) -> Result<(Process, SocketAddr)> {
    let configuration = directory.join("config.yml");
    let htpasswd = directory.join("htpasswd");
    let kept = |name: &str| std::fs::read_to_string(directory.join(name)).unwrap_or_default();
    let (http, keys) = (kept("http"), kept("keys"));
    let auth = if htpasswd.exists() {
        let path = htpasswd.display();
        format!("auth: {{htpasswd: {{realm: tests, path: {path}}}}}\n")
    } else {
        String::new()
    };
    let text = format!(
        "version: 0.1\n\
         log: {{level: info}}\n\
         storage:\n  filesystem: {{rootdirectory: {}}}\n  delete: {{enabled: true}}\n\
         http: {{addr: '{listen}', secret: of-the-tests{http}}}\n{auth}{keys}",
        data.display()
    );
    std::fs::write(&configuration, text)?;
    let mut command = Command::new(tools::find("docker-registry")?);
    command.arg("serve").arg(&configuration);
    let mut process = Process::start("docker-registry", command, directory)?;
    let parse = |line: &str| {
        line.split_once("listening on ")?
            .1
            .split(['"', ' ', ','])
            .next()?
            .parse()
            .ok()
    };
    let address = process
        .announced(OutputStream::Stderr, "its address", parse)
        .await?;
    Ok((process, address))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire;

    #[tokio::test]
    async fn it_responds_as_a_registry() {
        let registry = ForeignRegistry::start().await.unwrap();
        let request = wire::request("GET", "/v2/", &[], b"");
        let response = wire::exchange(registry.address(), "GET", &request)
            .await
            .unwrap();
        assert_eq!(response.head.status, 200);
    }

    #[tokio::test]
    async fn with_a_password_it_accepts_only_its_user() {
        let registry = ForeignRegistry::start_with_password().await.unwrap();
        for (headers, status) in [(&[][..], 401), (&[("Authorization", AUTHORIZATION)], 200)] {
            let request = wire::request("GET", "/v2/", headers, b"");
            let response = wire::exchange(registry.address(), "GET", &request).await;
            assert_eq!(response.unwrap().head.status, status);
        }
    }
}
