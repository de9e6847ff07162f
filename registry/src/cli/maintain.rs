//! Does a maintenance job: in the running registry, or here if none runs.

use std::cell::Cell;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use service::cli::{Task, TaskEnd};
use service::control::{ControlCall, ControlCallError, ControlCommand};
use service::job::JobProgress;
use service::log::causes;
use service::progress_line::ProgressLine;
use service::shutdown::{self, Signals};
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use crate::config::RegistryConfig;
use crate::maintenance::{Job, JobError, JobKind, JobOptions, JobReport, progress};
use crate::store::fs::{DirectoryState, FsStore, OpenError, inspect};
use crate::store::maintenance::{Pace, Run};

/// How often the progress is shown.
const SHOWN_EVERY: Duration = Duration::from_millis(200);

/// A job that is asked for at the command line.
#[derive(Debug)]
pub struct MaintainTask {
    pub(super) kind: JobKind,
    pub(super) options: JobOptions,
    pub(super) config: Box<RegistryConfig>,
    /// Whether a file was given.
    pub(super) has_config: bool,
    /// The socket that was given.
    pub(super) socket: Option<PathBuf>,
    pub(super) json: bool,
}

/// What a job did.
struct MaintainDone {
    report: JobReport,
    /// Why it ended early, if it did.
    early: Option<String>,
    /// By which configuration, where that is not the one that was given.
    by: Option<&'static str>,
}

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
enum MaintainError {
    #[error("{} holds no registry: give --data the directory of one", .0.display())]
    NoRegistry(PathBuf),
    #[error(
        "{} is in use, by a registry or by another maintenance command. To reach a registry, set \
         control.socket in its configuration and restart it, or pass --socket; or stop the registry",
        .0.display()
    )]
    NoSocket(PathBuf),
    #[error(
        "{} is in use, and its registry cannot be reached. Either another maintenance command runs; or the \
         registry was started without this control.socket: restart it, or pass --socket with the one that it has",
        .data.display()
    )]
    NoRegistryListens {
        data: PathBuf,
        source: ControlCallError,
    },
    #[error("{} is read-only by its configuration: {}", .0.display(), .1.without_changes())]
    ReadOnly(PathBuf, JobKind),
    #[error("the {} continues in the registry; this command no longer follows it", .0.name())]
    Left(JobKind),
    #[error("interrupted before the registry answered")]
    Unanswered,
    #[error("this user cannot do it: run the command as the user of the registry")]
    OtherUser(#[source] OpenError),
    #[error(transparent)]
    Open(OpenError),
    #[error(transparent)]
    Control(#[from] ControlCallError),
    #[error("the registry's report cannot be read: is it another version?")]
    Report(#[source] serde_json::Error),
    #[error("signals cannot be handled")]
    Signals(#[source] std::io::Error),
    #[error("the job failed")]
    Panic,
}

impl From<OpenError> for MaintainError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Io { ref source, .. } if source.kind() == ErrorKind::PermissionDenied => {
                Self::OtherUser(error)
            }
            error => Self::Open(error),
        }
    }
}

impl Task for MaintainTask {
    async fn perform(self) -> TaskEnd {
        match self.run().await {
            Ok(done) => self.end(done),
            Err(error) => TaskEnd {
                failure: Some(causes(&error)),
                ..TaskEnd::default()
            },
        }
    }
}

impl MaintainTask {
    async fn run(&self) -> Result<MaintainDone, MaintainError> {
        if let Some(socket) = &self.socket {
            return self.ask(socket).await;
        }
        let data = &self.config.storage.data;
        match inspect(data)? {
            DirectoryState::New => Err(MaintainError::NoRegistry(data.clone())),
            DirectoryState::InUse => self.ask_running().await,
            DirectoryState::Free => match self.run_here().await {
                // It was started meanwhile.
                Err(MaintainError::Open(OpenError::InUse { .. })) => self.ask_running().await,
                done => done,
            },
        }
    }

    async fn ask_running(&self) -> Result<MaintainDone, MaintainError> {
        let socket = &self.config.control.socket;
        let data = || self.config.storage.data.clone();
        let socket = socket
            .as_ref()
            .ok_or_else(|| MaintainError::NoSocket(data()))?;
        match self.ask(socket).await {
            Err(MaintainError::Control(source @ ControlCallError::Nobody(_))) => {
                let data = data();
                Err(MaintainError::NoRegistryListens { data, source })
            }
            done => done,
        }
    }

    /// Has the running registry do it. It goes on if this process ends.
    async fn ask(&self, socket: &Path) -> Result<MaintainDone, MaintainError> {
        let JobOptions { dry_run, repair } = self.options;
        let call = ControlCall {
            socket: socket.to_owned(),
            command: ControlCommand::Maintenance {
                job: self.kind.name().to_owned(),
                dry_run,
                repair,
            },
            json: false,
        };
        let Signals {
            shutdown,
            trigger: _trigger,
            mut hangup,
        } = shutdown::signals().map_err(MaintainError::Signals)?;
        let mut line = ProgressLine::new(self.kind.name());
        let is_answered = Cell::new(false);
        let progress = |now: &JobProgress| {
            is_answered.set(true);
            line.show(now);
        };
        let done = tokio::select! {
            done = call.follow(progress) => Some(done?),
            () = shutdown.recv() => None,
            // The terminal is gone.
            _ = hangup.recv() => None,
        };
        let (report, early) = done.ok_or_else(|| {
            if is_answered.get() {
                MaintainError::Left(self.kind)
            } else {
                MaintainError::Unanswered
            }
        })?;
        let report = serde_json::from_value(report).map_err(MaintainError::Report)?;
        Ok(MaintainDone {
            report,
            early,
            // A file that was changed since is not what it works by.
            by: Some("by the configuration of the running registry, as it was at its start"),
        })
    }

    /// Does it in this process, which takes the lock meanwhile.
    async fn run_here(&self) -> Result<MaintainDone, MaintainError> {
        let storage = &self.config.storage;
        let job = Job::offline(self.kind, &storage.jobs(), self.options);
        if job.changes() && storage.read_only {
            return Err(MaintainError::ReadOnly(storage.data.clone(), self.kind));
        }
        let Signals {
            shutdown,
            trigger: _trigger,
            ..
        } = shutdown::signals().map_err(MaintainError::Signals)?;
        let (data, options) = (storage.data.clone(), storage.options());
        let run = Arc::new(Run::new(Pace::Full));
        let mut work = spawn_blocking({
            let run = Arc::clone(&run);
            move || -> Result<(JobReport, Result<(), JobError>), OpenError> {
                let store = FsStore::open(&data, options, Arc::new(()))?;
                Ok(job.run(&store, &run))
            }
        });
        let mut line = ProgressLine::new(self.kind.name());
        let done = loop {
            tokio::select! {
                done = &mut work => break done,
                () = shutdown.recv() => {
                    run.stop();
                    break (&mut work).await;
                }
                () = sleep(SHOWN_EVERY) => line.show(&progress(run.progress())),
            }
        };
        let (report, ended) = done.map_err(|_| MaintainError::Panic)??;
        Ok(MaintainDone {
            report,
            early: ended.err().map(|error| causes(&error)),
            by: (!self.has_config)
                .then_some("without a configuration file: --config FILE gives one"),
        })
    }

    fn end(&self, done: MaintainDone) -> TaskEnd {
        let MaintainDone { report, early, by } = done;
        let output = if self.json {
            let json = serde_json::to_string_pretty(&report).unwrap_or_default();
            format!("{json}\n")
        } else {
            let by = by.map(|by| format!("{by}\n")).unwrap_or_default();
            format!("{report}{by}")
        };
        TaskEnd {
            output,
            is_success: early.is_none() && report.is_sound(),
            failure: early.map(|early| format!("{} ended early: {early}", self.kind.name())),
        }
    }
}
