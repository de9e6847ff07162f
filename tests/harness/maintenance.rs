//! Maintenance jobs of a registry, asked for over its control socket.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// Runs a job to its end, and returns the last line of the answer.
///
/// # Errors
/// If nobody answers.
pub async fn run(socket: &Path, job: &str) -> Result<Value> {
    let mut stream = UnixStream::connect(socket).await?;
    let request = json!({"version": 1, "command": "maintenance", "job": job});
    stream.write_all(format!("{request}\n").as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let last = answer.lines().last().context("no answer")?;
    Ok(serde_json::from_str(last)?)
}
