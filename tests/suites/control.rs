//! The control socket of both programs, asked with `ctl`: state, reload, drain, log level; strangers
//! and bad clients.

use std::path::Path;
use std::process::Output;

use anyhow::{Context, Result, ensure};
use harness::octoserve::{Launch, Program, Server};
use harness::poll;
use harness::process::OutputStream;
use harness::scrape::metric;
use serde_json::Value;
use tokio::process::Command;
use tokio::time::timeout;

use crate::scene::DEADLINE;

mod clients;
mod commands;
mod reloads;

/// The socket, in the directory that the server runs in.
const SOCKET: &str = "control.sock";
const CONTROL: &str = "control: {socket: control.sock}\n";

/// Both programs with a control socket, and `more` in their configuration.
fn programs(more: &str) -> [(Program, Launch); 2] {
    let launches = [
        (Program::Octoserve, Launch::all_in_one()),
        (Program::Registry, Launch::registry()),
    ];
    launches.map(|(program, launch)| {
        let launch = launch.configuration(&format!("{CONTROL}{more}"));
        // No test waits for it.
        (program, launch.environment("OCTOSERVE_LIMITS_DRAIN", "10m"))
    })
}

/// Calls `ctl` in a directory, with these words.
async fn ctl_in(program: Program, directory: &Path, words: &str) -> Result<Output> {
    let mut command = Command::new(program.path()?.canonicalize()?);
    command.arg("ctl").args(words.split_whitespace());
    output(command, directory).await
}

async fn output(mut command: Command, directory: &Path) -> Result<Output> {
    command.current_dir(directory).kill_on_drop(true);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("OCTOSERVE_") {
            command.env_remove(name);
        }
    }
    let output = timeout(DEADLINE, command.output()).await;
    Ok(output.context("ctl does not end")??)
}

/// Calls `ctl` with the configuration of a server.
async fn ctl(program: Program, server: &Server, words: &str) -> Result<Output> {
    let words = format!("--config octoserve.yaml {words}");
    ctl_in(program, server.working_directory(), &words).await
}

/// What `ctl` printed, where it did what it was asked for.
async fn done(program: Program, server: &Server, words: &str) -> Result<String> {
    let output = ctl(program, server, words).await?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{words}: {}: {error}",
        output.status
    );
    Ok(String::from_utf8(output.stdout)?)
}

/// The exit code of `ctl`, and what it said on stderr.
fn refusal(output: &Output) -> (Option<i32>, String) {
    let error = String::from_utf8_lossy(&output.stderr);
    (output.status.code(), error.into_owned())
}

async fn status(program: Program, server: &Server) -> Result<Value> {
    Ok(serde_json::from_str(
        &done(program, server, "status --json").await?,
    )?)
}

async fn logged(server: &mut Server, words: &str) -> Result<()> {
    poll::until(&format!("the log says {words}"), DEADLINE, async || {
        ensure!(server.process().is_running()?, "the process has ended");
        let log = server.process().output(OutputStream::Stderr)?;
        Ok(log.contains(words).then_some(()))
    })
    .await
}

/// The reloads that the metrics tell of: applied, refused, and whether the last one was applied.
async fn counted(server: &Server) -> Result<(f64, f64, f64)> {
    let scrape = server.scrape().await?;
    let reloads = |result| {
        let reloads = metric("octoserve_config_reloads_total").label("result", result);
        scrape.sum(&reloads).context("no reloads")
    };
    let last = scrape.sum(&metric("octoserve_config_last_reload_successful"));
    Ok((
        reloads("ok")?,
        reloads("refused")?,
        last.context("no last reload")?,
    ))
}
