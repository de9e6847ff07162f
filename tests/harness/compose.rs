//! docker-compose.yml, started unchanged: the real Dockerfile builds its images, and its ports are
//! published as it says.
//!
//! Everything runs in a network of its own ([`Docker::isolated`]), in which these ports are free
//! and which has no route outside. tests/setup/images.sh therefore makes the base images of both
//! files on this machine, under the names that the files use. The tests do not change the files;
//! only the cargo profile differs, through the build argument for it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use reqwest::Url;
use serde_json::Value;

use crate::docker::Docker;
use crate::wire::{self, Response};
use crate::{poll, tools};

/// How long the services may take to become healthy.
const DEADLINE: Duration = Duration::from_mins(2);

/// What the images are told about their sources.
pub const REVISION: &str = "0123456789ab";

/// The services of docker-compose.yml that are started, dependencies first: all but Grafana, of which no image
/// can be made here.
pub const SERVICES: [&str; 3] = ["registry", "proxy", "prometheus"];

/// The ports that docker-compose.yml publishes on this machine's loopback address.
pub const PROXY: u16 = 5000;
const PROMETHEUS: u16 = 9090;

/// The project, on a daemon of its own.
pub struct Compose {
    docker: Docker,
    root: PathBuf,
}

impl Compose {
    /// Builds the images without starting anything.
    ///
    /// # Errors
    /// If something is not installed, or a build fails; with its output.
    pub async fn built() -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("..")
            .canonicalize()?;
        let docker = Docker::isolated().await?;
        let compose = Self { docker, root };
        compose.make_images().await?;
        compose
            .run(&[
                "build",
                "--build-arg",
                "PROFILE=dev",
                "--build-arg",
                &format!("REVISION={REVISION}"),
            ])
            .await?;
        Ok(compose)
    }

    /// The daemon, and the network in which everything runs.
    pub fn docker(&self) -> &Docker {
        &self.docker
    }

    /// Runs docker-compose with these arguments.
    ///
    /// # Errors
    /// If it fails, with its output.
    pub async fn run(&self, arguments: &[&str]) -> Result<String> {
        tools::find("docker-compose")?;
        let host = format!("DOCKER_HOST={}", self.docker.host());
        let directory = self.root.display().to_string();
        let command = [
            &*host,
            // docker-compose builds the images itself, because the docker client may need a plug-in
            // to build.
            "COMPOSE_DOCKER_CLI_BUILD=0",
            "docker-compose",
            "--project-name=octoserve",
            "--project-directory",
            &directory,
        ];
        tools::run("env", &[&command, arguments].concat()).await
    }

    /// Waits until every service is healthy.
    ///
    /// # Errors
    /// If one does not in time, with its output.
    pub async fn healthy(&self) -> Result<()> {
        for service in SERVICES {
            let what = format!("{service} is healthy");
            let healthy = poll::until(&what, DEADLINE, async || {
                let state = self.inspect(service).await?;
                Ok((state["State"]["Health"]["Status"] == "healthy").then_some(()))
            });
            if let Err(error) = healthy.await {
                return Err(error.context(self.run(&["logs", "--no-color"]).await?));
            }
        }
        Ok(())
    }

    /// What `docker inspect` reports of a service's container, running or not.
    ///
    /// # Errors
    /// If there is none.
    pub async fn inspect(&self, service: &str) -> Result<Value> {
        let label = format!("label=com.docker.compose.service={service}");
        let list = ["ps", "--all", "--quiet", "--filter", &label];
        let container = self.docker.run(&list).await?;
        let inspect = ["inspect", container.trim()];
        let mut inspected: Vec<Value> = serde_json::from_str(&self.docker.run(&inspect).await?)?;
        inspected.pop().with_context(|| format!("no {service}"))
    }

    /// Sends a request to a published port.
    ///
    /// # Errors
    /// If there is no response.
    pub async fn exchange(&self, port: u16, method: &str, request: &[u8]) -> Result<Response> {
        let mut wire = self.docker.connect(loopback(port)).await?;
        wire.send(request).await?;
        wire.response(method).await
    }

    /// Evaluates an expression with the Prometheus of the project.
    ///
    /// # Errors
    /// If Prometheus refuses it or is unreachable.
    pub async fn query(&self, expression: &str) -> Result<Vec<Value>> {
        let url = "http://localhost/api/v1/query";
        let url = Url::parse_with_params(url, [("query", expression)])?;
        let path = format!("{}?{}", url.path(), url.query().unwrap_or_default());
        let request = wire::request("GET", &path, &[], b"");
        let response = self.exchange(PROMETHEUS, "GET", &request).await?;
        let mut response: Value = serde_json::from_slice(&response.body)?;
        ensure!(response["status"] == "success", "{expression}: {response}");
        match response["data"]["result"].take() {
            Value::Array(series) => Ok(series),
            other => bail!("{expression}: {other} is no vector"),
        }
    }

    async fn make_images(&self) -> Result<()> {
        let dockerfile = std::fs::read_to_string(self.root.join("Dockerfile"))?;
        let compose = std::fs::read_to_string(self.root.join("docker-compose.yml"))?;
        let named = |text: &str, words: &str| {
            let found = text.lines().find_map(|line| {
                let at = line.find(words)?;
                line[at..].split_ascii_whitespace().nth(1)
            });
            found
                .map(ToOwned::to_owned)
                .with_context(|| format!("nothing says {words:?}"))
        };
        let script = self.root.join("tests/setup/images.sh");
        // …/target/debug/deps/suites-0123456789abcdef
        let test = std::env::current_exe()?;
        let target = test.ancestors().nth(2).context("a test without a target")?;
        let command = [
            &*format!("DOCKER_HOST={}", self.docker.host()),
            &*script.to_string_lossy(),
            &named(&dockerfile, "FROM debian:")?,
            &named(&dockerfile, "FROM rust:")?,
            &named(&compose, "image: prom/prometheus")?,
            &*target.to_string_lossy(),
        ];
        tools::run("env", &command).await?;
        Ok(())
    }
}

/// Where a port of [`Docker::isolated`] is published.
pub fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}
