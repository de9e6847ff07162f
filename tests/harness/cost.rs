//! What a request costs a program, counted and not timed: instructions and allocations by callgrind,
//! system calls by strace.
//!
//! A program is run twice, once for few requests and once for more, and the difference is divided by
//! how many more there were: what it costs to start and to warm up is in both and falls out. The
//! program gets one processor, and so one worker, which makes the counts nearly the same each time.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::poll;
use crate::wire::Wire;

/// How long a tool may take to write down what it counted, once its program has ended.
const WRITTEN: Duration = Duration::from_secs(30);

/// Has glibc copy by instructions that are counted one by one: callgrind takes `rep movsb` for as
/// many instructions as it copies bytes.
const COPIES: &str = "GLIBC_TUNABLES=glibc.cpu.x86_rep_movsb_threshold=2147483647";

/// The functions that a program of ours allocates by: those of the system, which mimalloc defines
/// anew, by the names that callgrind finds for them.
const ALLOCATING: &[&str] = &[
    "malloc",
    "calloc",
    "realloc",
    "posix_memalign",
    "mi_posix_memalign",
    "aligned_alloc",
    "mi_aligned_alloc",
];

/// How callgrind's counts are called.
pub const INSTRUCTIONS: &str = "instructions";
/// How often memory was asked for, by callgrind, in a program of ours.
pub const ALLOCATIONS: &str = "allocations";
/// All system calls, by strace. Each of them is there by its name, too.
pub const SYSTEM_CALLS: &str = "total";

/// What was counted, by name.
pub type Counts = BTreeMap<String, u64>;

/// What one request cost, by name.
pub type Costs = BTreeMap<String, f64>;

/// Who counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tool {
    /// Instructions in user space, and calls of functions. Some fifty times slower.
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
    /// A run that is to come.
    ///
    /// # Errors
    /// If there is no place for what is counted.
    pub fn new(tool: Tool) -> Result<Self> {
        let directory = TempDir::with_prefix("octoserve-cost-")?;
        Ok(Self { tool, directory })
    }

    /// What the program's command line is to begin with.
    ///
    /// # Errors
    /// If the kernel does not say which processors there are.
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
                // Not as the parent, so that signals reach the program.
                let arguments = ["strace", "-D", "-f", "-c", "-U", "name,calls", "-o"];
                words.extend(arguments.map(Into::into));
                words.push(file.into());
            }
        }
        Ok(words)
    }

    /// What was counted, once the program has ended.
    ///
    /// # Errors
    /// If the tool does not say.
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

/// What each of `more` requests cost that one run had over the other.
///
/// # Errors
/// If nothing was counted in one of them.
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

/// GETs `path` so many times, one after another on one connection.
///
/// # Errors
/// If an response is not 200.
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

/// What callgrind wrote. A name is spelt out where it comes first, and is a number from then on.
fn callgrind(text: &str) -> Option<Counts> {
    let mut names: BTreeMap<&str, &str> = BTreeMap::new();
    let (mut instructions, mut allocations) = (None, 0);
    let mut called = "";
    for line in text.lines() {
        if let Some(total) = line
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
        } else if let Some(calls) = line.strip_prefix("calls=")
            && ALLOCATING.contains(&called)
        {
            let calls = calls.split(' ').next().unwrap_or_default();
            allocations += calls.parse::<u64>().ok()?;
        }
    }
    Some(BTreeMap::from([
        (INSTRUCTIONS.to_owned(), instructions?),
        (ALLOCATIONS.to_owned(), allocations),
    ]))
}

/// What strace wrote: a table that ends with the sum.
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
    fn callgrinds_words_are_understood() {
        let text = "events: Ir\nfn=(1) main\n10 5\ncfn=(2) malloc\ncalls=3 20\n10 90\n\
                    cfn=(3) other\ncalls=9 1\n10 1\nfn=(2)\n20 90\nfn=(4) more\ncfn=(2)\n\
                    calls=4 20\n1 2\n\ntotals: 187\n";
        let counts = callgrind(text).unwrap();
        assert_eq!(counts[INSTRUCTIONS], 187);
        assert_eq!(counts[ALLOCATIONS], 7);
        assert_eq!(
            callgrind("fn=(1) main\n"),
            None,
            "it is still being written"
        );
    }

    #[test]
    fn straces_words_are_understood() {
        let text = "syscall              calls\n---------------- ---------\nread                     3\n\
                    ---------------- ---------\ntotal                    3\n";
        let counts = strace(text).unwrap();
        assert_eq!(counts["read"], 3);
        assert_eq!(counts[SYSTEM_CALLS], 3);
        assert_eq!(strace("read 3\n"), None, "it is still being written");
    }

    #[test]
    fn what_both_runs_have_falls_out() {
        let run = |count| Counts::from([("read".to_owned(), count)]);
        let each = each(&run(110), &run(310), 100).unwrap();
        assert!((each["read"] - 2.0).abs() < 1e-9);
    }
}
