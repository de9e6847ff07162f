//! What is done for each request on the control socket.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::protocol::{ControlCommand, ControlReply, ControlRequest};
use super::status::{ControlStatus, ReloadStatus};
use crate::build_info;
use crate::config;
use crate::job::{JobRequest, JobWatch};
use crate::log::{Level, LogControl};
use crate::operate::{Operate, Reloaded};
use crate::reload::{ReloadOutcome, Reloads};
use crate::shutdown::{Shutdown, Trigger};

/// What of a process does not change.
#[derive(Clone, Debug)]
pub struct ProcessFacts {
    /// The name of the program.
    pub program: &'static str,
    /// When it started.
    pub started: Instant,
    /// Where clients are served.
    pub listeners: Vec<String>,
    /// Where metrics and probes have a listener of their own.
    pub metrics_listener: Option<String>,
}

/// What came of a request.
pub(super) enum Handled {
    /// This is the answer.
    Done(ControlReply),
    /// This is the answer, and once it is sent, the process drains.
    Draining(ControlReply),
    /// A job runs.
    Started(JobWatch),
}

/// Does what is asked for.
pub struct ControlHandler<O> {
    /// What does not change.
    pub facts: ProcessFacts,
    /// Acts on the server.
    pub operator: O,
    /// Asks for reloads.
    pub reloads: Reloads,
    /// The log.
    pub log: LogControl,
    /// Begins the drain.
    pub trigger: Arc<Trigger>,
    /// Says whether it has begun.
    pub shutdown: Shutdown,
}

impl<O: Operate> ControlHandler<O> {
    /// Does what a request asks for.
    pub(super) async fn handle(&self, request: ControlRequest) -> Handled {
        let reply = match request.0 {
            ControlCommand::Status {} => ControlReply {
                status: Some(Box::new(self.status())),
                ..ControlReply::done("")
            },
            ControlCommand::Reload {} => {
                let outcome = self.reloads.reload("ctl").await;
                match &outcome {
                    Ok(_) => ControlReply::done(words(&outcome)),
                    Err(_) => ControlReply::refused(words(&outcome)),
                }
            }
            ControlCommand::Drain {} if self.shutdown.is_triggered() => {
                ControlReply::done("is draining already")
            }
            ControlCommand::Drain {} => {
                return Handled::Draining(ControlReply::done("drains, and ends then"));
            }
            ControlCommand::Upstream {
                upstream,
                replica,
                draining,
            } => {
                let replica = replica.as_deref();
                let set = self.operator.set_draining(&upstream, replica, draining);
                set.map_or_else(ControlReply::refused, ControlReply::done)
            }
            ControlCommand::LogLevel { level, seconds } => self.set_level(level, seconds),
            ControlCommand::Maintenance {
                job,
                dry_run,
                repair,
            } => {
                let request = JobRequest {
                    job,
                    dry_run,
                    repair,
                };
                match self.operator.start_job(&request) {
                    Ok(job) => return Handled::Started(job),
                    Err(refusal) => ControlReply::refused(refusal),
                }
            }
        };
        Handled::Done(reply)
    }

    /// Begins the drain, as SIGTERM does.
    pub(super) fn drain(&self) {
        tracing::info!("shutting down: ctl drain");
        self.trigger.trigger();
    }

    fn set_level(&self, level: Level, seconds: u64) -> ControlReply {
        self.log.level_for(level, Duration::from_secs(seconds));
        let (now, then) = (name(level), name(self.log.configured_level()));
        tracing::info!(level = now, seconds, "log level set by ctl");
        let time = config::Duration::from_secs(seconds);
        ControlReply::done(format!("log level {now} for {time}, then {then}"))
    }

    fn status(&self) -> ControlStatus {
        let facts = &self.facts;
        let last_reload = self.reloads.last().map(|last| {
            let since = last.at.duration_since(UNIX_EPOCH).unwrap_or_default();
            let age = SystemTime::now().duration_since(last.at);
            ReloadStatus {
                timestamp_seconds: since.as_secs_f64(),
                age_seconds: age.unwrap_or_default().as_secs_f64(),
                ok: last.outcome.is_ok(),
                message: words(&last.outcome),
            }
        });
        ControlStatus {
            program: facts.program.to_owned(),
            version: build_info::VERSION.to_owned(),
            pid: std::process::id(),
            uptime_seconds: facts.started.elapsed().as_secs_f64(),
            listeners: facts.listeners.clone(),
            metrics_listener: facts.metrics_listener.clone(),
            draining: self.shutdown.is_triggered(),
            log_level: name(self.log.level()),
            configured_log_level: name(self.log.configured_level()),
            last_reload,
            server: self.operator.status(),
        }
    }
}

/// What came of a reload, for a person.
fn words(outcome: &ReloadOutcome) -> String {
    match outcome {
        Ok(Reloaded { needs_restart }) if needs_restart.is_empty() => {
            "configuration reloaded".to_owned()
        }
        Ok(Reloaded { needs_restart }) => {
            let keys = needs_restart.join(", ");
            format!("configuration reloaded; these keys take effect after a restart: {keys}")
        }
        Err(error) => format!("configuration not reloaded: {error}"),
    }
}

/// A level as the configuration writes it.
fn name(level: Level) -> String {
    let json = serde_json::to_string(&level).unwrap_or_default();
    json.trim_matches('"').to_owned()
}
