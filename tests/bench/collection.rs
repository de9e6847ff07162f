//! What a garbage collection of very many repositories costs: memory, and the pulls beside it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use harness::images::{self, IMAGES};
use harness::maintenance;
use harness::octoserve::{Launch, Server};
use tempfile::TempDir;

use crate::load::Sample;
use crate::table::{Compare, Ratio, Table, compare, load_average};
use crate::{Options, many, say};

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
            "{repositories} repositories of {IMAGES} manifests each, written directly, {} pulls of a \
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
        "writing {repositories} repositories with {IMAGES} manifests each"
    ));
    let directory = TempDir::with_prefix("octoserve-bench-")?;
    let data = directory.path().join("data");
    images::write(&data, repositories)?;
    let socket = directory.path().join("control.sock");
    let text = format!(
        "gc: {{grace: 0s}}\ncontrol: {{socket: {}}}\nlogging: {{access: false}}\n",
        socket.display()
    );
    let launch = Launch::registry().configuration(&text).data(&data);
    let mut server = launch.built(&options.bin_dir).start().await?;
    // The statistics count everything first, which is measured elsewhere.
    say("counting them");
    counted(&server).await?;
    say("pulls without a collection");
    let alone = pulls(&mut server, SECONDS).await?;
    say("pulls during a collection");
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
