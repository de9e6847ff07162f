//! docker, skopeo and podman, which push and pull through a relay that keeps their books.

use std::sync::Arc;

use anyhow::{Result, ensure};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::progress::{Mishap, Progress};
use super::relay::BookKeepingRelay;
use crate::docker::Docker;
use crate::podman::Podman;
use crate::skopeo::Skopeo;

/// How many different images a tool pushes: more would only fill the registry.
const IMAGES: u64 = 12;

/// One of the programs.
pub(crate) enum Tool {
    Docker(Arc<Docker>),
    Skopeo(Skopeo),
    Podman(Podman),
}

/// A program that pushes and pulls until the soak ends.
pub(crate) struct ToolClient {
    pub(crate) number: usize,
    pub(crate) tool: Tool,
    pub(crate) relay: BookKeepingRelay,
    pub(crate) progress: Arc<Progress>,
    /// The first component of its repositories, and the upstream that has them.
    pub(crate) prefix: &'static str,
    pub(crate) upstream: &'static str,
    pub(crate) seed: u64,
}

impl ToolClient {
    pub(crate) async fn run(self) {
        let mut dice = StdRng::seed_from_u64(self.seed);
        let (mut made, mut failed) = (0_u64, 0);
        while !self.progress.is_stopping() {
            made += 1;
            let seed = 1000 * self.number as u64 + dice.random_range(0..IMAGES);
            // Others after a failure: a push may have been done by half.
            let name = format!("{}/tool/{}-{failed}:{made}", self.prefix, self.name());
            let began = self.progress.now();
            match self.round(&name, seed).await {
                Ok(()) => self.progress.step(self.number),
                Err(error) => {
                    failed += 1;
                    self.progress.failed(Mishap {
                        client: self.name().to_owned(),
                        // The ping names no repository, and so goes to the upstream of all others.
                        upstream: if format!("{error:#}").contains("pinging") {
                            "main"
                        } else {
                            self.upstream
                        },
                        began,
                        ended: self.progress.now(),
                        what: format!("{error:#}"),
                    });
                }
            }
        }
    }

    fn name(&self) -> &'static str {
        match self.tool {
            Tool::Docker(_) => "docker",
            Tool::Skopeo(_) => "skopeo",
            Tool::Podman(_) => "podman",
        }
    }

    /// Pushes an image, and pulls it.
    async fn round(&self, name: &str, seed: u64) -> Result<()> {
        let image = format!("{}/{name}", self.relay.host());
        match &self.tool {
            Tool::Docker(docker) => {
                docker.image(&image, None, seed).await?;
                let id = docker.id(&image).await?;
                let pushed = docker.run(&["push", &image]).await;
                docker.forget(&[&image]).await?;
                pushed?;
                docker.run(&["pull", &image]).await?;
                let pulled = docker.id(&image).await?;
                docker.forget(&[&image]).await?;
                ensure!(pulled == id, "docker pulled another image");
            }
            Tool::Podman(podman) => {
                podman.image(&image, "amd64", seed).await?;
                let pushed = podman.push(&image).await;
                podman.forget(&[&image]).await?;
                pushed?;
                podman.pull(&image, &[]).await?;
                podman.forget(&[&image]).await?;
            }
            Tool::Skopeo(skopeo) => {
                let directory = skopeo.directory();
                for used in ["made", "back"] {
                    std::fs::remove_dir_all(directory.join(used)).ok();
                }
                let made = skopeo.layout("made", &[seed, seed + 1])?;
                let image = format!("docker://{image}");
                let keep = ["--preserve-digests"];
                skopeo.copy(&made, &image, &keep).await?;
                let back = format!("oci:{}:latest", directory.join("back").display());
                skopeo.copy(&image, &back, &keep).await?;
                let (pushed, pulled) =
                    (skopeo.manifest(&made).await?, skopeo.manifest(&back).await?);
                ensure!(pushed == pulled, "skopeo pulled another image");
                skopeo.delete(&image).await?;
            }
        }
        Ok(())
    }
}
