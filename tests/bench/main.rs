//! Compares our two programs with alternatives, on this machine.
//!
//! | module | what it is |
//! |---|---|
//! | [`peers`] | the programs under test, started side by side on loopback |
//! | [`load`] | one measurement: wrk or curl, and the server's processor time and memory |
//! | [`sink`] | an upstream that discards every upload |
//! | [`many`] | loads of many concurrent requests, by a client of our own |
//! | [`pulled`] | the content that is pulled |
//! | [`changes`] | requests while the proxy is reloaded, and taken over by another process |
//! | [`instructions`] | the instructions of a small response, counted by callgrind |
//! | [`secured`] | the proxies with TLS to their clients |
//! | [`rounds`] | all tables in order: [`proxies`] and [`registries`] |
//! | [`collection`] | a garbage collection of very many repositories, and the pulls beside it |
//! | [`statistics`] | the registry's statistics with very many repositories |
//! | [`table`] | one table, filled round by round |
//! | [`micro`] | the micro-benchmarks of the crates |
//! | [`plot`] | a picture of each table |
//! | [`report`] | medians, spreads, ratios, and the document with them |
//!
//! A slow result is not an error; a missing program or a wrong response is.

mod changes;
mod collection;
mod instructions;
mod load;
mod many;
mod micro;
mod peers;
mod plot;
mod proxies;
mod pulled;
mod registries;
mod report;
mod rounds;
mod secured;
mod sink;
mod statistics;
mod table;

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Parser;

/// Compares octoserve with haproxy, nginx and docker-registry, and writes the tables
#[derive(Debug, Parser)]
struct Options {
    /// How many rounds to measure
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=50))]
    rounds: u32,
    /// How long each measurement of small responses takes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
    /// The size of the blob, in MiB
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u64).range(1..=4096))]
    blob: u64,
    /// How many small images one measurement of our registry pushes; others get a tenth
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(16..=100_000))]
    images: u64,
    /// How many GiB to push over many connections
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=100))]
    pushed: u64,
    /// How many tags the listed repository has
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    tags: u64,
    /// How many repositories the statistics cover
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(100..=1_000_000))]
    repositories: u64,
    /// Measure only the tables whose titles contain this
    #[arg(long, value_name = "TITLE", default_value = "")]
    only: String,
    /// The directory with the release builds of both programs
    #[arg(long, value_name = "DIR", default_value = "target/release")]
    bin_dir: PathBuf,
    /// The document to write
    #[arg(long, value_name = "FILE", default_value = "docs/benchmarks.md")]
    output: PathBuf,
    /// Skip the micro-benchmarks, which have to be built
    #[arg(long)]
    no_micro: bool,
}

impl Options {
    /// Whether the table of this title is wanted.
    fn measures(&self, title: &str) -> bool {
        title.contains(&self.only)
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse();
    let machine = report::Machine::describe(&options.bin_dir).await?;
    let tables = rounds::measure(&options).await?;
    let micro = if options.no_micro {
        None
    } else {
        say("micro-benchmarks");
        Some(micro::run().await?)
    };
    let page = report::page(&machine, &options, &tables, micro.as_deref());
    std::fs::write(&options.output, page)
        .with_context(|| format!("writing {}", options.output.display()))?;
    plot::all(&options.output, &tables)?;
    say(&format!("written: {}", options.output.display()));
    Ok(())
}

/// Prints the progress.
#[expect(
    clippy::print_stderr,
    reason = "a program run by hand, which takes minutes, says what it does"
)]
fn say(words: &str) {
    eprintln!("bench: {words}");
}
