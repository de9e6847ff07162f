//! A registry that is killed (SIGKILL) again and again while clients push, mount, move tags and delete, and
//! while it collects garbage all the time. After each kill it must have all that it acknowledged.
//!
//! Each client has repositories of its own, and writes down what each tag must lead to: an image, or an index
//! of one; some have a referrer. Where a kill left a request without a response, the tag may lead to either;
//! what it leads to must be whole. The layers are few, so that all clients push, mount and delete the same
//! content.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::client::{Client, INDEX, MANIFEST, descriptor};
use crate::content;
use crate::maintenance;
use crate::octoserve::{Launch, Server};

/// The clients.
const CLIENTS: u64 = 4;
/// How many layers they all share.
const LAYERS: u64 = 6;
/// How many tags each of their repositories has at most.
const TAGS: u64 = 4;
/// The types of what an image mentions.
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
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
    /// The tags that were checked after the kills, with all that they lead to.
    pub checked: u64,
    /// The referrers that were checked after the kills.
    pub referrers: u64,
}

/// What a tag may lead to: one digest, or one of several, or nothing.
type Expected = BTreeSet<Option<String>>;

/// A client that writes down what was acknowledged.
struct Pusher {
    number: u64,
    dice: StdRng,
    /// By repository and tag.
    tags: BTreeMap<(String, String), Expected>,
    /// The subjects, by repository and digest, whose referrer was acknowledged and that had a tag ever since.
    subjects: BTreeSet<(String, String)>,
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
            let (checked, referrers) =
                checked.with_context(|| format!("seed {seed}, after kill {round} at {lasts:?}"))?;
            report.checked += checked;
            report.referrers += referrers;
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
            subjects: BTreeSet::new(),
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
            let expected = self.tags.entry((repository.clone(), tag));
            let expected = expected.or_insert_with(|| Expected::from([None]));
            match answer {
                Answer::Done => {
                    *expected = Expected::from([to.clone()]);
                    counts.acknowledged.fetch_add(1, Ordering::Relaxed);
                    self.forget_untagged_subjects();
                }
                Answer::Refused => {}
                Answer::None => {
                    expected.insert(to);
                    return;
                }
            }
            if let (Answer::Done, Some(subject)) = (answer, to)
                && self.dice.random_bool(0.3)
            {
                match refer(client, &repository, &subject).await {
                    Answer::Done => drop(self.subjects.insert((repository, subject))),
                    Answer::Refused => {}
                    Answer::None => return,
                }
            }
        }
    }

    /// Those whose last tag is gone may be collected with their referrers, and come back without.
    fn forget_untagged_subjects(&mut self) {
        let tags = &self.tags;
        self.subjects.retain(|(repository, subject)| {
            let only = Expected::from([Some(subject.clone())]);
            tags.iter()
                .any(|((at, _), expected)| at == repository && *expected == only)
        });
    }

    /// Pushes an image, or an index of one.
    async fn push(
        &mut self,
        client: &Client,
        repository: &str,
        tag: &str,
    ) -> Result<(String, Answer), Gone> {
        let image = self.push_blobs(client, repository).await?;
        if self.dice.random_bool(0.7) {
            return Ok(put(client, repository, tag, MANIFEST, image).await);
        }
        let child = descriptor(MANIFEST, image.as_bytes());
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [child]});
        let digest = content::digest(image.as_bytes());
        match put(client, repository, &digest, MANIFEST, image).await.1 {
            Answer::Done => Ok(put(client, repository, tag, INDEX, index.to_string()).await),
            Answer::Refused => Ok((digest, Answer::Refused)),
            Answer::None => Err(Gone),
        }
    }

    /// Pushes the blobs of an image, some of which are mounted from wherever they are. Returns its manifest.
    async fn push_blobs(&mut self, client: &Client, repository: &str) -> Result<String, Gone> {
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
        let config = descriptor(CONFIG, config.as_bytes());
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers,
        });
        Ok(manifest.to_string())
    }

    /// Checks that each tag leads to what it may lead to, and that this is whole. Returns how many lead to
    /// anything, and how many referrers there must be and are.
    async fn check(&mut self, client: &Client) -> Result<(u64, u64)> {
        let mut checked = 0;
        for ((repository, tag), expected) in &mut self.tags {
            let path = format!("/v2/{repository}/manifests/{tag}");
            let response = client.get(&path).await?;
            let bytes = match response.status() {
                StatusCode::OK => Some(response.bytes().await?),
                StatusCode::NOT_FOUND => None,
                status => bail!("GET {path}: {status}"),
            };
            let found = bytes.as_ref().map(|bytes| content::digest(bytes));
            ensure!(
                expected.contains(&found),
                "{path}: {found:?}, not of {expected:?}"
            );
            if let Some(bytes) = bytes {
                is_whole(client, repository, tag, &bytes)
                    .await
                    .context(path)?;
                checked += 1;
            }
            *expected = Expected::from([found]);
        }
        self.forget_untagged_subjects();
        for (repository, subject) in &self.subjects {
            let digest = content::digest(referrer(subject).as_bytes());
            let path = format!("/v2/{repository}/referrers/{subject}");
            let listed: Value = serde_json::from_slice(&client.read(&path).await?)?;
            ensure!(
                listed["manifests"][0]["digest"] == digest,
                "{path}: {listed}"
            );
            client
                .read(&format!("/v2/{repository}/manifests/{digest}"))
                .await?;
        }
        Ok((checked, self.subjects.len() as u64))
    }
}

/// Checks that all is there that an image mentions, or an index of one.
async fn is_whole(client: &Client, repository: &str, tag: &str, bytes: &[u8]) -> Result<()> {
    let manifest: Value = serde_json::from_slice(bytes)?;
    let reference = manifest["manifests"][0]["digest"].as_str().unwrap_or(tag);
    client.pull_image(repository, reference).await.map(drop)
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

/// Puts a manifest. Returns its digest.
async fn put(
    client: &Client,
    repository: &str,
    reference: &str,
    media_type: &str,
    manifest: String,
) -> (String, Answer) {
    let digest = content::digest(manifest.as_bytes());
    let path = format!("/v2/{repository}/manifests/{reference}");
    let headers = [("Content-Type", media_type)];
    let sent = client.send(Method::PUT, &path, &headers, manifest);
    (digest, answer(sent.await, StatusCode::CREATED))
}

/// Pushes the referrer of a subject.
async fn refer(client: &Client, repository: &str, subject: &str) -> Answer {
    // The content of an empty configuration.
    if client.push_blob(repository, b"{}").await.is_err() {
        return Answer::None;
    }
    let manifest = referrer(subject);
    let digest = content::digest(manifest.as_bytes());
    put(client, repository, &digest, MANIFEST, manifest).await.1
}

/// The referrer of a subject, which it only mentions.
fn referrer(subject: &str) -> String {
    let empty = descriptor("application/vnd.oci.empty.v1+json", b"{}");
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": "application/vnd.example",
        "config": empty, "layers": [empty],
        "subject": {"mediaType": MANIFEST, "digest": subject, "size": 1},
    });
    manifest.to_string()
}

fn answer(sent: Result<reqwest::Response>, done: StatusCode) -> Answer {
    match sent.map(|response| response.status()) {
        Ok(status) if status == done => Answer::Done,
        Ok(status) if status.is_client_error() => Answer::Refused,
        _ => Answer::None,
    }
}
