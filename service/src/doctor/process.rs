//! What the process needs of the system, and whether one runs that can be asked.

use std::time::Duration;

use tokio::time::timeout;

use super::{Examination, Finding, REQUEST};
use crate::control::{ControlCall, ControlCallError, ControlCommand, ControlFields, ControlStatus};
use crate::descriptors;
use crate::limits::Limits;

/// Whether enough files may be open for the connections, and whether a control socket that is
/// configured answers.
pub fn process(limits: Limits, control: ControlFields) -> Examination {
    Examination::new("process", async move {
        let mut findings = vec![open_files(limits)];
        if let Some(socket) = control.socket {
            let call = ControlCall {
                socket,
                command: ControlCommand::Status {},
                json: false,
            };
            let answer = timeout(REQUEST, call.status()).await;
            let late = || ControlCallError::Answer {
                path: call.socket.clone(),
                reason: "it took too long".to_owned(),
            };
            findings.extend(answered(answer.unwrap_or_else(|_| Err(late()))));
        }
        findings
    })
}

fn open_files(limits: Limits) -> Finding {
    let Limits {
        connections,
        streams,
        ..
    } = limits;
    let (limit, fits) = descriptors::would_fit(connections, streams);
    judged(limit, (connections, streams), fits)
}

fn judged(
    limit: Option<u64>,
    (connections, streams): (usize, usize),
    fits: (usize, usize),
) -> Finding {
    let check = "open files";
    let limit = limit.map_or("unlimited".to_owned(), |limit| {
        format!("the limit of {limit}")
    });
    let wanted = format!("{connections} connections and {streams} streams");
    if fits == (connections, streams) {
        return Finding::ok(check, format!("{limit} allows {wanted}"));
    }
    let message = format!(
        "{limit} allows {} connections and {} streams of {wanted}",
        fits.0, fits.1
    );
    Finding::warn(
        check,
        message,
        "raise it (LimitNOFILE of systemd, ulimit -n), or lower limits.connections",
    )
}

/// What the process says of itself.
fn answered(answer: Result<ControlStatus, ControlCallError>) -> Vec<Finding> {
    let check = "control socket";
    let status = match answer {
        Ok(status) => status,
        // The process may simply not run.
        Err(error @ ControlCallError::Nobody(_)) => {
            let text = error.to_string();
            let text = text.split(':').next().unwrap_or_default();
            return vec![Finding::ok(
                check,
                format!("{text}: the program does not run"),
            )];
        }
        Err(error) => {
            let mend = "run this as the program's user or root, and with its configuration";
            return vec![Finding::fail(check, error.to_string(), mend)];
        }
    };
    let uptime = Duration::try_from_secs_f64(status.uptime_seconds).unwrap_or_default();
    let uptime = humantime::format_duration(Duration::from_secs(uptime.as_secs()));
    let ControlStatus {
        program,
        version,
        pid,
        ..
    } = &status;
    let running = format!("{program} {version} runs as process {pid}, for {uptime}");
    let mut findings = vec![if version == env!("CARGO_PKG_VERSION") {
        Finding::ok(check, running)
    } else {
        let mend = "restart it, or take over from it, so that it is this version";
        Finding::warn(check, running, mend)
    }];
    if let Some(reload) = status.last_reload.filter(|reload| !reload.ok) {
        let mend = "mend the configuration, then reload it";
        let message = format!("was refused: {}", reload.message);
        findings.push(Finding::warn("last reload", message, mend));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::ReloadStatus;
    use crate::doctor::CheckResult::{Fail, Ok as Fine, Warn};
    use crate::operate::ServerStatus;

    fn status(version: &str) -> ControlStatus {
        ControlStatus {
            program: "octoserve".to_owned(),
            version: version.to_owned(),
            pid: 7,
            uptime_seconds: 90.5,
            listeners: Vec::new(),
            metrics_listener: None,
            draining: false,
            log_level: String::new(),
            configured_log_level: String::new(),
            last_reload: None,
            server: ServerStatus::default(),
        }
    }

    #[test]
    fn a_limit_that_is_too_low_is_a_warning() {
        let few = Limits {
            connections: 1,
            streams: 1,
            ..Limits::default()
        };
        assert_eq!(open_files(few).result, Fine);
        let low = judged(Some(1024), (10_000, 2_000), (256, 256));
        assert_eq!(low.result, Warn);
        let text = "the limit of 1024 allows 256 connections and 256 streams of 10000 connections \
                    and 2000 streams";
        assert_eq!(low.message, text);
        assert_eq!(
            judged(None, (1, 1), (1, 1)).message,
            "unlimited allows 1 connections and 1 streams"
        );
    }

    #[test]
    fn a_process_that_answers_is_told_of_and_one_that_does_not_run_is_no_failure() {
        let own = answered(Ok(status(env!("CARGO_PKG_VERSION"))));
        assert_eq!(own.len(), 1);
        assert_eq!(own[0].result, Fine);
        assert!(own[0].message.contains("process 7, for 1m 30s"), "{own:?}");
        assert_eq!(answered(Ok(status("0.0.0")))[0].result, Warn);
        let mut refused = status("0.0.0");
        refused.last_reload = Some(ReloadStatus {
            timestamp_seconds: 0.0,
            age_seconds: 0.0,
            ok: false,
            message: "listen: no".to_owned(),
        });
        let refused = answered(Ok(refused));
        assert_eq!(refused[1].message, "was refused: listen: no");
        let nobody = answered(Err(ControlCallError::Nobody("/run/x".into())));
        assert_eq!(nobody[0].result, Fine);
        let message = "nobody listens on /run/x: the program does not run";
        assert_eq!(nobody[0].message, message);
        let strange = answered(Err(ControlCallError::Permission("/run/x".into())));
        assert_eq!(strange[0].result, Fail);
    }
}
