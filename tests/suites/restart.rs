//! A registry is killed and restarted on the same directory: everything acknowledged exists,
//! nothing else does, and uploads resume.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use harness::client::{Client, MANIFEST, descriptor};
use harness::content;
use harness::octoserve::{Launch, Server};
use harness::wire::{self, Wire};
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinSet;

/// A registry to kill, and the proxy in front of it, if any.
struct Deployment {
    registry: Server,
    proxy: Option<Server>,
    embedded: bool,
}

impl Deployment {
    async fn registry(data: &Path) -> Result<Self> {
        Ok(Self {
            registry: Launch::registry().data(data).start().await?,
            proxy: None,
            embedded: false,
        })
    }

    async fn embedded(data: &Path) -> Result<Self> {
        Ok(Self {
            registry: Launch::all_in_one().data(data).start().await?,
            proxy: None,
            embedded: true,
        })
    }

    async fn remote(data: &Path) -> Result<Self> {
        let mut deployment = Self::registry(data).await?;
        let upstream = deployment.registry.url("");
        deployment.proxy = Some(Launch::in_front_of(&upstream).start().await?);
        Ok(deployment)
    }

    fn front(&self) -> &Server {
        self.proxy.as_ref().unwrap_or(&self.registry)
    }

    fn client(&self) -> Result<Client> {
        Client::new(&self.front().url(""))
    }

    /// Kills the registry and restarts it at the same address; the proxy keeps running.
    async fn restart(&mut self) -> Result<()> {
        self.registry.process().kill()?;
        let launch = if self.embedded {
            Launch::all_in_one()
        } else {
            Launch::registry()
        };
        let data = self.registry.data().to_owned();
        let launch = launch.data(&data).listen(self.registry.address());
        self.registry = launch.start().await?;
        Ok(())
    }
}

#[tokio::test]
async fn the_registry_keeps_what_it_acknowledged() -> Result<()> {
    let data = TempDir::new()?;
    all_is_there(Deployment::registry(data.path()).await?).await
}

#[tokio::test]
async fn the_all_in_one_keeps_what_it_acknowledged() -> Result<()> {
    let data = TempDir::new()?;
    all_is_there(Deployment::embedded(data.path()).await?).await
}

#[tokio::test]
async fn a_proxied_registry_keeps_what_it_acknowledged() -> Result<()> {
    let data = TempDir::new()?;
    all_is_there(Deployment::remote(data.path()).await?).await
}

async fn all_is_there(mut deployment: Deployment) -> Result<()> {
    let client = deployment.client()?;
    let image = client.push_image("team/app", "1", &[1, 2]).await?;
    client.push_image("team/app", "gone", &[3]).await?;
    let delete = "/v2/team/app/manifests/gone";
    ensure!(client.send(Method::DELETE, delete, &[], "").await?.status() == 202);
    let mount = format!(
        "/v2/team/copy/blobs/uploads/?mount={}&from=team/app",
        image.layers[0]
    );
    ensure!(client.send(Method::POST, &mount, &[], "").await?.status() == 201);
    let referrer = json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": "application/vnd.example",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json",
                   "digest": image.config, "size": config_size(&image.manifest)?},
        "layers": [], "subject": descriptor(MANIFEST, image.manifest.as_bytes()),
    });
    let referrer = referrer.to_string();
    let referrer = client.push_manifest("team/app", "sbom", MANIFEST, &referrer);
    let referrer = referrer.await?;
    let bytes = content::bytes(7, 300_000);
    let mut sessions = Vec::new();
    for digest in [content::digest(&bytes), content::sha512(&bytes)] {
        let algorithm = digest.split(':').next().unwrap_or_default();
        let start = format!("/v2/team/app/blobs/uploads/?digest-algorithm={algorithm}");
        let opened = client.send(Method::POST, &start, &[], "").await?;
        let location = opened.headers().get("location").context("no Location")?;
        let location = location.to_str()?.to_owned();
        let chunk = bytes[..100_000].to_vec();
        let headers = [("Content-Range", "0-99999")];
        let taken = client
            .send(Method::PATCH, &location, &headers, chunk)
            .await?;
        ensure!(taken.status() == 202, "PATCH: {}", taken.status());
        sessions.push((location, digest));
    }
    // An unfinished push.
    let request = wire::request("PUT", "/v2/team/app/manifests/half", &[], &[b' '; 1000]);
    let mut half = Wire::connect(deployment.front().address()).await?;
    half.send(&request[..request.len() - 500]).await?;

    deployment.restart().await?;

    let client = deployment.client()?;
    client.pull_image("team/app", "1").await?;
    client.pull_image("team/app", &image.digest).await?;
    let tags = client.read("/v2/team/app/tags/list").await?;
    let tags: Value = serde_json::from_slice(&tags)?;
    ensure!(tags["tags"] == json!(["1", "sbom"]), "{tags}");
    let mounted = format!("/v2/team/copy/blobs/{}", image.layers[0]);
    ensure!(content::digest(&client.read(&mounted).await?) == image.layers[0]);
    let path = format!("/v2/team/app/referrers/{}", image.digest);
    let referrers: Value = serde_json::from_slice(&client.read(&path).await?)?;
    ensure!(
        referrers["manifests"][0]["digest"] == *referrer,
        "{referrers}"
    );
    for (location, digest) in sessions {
        let status = client.get(&location).await?;
        let range = status.headers().get("range").context("no Range")?;
        ensure!(status.status() == 204 && range == "0-99999", "{range:?}");
        let wrong = [("Content-Range", "0-99999")];
        let chunk = bytes[..100_000].to_vec();
        let refused = client.send(Method::PATCH, &location, &wrong, chunk).await?;
        ensure!(refused.status() == 416, "{}", refused.status());
        let commit = format!("{location}?digest={digest}");
        let rest = [("Content-Range", "100000-299999")];
        let body = bytes[100_000..].to_vec();
        let made = client.send(Method::PUT, &commit, &rest, body).await?;
        ensure!(made.status() == 201, "commit: {}", made.status());
        let blob = client.read(&format!("/v2/team/app/blobs/{digest}")).await?;
        ensure!(blob == bytes, "other bytes for {digest}");
    }
    Ok(())
}

/// The registry is killed repeatedly during pushes: everything that got a 201 exists.
#[tokio::test]
async fn a_registry_killed_during_pushes_loses_nothing_acknowledged() -> Result<()> {
    let data = TempDir::new()?;
    let mut deployment = Deployment::registry(data.path()).await?;
    let mut acknowledged = Vec::new();
    for round in 0..3 {
        let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
        let mut clients = JoinSet::new();
        for number in 0..4 {
            let (client, sender) = (deployment.client()?, sender.clone());
            clients.spawn(async move {
                for push in 0..100 {
                    let tag = format!("{round}-{number}-{push}");
                    let seed = round * 1000 + number * 100 + push;
                    let Ok(image) = client.push_image("team/app", &tag, &[seed]).await else {
                        return;
                    };
                    if sender.send((tag, image.digest)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        for _ in 0..20 {
            acknowledged.push(receiver.recv().await.context("pushes ended early")?);
        }
        deployment.registry.process().kill()?;
        // Pushes acknowledged between the last check and the kill count as well.
        while let Some(image) = receiver.recv().await {
            acknowledged.push(image);
        }
        clients.join_all().await;
        deployment.restart().await?;
        let client = deployment.client()?;
        for (tag, digest) in &acknowledged {
            client.pull_image("team/app", tag).await?;
            client.pull_image("team/app", digest).await?;
        }
    }
    ensure!(acknowledged.len() >= 60, "{}", acknowledged.len());
    Ok(())
}

fn config_size(manifest: &str) -> Result<Value> {
    Ok(serde_json::from_str::<Value>(manifest)?["config"]["size"].take())
}
