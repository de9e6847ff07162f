//! The report of a soak, and whether it passed.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use anyhow::Result;

use super::SoakPlan;
use super::books::Books;
use super::comparison::{FamilyComparison, SummedScrapes};
use super::faults::{FaultEpisode, OF_REPLICAS, OF_THE_PROXY};
use super::progress::Mishap;
use super::watch::HeldResources;

/// The most that a process may ever hold.
const MOST_RESIDENT: u64 = 150 << 20;

/// How much more a process may hold at its end than in its first part: the allocator keeps some for reuse.
const MARGIN: u64 = 32 << 20;

/// How many errors of one kind are printed.
const MOST_SHOWN: usize = 30;

/// What came of a soak.
pub(crate) struct SoakReport<'s> {
    pub(crate) plan: &'s SoakPlan,
    pub(crate) lasted: Duration,
    pub(crate) operations: Vec<u64>,
    pub(crate) mishaps: Vec<(Mishap, Option<&'s FaultEpisode>)>,
    pub(crate) episodes: &'s [FaultEpisode],
    pub(crate) broken: Vec<String>,
    /// Why it ended before its time.
    pub(crate) stopped: Option<String>,
    pub(crate) comparisons: Vec<FamilyComparison>,
    pub(crate) counted: &'s SummedScrapes,
    pub(crate) books: &'s Books,
    pub(crate) samples: &'s [HeldResources],
    /// What the last process held once all clients had left.
    pub(crate) settled: Result<HeldResources>,
}

impl SoakReport<'_> {
    /// What must not have happened.
    pub(crate) fn failures(&self) -> Vec<String> {
        let stopped = self.stopped.iter();
        let mut failures: Vec<_> = stopped
            .map(|why| why.chars().take(2000).collect())
            .collect();
        for comparison in &self.comparisons {
            failures.extend(comparison.differences.iter().cloned());
        }
        for (mishap, fault) in &self.mishaps {
            if fault.is_none() {
                failures.push(format!("no fault explains: {}", spell(mishap)));
            }
        }
        failures.extend(self.broken.iter().cloned());
        failures.extend(self.sessions());
        failures.extend(self.growth());
        failures
    }

    /// Sessions that came are sessions that went or are there.
    fn sessions(&self) -> Option<String> {
        let of = |event| {
            let labels = [("event", event)];
            self.counted.sum("upload_sessions_total", &labels)
        };
        let came = of("started") + of("unknown");
        let went = ["completed", "cancelled", "failed", "expired"];
        let went: f64 = went.into_iter().map(of).sum();
        let active = self.counted.sum("upload_sessions_active", &[]);
        let differs = (came - went - active).abs() > 0.5;
        differs.then(|| format!("upload sessions: {came} came, {went} went, {active} are there"))
    }

    fn growth(&self) -> Vec<String> {
        let mut failures = Vec::new();
        let most = self.samples.iter().map(|held| held.resident).max();
        if most > Some(MOST_RESIDENT) {
            failures.push(format!("a process held {} MiB", most.unwrap_or(0) >> 20));
        }
        match &self.settled {
            Err(error) => failures.push(format!("descriptors: {error:#}")),
            Ok(settled) => {
                let before = self.first_part(settled.process);
                if before.is_some_and(|before| settled.resident > before + MARGIN) {
                    failures.push(format!(
                        "the last process held {} MiB at its end, and {} MiB in its first part",
                        settled.resident >> 20,
                        before.unwrap_or(0) >> 20
                    ));
                }
            }
        }
        failures
    }

    /// The most that a process held in the first third of its life.
    fn first_part(&self, process: u32) -> Option<u64> {
        let own: Vec<_> = self.of(process).collect();
        let first = &own[..own.len().div_ceil(3)];
        first.iter().map(|held| held.resident).max()
    }

    fn of(&self, process: u32) -> impl Iterator<Item = &HeldResources> {
        let own = self.samples.iter();
        own.filter(move |held| held.process == process)
    }

    /// The whole report.
    pub(crate) fn markdown(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        self.write(&mut text).ok();
        text
    }

    fn write(&self, text: &mut String) -> std::fmt::Result {
        let failures = self.failures();
        let verdict = if failures.is_empty() {
            "passed"
        } else {
            "FAILED"
        };
        writeln!(text, "# Soak: {verdict}\n")?;
        let (seconds, books) = (self.lasted.as_secs(), self.books);
        writeln!(text, "- seed {}, {seconds} s", self.plan.seed)?;
        writeln!(
            text,
            "- {} clients with {} operations, of which {} failed",
            self.operations.len(),
            self.operations.iter().sum::<u64>(),
            self.mishaps.len()
        )?;
        let bytes = |family: &str| self.counted.sum(family, &[]) / f64::from(1 << 20);
        writeln!(
            text,
            "- {} requests, {} of them without a response; {:.0} MiB up, {:.0} MiB down",
            books.requests,
            books.unanswered,
            bytes("http_request_body_bytes_total"),
            bytes("http_response_body_bytes_total")
        )?;
        writeln!(text, "- {} processes of octoserve", self.counted.processes)?;
        if !failures.is_empty() {
            writeln!(text, "\n## What must not have happened\n")?;
            for failure in failures.iter().take(MOST_SHOWN * 4) {
                writeln!(text, "- {failure}")?;
            }
            writeln!(text, "\n{} in all.", failures.len())?;
        }
        self.write_faults(text)?;
        self.write_memory(text)?;
        self.write_counters(text)
    }

    fn write_faults(&self, text: &mut String) -> std::fmt::Result {
        writeln!(text, "\n## Faults\n")?;
        writeln!(text, "| fault | times | errors that it explains |")?;
        writeln!(text, "|---|---:|---:|")?;
        let mut explained = BTreeMap::new();
        for (_, fault) in &self.mishaps {
            if let Some(fault) = fault {
                *explained.entry(fault.kind).or_insert(0) += 1;
            }
        }
        for kind in OF_REPLICAS.into_iter().chain(OF_THE_PROXY) {
            let times = self.episodes.iter().filter(|e| e.kind == kind).count();
            let errors = explained.get(&kind).copied().unwrap_or(0);
            let errors = if OF_THE_PROXY.contains(&kind) {
                "may explain none".to_owned()
            } else {
                errors.to_string()
            };
            writeln!(text, "| {} | {times} | {errors} |", kind.name())?;
        }
        writeln!(text, "\nSome of the errors:\n")?;
        for (mishap, fault) in self.mishaps.iter().take(MOST_SHOWN) {
            let fault = match fault {
                Some(fault) => {
                    let (began, ended) = (fault.began, fault.ended);
                    format!(
                        "{} {} ({began:.1?} to {ended:.1?})",
                        fault.kind.name(),
                        fault.of
                    )
                }
                None => "nothing".to_owned(),
            };
            writeln!(text, "- {}; explained by: {fault}", spell(mishap))?;
        }
        Ok(())
    }

    fn write_memory(&self, text: &mut String) -> std::fmt::Result {
        writeln!(text, "\n## Memory, descriptors and threads\n")?;
        writeln!(
            text,
            "Least, median and most in each tenth of the time, of the process that served.\n"
        )?;
        writeln!(text, "| from | MiB | descriptors | threads |")?;
        writeln!(text, "|---:|---:|---:|---:|")?;
        let tenth = self.samples.len().div_ceil(10).max(1);
        for part in self.samples.chunks(tenth) {
            let spread = |value: fn(&HeldResources) -> u64| {
                let mut values: Vec<_> = part.iter().map(value).collect();
                values.sort_unstable();
                let (least, most) = (values[0], values[values.len() - 1]);
                format!("{least} {} {most}", values[values.len() / 2])
            };
            writeln!(
                text,
                "| {} s | {} | {} | {} |",
                part[0].at.as_secs(),
                spread(|held| held.resident >> 20),
                spread(|held| held.descriptors),
                spread(|held| held.threads)
            )?;
        }
        match &self.settled {
            Ok(held) => writeln!(
                text,
                "\nThe last process, once all clients had left: {} MiB (at most {} MiB in its first third), {} descriptors.",
                held.resident >> 20,
                self.first_part(held.process).unwrap_or(0) >> 20,
                held.descriptors
            ),
            Err(error) => writeln!(text, "\nThe last process did not settle: {error:#}."),
        }
    }

    fn write_counters(&self, text: &mut String) -> std::fmt::Result {
        writeln!(
            text,
            "\n## The counters of all processes, and the clients' books\n"
        )?;
        writeln!(
            text,
            "| `octoserve_…` | counted | books | series | compared |"
        )?;
        writeln!(text, "|---|---:|---:|---:|---|")?;
        for comparison in &self.comparisons {
            let (family, books) = (comparison.family, comparison.books);
            let (range, how) = if books.low == books.high {
                (books.low.to_string(), "equal".to_owned())
            } else {
                let range = format!("{} to {}", books.low, books.high);
                (range, format!("within bounds: {}", family.why))
            };
            let how = if comparison.differences.is_empty() {
                how
            } else {
                format!("**{} differences**", comparison.differences.len())
            };
            writeln!(
                text,
                "| `{}` | {} | {range} | {} | {how} |",
                family.name, comparison.counted, comparison.series
            )?;
        }
        writeln!(
            text,
            "\nThe sum over the labels that every client knows (endpoint and method, operation) is compared \
             as well as each series. No client can keep books of durations, speeds and sizes in buckets, of \
             `upstream_…`, whose requests include retries and probes, of `aggregate_…`, `process_…` and the \
             gauges."
        )
    }
}

fn spell(mishap: &Mishap) -> String {
    let what: String = mishap.what.chars().take(600).collect();
    format!(
        "{} ({}), {:.1?} to {:.1?}: {}",
        mishap.client,
        mishap.upstream,
        mishap.began,
        mishap.ended,
        what.replace('\n', " ")
    )
}
