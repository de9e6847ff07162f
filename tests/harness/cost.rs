//! The cost of a request, counted rather than timed: instructions and allocations by callgrind,
//! system calls by strace.
//!
//! The program runs twice, with few and with more requests. The difference, divided by the number
//! of additional requests, excludes the cost of start and warm-up. The program gets one processor,
//! hence one worker, which makes the counts nearly reproducible.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::poll;
use crate::wire::Wire;

/// How long a tool may take to write its counts after the program has exited.
const WRITTEN: Duration = Duration::from_secs(30);

/// Makes glibc copy without `rep movsb`, which callgrind counts as one instruction per byte.
const COPIES: &str = "GLIBC_TUNABLES=glibc.cpu.x86_rep_movsb_threshold=2147483647";

/// The allocation functions of our programs, under the names that callgrind reports. mimalloc
/// overrides those of the system.
const ALLOCATING: &[&str] = &[
    "malloc",
    "calloc",
    "realloc",
    "posix_memalign",
    "mi_posix_memalign",
    "aligned_alloc",
    "mi_aligned_alloc",
];

/// The function that remembers a pull, without the hash at the end.
const REMEMBERS: &str = "registry::store::fs::pulls::times::PullTimes::record";

/// The name of callgrind's instruction count.
pub const INSTRUCTIONS: &str = "instructions";
/// The name of the count of allocations, by callgrind.
pub const ALLOCATIONS: &str = "allocations";
/// The name of the count of the instructions that remember when something was pulled, by callgrind.
pub const REMEMBERING: &str = "instructions that remember a pull";
/// The name of the count of all system calls, by strace, which also counts each call by its own
/// name.
pub const SYSTEM_CALLS: &str = "total";

/// The counts of a run, by name.
pub type Counts = BTreeMap<String, u64>;

/// The cost of one request, by name.
pub type Costs = BTreeMap<String, f64>;

/// The tool that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tool {
    /// Instructions in user space and calls of functions. About fifty times slower.
    Callgrind,
    /// System calls.
    Strace,
}

/// One run of a program under a tool.
pub struct Meter {
    tool: Tool,
    directory: TempDir,
}

impl Meter {
    /// Prepares a run.
    ///
    /// # Errors
    /// If the directory for the counts cannot be created.
    pub fn new(tool: Tool) -> Result<Self> {
        let directory = TempDir::with_prefix("octoserve-cost-")?;
        Ok(Self { tool, directory })
    }

    /// The words to put before the program's command line.
    ///
    /// # Errors
    /// If the available processors cannot be read.
    pub fn prefix(&self) -> Result<Vec<OsString>> {
        let mut words: Vec<OsString> = ["env", COPIES, "taskset", "--cpu-list", &a_processor()?]
            .map(Into::into)
            .into();
        let file = self.file();
        match self.tool {
            Tool::Callgrind => {
                let mut out = OsString::from("--callgrind-out-file=");
                out.push(file);
                words.extend(["valgrind", "--quiet", "--tool=callgrind"].map(Into::into));
                words.push(out);
            }
            Tool::Strace => {
                // With -D, strace is not the parent of the program, so signals reach the program.
                let arguments = ["strace", "-D", "-f", "-c", "-U", "name,calls", "-o"];
                words.extend(arguments.map(Into::into));
                words.push(file.into());
            }
        }
        Ok(words)
    }

    /// Waits for the counts; the program must have been told to exit.
    ///
    /// # Errors
    /// If the tool writes none in time.
    pub async fn counts(&self) -> Result<Counts> {
        let what = format!("{:?} has counted", self.tool);
        poll::until(&what, WRITTEN, async || {
            let text = std::fs::read_to_string(self.file()).unwrap_or_default();
            Ok(match self.tool {
                Tool::Callgrind => callgrind(&text),
                Tool::Strace => strace(&text),
            })
        })
        .await
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("counts")
    }
}

/// The cost per request, from two runs that differ by `more` requests.
///
/// # Errors
/// If one of them has no counts.
pub fn each(few: &Counts, many: &Counts, more: u32) -> Result<Costs> {
    ensure!(!few.is_empty() && !many.is_empty(), "nothing was counted");
    let each = many.iter().map(|(name, count)| {
        let before = few.get(name).copied().unwrap_or_default();
        (
            name.clone(),
            (*count as f64 - before as f64) / f64::from(more),
        )
    });
    Ok(each.collect())
}

/// GETs `path` repeatedly, on one connection.
///
/// # Errors
/// If a response is not 200.
pub async fn ask(address: SocketAddr, path: &str, accept: &str, times: u32) -> Result<()> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: registry\r\nAccept: {accept}\r\n\r\n");
    let mut wire = Wire::connect(address).await?;
    for _ in 0..times {
        wire.send(request.as_bytes()).await?;
        let response = wire.response("GET").await?;
        ensure!(response.head.status == 200, "{path}: {:?}", response.head);
    }
    Ok(())
}

/// The first processor that this process may use.
fn a_processor() -> Result<String> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let list = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))
        .context("no list of processors")?;
    let first = list.trim().split([',', '-']).next();
    Ok(first.unwrap_or_default().to_owned())
}

/// Parses callgrind's output, which spells a name out at its first occurrence and then uses a
/// number.
fn callgrind(text: &str) -> Option<Counts> {
    let mut names: BTreeMap<&str, &str> = BTreeMap::new();
    let (mut instructions, mut allocations, mut remembering) = (None, 0, 0);
    let mut called = "";
    // The line after a call has the cost of it, with all that it calls in turn.
    let mut is_cost_of_call = false;
    for line in text.lines() {
        if std::mem::take(&mut is_cost_of_call) && remembers(called) {
            let cost = line.split(' ').nth(1).unwrap_or_default();
            remembering += cost.parse::<u64>().ok()?;
        } else if let Some(total) = line
            .strip_prefix("totals:")
            .or_else(|| line.strip_prefix("summary:"))
        {
            instructions = total.trim().parse().ok();
        } else if let Some(name) = line
            .strip_prefix("cfn=")
            .or_else(|| line.strip_prefix("fn="))
        {
            let (number, name) = name.split_once(' ').unwrap_or((name, ""));
            if !name.is_empty() {
                names.insert(number, name);
            }
            if line.starts_with('c') {
                called = names.get(number).copied().unwrap_or_default();
            }
        } else if let Some(calls) = line.strip_prefix("calls=") {
            is_cost_of_call = true;
            if !ALLOCATING.contains(&called) {
                continue;
            }
            let calls = calls.split(' ').next().unwrap_or_default();
            allocations += calls.parse::<u64>().ok()?;
        }
    }
    Some(BTreeMap::from([
        (INSTRUCTIONS.to_owned(), instructions?),
        (ALLOCATIONS.to_owned(), allocations),
        (REMEMBERING.to_owned(), remembering),
    ]))
}

fn remembers(function: &str) -> bool {
    let rest = function.strip_prefix(REMEMBERS);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("::h"))
}

/// Parses strace's output: a table that ends with the sum.
fn strace(text: &str) -> Option<Counts> {
    let counts: Counts = text
        .lines()
        .filter_map(|line| {
            let mut words = line.split_ascii_whitespace();
            Some((words.next()?.to_owned(), words.next()?.parse().ok()?))
        })
        .collect();
    counts.contains_key(SYSTEM_CALLS).then_some(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_output_of_callgrind_is_parsed() {
        let text = "events: Ir\nfn=(1) main\n10 5\ncfn=(2) malloc\ncalls=3 20\n10 90\n\
                    cfn=(3) other\ncalls=9 1\n10 1\nfn=(2)\n20 90\nfn=(4) more\ncfn=(2)\n\
                    calls=4 20\n1 2\ncfn=(5) registry::store::fs::pulls::times::PullTimes::record::h0\n\
                    calls=2 9\n+3 40\n+1 2\n\ntotals: 187\n";
        let counts = callgrind(text).unwrap();
        assert_eq!(counts[INSTRUCTIONS], 187);
        assert_eq!(counts[ALLOCATIONS], 7);
        assert_eq!(counts[REMEMBERING], 40);
        assert_eq!(
            callgrind("fn=(1) main\n"),
            None,
            "it is still being written"
        );
    }

    #[test]
    fn the_output_of_strace_is_parsed() {
        let text = "syscall              calls\n---------------- ---------\nread                     3\n\
                    ---------------- ---------\ntotal                    3\n";
        let counts = strace(text).unwrap();
        assert_eq!(counts["read"], 3);
        assert_eq!(counts[SYSTEM_CALLS], 3);
        assert_eq!(strace("read 3\n"), None, "it is still being written");
    }

    #[test]
    fn costs_common_to_both_runs_are_subtracted() {
        let run = |count| Counts::from([("read".to_owned(), count)]);
        let each = each(&run(110), &run(310), 100).unwrap();
        assert!((each["read"] - 2.0).abs() < 1e-9);
    }
}
