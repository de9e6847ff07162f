//! Other people's programs: finds them, or names the command that installs them.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::process::Command;
use tokio::time::timeout;

/// How long a command may take. Some build programs, and other suites may run at the same time.
const DEADLINE: Duration = Duration::from_mins(10);

/// The path of a program in `PATH`, or in the directories that Debian leaves out of a user's
/// `PATH`.
///
/// # Errors
/// If it is missing, with the command that installs it.
pub fn find(program: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|directory| directory.join(program))
        .find(|candidate| candidate.is_file())
        .with_context(|| {
            format!("{program} is missing: `make test` (tests/setup/install.sh) installs it")
        })
}

/// Runs `program` to its end and returns what it printed.
///
/// # Errors
/// If it is missing, fails, or does not end in time; with its error output.
pub async fn run<A: AsRef<OsStr>>(program: &str, arguments: &[A]) -> Result<String> {
    let output = attempt(program, arguments).await?;
    let errors = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!(
            "{program} {}: {}\n{errors}",
            words(arguments),
            output.status
        );
    }
    String::from_utf8(output.stdout).with_context(|| format!("{program} printed no text"))
}

/// Runs `program` to its end, whether it succeeds or not.
///
/// # Errors
/// If it is missing or does not end in time.
pub async fn attempt<A: AsRef<OsStr>>(program: &str, arguments: &[A]) -> Result<Output> {
    let mut command = Command::new(find(program)?);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    timeout(DEADLINE, command.output())
        .await
        .with_context(|| format!("{program} {}: no end in {DEADLINE:?}", words(arguments)))?
        .with_context(|| format!("{program} cannot be run"))
}

fn words<A: AsRef<OsStr>>(arguments: &[A]) -> String {
    let words: Vec<_> = arguments
        .iter()
        .map(|a| a.as_ref().to_string_lossy())
        .collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_is_named_with_what_installs_it() {
        let error = find("no-such-program").unwrap_err().to_string();
        assert!(
            error.contains("no-such-program") && error.contains("make test"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_failing_command_is_reported_with_its_output() {
        let error = run("ls", &["/no/such/directory"])
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains("No such file"), "{error}");
    }
}
