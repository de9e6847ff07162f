//! Maintenance with the real programs: scrubs, collections and retention over the control socket, on a directory that
//! nobody serves, and by a schedule.

use std::path::{Path, PathBuf};
use std::process::Output;

use anyhow::{Context, Result, ensure};
use harness::client::Client;
use harness::octoserve::{Launch, Program, Server};
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::timeout;

use crate::scene::DEADLINE;

mod collection;
mod configured;
mod full_disk;
mod retention;
mod scrub;

const CONTROL: &str = "control: {socket: control.sock}\n";

/// At this rate a scrub of some megabytes takes a minute.
const SLOW: &str = "scrub: {rate: 64KiB}\n";

/// A registry with a control socket, and `more` in its configuration.
async fn registry(more: &str) -> Result<Server> {
    let launch = Launch::registry().configuration(&format!("{CONTROL}{more}"));
    launch.start().await
}

fn client(server: &Server) -> Result<Client> {
    Client::new(&server.url(""))
}

/// Calls `octoserve-registry` in a directory, with these words.
async fn call(directory: &Path, words: &str) -> Result<Output> {
    let mut command = Command::new(Program::Registry.path()?.canonicalize()?);
    command.args(words.split_whitespace());
    command.current_dir(directory).kill_on_drop(true);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("OCTOSERVE_") {
            command.env_remove(name);
        }
    }
    let output = timeout(DEADLINE, command.output()).await;
    Ok(output.with_context(|| format!("{words} does not end"))??)
}

/// Calls it with the configuration and the data directory of a server.
async fn beside(server: &Server, words: &str) -> Result<Output> {
    let data = server.data().display();
    let words = format!("{words} --config octoserve.yaml --data {data}");
    call(server.working_directory(), &words).await
}

/// The exit code, stdout and stderr.
fn said(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

/// The report that was printed as JSON.
fn report(output: &Output) -> Result<Value> {
    serde_json::from_slice(&output.stdout).with_context(|| format!("{output:?}"))
}

/// The file of a blob.
fn content(data: &Path, digest: &str) -> Result<PathBuf> {
    let (algorithm, hex) = digest.split_once(':').context("no digest")?;
    let shard = data.join("blobs").join(algorithm).join(&hex[..2]);
    Ok(shard.join(hex))
}

/// Changes a byte, and no length.
fn flip(path: &Path) -> Result<()> {
    let mut bytes = std::fs::read(path)?;
    let first = bytes.first_mut().context("an empty file")?;
    *first ^= 1;
    Ok(std::fs::write(path, bytes)?)
}

/// A data directory that a registry has filled and left, with a blob in it, and its digest.
async fn left_behind() -> Result<(TempDir, String)> {
    let directory = TempDir::new()?;
    let mut server = Launch::registry().data(directory.path()).start().await?;
    let digest = client(&server)?
        .push_blob("team/app", &vec![7; 100_000])
        .await?;
    let status = server.terminate(DEADLINE).await?;
    ensure!(status.success(), "{status}");
    Ok((directory, digest))
}
