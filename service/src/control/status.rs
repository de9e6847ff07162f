//! The state of a process, for a program and for a person.

use std::fmt::{self, Write as _};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::operate::ServerStatus;

/// The state of a process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ControlStatus {
    /// The name of the program.
    pub program: String,
    /// Its version.
    pub version: String,
    /// The process.
    pub pid: u32,
    /// Since when it runs.
    pub uptime_seconds: f64,
    /// Where clients are served.
    pub listeners: Vec<String>,
    /// Where metrics and probes have a listener of their own.
    pub metrics_listener: Option<String>,
    /// Whether it drains, and ends then.
    pub draining: bool,
    /// The level of the log.
    pub log_level: String,
    /// The level that is configured, and in effect unless another one is for a time.
    pub configured_log_level: String,
    /// The last reload, if there was one.
    pub last_reload: Option<ReloadStatus>,
    /// What the server says.
    #[serde(flatten)]
    pub server: ServerStatus,
}

/// The last reload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReloadStatus {
    /// When it ended, in seconds since 1970.
    pub timestamp_seconds: f64,
    /// How long ago that was.
    pub age_seconds: f64,
    /// Whether it was applied.
    pub ok: bool,
    /// What came of it.
    pub message: String,
}

impl fmt::Display for ControlStatus {
    /// In lines, with the values below each other.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rows = vec![
            ("program", format!("{} {}", self.program, self.version)),
            ("pid", self.pid.to_string()),
            ("uptime", seconds(self.uptime_seconds)),
            ("listeners", self.listeners.join(", ")),
        ];
        if let Some(listener) = &self.metrics_listener {
            rows.push(("metrics", listener.clone()));
        }
        let state = if self.draining { "draining" } else { "serving" };
        rows.push(("state", state.to_owned()));
        let counts = [
            ("connections", self.server.connections),
            ("requests", self.server.requests),
        ];
        for (name, count) in counts {
            rows.extend(count.map(|count| (name, count.to_string())));
        }
        let level = match (&self.log_level, &self.configured_log_level) {
            (now, configured) if now == configured => now.clone(),
            (now, configured) => format!("{now} for a time, {configured} is configured"),
        };
        rows.push(("log level", level));
        let reload = match &self.last_reload {
            None => "none since the start".to_owned(),
            Some(reload) => format!("{} ago: {}", seconds(reload.age_seconds), reload.message),
        };
        rows.push(("last reload", reload));
        for (name, value) in rows {
            // Names of files and upstreams may hold anything.
            writeln!(f, "{name:<12} {}", printable(&value))?;
        }
        self.fmt_upstreams(f)
    }
}

impl ControlStatus {
    fn fmt_upstreams(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let upstreams = &self.server.upstreams;
        let replicas = upstreams.iter().flat_map(|upstream| &upstream.replicas);
        let widest = replicas.map(|replica| replica.name.chars().count()).max();
        let width = widest.unwrap_or_default();
        for upstream in upstreams {
            writeln!(f, "{:<12} {}", "upstream", printable(&upstream.name))?;
            for replica in &upstream.replicas {
                let health = if replica.healthy {
                    "healthy"
                } else {
                    "unhealthy"
                };
                let mut line = format!("{:<width$}  {health:<9}", printable(&replica.name));
                let _ = write!(line, "  {} in flight", replica.in_flight);
                if replica.draining {
                    line.push_str("  draining");
                }
                writeln!(f, "{:<12}   {line}", "")?;
            }
        }
        Ok(())
    }
}

/// Whole seconds, in words.
fn seconds(seconds: f64) -> String {
    let whole = Duration::try_from_secs_f64(seconds.trunc()).unwrap_or_default();
    humantime::format_duration(whole).to_string()
}

/// A text without what would move a terminal's cursor.
pub(super) fn printable(text: &str) -> String {
    text.replace(char::is_control, "?")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operate::{ReplicaStatus, UpstreamStatus};

    fn status() -> ControlStatus {
        let replica = |name: &str, healthy| ReplicaStatus {
            name: name.to_owned(),
            healthy,
            draining: !healthy,
            in_flight: 3,
        };
        ControlStatus {
            program: "octoserve".to_owned(),
            version: "0.1.0".to_owned(),
            pid: 7,
            uptime_seconds: 3_661.9,
            listeners: vec!["127.0.0.1:5000".to_owned(), "unix:/a\u{1b}[2J".to_owned()],
            metrics_listener: None,
            draining: false,
            log_level: "debug".to_owned(),
            configured_log_level: "info".to_owned(),
            last_reload: None,
            server: ServerStatus {
                connections: Some(2),
                requests: None,
                upstreams: vec![UpstreamStatus {
                    name: "main".to_owned(),
                    replicas: vec![replica("a:1", true), replica("long:5000", false)],
                }],
            },
        }
    }

    #[test]
    fn a_person_reads_aligned_lines() {
        let text = status().to_string();
        let expected = "\
program      octoserve 0.1.0
pid          7
uptime       1h 1m 1s
listeners    127.0.0.1:5000, unix:/a?[2J
state        serving
connections  2
log level    debug for a time, info is configured
last reload  none since the start
upstream     main
               a:1        healthy    3 in flight
               long:5000  unhealthy  3 in flight  draining
";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_program_reads_what_was_written() {
        let json = serde_json::to_string(&status()).unwrap();
        assert_eq!(
            serde_json::from_str::<ControlStatus>(&json).unwrap(),
            status()
        );
    }
}
