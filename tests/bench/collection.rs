//! What a garbage collection of very many repositories costs: memory, and the pulls beside it.
//!
//! The benchmark writes the tree directly, according to `docs/storage.md`. All manifests differ, and each
//! repository has a layer of its own; one in a hundred has a blob that nothing needs.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use harness::client::{MANIFEST, descriptor};
use harness::content;
use harness::maintenance;
use harness::octoserve::{Launch, Server};
use serde_json::json;
use tempfile::TempDir;

use crate::load::Sample;
use crate::table::{Compare, Ratio, Table, compare, load_average};
use crate::{Options, many, say};

/// The manifests of each repository.
const MANIFESTS: u64 = 10;
/// Of so many repositories one has a blob that nothing needs.
const GARBAGE: u64 = 100;
/// How long pulls are measured without a collection.
const SECONDS: u64 = 20;

const ALONE: &str = "octoserve-registry, no collection";
const BESIDE: &str = "octoserve-registry, during a collection";

const RATIOS: &[Ratio] = &[compare(BESIDE, ALONE, Compare::DifferenceAt99, "< 1 ms")];

/// The table.
pub(crate) async fn measure(options: &Options, tables: &mut Vec<Table>) -> Result<()> {
    let repositories = options.repositories;
    let mut table = Table::new(
        "Registries, pulls during a garbage collection",
        format!(
            "{repositories} repositories of {MANIFESTS} manifests each, written directly, {} pulls of a \
             manifest per second meanwhile; memory is that of the whole process (goal < 60 MB)",
            many::PACE
        ),
        "ms (median)",
        "µs/pull",
    );
    if !options.measures(table.title) {
        return Ok(());
    }
    table.ratios = RATIOS;
    table.rounds = Some(1);
    let before = load_average()?;
    say(&format!(
        "writing {repositories} repositories with {MANIFESTS} manifests each"
    ));
    let directory = TempDir::with_prefix("octoserve-bench-")?;
    let data = directory.path().join("data");
    write(&data, repositories)?;
    let socket = directory.path().join("control.sock");
    let text = format!(
        "gc: {{grace: 0s}}\ncontrol: {{socket: {}}}\nlogging: {{access: false}}\n",
        socket.display()
    );
    let launch = Launch::registry().configuration(&text).data(&data);
    let mut server = launch.built(&options.bin_dir).start().await?;
    // The statistics count everything first, which is measured elsewhere.
    counted(&server).await?;
    let alone = pulls(&mut server, SECONDS).await?;
    let is_done = Arc::new(AtomicBool::new(false));
    let collecting = tokio::spawn(collect(socket, Arc::clone(&is_done)));
    let mut beside: Option<Sample> = None;
    while !is_done.load(Ordering::Relaxed) {
        let one = pulls(&mut server, SECONDS).await?;
        // The worst of all, so that no phase of the collection is hidden by another.
        if beside.as_ref().is_none_or(|worst| one.p99 > worst.p99) {
            beside = Some(one);
        }
    }
    collecting.await??;
    let mut beside = beside.context("the collection was over at once")?;
    beside.resident = server.process().memory()?.peak as f64 / 1e6;
    table.rows = vec![(ALONE, vec![alone]), (BESIDE, vec![beside])];
    table.averages = (before, load_average()?);
    tables.push(table);
    Ok(())
}

async fn collect(socket: PathBuf, is_done: Arc<AtomicBool>) -> Result<()> {
    let begun = Instant::now();
    let end = maintenance::run(&socket, "gc").await;
    is_done.store(true, Ordering::Relaxed);
    let end = end?;
    say(&format!(
        "collected in {:.0} s: {}",
        begun.elapsed().as_secs_f64(),
        end["message"]
    ));
    ensure!(end["ok"] == true, "{end}");
    Ok(())
}

async fn counted(server: &Server) -> Result<()> {
    let name = harness::scrape::metric("octoserve_stats_last_success_timestamp_seconds");
    harness::poll::until(
        "everything is counted",
        std::time::Duration::from_mins(20),
        async || Ok(server.scrape().await?.sum(&name).map(drop)),
    )
    .await
}

async fn pulls(server: &mut Server, seconds: u64) -> Result<Sample> {
    let before = server.process().processor_time()?;
    let latencies =
        many::latencies(server.address(), "/v2/team-0/app-0/manifests/v0", seconds).await?;
    let spent = server.process().processor_time()?.saturating_sub(before);
    let at = |share: usize| latencies.get(latencies.len() * share / 100).copied();
    Ok(Sample {
        value: at(50).context("nothing was asked")?,
        processor: spent.as_secs_f64() * 1e6 / latencies.len() as f64,
        p99: at(99),
        resident: server.process().memory()?.resident as f64 / 1e6,
    })
}

/// Writes the tree, with one thread per processor.
fn write(root: &Path, count: u64) -> Result<()> {
    let config = b"{}".to_vec();
    place(root, "blobs", &config)?;
    let one = |number: u64| -> Result<()> {
        let repository = root.join(format!("repositories/team-{}/app-{number}", number % 100));
        for directory in ["_blobs", "_manifests", "_tags"] {
            fs::create_dir_all(repository.join(directory))?;
        }
        let layer = content::bytes(number, 64);
        place(root, "blobs", &layer)?;
        let mut blobs = vec![config.clone(), layer.clone()];
        if number.is_multiple_of(GARBAGE) {
            let garbage = content::bytes(number, 65);
            place(root, "blobs", &garbage)?;
            blobs.push(garbage);
        }
        for blob in blobs {
            fs::write(
                repository.join("_blobs").join(file_name(&blob)),
                format!("{}\n", blob.len()),
            )?;
        }
        for version in 0..MANIFESTS {
            let manifest = json!({
                "schemaVersion": 2, "mediaType": MANIFEST,
                "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
                "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer)],
                "annotations": {"version": version.to_string()},
            });
            let manifest = manifest.to_string();
            place(root, "manifests", manifest.as_bytes())?;
            let entry = json!({"mediaType": MANIFEST, "kind": "image", "size": manifest.len()});
            let name = file_name(manifest.as_bytes());
            fs::write(
                repository.join("_manifests").join(name),
                format!("{entry}\n"),
            )?;
            let tag = content::digest(manifest.as_bytes()) + "\n";
            fs::write(repository.join("_tags").join(format!("v{version}")), tag)?;
        }
        Ok(())
    };
    let workers = std::thread::available_parallelism()?.get();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..workers)
            .map(|first| {
                let one = &one;
                scope.spawn(move || (first as u64..count).step_by(workers).try_for_each(one))
            })
            .collect();
        let mut written = workers.into_iter().map(|worker| {
            let joined = worker.join().ok().context("a writer panicked");
            joined.flatten()
        });
        written.try_for_each(|written| written)
    })
}

/// Writes content where the store keeps it.
fn place(root: &Path, pool: &str, bytes: &[u8]) -> Result<()> {
    let digest = content::digest(bytes);
    let hex = digest.trim_start_matches("sha256:");
    let directory = root.join(pool).join("sha256").join(&hex[..2]);
    fs::create_dir_all(&directory)?;
    Ok(fs::write(directory.join(hex), bytes)?)
}

fn file_name(bytes: &[u8]) -> String {
    content::digest(bytes).replace(':', "-")
}
