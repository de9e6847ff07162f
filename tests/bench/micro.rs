//! Runs the micro-benchmarks of the crates with criterion and parses its output. Building them in
//! the release profile takes as long as linking a release.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::process::Command;
use tokio::time::timeout;

/// How long building and running them may take.
const DEADLINE: Duration = Duration::from_mins(20);

/// A micro-benchmark with criterion's estimate and confidence interval.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Micro {
    /// Its name.
    pub(crate) name: String,
    /// Low, estimate, high, each with its unit.
    pub(crate) times: [String; 3],
}

/// Builds and runs the benchmarks that have a goal.
pub(crate) async fn run() -> Result<Vec<Micro>> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .args(["bench", "--quiet", "--workspace"])
        .args(["--bench", "route", "--bench", "exchange"])
        .args(["--bench", "exposition", "--bench", "upstreams", "--"])
        .args(["--warm-up-time", "1", "--measurement-time", "2"])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .kill_on_drop(true);
    let output = timeout(DEADLINE, command.output())
        .await
        .with_context(|| format!("cargo bench: no end in {DEADLINE:?}"))??;
    ensure!(output.status.success(), "cargo bench: {}", output.status);
    let found = parse(&String::from_utf8(output.stdout)?);
    ensure!(!found.is_empty(), "cargo bench printed no times");
    Ok(found)
}

/// Criterion prints a long name on a line of its own.
fn parse(text: &str) -> Vec<Micro> {
    let mut found = Vec::new();
    let mut previous = "";
    for line in text.lines() {
        if let Some((name, times)) = line.split_once("time:") {
            let name = match name.trim() {
                "" => previous.trim(),
                name => name,
            };
            let words: Vec<_> = times
                .trim()
                .trim_matches(['[', ']'])
                .split_ascii_whitespace()
                .collect();
            if let [low, a, middle, b, high, c] = words[..] {
                found.push(Micro {
                    name: name.to_owned(),
                    times: [(low, a), (middle, b), (high, c)]
                        .map(|(number, unit)| format!("{number} {unit}")),
                });
            }
        }
        previous = line;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_beside_and_above_their_times() {
        let text = "route/base              time:   [1.10 ns 1.20 ns 1.30 ns]\n\
                    Found 1 outliers\n\
                    route/upload_session_of_a_long_name\n\
                    \x20                       time:   [98.0 ns 99.0 ns 1.0 µs]\n\
                    change: [+1% +2% +3%]\n";
        let found = parse(text);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].name, "route/base");
        assert_eq!(found[0].times, ["1.10 ns", "1.20 ns", "1.30 ns"]);
        assert_eq!(found[1].name, "route/upload_session_of_a_long_name");
    }
}
