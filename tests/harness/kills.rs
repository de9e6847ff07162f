//! A registry that is killed (SIGKILL) again and again while clients push, mount, move tags and delete, and
//! while it collects garbage all the time. After each kill it must have all that it acknowledged.
//!
//! Each client has repositories of its own, and writes down what each tag must lead to. Where a kill left
//! a request without a response, the tag may lead to either; what it leads to must be whole. The layers are
//! few, so that all clients push, mount and delete the same content.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use reqwest::{Method, StatusCode};
use serde_json::json;
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::client::{Client, MANIFEST, descriptor};
use crate::content;
use crate::maintenance;
use crate::octoserve::{Launch, Server};

/// The clients.
const CLIENTS: u64 = 4;
/// How many layers they all share.
const LAYERS: u64 = 6;
/// How many tags each of their repositories has at most.
const TAGS: u64 = 4;
/// The type of a layer.
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// Manifests without a tag go at once, and nothing is kept for a time: only what is acknowledged is safe.
const CONFIGURATION: &str = "gc: {grace: 0s, untagged: 0s}\nlogging: {access: false}\n";

/// What happened.
#[derive(Clone, Copy, Debug, Default)]
pub struct KillReport {
    /// How often the registry was killed.
    pub kills: u64,
    /// The pushes, moves and deletes of tags that it acknowledged.
    pub acknowledged: u64,
    /// The collections that ended.
    pub collections: u64,
    /// The tags that were checked after the kills, with all their blobs.
    pub checked: u64,
}

/// What a tag may lead to: one digest, or one of several, or nothing.
type Expected = BTreeSet<Option<String>>;

/// A client that writes down what was acknowledged.
struct Pusher {
    number: u64,
    dice: StdRng,
    /// By repository and tag.
    tags: BTreeMap<(String, String), Expected>,
}

/// What the registry said.
enum Answer {
    Done,
    /// It has changed nothing.
    Refused,
    /// Nobody knows.
    None,
}

#[derive(Default)]
struct Counts {
    acknowledged: AtomicU64,
    collections: AtomicU64,
}

/// Kills a registry so many times, and checks it after each.
///
/// # Errors
/// If something that was acknowledged is not there, or not whole.
pub async fn rounds(kills: u64, seed: u64, built: Option<&Path>) -> Result<KillReport> {
    let data = TempDir::with_prefix("octoserve-kills-")?;
    let socket = data.path().join("control.sock");
    let counts = Arc::new(Counts::default());
    let mut dice = StdRng::seed_from_u64(seed);
    let mut pushers: Vec<_> = (0..CLIENTS)
        .map(|number| Pusher::new(number, seed))
        .collect();
    let mut report = KillReport::default();
    let mut server = start(data.path(), &socket, built).await?;
    for round in 0..kills {
        let lasts = Duration::from_millis(dice.random_range(50..600));
        let mut tasks = JoinSet::new();
        for mut pusher in pushers.drain(..) {
            let (client, counts) = (Client::new(&server.url(""))?, Arc::clone(&counts));
            tasks.spawn(async move {
                pusher.push_until_killed(&client, &counts).await;
                pusher
            });
        }
        let collecting = tokio::spawn(collect(socket.clone(), Arc::clone(&counts)));
        tokio::time::sleep(lasts).await;
        server.process().kill()?;
        collecting.abort();
        pushers.extend(tasks.join_all().await);
        server = start(data.path(), &socket, built)
            .await
            .with_context(|| format!("the start after kill {round}"))?;
        let client = Client::new(&server.url(""))?;
        for pusher in &mut pushers {
            let checked = pusher.check(&client).await;
            report.checked +=
                checked.with_context(|| format!("seed {seed}, after kill {round} at {lasts:?}"))?;
        }
        report.kills += 1;
    }
    ensure!(server.terminate(Duration::from_mins(1)).await?.success());
    report.acknowledged = counts.acknowledged.load(Ordering::Relaxed);
    report.collections = counts.collections.load(Ordering::Relaxed);
    Ok(report)
}

async fn start(data: &Path, socket: &Path, built: Option<&Path>) -> Result<Server> {
    let text = format!("{CONFIGURATION}control: {{socket: {}}}\n", socket.display());
    let mut launch = Launch::registry()
        .configuration(&text)
        .data(&data.join("data"));
    if let Some(built) = built {
        launch = launch.built(built);
    }
    launch.start().await
}

/// Asks for one collection after the other.
async fn collect(socket: PathBuf, counts: Arc<Counts>) {
    loop {
        let done = maintenance::run(&socket, "gc").await;
        if done.is_ok_and(|last| last["ok"] == true) {
            counts.collections.fetch_add(1, Ordering::Relaxed);
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

impl Pusher {
    fn new(number: u64, seed: u64) -> Self {
        Self {
            number,
            dice: StdRng::seed_from_u64(seed ^ (number << 32) ^ 1),
            tags: BTreeMap::new(),
        }
    }

    async fn push_until_killed(&mut self, client: &Client, counts: &Counts) {
        loop {
            let repository = format!("own/{}/{}", self.number, self.dice.random_range(0..2));
            let tag = format!("t{}", self.dice.random_range(0..TAGS));
            let (to, answer) = match self.dice.random_range(0..8) {
                0..6 => match self.push(client, &repository, &tag).await {
                    Ok((digest, answer)) => (Some(digest), answer),
                    // Of a blob: the tag is as it was.
                    Err(Gone) => return,
                },
                _ => (None, delete(client, &repository, &tag).await),
            };
            let expected = self.tags.entry((repository, tag)).or_insert_with(nothing);
            match answer {
                Answer::Done => {
                    *expected = Expected::from([to]);
                    counts.acknowledged.fetch_add(1, Ordering::Relaxed);
                }
                Answer::Refused => {}
                Answer::None => {
                    expected.insert(to);
                    return;
                }
            }
        }
    }

    /// Pushes an image, some of whose layers are mounted from wherever they are.
    async fn push(
        &mut self,
        client: &Client,
        repository: &str,
        tag: &str,
    ) -> Result<(String, Answer), Gone> {
        let mut layers = Vec::new();
        for _ in 0..2 {
            let bytes = content::bytes(self.dice.random_range(0..LAYERS), 20_000);
            let digest = content::digest(&bytes);
            let mut is_there = false;
            if self.dice.random_bool(0.5) {
                let other = self.dice.random_range(0..CLIENTS);
                let path =
                    format!("/v2/{repository}/blobs/uploads/?mount={digest}&from=own/{other}/0");
                let mounted = client.send(Method::POST, &path, &[], "").await;
                is_there = mounted.map_err(|_| Gone)?.status() == StatusCode::CREATED;
            }
            if !is_there {
                client
                    .push_blob(repository, &bytes)
                    .await
                    .map_err(|_| Gone)?;
            }
            layers.push(descriptor(LAYER, &bytes));
        }
        let config =
            json!({"architecture": "amd64", "os": "linux", "author": self.dice.random_range(0..4)});
        let config = config.to_string();
        client
            .push_blob(repository, config.as_bytes())
            .await
            .map_err(|_| Gone)?;
        let config = descriptor(
            "application/vnd.oci.image.config.v1+json",
            config.as_bytes(),
        );
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers,
        });
        let manifest = manifest.to_string();
        let digest = content::digest(manifest.as_bytes());
        let path = format!("/v2/{repository}/manifests/{tag}");
        let sent = client.send(Method::PUT, &path, &[("Content-Type", MANIFEST)], manifest);
        Ok((digest, answer(sent.await, StatusCode::CREATED)))
    }

    /// Checks that each tag leads to what it may lead to, and that this is whole. Returns how many lead to
    /// anything.
    async fn check(&mut self, client: &Client) -> Result<u64> {
        let mut checked = 0;
        for ((repository, tag), expected) in &mut self.tags {
            let path = format!("/v2/{repository}/manifests/{tag}");
            let response = client.get(&path).await?;
            let found = match response.status() {
                StatusCode::OK => Some(content::digest(&response.bytes().await?)),
                StatusCode::NOT_FOUND => None,
                status => bail!("GET {path}: {status}"),
            };
            ensure!(
                expected.contains(&found),
                "{path}: {found:?}, not of {expected:?}"
            );
            if found.is_some() {
                client.pull_image(repository, tag).await.context(path)?;
                checked += 1;
            }
            *expected = Expected::from([found]);
        }
        Ok(checked)
    }
}

/// The registry is gone, in the middle of something that changes no tag.
struct Gone;

async fn delete(client: &Client, repository: &str, tag: &str) -> Answer {
    let path = format!("/v2/{repository}/manifests/{tag}");
    answer(
        client.send(Method::DELETE, &path, &[], "").await,
        StatusCode::ACCEPTED,
    )
}

fn answer(sent: Result<reqwest::Response>, done: StatusCode) -> Answer {
    match sent.map(|response| response.status()) {
        Ok(status) if status == done => Answer::Done,
        Ok(status) if status.is_client_error() => Answer::Refused,
        _ => Answer::None,
    }
}

fn nothing() -> Expected {
    Expected::from([None])
}
