//! What each maintenance job of a store gets: its pace, how it is stopped, and where it says how far it is.
//!
//! A job runs on a blocking thread, in small steps. Between two steps it calls [`Run::pause`], which sleeps
//! so that requests come first, and fails once the job is to stop.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use serde::{Deserialize, Serialize};
use service::log::causes;

use crate::oci::Name;
use crate::store::StoreError;

/// A pause is not worth a system call before so much time was worked.
const WORTH_A_SLEEP: Duration = Duration::from_millis(2);

/// How fast a job works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Without pauses: nobody is served meanwhile.
    Full,
    /// It sleeps for so many times as long as it works.
    Yielding(u32),
}

/// A job is stopped before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it was interrupted")]
pub struct Interrupted;

/// How far a job is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// What it does now, for a person; empty before it begins.
    pub phase: &'static str,
    /// How many items of this phase are done.
    pub done: u64,
    /// How many there are; `None` where nobody knows.
    pub total: Option<u64>,
}

/// Something that a job left as it is because it could not be read or changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftItem {
    /// The repository, where it is of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<String>,
    /// Why.
    pub reason: String,
}

impl LeftItem {
    /// How many of them a report names at most. The log has all.
    pub const MOST: usize = 100;

    /// One that is left because of an error.
    pub fn failed(repository: Option<&Name>, error: &StoreError) -> Self {
        Self::because(repository, causes(error))
    }

    /// One that is left for a reason.
    pub fn because(repository: Option<&Name>, reason: impl Into<String>) -> Self {
        Self {
            repository: repository.map(|name| name.as_str().to_owned()),
            reason: reason.into(),
        }
    }
}

/// One run of a job. The job and those who watch it share it.
#[derive(Debug)]
pub struct Run {
    pace: Pace,
    is_stopped: Mutex<bool>,
    stopping: Condvar,
    phase: Mutex<(&'static str, Option<u64>)>,
    done: AtomicU64,
    /// When the work since the last pause began.
    worked_since: Mutex<Instant>,
}

impl Run {
    /// A run that has not begun.
    pub fn new(pace: Pace) -> Self {
        Self {
            pace,
            is_stopped: Mutex::new(false),
            stopping: Condvar::new(),
            phase: Mutex::default(),
            done: AtomicU64::new(0),
            worked_since: Mutex::new(Instant::now()),
        }
    }

    /// Has the job end at its next pause, or at once if it pauses.
    pub fn stop(&self) {
        *self.is_stopped.lock() = true;
        self.stopping.notify_all();
    }

    /// Begins a phase of so many items.
    pub fn begin(&self, phase: &'static str, total: Option<u64>) {
        *self.phase.lock() = (phase, total);
        self.done.store(0, Ordering::Relaxed);
    }

    /// Some more items of the phase are done.
    pub fn advance(&self, items: u64) {
        self.done.fetch_add(items, Ordering::Relaxed);
    }

    /// How far the job is.
    pub fn progress(&self) -> Progress {
        let (phase, total) = *self.phase.lock();
        Progress {
            phase,
            done: self.done.load(Ordering::Relaxed),
            total,
        }
    }

    /// To be called between two steps, without locks. Blocks.
    ///
    /// # Errors
    /// If the job is to stop.
    pub fn pause(&self) -> Result<(), Interrupted> {
        if let Pace::Yielding(times) = self.pace {
            let worked = self.worked_since.lock().elapsed();
            if worked >= WORTH_A_SLEEP {
                self.sleep(worked.saturating_mul(times));
            }
        }
        if *self.is_stopped.lock() {
            return Err(Interrupted);
        }
        Ok(())
    }

    /// Sleeps for so long, or until the job is to stop.
    pub fn sleep(&self, time: Duration) {
        let end = Instant::now() + time;
        let mut is_stopped = self.is_stopped.lock();
        while !*is_stopped && Instant::now() < end {
            self.stopping.wait_until(&mut is_stopped, end);
        }
        // A sleep is no work, whatever asked for it: another sleep need not follow it.
        *self.worked_since.lock() = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use std::ops::SubAssign;

    use super::*;

    #[test]
    fn a_run_says_how_far_it_is() {
        let run = Run::new(Pace::Full);
        assert_eq!(run.progress(), Progress::default());
        run.begin("repositories", Some(3));
        run.advance(2);
        let now = run.progress();
        assert_eq!(
            (now.phase, now.done, now.total),
            ("repositories", 2, Some(3))
        );
        run.begin("content", None);
        assert_eq!(run.progress().done, 0);
    }

    #[test]
    fn time_that_was_slept_is_no_work() {
        let run = Run::new(Pace::Yielding(1_000_000));
        run.worked_since.lock().sub_assign(Duration::from_secs(1));
        let before = Instant::now();
        run.sleep(Duration::ZERO);
        assert!(*run.worked_since.lock() >= before);
    }

    #[test]
    fn a_stopped_run_ends_at_its_next_pause_however_long_that_would_be() {
        for pace in [Pace::Full, Pace::Yielding(1_000_000)] {
            let run = Run::new(pace);
            assert_eq!(run.pause(), Ok(()));
            run.stop();
            run.worked_since.lock().sub_assign(Duration::from_secs(1));
            assert_eq!(run.pause(), Err(Interrupted));
        }
    }
}
