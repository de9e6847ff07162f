//! A disk that is really full: pushes without free space are refused, and later pushes succeed.

use anyhow::{Context, Result, ensure};
use harness::client::{Client, MANIFEST};
use harness::content;
use harness::octoserve::Launch;
use harness::small_disk::SmallDisk;
use reqwest::{Method, StatusCode};
use tokio::task::JoinSet;

/// The size of the disk.
const SIZE: u64 = 8 << 20;
/// The size of a chunk. Each is acknowledged before the next one is sent.
const CHUNK: u64 = 512 << 10;
/// Concurrent uploads.
const BURST: u64 = 12;

/// Sends chunks to a new session until one is refused.
async fn until_refused(client: Client, seed: u64) -> Result<()> {
    let location = match client.open_upload("team/app").await {
        Ok(location) => location,
        // There is no free space for a session.
        Err(error) if error.to_string().contains("507") => return Ok(()),
        Err(error) => return Err(error),
    };
    for chunk in 0.. {
        let bytes = content::bytes(1000 * seed + chunk, CHUNK);
        let range = format!("{}-{}", chunk * CHUNK, (chunk + 1) * CHUNK - 1);
        let headers = [("Content-Range", range.as_str())];
        let response = client
            .send(Method::PATCH, &location, &headers, bytes)
            .await?;
        match response.status() {
            StatusCode::ACCEPTED => ensure!((chunk + 1) * CHUNK < SIZE, "more than there is"),
            StatusCode::INSUFFICIENT_STORAGE => break,
            other => anyhow::bail!("chunk {chunk}: {other}"),
        }
    }
    Ok(())
}

/// Sends more than the free space in one request.
async fn too_much(client: Client, seed: u64) -> Result<()> {
    let bytes = content::bytes(seed, 2 * SIZE);
    let path = format!(
        "/v2/team/app/blobs/uploads/?digest={}",
        content::digest(&bytes)
    );
    // A client that is still sending may fail to read the response.
    if let Ok(response) = client.send(Method::POST, &path, &[], bytes).await {
        ensure!(
            response.status() == StatusCode::INSUFFICIENT_STORAGE,
            "{}",
            response.status()
        );
    }
    Ok(())
}

#[tokio::test]
async fn pushes_that_fill_the_disk_do_not_block_later_pushes() -> Result<()> {
    for variable in ["OCTOSERVE_RESERVE", "OCTOSERVE_REGISTRY_RESERVE"] {
        for reserve in ["0", "1MiB"] {
            let disk = SmallDisk::mount(&format!("size={SIZE}"))?;
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

/// The inodes of the disk, and the number that a reserve of an eighth of the disk keeps free.
const FILES: u64 = 800;
const FILES_KEPT: u64 = FILES / 8;

#[tokio::test]
async fn uploads_leave_a_share_of_the_inodes_free() -> Result<()> {
    for (variable, launch) in [
        ("OCTOSERVE_RESERVE", Launch::registry()),
        ("OCTOSERVE_REGISTRY_RESERVE", Launch::all_in_one()),
    ] {
        let disk = SmallDisk::mount(&format!("size={SIZE},nr_inodes={FILES}"))?;
        let reserve = (SIZE / 8).to_string();
        let data = disk.path().join("data");
        let launch = launch.data(&data).environment(variable, &reserve);
        let server = launch.start().await?;
        let client = Client::new(&server.url(""))?;
        let image = client.push_image("team/app", "1", &[1]).await?;

        // Abandoned sessions are evicted before the reserve is used.
        for _ in 0..FILES {
            client.open_upload("team/app").await?;
        }
        ensure!(
            disk.files_free()? + 3 >= FILES_KEPT,
            "{}",
            disk.files_free()?
        );
        client.push_image("team/app", "2", &[2]).await?;

        // Another program uses the inodes, until no session is left to evict.
        let other = disk.path().join("other");
        std::fs::create_dir(&other)?;
        let start = "/v2/team/app/blobs/uploads/";
        let mut refused = None;
        for file in 0..FILES {
            std::fs::write(other.join(file.to_string()), "")?;
            let response = client.send(Method::POST, start, &[], "").await?;
            if response.status() != StatusCode::ACCEPTED {
                refused = Some(response.status());
                break;
            }
        }
        ensure!(
            refused == Some(StatusCode::INSUFFICIENT_STORAGE),
            "{refused:?}"
        );
        ensure!(
            disk.files_free()? > FILES_KEPT / 2,
            "{}",
            disk.files_free()?
        );
        // The reserve is for small files such as manifests.
        let manifest = &image.manifest;
        client
            .push_manifest("team/app", "3", MANIFEST, manifest)
            .await?;
        client.pull_image("team/app", "3").await?;
        std::fs::remove_dir_all(&other)?;
        client.push_image("team/app", "4", &[4]).await?;
    }
    Ok(())
}
