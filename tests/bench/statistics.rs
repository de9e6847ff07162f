//! The cost of very many repositories: starting on them, counting all of them, and a scrape.
//!
//! The benchmark writes the tree directly, according to `docs/storage.md`, because pushing a
//! million tags would take longer than everything else here. All repositories hold the same two
//! blobs and the same manifest.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use harness::client::{MANIFEST, descriptor};
use harness::content;
use harness::images;
use harness::octoserve::{Launch, Server};
use harness::poll;
use harness::scrape::metric;
use harness::wire::{self, Wire};
use serde_json::json;
use tempfile::TempDir;

use crate::load::Sample;
use crate::table::{Ratio, Table, load_average, ratio};
use crate::{Options, say};

/// The small number of repositories to compare with.
const FEW: u64 = 10;
/// The tags of each repository.
const TAGS: u64 = 10;
/// The scrapes of one measurement.
const SCRAPES: usize = 200;
/// How long a full count may take.
const COUNT: Duration = Duration::from_mins(20);

const REGISTRY_FEW: &str = "octoserve-registry, few";
const REGISTRY_MANY: &str = "octoserve-registry, many";
const ALL_FEW: &str = "octoserve, all-in-one, few";
const ALL_MANY: &str = "octoserve, all-in-one, many";

const FLAT: &[Ratio] = &[
    ratio(REGISTRY_MANY, REGISTRY_FEW, "about 1"),
    ratio(ALL_MANY, ALL_FEW, "about 1"),
];

/// The measurements of one server on a tree.
struct Measured {
    start: Sample,
    count: Sample,
    scrape: Sample,
}

/// The three tables.
pub(crate) async fn measure(options: &Options, tables: &mut Vec<Table>) -> Result<()> {
    let many = options.repositories;
    let trees = format!("{FEW} and {many} repositories of {TAGS} tags each, written directly");
    let start = Table::new(
        "Registries, a start on many repositories",
        format!("{trees}; from the program's start to the first response (goal < 1 s)"),
        "s",
        "s/start",
    );
    let count = Table::new(
        "Registries, a count of many repositories",
        format!("{trees}; the first full count, which works half of the time"),
        "repositories/s",
        "µs/repository",
    );
    let mut scrape = Table::new(
        "Registries, a scrape with many repositories",
        format!("{trees}; {SCRAPES} scrapes, one after the other (goal < 5 ms, however many)"),
        "ms (median)",
        "µs/scrape",
    );
    scrape.ratios = FLAT;
    let mut all = [start, count, scrape];
    if !all.iter().any(|table| options.measures(table.title)) {
        return Ok(());
    }
    let before = load_average()?;
    let mut measured = Vec::new();
    for (names, repositories) in [
        ((REGISTRY_FEW, ALL_FEW), FEW),
        ((REGISTRY_MANY, ALL_MANY), many),
    ] {
        say(&format!("writing {repositories} repositories"));
        let directory = TempDir::with_prefix("octoserve-bench-")?;
        let begun = Instant::now();
        write(directory.path(), repositories)?;
        say(&format!(
            "written in {:.0} s",
            begun.elapsed().as_secs_f64()
        ));
        for (name, launch) in [
            (names.0, Launch::registry()),
            (names.1, Launch::all_in_one()),
        ] {
            say(&format!("{name}: start, count and scrape"));
            let launch = launch.data(directory.path()).built(&options.bin_dir);
            let one = once(launch, repositories).await;
            measured.push((name, one.with_context(|| name)?));
        }
    }
    let after = load_average()?;
    let pick: [fn(&Measured) -> Sample; 3] = [|m| m.start, |m| m.count, |m| m.scrape];
    for (table, pick) in all.iter_mut().zip(pick) {
        table.rounds = Some(1);
        table.averages = (before.clone(), after.clone());
        let rows = measured.iter().map(|(name, one)| (*name, vec![pick(one)]));
        table.rows = rows.collect();
    }
    tables.extend(all);
    Ok(())
}

async fn once(launch: Launch, repositories: u64) -> Result<Measured> {
    let begun = Instant::now();
    let launch = launch.environment("OCTOSERVE_LOGGING_ACCESS", "false");
    let mut server = launch.start().await?;
    let get = wire::request("GET", "/v2/", &[], b"");
    let response = wire::exchange(server.address(), "GET", &get).await?;
    let started = begun.elapsed();
    ensure!(response.head.status == 200, "{}", response.head.status);
    let start = sample(&mut server, started.as_secs_f64(), 0.0)?;

    let took = poll::until("everything is counted", COUNT, async || {
        let exposition = server.scrape().await?;
        let done = exposition.sum(&metric("octoserve_stats_last_success_timestamp_seconds"));
        Ok(done.and(exposition.sum(&metric("octoserve_stats_duration_seconds"))))
    });
    let took = took.await?;
    let exposition = server.scrape().await?;
    for (name, expected) in [
        ("octoserve_repositories", repositories),
        ("octoserve_tags", repositories * TAGS),
    ] {
        let counted = exposition.sum(&metric(name));
        ensure!(
            counted == Some(expected as f64),
            "{name}: {counted:?} instead of {expected}"
        );
    }
    let spent = server.process().processor_time()?;
    let count = repositories as f64;
    let count = sample(&mut server, count / took, spent.as_secs_f64() * 1e6 / count)?;
    let scrape = scrapes(&mut server).await?;
    Ok(Measured {
        start,
        count,
        scrape,
    })
}

/// Scrapes repeatedly on one connection.
async fn scrapes(server: &mut Server) -> Result<Sample> {
    let get = "GET /metrics HTTP/1.1\r\nHost: registry\r\n\r\n";
    let mut wire = Wire::connect(server.metrics_address()).await?;
    let before = server.process().processor_time()?;
    let mut latencies = Vec::new();
    for _ in 0..SCRAPES {
        let sent = Instant::now();
        wire.send(get.as_bytes()).await?;
        let response = wire.response("GET").await?;
        latencies.push(sent.elapsed().as_secs_f64() * 1e3);
        ensure!(response.head.status == 200, "{}", response.head.status);
    }
    let spent = server.process().processor_time()?.saturating_sub(before);
    latencies.sort_by(f64::total_cmp);
    let processor = spent.as_secs_f64() * 1e6 / latencies.len() as f64;
    let mut sample = sample(server, latencies[SCRAPES / 2], processor)?;
    sample.p99 = latencies.get(SCRAPES * 99 / 100).copied();
    Ok(sample)
}

/// A figure, with the server's peak memory so far.
fn sample(server: &mut Server, value: f64, processor: f64) -> Result<Sample> {
    Ok(Sample {
        value,
        processor,
        p99: None,
        resident: server.process().memory()?.peak as f64 / 1e6,
    })
}

/// Writes `count` repositories, each with [`TAGS`] tags, with one thread per processor.
fn write(root: &Path, count: u64) -> Result<()> {
    let (layer, config) = (content::bytes(1, 1024), b"{}".to_vec());
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer)],
    });
    let manifest = manifest.to_string();
    for (pool, bytes) in [
        ("blobs", &layer[..]),
        ("blobs", &config),
        ("manifests", manifest.as_bytes()),
    ] {
        let digest = content::digest(bytes);
        let hex = digest.trim_start_matches("sha256:");
        let directory = root.join(pool).join("sha256").join(&hex[..2]);
        fs::create_dir_all(&directory)?;
        fs::write(directory.join(hex), bytes)?;
    }
    let named = |bytes: &[u8]| content::digest(bytes).replace(':', "-");
    let (layer, config) = (named(&layer), named(&config));
    let (entry_name, tag) = (
        named(manifest.as_bytes()),
        content::digest(manifest.as_bytes()) + "\n",
    );
    let entry = json!({"mediaType": MANIFEST, "kind": "image", "size": manifest.len()});
    let entry = format!("{entry}\n");
    let one = |number: u64| -> Result<()> {
        let name = format!("team-{}/app-{number}", number % 100);
        let repository = root.join("repositories").join(name);
        fs::create_dir_all(&repository)?;
        for directory in ["_blobs", "_manifests", "_tags"] {
            fs::create_dir(repository.join(directory))?;
        }
        for blob in [&layer, &config] {
            fs::write(repository.join("_blobs").join(blob), "")?;
        }
        fs::write(repository.join("_manifests").join(&entry_name), &entry)?;
        for number in 0..TAGS {
            fs::write(repository.join("_tags").join(format!("v{number}")), &tag)?;
        }
        Ok(())
    };
    images::in_parallel(count, one)
}
