//! The tables: who is in them, and the rounds in which everybody is measured in turn.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use harness::client::Client;
use harness::content::Content;
use harness::octoserve::Launch;
use tempfile::TempDir;

use crate::load::{self, Sample};
use crate::peers::{self, Subject};
use crate::{Options, say, sink};

/// The repository of everything that is pulled.
const REPOSITORY: &str = "team/app/web";
/// Downloads of the blob in one measurement.
const DOWNLOADS: u32 = 4;
/// Uploads of the blob in one measurement.
const UPLOADS: u32 = 2;

/// One table: the same load on several programs.
pub(crate) struct Table {
    /// Its heading.
    pub(crate) title: &'static str,
    /// What was done, in a sentence.
    pub(crate) load: String,
    /// What the main figure is.
    pub(crate) unit: &'static str,
    /// What the processor time is charged per.
    pub(crate) per: &'static str,
    /// Who was measured, and what each round gave.
    pub(crate) rows: Vec<(&'static str, Vec<Sample>)>,
    /// The ratios that there are goals for.
    pub(crate) ratios: &'static [Ratio],
    /// The load averages of the machine before its first round and after its last.
    pub(crate) averages: (String, String),
}

/// A ratio of two rows of one table.
pub(crate) struct Ratio {
    /// The numerator's row.
    pub(crate) of: &'static str,
    /// The denominator's row.
    pub(crate) to: &'static str,
    /// The goal, in words; empty if there is none.
    pub(crate) goal: &'static str,
}

const fn ratio(of: &'static str, to: &'static str, goal: &'static str) -> Ratio {
    Ratio { of, to, goal }
}

const DIRECT: &str = "nginx, the files directly";
const HAPROXY: &str = "haproxy";
const SPLICE: &str = "haproxy with splice";
const NGINX: &str = "nginx as a proxy";
const OURS: &str = "octoserve in front of nginx";
const REGISTRY: &str = "octoserve-registry";
const ALL_IN_ONE: &str = "octoserve, all-in-one";
const DOCKER: &str = "docker-registry";

/// What is pulled, on disk and in every registry.
struct Pulled {
    manifest: String,
    blob: String,
    length: u64,
    folder: TempDir,
}

impl Pulled {
    fn manifest_path() -> String {
        format!("/v2/{REPOSITORY}/manifests/latest")
    }

    fn blob_path(&self) -> String {
        format!("/v2/{REPOSITORY}/blobs/{}", self.blob)
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join(&self.blob_path()[1..])
    }
}

/// Starts everything and measures all tables.
pub(crate) async fn measure(options: &Options) -> Result<Vec<Table>> {
    for program in ["wrk", "curl", "haproxy", "nginx", "docker-registry"] {
        peers::find(program)?;
    }
    for program in ["octoserve", "octoserve-registry"] {
        let path = options.bin_dir.join(program);
        ensure!(
            path.is_file(),
            "{} is missing: `make bench` builds it",
            path.display()
        );
    }
    say("starting the registries");
    let folder = &options.bin_dir;
    let mut registries = vec![
        Subject::ours(REGISTRY, Launch::registry(), folder).await?,
        Subject::ours(ALL_IN_ONE, Launch::all_in_one(), folder).await?,
        Subject::docker_registry(DOCKER).await?,
    ];
    let content = fill(&registries, options.blob << 20).await?;
    let direct = Subject::files(DIRECT, content.folder.path()).await?;
    let mut proxies = proxies(direct.address(), folder).await?;
    proxies.insert(0, direct);

    let small = Pulled::manifest_path();
    let blob = content.blob_path();
    let length = content.length;
    let answer = format!(
        "wrk, 1 thread, 32 connections, {} s: GET of a manifest of {} bytes",
        options.seconds,
        content.manifest.len()
    );
    let transfers = format!(
        "curl, one connection: {DOWNLOADS} downloads of {} MiB",
        options.blob
    );
    let mut tables = Vec::new();

    let mut table = Table::new(
        "Proxies, small answers",
        answer.clone(),
        "req/s",
        "µs/request",
    );
    table.ratios = const {
        &[
            ratio(OURS, HAPROXY, "≥ 1.0 (first step ≥ 0.8)"),
            ratio(OURS, NGINX, ""),
        ]
    };
    table
        .fill(options.rounds, &mut proxies, async |subject, _| {
            load::small(subject, &small, options.seconds).await
        })
        .await?;
    tables.push(table);

    let mut table = Table::new("Proxies, a blob down", transfers.clone(), "MB/s", "s/GiB");
    table.ratios = const {
        &[
            ratio(OURS, SPLICE, "≥ 1.0 (first step ≥ 0.85)"),
            ratio(OURS, HAPROXY, ""),
            ratio(OURS, NGINX, ""),
        ]
    };
    table
        .fill(options.rounds, &mut proxies, async |subject, _| {
            load::download(subject, &blob, length, DOWNLOADS).await
        })
        .await?;
    tables.push(table);

    drop(proxies);
    tables.push(uploads(options, &content).await?);

    // The files directly are the limit of the registries too.
    registries.insert(0, Subject::files(DIRECT, content.folder.path()).await?);
    let mut table = Table::new("Registries, manifest by tag", answer, "req/s", "µs/request");
    table.ratios = const {
        &[
            ratio(REGISTRY, DIRECT, "≥ 0.7"),
            ratio(REGISTRY, DOCKER, "≥ 7"),
            ratio(ALL_IN_ONE, REGISTRY, "≥ 0.6"),
        ]
    };
    table
        .fill(options.rounds, &mut registries, async |subject, _| {
            load::small(subject, &small, options.seconds).await
        })
        .await?;
    tables.push(table);

    let mut table = Table::new("Registries, a blob down", transfers, "MB/s", "s/GiB");
    table.ratios = const {
        &[
            ratio(REGISTRY, DIRECT, "≥ 0.95"),
            ratio(REGISTRY, DOCKER, ""),
            ratio(ALL_IN_ONE, REGISTRY, "≥ 0.7"),
        ]
    };
    table
        .fill(options.rounds, &mut registries, async |subject, _| {
            load::download(subject, &blob, length, DOWNLOADS).await
        })
        .await?;
    tables.push(table);

    drop(registries.remove(0));
    tables.push(pushes(options, &content, &mut registries).await?);
    Ok(tables)
}

/// Uploads through the proxies, in front of an upstream that forgets them.
async fn uploads(options: &Options, content: &Pulled) -> Result<Table> {
    let (address, sink) = sink::start().await?;
    let mut proxies = proxies(address, &options.bin_dir).await?;
    let load = format!(
        "curl, one connection: {UPLOADS} PUT of {} MiB, to an upstream that discards them",
        options.blob
    );
    let mut table = Table::new("Proxies, a blob up", load, "MB/s", "s/GiB");
    table.ratios = const {
        &[
            ratio(OURS, SPLICE, "≥ 1.0 (first step ≥ 0.85)"),
            ratio(OURS, HAPROXY, ""),
            ratio(OURS, NGINX, ""),
        ]
    };
    let path = format!(
        "/v2/{REPOSITORY}/blobs/uploads/session?digest={}",
        content.blob
    );
    let file = content.file();
    table
        .fill(options.rounds, &mut proxies, async |subject, _| {
            load::upload(subject, &path, &file, UPLOADS).await
        })
        .await?;
    sink.abort();
    Ok(table)
}

/// Pushes of a blob that no registry has yet: another one in each round.
async fn pushes(options: &Options, content: &Pulled, registries: &mut [Subject]) -> Result<Table> {
    let load = format!(
        "one POST and one PUT (curl) of a new blob of {} MiB",
        options.blob
    );
    let mut table = Table::new("Registries, push of a blob", load, "s", "s/GiB");
    table.ratios = const {
        &[
            ratio(REGISTRY, DOCKER, "≤ 0.5"),
            ratio(ALL_IN_ONE, REGISTRY, ""),
        ]
    };
    let mut blobs = Vec::new();
    for round in 0..options.rounds {
        let file = content.folder.path().join(format!("push-{round}"));
        let digest = write(&file, u64::from(round) + 1000, content.length)?;
        blobs.push((file, digest));
    }
    table
        .fill(options.rounds, registries, async |subject, round| {
            let (file, digest) = &blobs[round];
            load::push(subject, file, digest).await
        })
        .await?;
    Ok(table)
}

async fn proxies(upstream: SocketAddr, folder: &Path) -> Result<Vec<Subject>> {
    let launch = Launch::in_front_of(&format!("http://{upstream}"));
    Ok(vec![
        Subject::haproxy(HAPROXY, upstream, false).await?,
        Subject::haproxy(SPLICE, upstream, true).await?,
        Subject::nginx_proxy(NGINX, upstream).await?,
        Subject::ours(OURS, launch, folder).await?,
    ])
}

/// Pushes the same image and the same blob to all registries, and lays them out as files.
async fn fill(registries: &[Subject], length: u64) -> Result<Pulled> {
    let folder = TempDir::with_prefix("octoserve-bench-")?;
    let mut manifest = None;
    for registry in registries {
        let client = Client::new(&registry.url(""))?;
        let pushed = client.push_image(REPOSITORY, "latest", &[1]).await?;
        manifest = Some(pushed.manifest);
    }
    let manifest = manifest.context("no registries")?;
    let path = folder.path().join(&Pulled::manifest_path()[1..]);
    std::fs::create_dir_all(path.parent().context("a file in no folder")?)?;
    std::fs::write(&path, &manifest)?;
    let blobs = folder.path().join(format!("v2/{REPOSITORY}/blobs"));
    std::fs::create_dir_all(&blobs)?;
    let unnamed = blobs.join("unnamed");
    let blob = write(&unnamed, 1, length)?;
    let bytes = std::fs::read(&unnamed)?;
    for registry in registries {
        Client::new(&registry.url(""))?
            .push_blob(REPOSITORY, &bytes)
            .await?;
    }
    std::fs::rename(unnamed, blobs.join(&blob))?;
    Ok(Pulled {
        manifest,
        blob,
        length,
        folder,
    })
}

/// Writes reproducible bytes and returns their digest.
fn write(path: &Path, seed: u64, length: u64) -> Result<String> {
    let mut content = Content::new(seed, length);
    let mut file = std::fs::File::create(path)?;
    for piece in content.by_ref() {
        file.write_all(&piece)?;
    }
    Ok(content.digest())
}

impl Table {
    fn new(title: &'static str, load: String, unit: &'static str, per: &'static str) -> Self {
        Self {
            title,
            load,
            unit,
            per,
            rows: Vec::new(),
            ratios: &[],
            averages: Default::default(),
        }
    }

    /// Measures every subject once a round. Each round begins with another one, so that none is
    /// always the first after a pause.
    async fn fill(
        &mut self,
        rounds: u32,
        subjects: &mut [Subject],
        mut once: impl AsyncFnMut(&mut Subject, usize) -> Result<Sample>,
    ) -> Result<()> {
        self.averages.0 = load_average()?;
        self.rows = subjects
            .iter()
            .map(|subject| (subject.name(), Vec::new()))
            .collect();
        let count = subjects.len();
        for round in 0..usize::try_from(rounds)? {
            say(&format!("{}: round {} of {rounds}", self.title, round + 1));
            for turn in 0..count {
                let index = (round + turn) % count;
                let subject = &mut subjects[index];
                let sample = once(subject, round)
                    .await
                    .with_context(|| format!("{}: {}", self.title, subject.name()))?;
                self.rows[index].1.push(sample);
            }
        }
        self.averages.1 = load_average()?;
        Ok(())
    }
}

/// The load average of the last minute.
fn load_average() -> Result<String> {
    let text = std::fs::read_to_string("/proc/loadavg")?;
    let first = text.split(' ').next();
    Ok(first.context("a strange /proc/loadavg")?.to_owned())
}
