//! How far something is: a bar at a terminal, and plain lines elsewhere.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use crate::config;
use crate::job::JobProgress;

/// The width of the bar, in characters.
const WIDTH: usize = 30;

/// Shows on stderr how far a job is.
#[derive(Debug)]
pub struct ProgressLine {
    name: &'static str,
    is_terminal: bool,
    began: Instant,
    /// The phase that was written last.
    phase: Option<String>,
    is_drawn: bool,
}

impl ProgressLine {
    /// Shows nothing yet.
    pub fn new(name: &'static str) -> Self {
        let is_dumb = std::env::var_os("TERM").is_some_and(|value| value == "dumb");
        Self {
            name,
            is_terminal: io::stderr().is_terminal() && !is_dumb,
            began: Instant::now(),
            phase: None,
            is_drawn: false,
        }
    }

    /// Shows this. Elsewhere than at a terminal each phase gets one line.
    pub fn show(&mut self, progress: &JobProgress) {
        let is_new = self.phase.as_ref() != Some(&progress.phase);
        if is_new {
            self.began = Instant::now();
            self.phase = Some(progress.phase.clone());
        }
        // Who reads it may be gone, which is no reason to stop.
        if self.is_terminal {
            let line = bar(self.name, progress, self.began.elapsed());
            let mut stderr = io::stderr().lock();
            let _ = write!(stderr, "\r\u{1b}[K{line}");
            let _ = stderr.flush();
            self.is_drawn = true;
        } else if is_new && !progress.phase.is_empty() {
            let _ = writeln!(io::stderr(), "{}: {}", self.name, progress.phase);
        }
    }

    /// Takes the bar away.
    pub fn clear(&mut self) {
        if std::mem::take(&mut self.is_drawn) {
            let mut stderr = io::stderr().lock();
            let _ = write!(stderr, "\r\u{1b}[K");
            let _ = stderr.flush();
        }
    }
}

impl Drop for ProgressLine {
    fn drop(&mut self) {
        self.clear();
    }
}

/// One line, narrow enough for any terminal.
fn bar(name: &str, progress: &JobProgress, elapsed: Duration) -> String {
    let JobProgress { phase, done, total } = progress;
    let time = config::Duration::from_secs(elapsed.as_secs());
    let Some(total) = total.filter(|&total| total > 0) else {
        return format!("{name} {phase} {done}, {time}");
    };
    let done = (*done).min(total);
    let share = done as f64 / total as f64;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a part of the width"
    )]
    let filled = (share * WIDTH as f64) as usize;
    let left = remaining(share, elapsed).map(|left| format!(", {left} left"));
    format!(
        "{name} {phase} [{}{}] {:.0}%, {time}{}",
        "=".repeat(filled),
        " ".repeat(WIDTH - filled),
        share * 100.0,
        left.unwrap_or_default()
    )
}

/// How long the rest takes, if it goes on like this.
fn remaining(share: f64, elapsed: Duration) -> Option<config::Duration> {
    if share < 0.01 || elapsed < Duration::from_secs(2) {
        return None;
    }
    let left = elapsed.as_secs_f64() * (1.0 - share) / share;
    let left = Duration::try_from_secs_f64(left).ok()?;
    Some(config::Duration::from_secs(left.as_secs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(done: u64, total: Option<u64>, seconds: u64) -> String {
        let progress = JobProgress {
            phase: "content".to_owned(),
            done,
            total,
        };
        bar("scrub", &progress, Duration::from_secs(seconds))
    }

    #[test]
    fn a_bar_fills_and_an_unknown_end_has_none() {
        assert_eq!(
            line(0, Some(10), 0),
            "scrub content [                              ] 0%, 0s"
        );
        assert_eq!(
            line(5, Some(10), 60),
            "scrub content [===============               ] 50%, 1m, 1m left"
        );
        assert_eq!(
            line(11, Some(10), 61),
            "scrub content [==============================] 100%, 1m 1s, 0s left"
        );
        assert_eq!(line(7, None, 3), "scrub content 7, 3s");
        assert_eq!(line(7, Some(0), 3), "scrub content 7, 3s");
    }
}
