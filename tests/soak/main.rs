//! Runs a soak for minutes or hours, prints its report, and fails if anything in it is wrong. Before it, a
//! registry is killed again and again.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use clap::Parser;
use harness::kills;
use harness::soak::{self, SoakPlan};

/// Uses octoserve with all clients while its replicas fail and it is reloaded and replaced
#[derive(Debug, Parser)]
struct Options {
    /// How long
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    minutes: u64,
    /// What the choices follow from; by default the time
    #[arg(long)]
    seed: Option<u64>,
    /// How many clients send requests of their own
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u64).range(1..=1000))]
    clients: u64,
    /// How often a registry is killed first, which must keep all that it acknowledged
    #[arg(long, default_value_t = 500)]
    kills: u64,
    /// The directory with the programs
    #[arg(long, value_name = "DIR", default_value = "target/release")]
    bin_dir: PathBuf,
    /// The report to write
    #[arg(long, value_name = "FILE", default_value = "target/soak/report.md")]
    output: PathBuf,
}

#[tokio::main]
#[expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program run by hand"
)]
async fn main() -> Result<ExitCode> {
    let options = Options::parse();
    let seed = match options.seed {
        Some(seed) => seed,
        None => SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs(),
    };
    let killed = kills::rounds(options.kills, seed, Some(&options.bin_dir)).await?;
    eprintln!("soak: {killed:?}");
    eprintln!("soak: {} minutes, seed {seed}", options.minutes);
    let plan = SoakPlan {
        seed,
        duration: Some(Duration::from_mins(options.minutes)),
        raw_clients: usize::try_from(options.clients)?,
        built: Some(options.bin_dir),
    };
    let outcome = soak::run(&plan).await?;
    println!("{}", outcome.report);
    if let Some(directory) = options.output.parent() {
        std::fs::create_dir_all(directory)?;
    }
    std::fs::write(&options.output, &outcome.report)
        .with_context(|| options.output.display().to_string())?;
    eprintln!("soak: written: {}", options.output.display());
    Ok(if outcome.failures.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
