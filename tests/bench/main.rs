//! How fast our two programs are beside those that people use in their place, on this machine, now.
//!
//! | module | what it is |
//! |---|---|
//! | [`peers`] | everything that is measured, started side by side on loopback |
//! | [`load`] | one measurement: wrk or curl, and what the kernel charged the server for it |
//! | [`sink`] | an upstream that takes any upload and forgets it |
//! | [`many`] | loads of many requests at a time, by a client of our own |
//! | [`pulled`] | what is pulled from everybody |
//! | [`instructions`] | what a small response costs, counted by callgrind |
//! | [`rounds`] | all tables, in order: those of the [`proxies`] and those of the [`registries`] |
//! | [`statistics`] | the registry's figures of very many repositories |
//! | [`table`] | one table, filled round by round |
//! | [`micro`] | the micro-benchmarks of both crates, run and read |
//! | [`plot`] | a picture of each table |
//! | [`report`] | medians, spreads, ratios, and the page they are written on |
//!
//! Nothing here fails for being slow: only for a program that is missing or a response that is wrong.

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
mod sink;
mod statistics;
mod table;

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Parser;

/// Measures octoserve beside haproxy, nginx and docker-registry, and writes the tables
#[derive(Debug, Parser)]
struct Options {
    /// How often everything is measured, in turns
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=50))]
    rounds: u32,
    /// How long each measurement of small answers takes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
    /// The size of the blob, in MiB
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u64).range(1..=4096))]
    blob: u64,
    /// How many small images are pushed in one measurement of ours; of others, a tenth
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(16..=100_000))]
    images: u64,
    /// How much is pushed over many connections, in GiB
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=100))]
    pushed: u64,
    /// How many tags the repository has whose tags are listed
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    tags: u64,
    /// How many repositories there are whose statistics are kept
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(100..=1_000_000))]
    repositories: u64,
    /// Measure only the tables whose titles contain this
    #[arg(long, value_name = "TITLE", default_value = "")]
    only: String,
    /// Where the release builds of both programs are
    #[arg(long, value_name = "DIR", default_value = "target/release")]
    bin_dir: PathBuf,
    /// The page to write
    #[arg(long, value_name = "FILE", default_value = "docs/benchmarks.md")]
    output: PathBuf,
    /// Leave out the micro-benchmarks, which have to be built
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

/// Tells the person who waits what is being done.
#[expect(
    clippy::print_stderr,
    reason = "a program run by hand, which takes minutes, says what it does"
)]
fn say(words: &str) {
    eprintln!("bench: {words}");
}
