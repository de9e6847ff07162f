//! How far something is: a bar at a terminal, and plain lines elsewhere.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use rustix::termios::tcgetwinsize;

use crate::config;
use crate::job::JobProgress;
use crate::printable::printable;

/// The width of the bar, in characters: less where the terminal is narrow.
const WIDTHS: std::ops::RangeInclusive<usize> = 10..=30;

/// The width of a terminal that does not tell its own.
const COLUMNS: usize = 80;

/// Steps that end sooner show no bar.
const LONG: Duration = Duration::from_secs(1);

/// Shows on stderr how far a job, or a number of steps, is.
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
            let elapsed = self.began.elapsed();
            self.draw(&bar(self.name, progress, elapsed, true, columns()));
        } else if is_new && !progress.phase.is_empty() {
            let _ = writeln!(io::stderr(), "{}: {}", self.name, progress.phase);
        }
    }

    /// Shows that so many steps of all are done, and which one is waited for: after a second, and at a
    /// terminal only.
    pub fn show_step(&mut self, step: &str, done: u64, total: u64) {
        let elapsed = self.began.elapsed();
        if !self.is_terminal || elapsed < LONG {
            return;
        }
        let progress = JobProgress {
            phase: printable(step),
            done,
            total: Some(total),
        };
        // Steps that wait for others say nothing of how long the rest takes.
        self.draw(&bar(self.name, &progress, elapsed, false, columns()));
    }

    fn draw(&mut self, line: &str) {
        let mut stderr = io::stderr().lock();
        let _ = write!(stderr, "\r\u{1b}[K{line}");
        let _ = stderr.flush();
        self.is_drawn = true;
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

/// The width of the terminal.
fn columns() -> usize {
    let size = tcgetwinsize(io::stderr()).ok();
    let columns = size.map_or(0, |size| usize::from(size.ws_col));
    if columns == 0 { COLUMNS } else { columns }
}

/// One line that is narrower than the terminal: of a line that goes on in the next one, the begin could not be
/// taken away. `is_steady`: what is done tells how long the rest takes.
fn bar(
    name: &str,
    progress: &JobProgress,
    elapsed: Duration,
    is_steady: bool,
    columns: usize,
) -> String {
    let JobProgress { phase, done, total } = progress;
    let time = config::Duration::from_secs(elapsed.as_secs());
    let Some(total) = total.filter(|&total| total > 0) else {
        let end = format!(" {done}, {time}");
        let free = columns.saturating_sub(name.len() + 2 + end.len());
        return format!("{name} {}{end}", cut(phase, free));
    };
    let done = (*done).min(total);
    let share = done as f64 / total as f64;
    let left = remaining(share, elapsed).filter(|_| is_steady);
    let left = left.map(|left| format!(", {left} left"));
    let end = format!(
        "] {:.0}%, {time}{}",
        share * 100.0,
        left.unwrap_or_default()
    );
    let free = columns.saturating_sub(name.len() + 4 + end.len());
    let width = free.saturating_sub(phase.chars().count());
    let width = width.clamp(*WIDTHS.start(), *WIDTHS.end());
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a part of the width"
    )]
    let filled = (share * width as f64) as usize;
    format!(
        "{name} {} [{}{}{end}",
        cut(phase, free.saturating_sub(width)),
        "=".repeat(filled),
        " ".repeat(width - filled),
    )
}

/// As much of a text as has space, with a mark where something is missing.
fn cut(text: &str, free: usize) -> String {
    if text.chars().count() <= free {
        return text.to_owned();
    }
    let kept: String = text.chars().take(free.saturating_sub(1)).collect();
    kept + "…"
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
        bar("scrub", &progress, Duration::from_secs(seconds), true, 80)
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
    #[test]
    fn a_line_fits_the_terminal() {
        let progress = |phase: &str, total| JobProgress {
            phase: phase.to_owned(),
            done: 1,
            total,
        };
        let steps = progress("upstream main, http://127.0.0.1:15000", Some(4));
        let (five, line) = (
            Duration::from_secs(5),
            "doctor upstream main, http://127.0.0.1:15000",
        );
        assert_eq!(
            bar("doctor", &steps, five, false, 80),
            format!("{line} [======                  ] 25%, 5s")
        );
        assert_eq!(
            bar("doctor", &steps, five, false, 60),
            "doctor upstream main, http://127.0.0.… [==        ] 25%, 5s"
        );
        for columns in 40..200 {
            for total in [None, Some(4)] {
                let long = progress(&"ü".repeat(300), total);
                let line = bar("doctor", &long, five, true, columns);
                assert_eq!(line.chars().count(), columns - 1, "{line}");
            }
        }
        // On less than that it is as short as it can be.
        assert_eq!(
            bar("gc", &steps, five, false, 9),
            "gc … [==        ] 25%, 5s"
        );
    }
}
