//! Maintenance: jobs that run beside the registry, by a schedule or because an operator asks.
//!
//! The work itself is the store's ([`crate::store::fs`]). Here it is decided when a job runs, each kind
//! one at a time; it is logged, counted and followed; and it is stopped when the registry ends. A job that
//! was stopped continues where it was the next time.

mod job;
mod schedule;
#[cfg(test)]
mod tests;
mod text;

use std::convert::Infallible;
use std::fmt;
use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures_util::future::join_all;
use parking_lot::Mutex;
use service::config;
use service::job::{JobEnd, JobProgress, JobRequest, JobState, JobWatch};
use service::log::causes;
use service::shutdown::Shutdown;
use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{sleep, timeout};

pub use self::job::{Job, JobError, JobKind, JobOptions, JobReport, JobSettings};
pub use self::schedule::Schedule;
use crate::metrics::maintenance::{MaintenanceFamilies, RunResult};
use crate::store::fs::FsStore;
use crate::store::maintenance::{Pace, Progress, Run};

/// How often those who follow a job are told how far it is.
const TOLD_EVERY: Duration = Duration::from_millis(200);

/// How long those who follow a job that was stopped have to hear of it.
const HEARD: Duration = Duration::from_secs(1);

/// A clock that is set meanwhile is looked at so often.
const CLOCK: Duration = Duration::from_mins(1);

/// Why a job runs that nobody asked for.
const SCHEDULE: &str = "schedule";

/// A job beside requests rests for as long as it works.
const ONLINE: Pace = Pace::Yielding(1);

/// The jobs of one registry. Clones are the same.
#[derive(Clone)]
pub struct Maintenance(Arc<Jobs>);

struct Jobs {
    settings: JobSettings,
    /// `None` where nothing is recorded.
    families: Option<MaintenanceFamilies>,
    state: Mutex<StoreAndJobs>,
}

struct StoreAndJobs {
    /// `None` once the registry ends: it is to be closed, and no job starts any more.
    store: Option<FsStore>,
    running: Vec<RunningJob>,
}

struct RunningJob {
    kind: JobKind,
    since: Instant,
    run: Arc<Run>,
    told: JobWatch,
    /// Ends when all is done.
    task: JoinHandle<()>,
}

/// Why a job does not start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// There is no such job.
    #[error("there is no job `{0}`")]
    Unknown(String),
    /// One of this kind runs.
    #[error("a {name} has been running for {since}{}", in_brackets(progress))]
    Running {
        /// Its name.
        name: &'static str,
        /// For how long.
        since: config::Duration,
        /// How far it is; without a phase it has just begun.
        progress: JobProgress,
    },
    /// It would change something.
    #[error("the registry is read-only: {}", .0.without_changes())]
    ReadOnly(JobKind),
    /// The registry ends.
    #[error("the registry is shutting down")]
    Ending,
}

fn in_brackets(progress: &JobProgress) -> String {
    if progress.phase.is_empty() {
        return String::new();
    }
    format!(" ({progress})")
}

impl Maintenance {
    /// The jobs of a store.
    pub fn new(
        store: FsStore,
        settings: JobSettings,
        families: Option<MaintenanceFamilies>,
    ) -> Self {
        Self(Arc::new(Jobs {
            settings,
            families,
            state: Mutex::new(StoreAndJobs {
                store: Some(store),
                running: Vec::new(),
            }),
        }))
    }

    /// Starts the job that an operator asks for. Must be called within a tokio runtime.
    pub fn request(&self, request: &JobRequest) -> Result<JobWatch, StartError> {
        let kind = JobKind::parse(&request.job);
        let kind = kind.ok_or_else(|| StartError::Unknown(request.job.clone()))?;
        let options = JobOptions {
            dry_run: request.dry_run,
            repair: request.repair,
        };
        self.start(kind, options, "command")
    }

    fn start(
        &self,
        kind: JobKind,
        options: JobOptions,
        cause: &'static str,
    ) -> Result<JobWatch, StartError> {
        let job = Job::online(kind, &self.0.settings, options);
        if job.changes() && self.0.settings.read_only {
            return Err(StartError::ReadOnly(kind));
        }
        let mut state = self.0.state.lock();
        let store = state.store.clone().ok_or(StartError::Ending)?;
        state.running.retain(|job| !job.task.is_finished());
        let busy = state.running.iter().filter(|job| job.kind == kind);
        for job in busy {
            // One that has ended may still be telling it.
            if let JobState::Running(progress) = &*job.told.borrow() {
                return Err(StartError::Running {
                    name: kind.name(),
                    since: config::Duration::from_secs(job.since.elapsed().as_secs()),
                    progress: progress.clone(),
                });
            }
        }
        tracing::info!(
            job = kind.name(),
            cause,
            changes = job.changes(),
            "maintenance started"
        );
        let run = Arc::new(Run::new(ONLINE));
        let (teller, told) = watch::channel(JobState::Running(progress(run.progress())));
        let families = self.0.families.clone();
        // One that only looks, because somebody asked, is no turn of the schedule.
        let is_turn = !self.0.settings.read_only && (job.changes() || cause == SCHEDULE);
        let task = perform(job, is_turn, store, families, Arc::clone(&run), teller);
        let task = tokio::spawn(task);
        state.running.push(RunningJob {
            kind,
            since: Instant::now(),
            run,
            told: told.clone(),
            task,
        });
        Ok(told)
    }

    /// Runs jobs by their schedules until the shutdown. Then it stops those that run, and waits for their
    /// end, but not longer than `patience`.
    pub async fn serve(&self, shutdown: Shutdown, patience: Duration) {
        tokio::select! {
            never = self.run_schedules() => match never {},
            () = shutdown.recv() => {}
        }
        if timeout(patience, self.stop()).await.is_err() {
            tracing::warn!("a maintenance job did not end in time");
        }
    }

    async fn run_schedules(&self) -> Infallible {
        let each = JobKind::ALL.into_iter().map(async |kind| {
            let Some(schedule) = self.0.settings.schedule(kind) else {
                return;
            };
            let mut since = self.last_end(kind).await;
            loop {
                wait_until(schedule.next(since)).await;
                // What is corrupt is not to be served until somebody reads the log.
                let options = JobOptions {
                    dry_run: self.0.settings.read_only,
                    repair: true,
                };
                match self.start(kind, options, SCHEDULE) {
                    Ok(mut told) => {
                        // An error means that it has ended as well.
                        let _ = told
                            .wait_for(|state| matches!(state, JobState::Ended(_)))
                            .await;
                    }
                    Err(refusal) => {
                        let job = kind.name();
                        tracing::info!(job, %refusal, "scheduled maintenance left out");
                    }
                }
                since = SystemTime::now();
            }
        });
        join_all(each).await;
        pending().await
    }

    /// When a job last ended. Where that is not known, it counts as now, and is noted: a registry that is started
    /// again and again has its turns, too.
    async fn last_end(&self, kind: JobKind) -> SystemTime {
        let now = SystemTime::now();
        let store = self.0.state.lock().store.clone();
        let Some(store) = store else {
            return now;
        };
        let is_read_only = self.0.settings.read_only;
        let last = spawn_blocking(move || {
            let last = store.last_job_end(kind.name());
            if last.is_none() && !is_read_only {
                note_end(&store, kind);
            }
            last
        });
        // A clock that was set back does not put it off.
        last.await.ok().flatten().unwrap_or(now).min(now)
    }

    /// Stops all jobs, and waits for their end. From now on none starts, and the store is closed.
    async fn stop(&self) {
        let running = {
            let mut state = self.0.state.lock();
            state.store = None;
            std::mem::take(&mut state.running)
        };
        for job in &running {
            job.run.stop();
        }
        for job in running {
            drop(job.told);
            // It has logged what went wrong, if anything did.
            let _ = job.task.await;
        }
    }
}

/// Does a job on a blocking thread, and tells how far it is.
async fn perform(
    job: Job,
    is_turn: bool,
    store: FsStore,
    families: Option<MaintenanceFamilies>,
    run: Arc<Run>,
    teller: watch::Sender<JobState>,
) {
    let began = Instant::now();
    let lost = JobReport::lost(&job);
    let mut work = spawn_blocking({
        let run = Arc::clone(&run);
        move || {
            let (report, ended) = job.run(&store, &run);
            // One that was interrupted goes on at the next start.
            let is_over = !ended.as_ref().is_err_and(JobError::is_interruption);
            if is_over && is_turn {
                note_end(&store, job.kind());
            }
            (report, ended)
        }
    });
    let done = loop {
        tokio::select! {
            done = &mut work => break done,
            () = sleep(TOLD_EVERY) => {
                let now = JobState::Running(progress(run.progress()));
                teller.send_if_modified(|told| {
                    let is_new = *told != now;
                    if is_new {
                        *told = now;
                    }
                    is_new
                });
            }
        }
    };
    let seconds = began.elapsed().as_secs_f64();
    let end = if let Ok((report, ended)) = done {
        if let Some(families) = &families {
            report.count(families, report.result(&ended), seconds);
        }
        report.log(&ended, seconds);
        end(&report, &ended)
    } else {
        // A panic, which is logged where it happens, or a runtime that shuts down.
        if let Some(families) = &families {
            lost.count(families, RunResult::Error, seconds);
        }
        JobEnd {
            ok: false,
            message: "the job failed: see the log".to_owned(),
            report: serde_json::Value::Null,
        }
    };
    let _ = teller.send(JobState::Ended(end));
    // The process may end next: those who follow are to hear of it first.
    let _ = timeout(HEARD, teller.closed()).await;
}

fn note_end(store: &FsStore, kind: JobKind) {
    if let Err(error) = store.note_job_end(kind.name()) {
        let error = causes(&error);
        tracing::warn!(job = kind.name(), error, "when the job ended is not noted");
    }
}

fn end(report: &JobReport, ended: &Result<(), JobError>) -> JobEnd {
    let message = match ended {
        Ok(()) => report
            .to_string()
            .lines()
            .next()
            .unwrap_or_default()
            .to_owned(),
        Err(error) => causes(error),
    };
    JobEnd {
        ok: ended.is_ok(),
        message,
        report: serde_json::to_value(report).unwrap_or_default(),
    }
}

/// How far a job is, in the words of the control socket.
pub fn progress(progress: Progress) -> JobProgress {
    JobProgress {
        phase: progress.phase.to_owned(),
        done: progress.done,
        total: progress.total,
    }
}

/// Waits for a time of the clock, which may be set meanwhile.
async fn wait_until(time: SystemTime) {
    while let Ok(left) = time.duration_since(SystemTime::now()) {
        if left.is_zero() {
            return;
        }
        sleep(left.min(CLOCK)).await;
    }
}

impl fmt::Debug for Maintenance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Maintenance")
            .field("settings", &self.0.settings)
            .finish_non_exhaustive()
    }
}
