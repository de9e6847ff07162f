//! Sixteen clients concurrently push, mount, pull, list and delete the same few blobs, tags and
//! repositories through the proxy. Each response must be explicable by the other clients' requests,
//! content that no other client touches must exist in the end, and the metrics must agree with the
//! clients.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use harness::client::{Client, MANIFEST, descriptor};
use harness::content;
use harness::scrape::metric;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::Front;

const CLIENTS: u64 = 16;
const OPERATIONS: usize = 60;
const REPOSITORIES: [&str; 3] = ["team/a", "team/a/b", "team/c"];
const TAGS: [&str; 3] = ["1", "2", "latest"];
/// Images of one layer each; numbers that differ by `LAYERS` share the layer.
const IMAGES: u64 = 8;
const LAYERS: u64 = 4;
const CONFIG: &[u8] = b"{\"architecture\":\"amd64\",\"os\":\"linux\"}";

/// The responses that a client received.
#[derive(Default)]
struct Tally {
    statuses: BTreeMap<u16, u64>,
    sent: usize,
    received: usize,
}

/// A client, its random numbers, and the responses that it received.
struct RandomClient {
    client: Client,
    dice: StdRng,
    seen: Tally,
    /// The repository of this client alone.
    own: String,
    kept: Vec<(String, u64)>,
}

#[tokio::test(flavor = "multi_thread")]
async fn sixteen_concurrent_clients_lose_nothing_and_are_counted() -> Result<()> {
    let front = Front::embedded().await?;
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        let mut client = RandomClient {
            client: Client::new(&front.server.url(""))?,
            dice: StdRng::seed_from_u64(number),
            seen: Tally::default(),
            own: format!("own/{number}"),
            kept: Vec::new(),
        };
        clients.spawn(async move {
            for turn in 0..OPERATIONS {
                client.play(turn).await?;
            }
            anyhow::Ok(client)
        });
    }
    let mut all = Tally::default();
    while let Some(client) = clients.join_next().await {
        let mut client = client??;
        client.check().await?;
        all.add(&client.seen);
    }
    let mut last = RandomClient {
        client: front.client.clone(),
        dice: StdRng::seed_from_u64(CLIENTS),
        seen: Tally::default(),
        own: String::new(),
        kept: Vec::new(),
    };
    last.every_tag_leads_somewhere().await?;
    all.add(&last.seen);

    let requests = metric("octoserve_http_requests_total");
    let total: u64 = all.statuses.values().sum();
    let counted = requests.clone().value(u32::try_from(total)?);
    counted.assert_in(&front.server).await?;
    for (status, count) in &all.statuses {
        let of_status = requests.clone().label("status", &status.to_string());
        let count = u32::try_from(*count)?;
        of_status.value(count).assert_in(&front.server).await?;
    }
    for (name, bytes) in [
        ("octoserve_http_request_body_bytes_total", all.sent),
        ("octoserve_http_response_body_bytes_total", all.received),
    ] {
        let bytes = u32::try_from(bytes)?;
        metric(name).value(bytes).assert_in(&front.server).await?;
    }
    metric("octoserve_http_requests_in_flight")
        .value(0)
        .assert_in(&front.server)
        .await
}

impl Tally {
    fn add(&mut self, other: &Self) {
        for (status, count) in &other.statuses {
            *self.statuses.entry(*status).or_default() += count;
        }
        self.sent += other.sent;
        self.received += other.received;
    }
}

impl RandomClient {
    async fn play(&mut self, turn: usize) -> Result<()> {
        let repository = REPOSITORIES[self.dice.random_range(0..REPOSITORIES.len())];
        let tag = TAGS[self.dice.random_range(0..TAGS.len())];
        let image = self.dice.random_range(0..IMAGES);
        match self.dice.random_range(0..10) {
            0..3 => self.push(repository, tag, image, &[201, 404]).await?,
            3 => {
                let (own, tag) = (self.own.clone(), turn.to_string());
                self.push(&own, &tag, image, &[201]).await?;
                self.kept.push((tag, image));
            }
            4 => self.pull(repository, tag).await?,
            5 => {
                let path = format!("/v2/{repository}/tags/list");
                self.send(Method::GET, &path, "", vec![], &[200, 404])
                    .await?;
            }
            6 => {
                let blob = content::digest(&layer(image));
                let from = REPOSITORIES[self.dice.random_range(0..REPOSITORIES.len())];
                let mount = format!("/v2/{repository}/blobs/uploads/?mount={blob}&from={from}");
                self.send(Method::POST, &mount, "", vec![], &[201, 202])
                    .await?;
            }
            7 => self.delete(repository, &format!("manifests/{tag}")).await?,
            8 => {
                let digest = content::digest(manifest(image).as_bytes());
                self.delete(repository, &format!("manifests/{digest}"))
                    .await?;
            }
            _ => {
                let digest = content::digest(&layer(image));
                self.delete(repository, &format!("blobs/{digest}")).await?;
            }
        }
        Ok(())
    }

    /// `outcomes` are the accepted statuses of the manifest: others may have deleted its blobs.
    async fn push(&mut self, name: &str, tag: &str, image: u64, outcomes: &[u16]) -> Result<()> {
        for blob in [layer(image), CONFIG.to_vec()] {
            let start = format!("/v2/{name}/blobs/uploads/");
            let (_, location, _) = self.send(Method::POST, &start, "", vec![], &[202]).await?;
            let location = location.context("no Location")?;
            let commit = format!("{location}?digest={}", content::digest(&blob));
            self.send(Method::PUT, &commit, "", blob, &[201]).await?;
        }
        let path = format!("/v2/{name}/manifests/{tag}");
        let body = manifest(image).into_bytes();
        let (status, _, body) = self
            .send(Method::PUT, &path, MANIFEST, body, outcomes)
            .await?;
        if status == 404 {
            let body: Value = serde_json::from_slice(&body)?;
            let code = &body["errors"][0]["code"];
            ensure!(code == "MANIFEST_BLOB_UNKNOWN", "{body}");
        }
        Ok(())
    }

    /// Existing content is complete and correct, whatever other clients do with it.
    async fn pull(&mut self, repository: &str, tag: &str) -> Result<()> {
        let path = format!("/v2/{repository}/manifests/{tag}");
        let (status, _, body) = self
            .send(Method::GET, &path, "", vec![], &[200, 404])
            .await?;
        if status == 404 {
            return Ok(());
        }
        let known = (0..IMAGES).find(|image| manifest(*image).as_bytes() == body);
        let image = known.context("a manifest that nobody pushed")?;
        let blob = layer(image);
        let path = format!("/v2/{repository}/blobs/{}", content::digest(&blob));
        let (status, _, body) = self
            .send(Method::GET, &path, "", vec![], &[200, 404])
            .await?;
        ensure!(status == 404 || body == blob, "other bytes for a layer");
        Ok(())
    }

    async fn delete(&mut self, repository: &str, rest: &str) -> Result<()> {
        let path = format!("/v2/{repository}/{rest}");
        self.send(Method::DELETE, &path, "", vec![], &[202, 404])
            .await?;
        Ok(())
    }

    /// Acknowledged content exists in the repository where nobody else deletes.
    async fn check(&mut self) -> Result<()> {
        for (tag, image) in self.kept.clone() {
            let digest = content::digest(manifest(image).as_bytes());
            for reference in [tag, digest] {
                let path = format!("/v2/{}/manifests/{reference}", self.own);
                let (_, _, body) = self.send(Method::GET, &path, "", vec![], &[200]).await?;
                ensure!(body == manifest(image).as_bytes(), "{path}: other bytes");
            }
            for blob in [layer(image), CONFIG.to_vec()] {
                let path = format!("/v2/{}/blobs/{}", self.own, content::digest(&blob));
                let (_, _, body) = self.send(Method::GET, &path, "", vec![], &[200]).await?;
                ensure!(body == blob, "{path}: other bytes");
            }
        }
        Ok(())
    }

    /// Every tag points at an existing manifest.
    async fn every_tag_leads_somewhere(&mut self) -> Result<()> {
        for repository in REPOSITORIES {
            let path = format!("/v2/{repository}/tags/list");
            let (status, _, body) = self
                .send(Method::GET, &path, "", vec![], &[200, 404])
                .await?;
            if status == 404 {
                continue;
            }
            let body: Value = serde_json::from_slice(&body)?;
            for tag in body["tags"].as_array().context("no tags")? {
                let tag = tag.as_str().context("no tag")?;
                let path = format!("/v2/{repository}/manifests/{tag}");
                self.send(Method::GET, &path, "", vec![], &[200]).await?;
            }
        }
        Ok(())
    }

    /// Sends and counts a request whose status must be one of these. Returns the status, the
    /// `Location` and the body.
    async fn send(
        &mut self,
        method: Method,
        path: &str,
        kind: &str,
        body: Vec<u8>,
        statuses: &[u16],
    ) -> Result<(u16, Option<String>, Vec<u8>)> {
        let sent = body.len();
        let headers = [("Content-Type", kind)];
        let headers = if kind.is_empty() { &[] } else { &headers[..] };
        let response = self.client.send(method.clone(), path, headers, body);
        let response = response.await.with_context(|| format!("{method} {path}"))?;
        let status = response.status().as_u16();
        let location = response.headers().get("location");
        let location = location.map(|to| to.to_str().map(ToOwned::to_owned));
        let location = location.transpose()?;
        let bytes = response.bytes().await?.to_vec();
        *self.seen.statuses.entry(status).or_default() += 1;
        self.seen.sent += sent;
        self.seen.received += bytes.len();
        if !statuses.contains(&status) {
            let said = String::from_utf8_lossy(&bytes);
            bail!("{method} {path}: {status}, none of {statuses:?}: {said}");
        }
        Ok((status, location, bytes))
    }
}

fn layer(image: u64) -> Vec<u8> {
    content::bytes(image % LAYERS, 20_000 + image % LAYERS)
}

fn manifest(image: u64) -> String {
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": descriptor("application/vnd.oci.image.config.v1+json", CONFIG),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer(image))],
        "annotations": {"org.example.image": image.to_string()},
    });
    manifest.to_string()
}
