//! The checks of one subject, for a limited time.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::time::{interval, timeout};

use super::finding::{Diagnosis, Finding};

/// How long one request of a check may take.
pub const REQUEST: Duration = Duration::from_secs(5);

/// How long all checks of one subject may take.
const EXAMINATION: Duration = Duration::from_secs(30);

/// How often it is told what is waited for.
const TOLD_EVERY: Duration = Duration::from_millis(200);

/// The checks of one subject, to be run.
pub struct Examination {
    subject: String,
    findings: Pin<Box<dyn Future<Output = Vec<Finding>> + Send>>,
}

impl Examination {
    /// Of this subject.
    pub fn new(
        subject: impl Into<String>,
        findings: impl Future<Output = Vec<Finding>> + Send + 'static,
    ) -> Self {
        Self {
            subject: subject.into(),
            findings: Box::pin(findings),
        }
    }

    /// Of this subject, by checks that wait for a disk.
    pub fn blocking(
        subject: impl Into<String>,
        findings: impl FnOnce() -> Vec<Finding> + Send + 'static,
    ) -> Self {
        Self::new(subject, async {
            let done = tokio::task::spawn_blocking(findings).await;
            done.unwrap_or_else(|_| vec![broken()])
        })
    }

    /// Runs the checks, for a limited time.
    async fn run(self, limit: Duration) -> Diagnosis {
        // A task of its own: a panic ends it alone.
        let mut task = tokio::spawn(self.findings);
        let findings = match timeout(limit, &mut task).await {
            Ok(Ok(findings)) => findings,
            Ok(Err(_)) => vec![broken()],
            Err(_) => {
                task.abort();
                let seconds = limit.as_secs();
                let message = format!("did not end within {seconds} s");
                vec![Finding::fail("checks", message, "see whether it hangs")]
            }
        };
        Diagnosis {
            subject: self.subject,
            findings,
        }
    }
}

fn broken() -> Finding {
    let mend = "please report it, with the output of --print-config";
    Finding::fail("checks", "could not be run: octoserve has a bug", mend)
}

impl fmt::Debug for Examination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Examination").field(&self.subject).finish()
    }
}

/// Runs all examinations at once, and returns what they found in the order in which they are given.
///
/// `told` hears, again and again, which of them is waited for, how many have ended, and how many there are.
pub async fn examine(
    all: Vec<Examination>,
    mut told: impl FnMut(&str, u64, u64),
) -> Vec<Diagnosis> {
    let subjects: Vec<_> = all.iter().map(|one| one.subject.clone()).collect();
    let mut found: Vec<Option<Diagnosis>> = all.iter().map(|_| None).collect();
    let running = all.into_iter().enumerate();
    let mut running: FuturesUnordered<_> = running
        .map(async |(at, one)| (at, one.run(EXAMINATION).await))
        .collect();
    let mut ticks = interval(TOLD_EVERY);
    loop {
        tokio::select! {
            ended = running.next() => match ended {
                Some((at, diagnosis)) => found[at] = Some(diagnosis),
                None => return found.into_iter().flatten().collect(),
            },
            _ = ticks.tick() => {
                let mut waiting = found.iter().zip(&subjects).filter(|(found, _)| found.is_none());
                if let Some((_, subject)) = waiting.next() {
                    told(subject, (found.len() - running.len()) as u64, found.len() as u64);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::CheckResult::{Fail, Ok as Fine};

    #[tokio::test]
    async fn an_examination_that_hangs_or_panics_is_a_failure_and_the_others_end() {
        let hangs = Examination::new("a", std::future::pending());
        let mut found = vec![hangs.run(Duration::ZERO).await];
        let panics = Examination::new("b", async { panic!("on purpose") });
        let blocks = Examination::blocking("c", || panic!("on purpose"));
        let fine = Examination::new("d", async { vec![Finding::ok("x", "fine")] });
        found.extend(examine(vec![panics, blocks, fine], |_, _, _| {}).await);
        let subjects: Vec<_> = found.iter().map(|one| one.subject.as_str()).collect();
        assert_eq!(subjects, ["a", "b", "c", "d"]);
        let results: Vec<_> = found.iter().map(|one| one.findings[0].result).collect();
        assert_eq!(results, [Fail, Fail, Fail, Fine]);
        assert!(found[0].findings[0].message.contains("within 0 s"));
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_told_what_is_waited_for() {
        let after = |seconds| async move {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            vec![Finding::ok("x", "fine")]
        };
        let all = [("a", 1), ("b", 3), ("c", 2)];
        let all = all.map(|(subject, seconds)| Examination::new(subject, after(seconds)));
        let mut told = Vec::new();
        let found = examine(all.into(), |subject, done, total| {
            told.push((subject.to_owned(), done, total));
        });
        assert_eq!(found.await.len(), 3);
        told.dedup();
        let expected = [("a", 0), ("b", 1), ("b", 2)];
        assert_eq!(
            told,
            expected.map(|(subject, done)| (subject.to_owned(), done, 3))
        );
    }
}
