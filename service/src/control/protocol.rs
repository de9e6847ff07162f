//! What goes over the control socket: one line of JSON asks, others answer.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::status::ControlStatus;
use crate::job::{JobEnd, JobProgress};
use crate::log::Level;

/// The version of the protocol. A request of another version is refused.
pub(super) const VERSION: u64 = 1;

/// The most bytes of a request, its end of line included.
pub(super) const LONGEST_REQUEST: usize = 4 << 10;

/// The longest time for which a log level can be set.
pub(crate) const LONGEST_LEVEL: Duration = Duration::from_hours(24);

/// What an operator asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub enum ControlCommand {
    /// The state of the process.
    Status {},
    /// Reads the configuration again.
    Reload {},
    /// Drains, and ends the process.
    Drain {},
    /// Has an upstream or one of its replicas drain, or not.
    Upstream {
        /// The upstream's name.
        upstream: String,
        /// The replica; `None`: all of them.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        replica: Option<String>,
        /// Whether it gets no new requests.
        draining: bool,
    },
    /// Sets the level of the log for a time.
    LogLevel {
        /// The level.
        level: Level,
        /// For how long, from 1 s to 24 h.
        seconds: u64,
    },
    /// Starts a maintenance job, and follows it to its end.
    Maintenance {
        /// Its name.
        job: String,
        /// Whether it only reports what it would do.
        #[serde(default)]
        dry_run: bool,
        /// Whether it also mends what it finds.
        #[serde(default)]
        repair: bool,
    },
}

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlRequest(pub ControlCommand);

/// A line that is no request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// It is no JSON object.
    #[error("the request is no JSON object")]
    NoObject,
    /// It is of another version.
    #[error("the request must be of version 1: another version of octoserve may be running")]
    Version,
    /// It asks for something unknown, or in another way.
    #[error("the request cannot be followed: {0}")]
    Command(String),
    /// A value is out of its range.
    #[error("seconds must be from 1 to 86400")]
    Seconds,
}

/// One line of an answer. The last one says what came of the request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ControlReply {
    /// The version of the protocol.
    pub version: u64,
    /// Whether it was done. `None`: it is being done, and another line follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ok: Option<bool>,
    /// What was done, or why not, for a person.
    pub message: String,
    /// The state of the process, for those who asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Box<ControlStatus>>,
    /// How far a job is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<JobProgress>,
    /// What a job did and found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<Value>,
}

impl ControlRequest {
    /// Reads a line.
    pub fn parse(line: &[u8]) -> Result<ControlRequest, RequestError> {
        let object: Map<String, Value> =
            serde_json::from_slice(line).map_err(|_| RequestError::NoObject)?;
        let mut object = object;
        // First: another version may have other commands.
        if object
            .remove("version")
            .and_then(|version| version.as_u64())
            != Some(VERSION)
        {
            return Err(RequestError::Version);
        }
        let command = serde_json::from_value(Value::Object(object))
            .map_err(|error| RequestError::Command(error.to_string()))?;
        if let ControlCommand::LogLevel { seconds, .. } = command
            && !(1..=LONGEST_LEVEL.as_secs()).contains(&seconds)
        {
            return Err(RequestError::Seconds);
        }
        Ok(ControlRequest(command))
    }

    /// The line that asks for it, with its end.
    pub fn line(&self) -> Vec<u8> {
        let mut object = serde_json::to_value(&self.0).unwrap_or_default();
        if let Value::Object(object) = &mut object {
            object.insert("version".to_owned(), VERSION.into());
        }
        format!("{object}\n").into_bytes()
    }
}

impl ControlReply {
    /// It was done.
    pub fn done(message: impl Into<String>) -> ControlReply {
        ControlReply {
            version: VERSION,
            ok: Some(true),
            message: message.into(),
            status: None,
            progress: None,
            report: None,
        }
    }

    /// It is being done, and another line follows.
    pub(super) fn progress(progress: &JobProgress) -> ControlReply {
        ControlReply {
            ok: None,
            progress: Some(progress.clone()),
            ..ControlReply::done(progress.to_string())
        }
    }

    /// A job has ended.
    pub(super) fn ended(end: JobEnd) -> ControlReply {
        ControlReply {
            ok: Some(end.ok),
            report: Some(end.report),
            ..ControlReply::done(end.message)
        }
    }

    /// It was not done.
    pub fn refused(message: impl Into<String>) -> ControlReply {
        ControlReply {
            ok: Some(false),
            ..ControlReply::done(message)
        }
    }

    /// The line, with its end.
    pub fn line(&self) -> Vec<u8> {
        let mut line = serde_json::to_vec(self).unwrap_or_default();
        line.push(b'\n');
        line
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn command() -> impl Strategy<Value = ControlCommand> {
        let text = || proptest::string::string_regex(".{0,40}").unwrap();
        let level = prop_oneof![Just(Level::Off), Just(Level::Debug), Just(Level::Trace)];
        prop_oneof![
            Just(ControlCommand::Status {}),
            Just(ControlCommand::Reload {}),
            Just(ControlCommand::Drain {}),
            (text(), proptest::option::of(text()), any::<bool>()).prop_map(
                |(upstream, replica, draining)| ControlCommand::Upstream {
                    upstream,
                    replica,
                    draining,
                }
            ),
            (level, 1..=86_400_u64)
                .prop_map(|(level, seconds)| ControlCommand::LogLevel { level, seconds }),
            (text(), any::<bool>(), any::<bool>()).prop_map(|(job, dry_run, repair)| {
                ControlCommand::Maintenance {
                    job,
                    dry_run,
                    repair,
                }
            }),
        ]
    }

    proptest! {
        #[test]
        fn what_is_asked_is_understood(command in command()) {
            let line = ControlRequest(command.clone()).line();
            prop_assert_eq!(memchr::memchr(b'\n', &line), Some(line.len() - 1));
            prop_assert_eq!(ControlRequest::parse(&line), Ok(ControlRequest(command)));
        }

        #[test]
        fn no_line_is_a_panic_and_each_refusal_is_one_line(
            line in proptest::collection::vec(any::<u8>(), 0..200),
            text in ".{0,60}",
        ) {
            let typed = serde_json::json!({"version": 1, "command": text, "seconds": text});
            for line in [line, typed.to_string().into_bytes()] {
                if let Err(error) = ControlRequest::parse(&line) {
                    let reply = ControlReply::refused(error.to_string()).line();
                    prop_assert_eq!(memchr::memchr(b'\n', &reply), Some(reply.len() - 1));
                }
            }
        }
    }

    #[test]
    fn other_requests_are_refused() {
        for (line, error) in [
            ("", "no JSON object"),
            ("[1]", "no JSON object"),
            ("{\"command\":\"status\"}", "version 1"),
            ("{\"version\":2,\"command\":\"status\"}", "version 1"),
            ("{\"version\":1}", "command"),
            ("{\"version\":1,\"command\":\"explode\"}", "explode"),
            ("{\"version\":1,\"command\":\"status\",\"now\":true}", "now"),
            (
                "{\"version\":1,\"command\":\"log-level\",\"level\":\"debug\",\"seconds\":0}",
                "1 to 86400",
            ),
        ] {
            let refused = ControlRequest::parse(line.as_bytes()).unwrap_err();
            assert!(refused.to_string().contains(error), "{line}: {refused}");
        }
    }
}
