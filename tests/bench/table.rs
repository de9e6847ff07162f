//! Tables, and the rounds in which their programs are measured in turn.

use anyhow::{Context, Result};

use crate::load::Sample;
use crate::peers::Subject;
use crate::{Options, say};

/// One table: the same load on several programs.
pub(crate) struct Table {
    /// Its heading.
    pub(crate) title: &'static str,
    /// A sentence that describes the load.
    pub(crate) load: String,
    /// The unit of the main figure.
    pub(crate) unit: &'static str,
    /// The unit of the processor time.
    pub(crate) per: &'static str,
    /// The programs, each with its result of each round.
    pub(crate) rows: Vec<(&'static str, Vec<Sample>)>,
    /// The ratios that have goals.
    pub(crate) ratios: &'static [Ratio],
    /// Its number of rounds, if it differs from that of other tables.
    pub(crate) rounds: Option<u32>,
    /// The machine's load averages before the first and after the last round.
    pub(crate) averages: (String, String),
}

/// A comparison of two rows of a table.
pub(crate) struct Ratio {
    /// The row in question.
    pub(crate) of: &'static str,
    /// The row to compare with.
    pub(crate) to: &'static str,
    /// The figure to compare.
    pub(crate) how: Compare,
    /// The goal, in words; empty if there is none.
    pub(crate) goal: &'static str,
}

/// A figure of two rows to compare.
#[derive(Clone, Copy)]
pub(crate) enum Compare {
    /// The main figure of the one divided by that of the other.
    Quotient,
    /// The main figure of the one minus that of the other.
    Difference,
    /// The 99th percentile of the one minus that of the other.
    DifferenceAt99,
    /// The main figure of the one as a part of that of the other, in percent.
    Percentage,
}

impl Compare {
    /// The comparison in one round.
    pub(crate) fn of(self, of: &Sample, to: &Sample) -> f64 {
        match self {
            Self::Quotient => of.value / to.value,
            Self::Difference => of.value - to.value,
            Self::Percentage => 100.0 * of.value / to.value,
            Self::DifferenceAt99 => of.p99.unwrap_or_default() - to.p99.unwrap_or_default(),
        }
    }
}

pub(crate) const fn ratio(of: &'static str, to: &'static str, goal: &'static str) -> Ratio {
    compare(of, to, Compare::Quotient, goal)
}

pub(crate) const fn compare(
    of: &'static str,
    to: &'static str,
    how: Compare,
    goal: &'static str,
) -> Ratio {
    Ratio { of, to, how, goal }
}

impl Table {
    pub(crate) fn new(
        title: &'static str,
        load: String,
        unit: &'static str,
        per: &'static str,
    ) -> Self {
        Self {
            title,
            load,
            unit,
            per,
            rows: Vec::new(),
            ratios: &[],
            rounds: None,
            averages: Default::default(),
        }
    }

    /// Measures every subject once per round. Each round starts with another subject, so that none
    /// is always the first after a pause.
    pub(crate) async fn fill(
        &mut self,
        options: &Options,
        subjects: &mut [Subject],
        mut once: impl AsyncFnMut(&mut Subject, usize) -> Result<Sample>,
    ) -> Result<()> {
        if !options.measures(self.title) {
            return Ok(());
        }
        let rounds = self.rounds.unwrap_or(options.rounds);
        self.averages.0 = load_average()?;
        self.rows = subjects
            .iter()
            .map(|subject| (subject.name(), Vec::new()))
            .collect();
        let count = subjects.len();
        for round in 0..usize::try_from(rounds)? {
            say(&format!("{}: round {} of {rounds}", self.title, round + 1));
            for turn in 0..count {
                let index = (round + turn) % count;
                let subject = &mut subjects[index];
                let sample = once(subject, round)
                    .await
                    .with_context(|| format!("{}: {}", self.title, subject.name()))?;
                self.rows[index].1.push(sample);
            }
        }
        self.averages.1 = load_average()?;
        Ok(())
    }
}

/// The load average of the last minute.
pub(crate) fn load_average() -> Result<String> {
    let text = std::fs::read_to_string("/proc/loadavg")?;
    let first = text.split(' ').next();
    Ok(first.context("a strange /proc/loadavg")?.to_owned())
}
