//! The pace of a scrub: its rate, and time for others.

use std::time::{Duration, Instant};

use crate::store::maintenance::{Interrupted, Run};

/// What an item costs beside its bytes: the disk has to seek.
const ITEM: u64 = 16 << 10;

/// A shorter sleep is not worth a system call.
const WORTH_A_SLEEP: Duration = Duration::from_millis(2);

/// What was not read in a second that was too short for it is not made up for.
const FORGOTTEN: Duration = Duration::from_secs(1);

/// Keeps a run to its rate.
pub(super) struct Pacing<'a> {
    run: &'a Run,
    /// Bytes per second.
    rate: Option<u64>,
    since: Instant,
    bytes: u64,
    /// The end of the last sleep.
    worked_since: Instant,
}

impl<'a> Pacing<'a> {
    pub(super) fn new(run: &'a Run, rate: Option<u64>) -> Self {
        let now = Instant::now();
        Self {
            run,
            rate,
            since: now,
            bytes: 0,
            worked_since: now,
        }
    }

    /// To be called between two steps that read no content.
    pub(super) fn pause(&mut self) -> Result<(), Interrupted> {
        self.read(0)
    }

    /// To be called for each item that is opened.
    pub(super) fn opened(&mut self) -> Result<(), Interrupted> {
        self.read(ITEM)
    }

    /// So many bytes were read. Sleeps until more may be.
    pub(super) fn read(&mut self, bytes: u64) -> Result<(), Interrupted> {
        if let Some(rate) = self.rate {
            self.bytes += bytes;
            let sleep = sleep(
                self.bytes,
                rate,
                self.since.elapsed(),
                self.worked_since.elapsed(),
            );
            if sleep >= WORTH_A_SLEEP {
                self.run.sleep(sleep);
                self.worked_since = Instant::now();
            }
            if self.since.elapsed() >= due(self.bytes, rate) + FORGOTTEN {
                self.since = Instant::now();
                self.bytes = 0;
            }
        }
        self.run.pause()
    }
}

/// How long to sleep after so many bytes in a time, of which the last was worked through.
fn sleep(bytes: u64, rate: u64, elapsed: Duration, worked: Duration) -> Duration {
    // A disk that is slower than the rate gets half of the time for others, too.
    due(bytes, rate).saturating_sub(elapsed).max(worked)
}

/// How long so many bytes are to take.
fn due(bytes: u64, rate: u64) -> Duration {
    Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::maintenance::Pace;

    #[test]
    fn it_sleeps_until_the_bytes_are_due_and_at_least_as_long_as_it_read() {
        let ms = Duration::from_millis;
        for (bytes, elapsed, worked, sleeps) in [
            (1_000_000, 0, 0, 1000),
            (1_000_000, 400, 10, 600),
            (1_000_000, 999, 10, 10),
            (1_000_000, 5000, 300, 300),
        ] {
            assert_eq!(sleep(bytes, 1_000_000, ms(elapsed), ms(worked)), ms(sleeps));
        }
    }

    #[test]
    fn a_stopped_run_sleeps_no_longer_and_one_without_a_rate_never_does() {
        let run = Run::new(Pace::Full);
        let mut unlimited = Pacing::new(&run, None);
        assert_eq!(unlimited.read(u64::MAX), Ok(()));
        run.stop();
        // A hundred years at this rate.
        let mut slow = Pacing::new(&run, Some(1));
        assert_eq!(slow.read(3_000_000_000), Err(Interrupted));
    }
}
