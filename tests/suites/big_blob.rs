//! A blob of 2 GiB, uploaded and downloaded by curl through the all-in-one: the same bytes, in
//! constant memory.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use harness::content::{self, Content};
use harness::tools;
use reqwest::{Method, StatusCode};
use sha2::Digest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::Front;

const LENGTH: u64 = 2 << 30;

/// How much memory a transfer of any size may add to that of the idle process.
const MARGIN: u64 = 64 << 20;

const DEADLINE: Duration = Duration::from_mins(5);

#[tokio::test]
async fn two_gigabytes_pass_in_both_directions_in_constant_memory() -> Result<()> {
    let mut front = Front::embedded().await?;
    // The first request allocates memory that stays, which counts as idle memory.
    front.client.push_image("warm/up", "1", &[1]).await?;
    let idle = front.server.process().memory()?.resident;

    let started = Instant::now();
    let location = front.client.open_upload("team/big").await?;
    let digest = timeout(DEADLINE, upload(&front.server.url(&location))).await??;
    let separator = if location.contains('?') { '&' } else { '?' };
    let commit = format!("{location}{separator}digest={digest}");
    let response = front.client.send(Method::PUT, &commit, &[], "").await?;
    ensure!(
        response.status() == StatusCode::CREATED,
        "commit: {}",
        response.status()
    );
    let up = started.elapsed();

    let started = Instant::now();
    let blob = front.server.url(&format!("/v2/team/big/blobs/{digest}"));
    let (length, received) = timeout(DEADLINE, download(&blob)).await??;
    assert_eq!((length, received), (LENGTH, digest));
    let down = started.elapsed();

    let peak = front.server.process().memory()?.peak;
    harness::report(&format!(
        "2 GiB: up {:.1} s, down {:.1} s, memory idle {} MiB, peak {} MiB",
        up.as_secs_f64(),
        down.as_secs_f64(),
        idle >> 20,
        peak >> 20
    ));
    assert!(
        peak.saturating_sub(idle) <= MARGIN,
        "idle {idle}, peak {peak}"
    );
    Ok(())
}

/// Streams the content through curl as one PATCH of unknown length, and returns its digest.
async fn upload(url: &str) -> Result<String> {
    let mut curl = curl(&[
        "-X",
        "PATCH",
        "-H",
        "Content-Type: application/octet-stream",
        "-T",
        "-",
        url,
    ])?;
    let mut input = curl.stdin.take().context("curl has no input")?;
    let mut content = Content::new(1, LENGTH);
    for piece in content.by_ref() {
        input.write_all(&piece).await?;
    }
    drop(input);
    ended(curl).await?;
    Ok(content.digest())
}

/// Streams a blob through curl and returns its length and digest.
async fn download(url: &str) -> Result<(u64, String)> {
    let mut curl = curl(&[url])?;
    let mut output = curl.stdout.take().context("curl has no output")?;
    let mut hash = sha2::Sha256::new();
    let mut length = 0;
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = output.read(&mut buffer).await?;
        if read == 0 {
            break;
        }
        hash.update(&buffer[..read]);
        length += read as u64;
    }
    ended(curl).await?;
    Ok((length, content::spell(&hash.finalize())))
}

fn curl(arguments: &[&str]) -> Result<Child> {
    let child = Command::new(tools::find("curl")?)
        // This ignores the curl settings of the user who runs the tests.
        .args([
            "--disable",
            "--noproxy",
            "*",
            "--fail",
            "--silent",
            "--show-error",
        ])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn();
    child.context("curl cannot be run")
}

async fn ended(mut curl: Child) -> Result<()> {
    let status = curl.wait().await?;
    ensure!(status.success(), "curl: {status}");
    Ok(())
}
