//! Jobs that a server does beside serving, when an operator asks for one.
//!
//! Deliberately not here: what the jobs are. A program knows its own.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::watch;

/// What an operator asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRequest {
    /// The name of the job.
    pub job: String,
    /// Whether it only reports what it would do.
    pub dry_run: bool,
    /// Whether it also mends what it finds, for a job that can.
    pub repair: bool,
}

/// How far a job is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobProgress {
    /// What it does now.
    pub phase: String,
    /// How many items of this phase are done.
    pub done: u64,
    /// How many there are, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
}

impl fmt::Display for JobProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.phase, self.done)?;
        match self.total {
            Some(total) => write!(f, " of {total}"),
            None => Ok(()),
        }
    }
}

/// What came of a job.
#[derive(Clone, Debug, PartialEq)]
pub struct JobEnd {
    /// Whether it came to its end. What it found is in its report.
    pub ok: bool,
    /// What came of it, for a person, in one line.
    pub message: String,
    /// What it did and found.
    pub report: Value,
}

/// A job that runs, or has ended.
#[derive(Clone, Debug, PartialEq)]
pub enum JobState {
    /// It runs.
    Running(JobProgress),
    /// It has ended.
    Ended(JobEnd),
}

/// Follows a job. Whether anybody does makes no difference to it.
pub type JobWatch = watch::Receiver<JobState>;
