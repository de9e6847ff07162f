//! The registry's statistics equal those of its directory: after a kill during pushes, after later
//! requests, and after files were removed by hand.
//!
//! The test walks the directory according to `docs/storage.md`, without code of the registry.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::client::Client;
use harness::content;
use harness::octoserve::{Launch, Server};
use harness::poll;
use harness::scrape::{Scrape, metric};
use reqwest::Method;
use tempfile::TempDir;
use tokio::task::JoinSet;

const DEADLINE: Duration = Duration::from_secs(30);

/// Clients that push while the registry is killed.
const CLIENTS: u64 = 8;
/// The images that must be acknowledged before the kill.
const ACKNOWLEDGED: u64 = 40;

/// The statistics of a directory, by metric name.
type Figures = BTreeMap<String, f64>;

fn entries(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

fn length(file: &Path) -> f64 {
    fs::metadata(file).map_or(0.0, |file| file.len() as f64)
}

/// The content of a file such as `_blobs/sha256-<hex>`.
fn content_of(root: &Path, pool: &str, link: &Path) -> Result<PathBuf> {
    let name = link.file_name().and_then(|name| name.to_str());
    let (algorithm, hex) = name
        .and_then(|name| name.split_once('-'))
        .context("a stranger")?;
    Ok(root.join(pool).join(algorithm).join(&hex[..2]).join(hex))
}

/// Walks everything below `data`.
fn walk(data: &Path) -> Result<Figures> {
    let mut figures = Figures::new();
    let mut add = |name: &str, value: f64| *figures.entry(name.to_owned()).or_default() += value;
    for total in [
        "repositories",
        "tags",
        "blobs",
        "registry_upload_sessions",
        "registry_upload_bytes",
    ] {
        add(total, 0.0);
    }
    let (mut directories, mut inodes) = (vec![data.to_owned()], HashSet::new());
    while let Some(directory) = directories.pop() {
        for path in [directory.clone()].into_iter().chain(entries(&directory)) {
            let metadata = fs::symlink_metadata(&path)?;
            if inodes.insert(metadata.ino()) {
                add("storage_disk_usage_bytes", metadata.blocks() as f64 * 512.0);
            }
            if metadata.is_dir() && path != directory {
                directories.push(path);
            }
        }
    }
    for shard in entries(&data.join("blobs/sha256")) {
        add("blobs", entries(&shard).len() as f64);
    }
    for session in entries(&data.join("uploads")) {
        add("registry_upload_sessions", 1.0);
        add("registry_upload_bytes", length(&session.join("data")));
    }
    // All repositories of these tests are `team/<one>`.
    for repository in entries(&data.join("repositories/team")) {
        let (blobs, manifests) = (
            entries(&repository.join("_blobs")),
            entries(&repository.join("_manifests")),
        );
        add("tags", entries(&repository.join("_tags")).len() as f64);
        let mut stored = 0.0;
        for (pool, links) in [("blobs", &blobs), ("manifests", &manifests)] {
            for link in links {
                // A blob's link says its length, whatever has become of the content.
                let said = fs::read_to_string(link)?.trim().parse::<f64>();
                stored += match (pool, said) {
                    ("blobs", Ok(said)) => said,
                    _ => length(&content_of(data, pool, link)?),
                };
            }
        }
        if !manifests.is_empty() {
            add("manifests", manifests.len() as f64);
        }
        if !blobs.is_empty() || !manifests.is_empty() {
            add("repositories", 1.0);
            let name = repository.file_name().and_then(|name| name.to_str());
            add(
                &format!("repository team/{}", name.context("a stranger")?),
                stored,
            );
        }
    }
    Ok(figures)
}

/// The same statistics from the exposition.
fn reported(exposition: &Scrape, wanted: &Figures) -> Figures {
    let figures = wanted.keys().filter_map(|name| {
        let value = match name.strip_prefix("repository ") {
            Some(repository) => {
                let stored = metric("octoserve_repository_stored_bytes");
                exposition.sum(&stored.label("repository", repository))
            }
            None => exposition.sum(&metric(&format!("octoserve_{name}"))),
        };
        Some((name.clone(), value?))
    });
    figures.collect()
}

/// Waits for the first full count after a start.
async fn counted(server: &Server) -> Result<Scrape> {
    let counted = poll::until("everything is counted", DEADLINE, async || {
        let exposition = server.scrape().await?;
        let done = exposition.sum(&metric("octoserve_stats_last_success_timestamp_seconds"));
        // Read together with the disk usage of open uploads.
        let read = exposition.sum(&metric("octoserve_storage_filesystem_size_bytes"));
        // The sums are updated before the exposition is gathered and may be slightly older.
        let sums = exposition.sum(&metric("octoserve_blobs"));
        Ok(done.and(read).and(sums).map(|_| exposition))
    });
    counted.await
}

fn same(exposition: &Scrape, data: &Path, without: &str) -> Result<()> {
    let mut walked = walk(data)?;
    walked.remove(without);
    let exposed = reported(exposition, &walked);
    ensure!(
        exposed == walked,
        "the exposition says {exposed:#?}\nthe directory holds {walked:#?}"
    );
    let errors = exposition.sum(&metric("octoserve_stats_errors_total"));
    ensure!(errors.unwrap_or_default() == 0.0, "{errors:?} failures");
    Ok(())
}

/// Pushes distinct images until the registry is gone.
async fn push(client: Client, number: u64, acknowledged: Arc<AtomicU64>) {
    for image in 0.. {
        let seed = 1000 * number + 3 * image;
        let repository = format!("team/{}", seed % 5);
        let tag = format!("{number}-{image}");
        let pushed = client
            .push_image(&repository, &tag, &[seed, seed + 1, 7])
            .await;
        if pushed.is_err() {
            return;
        }
        acknowledged.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn the_statistics_match_the_directory_after_a_kill_and_later_requests() -> Result<()> {
    for launch in [Launch::registry, Launch::all_in_one] {
        let data = TempDir::new()?;
        let mut server = launch().data(data.path()).start().await?;
        let acknowledged = Arc::new(AtomicU64::new(0));
        let mut clients = JoinSet::new();
        for number in 0..CLIENTS {
            let client = Client::new(&server.url(""))?;
            clients.spawn(push(client, number, Arc::clone(&acknowledged)));
        }
        let enough = poll::until("images are acknowledged", DEADLINE, async || {
            Ok((acknowledged.load(Ordering::Relaxed) >= ACKNOWLEDGED).then_some(()))
        });
        enough.await?;
        server.process().kill()?;
        while clients.join_next().await.is_some() {}

        let server = launch().data(data.path()).start().await?;
        same(&counted(&server).await?, data.path(), "")?;

        // From here on the statistics follow the operations, without another full count.
        let client = Client::new(&server.url(""))?;
        let pushed = client.push_image("team/new", "1", &[1, 2]).await?;
        let mount = format!("/v2/team/copy/blobs/uploads/?mount={}", pushed.layers[0]);
        ensure!(client.send(Method::POST, &mount, &[], "").await?.status() == 201);
        client.push_image("team/new", "1", &[3]).await?;
        for path in [
            format!("/v2/team/new/manifests/{}", pushed.digest),
            format!("/v2/team/new/blobs/{}", pushed.layers[1]),
        ] {
            ensure!(
                client.send(Method::DELETE, &path, &[], "").await?.status() == 202,
                "{path}"
            );
        }
        let location = client.open_upload("team/open").await?;
        let part = content::bytes(9, 5000);
        ensure!(
            client
                .send(Method::PATCH, &location, &[], part)
                .await?
                .status()
                == 202
        );
        // The disk usage of open uploads is read every few seconds.
        same(
            &server.scrape().await?,
            data.path(),
            "storage_disk_usage_bytes",
        )?;
    }
    Ok(())
}

#[tokio::test]
async fn files_removed_by_hand_are_not_counted_after_a_restart() -> Result<()> {
    let data = TempDir::new()?;
    let mut server = Launch::registry().data(data.path()).start().await?;
    let client = Client::new(&server.url(""))?;
    for repository in ["team/a", "team/b", "team/c"] {
        client.push_image(repository, "1", &[1, 2]).await?;
    }
    ensure!(server.terminate(DEADLINE).await?.success());
    fs::remove_dir_all(data.path().join("repositories/team/a"))?;
    let links = entries(&data.path().join("repositories/team/b/_blobs"));
    fs::remove_file(links.first().context("no blobs")?)?;
    let shard = entries(&data.path().join("blobs/sha256"))
        .pop()
        .context("no content")?;
    fs::remove_dir_all(shard)?;
    let server = Launch::registry().data(data.path()).start().await?;
    same(&counted(&server).await?, data.path(), "")
}
