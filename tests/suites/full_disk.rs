//! A disk that is really full: pushes that find no room are refused, and block none that come later.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use harness::client::Client;
use harness::content;
use harness::octoserve::Launch;
use reqwest::{Method, StatusCode};
use tempfile::TempDir;
use tokio::task::JoinSet;

/// The size of the disk.
const SIZE: u64 = 8 << 20;
/// The size of a chunk that is acknowledged before the next one is sent.
const CHUNK: u64 = 512 << 10;
/// Uploads at the same time.
const BURST: u64 = 12;

/// A small disk of its own, in memory. Mounting needs root, as the installation of what the tests
/// need does.
struct Disk(TempDir);

impl Disk {
    fn mount() -> Result<Self> {
        let folder = TempDir::with_prefix("octoserve-disk-")?;
        let size = format!("size={SIZE}");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "octoserve-test"])
            .arg(folder.path())
            .status()
            .context("mount")?;
        ensure!(mounted.success(), "mount: {mounted}");
        Ok(Self(folder))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let unmount = Command::new("umount")
            .arg("--lazy")
            .arg(self.path())
            .status();
        // The folder can't be removed then, and says so to whoever looks for it.
        drop(unmount);
    }
}

/// Sends chunks to a session of its own until one is refused.
async fn until_refused(client: Client, seed: u64) -> Result<()> {
    let location = match client.open_upload("team/app").await {
        Ok(location) => location,
        // There is no room to begin with.
        Err(error) if error.to_string().contains("507") => return Ok(()),
        Err(error) => return Err(error),
    };
    for chunk in 0.. {
        let bytes = content::bytes(1000 * seed + chunk, CHUNK);
        let range = format!("{}-{}", chunk * CHUNK, (chunk + 1) * CHUNK - 1);
        let headers = [("Content-Range", range.as_str())];
        let answer = client
            .send(Method::PATCH, &location, &headers, bytes)
            .await?;
        match answer.status() {
            StatusCode::ACCEPTED => ensure!((chunk + 1) * CHUNK < SIZE, "more than there is"),
            StatusCode::INSUFFICIENT_STORAGE => break,
            other => anyhow::bail!("chunk {chunk}: {other}"),
        }
    }
    Ok(())
}

/// Sends more than there is at once.
async fn too_much(client: Client, seed: u64) -> Result<()> {
    let bytes = content::bytes(seed, 2 * SIZE);
    let path = format!(
        "/v2/team/app/blobs/uploads/?digest={}",
        content::digest(&bytes)
    );
    // A client that is still sending may not get to read the answer.
    if let Ok(answer) = client.send(Method::POST, &path, &[], bytes).await {
        ensure!(
            answer.status() == StatusCode::INSUFFICIENT_STORAGE,
            "{}",
            answer.status()
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_burst_of_pushes_that_find_no_room_blocks_none_that_come_later() -> Result<()> {
    for variable in ["OCTOSERVE_RESERVE", "OCTOSERVE_REGISTRY_RESERVE"] {
        for reserve in ["0", "1MiB"] {
            let disk = Disk::mount()?;
            let launch = match variable {
                "OCTOSERVE_RESERVE" => Launch::registry(),
                _ => Launch::all_in_one(),
            };
            let launch = launch.data(disk.path()).environment(variable, reserve);
            let server = launch.start().await?;
            let client = Client::new(&server.url(""))?;
            let mut burst = JoinSet::new();
            for seed in 0..BURST {
                burst.spawn(until_refused(client.clone(), seed));
                if seed % 4 == 0 {
                    burst.spawn(too_much(client.clone(), seed));
                }
            }
            while let Some(ended) = burst.join_next().await {
                ended?.with_context(|| format!("reserve {reserve}"))?;
            }

            let half = content::bytes(1, SIZE / 2);
            client.push_blob("team/app", &half).await?;
            client.push_image("team/app", "1", &[1, 2]).await?;
            client.pull_image("team/app", "1").await?;
        }
    }
    Ok(())
}
