//! Collections on a disk that is full: they need no space, and give back what nothing needs.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};

use anyhow::{Result, ensure};
use harness::client::Client;
use harness::octoserve::Launch;
use harness::small_disk::SmallDisk;
use harness::{content, maintenance};
use reqwest::{Method, StatusCode};

use super::{CONTROL, call, client, report};
use crate::scene::DEADLINE;

/// The images that are deleted.
const IMAGES: u64 = 20;
/// The bytes of a large layer.
const LAYER: u64 = 200 << 10;
/// More than a small disk has inodes, or blocks.
const MANY: usize = 1 << 20;
/// The disks: one that has no bytes left, and one that has no inodes left.
const DISKS: [&str; 2] = ["size=16m", "size=16m,nr_inodes=900"];

/// Repeats a step until there is no space for it.
fn until_full(mut step: impl FnMut(usize) -> io::Result<()>) -> Result<()> {
    for n in 0..MANY {
        match step(n) {
            Err(error) if error.kind() == ErrorKind::StorageFull => return Ok(()),
            done => done?,
        }
    }
    anyhow::bail!("the disk does not get full");
}

/// Has another program use up a disk.
fn fill(disk: &SmallDisk) -> Result<()> {
    let other = disk.path().join("other");
    fs::create_dir(&other)?;
    let mut file = File::create(other.join("file"))?;
    if disk.files_free()? < 1000 {
        until_full(|n| File::create(other.join(n.to_string())).map(drop))?;
    }
    until_full(|_| file.write_all(&[0; 4096]))
}

/// Pushes images with large layers, and deletes them. One image stays.
async fn push_and_delete(client: &Client) -> Result<()> {
    client.push_image("team/kept", "1", &[1]).await?;
    for n in 0..IMAGES {
        let layer = content::bytes(n, LAYER);
        client.push_blob("team/app", &layer).await?;
        let image = client.push_image("team/app", &n.to_string(), &[n]).await?;
        let path = format!("/v2/team/app/manifests/{}", image.digest);
        let deleted = client.send(Method::DELETE, &path, &[], "").await?;
        ensure!(deleted.status() == StatusCode::ACCEPTED, "{deleted:?}");
    }
    Ok(())
}

/// A push is refused for want of space.
async fn is_full(client: &Client) -> Result<()> {
    let error = client.push_image("team/app", "new", &[77]).await.err();
    let error = error.map(|error| error.to_string()).unwrap_or_default();
    ensure!(error.contains("507"), "{error}");
    client.pull_image("team/kept", "1").await?;
    Ok(())
}

/// There is space again, and nothing is lost.
async fn has_space(client: &Client) -> Result<()> {
    let large = content::bytes(99, IMAGES * LAYER / 2);
    client.push_blob("team/app", &large).await?;
    client.push_image("team/app", "new", &[77]).await?;
    client.pull_image("team/app", "new").await?;
    client.pull_image("team/kept", "1").await?;
    Ok(())
}

#[tokio::test]
async fn a_collection_on_a_full_disk_brings_the_space_back() -> Result<()> {
    for options in DISKS {
        let registry =
            Launch::registry().configuration(&format!("{CONTROL}gc: {{grace: 0s}}\nreserve: 0\n"));
        let all_in_one = Launch::all_in_one().configuration(&format!(
            "{CONTROL}registry: {{gc: {{grace: 0s}}, reserve: 0}}\n"
        ));
        for launch in [registry, all_in_one] {
            let disk = SmallDisk::mount(options)?;
            let server = launch.data(&disk.path().join("data")).start().await?;
            let client = client(&server)?;
            push_and_delete(&client).await?;
            fill(&disk)?;
            is_full(&client).await?;
            let socket = server.working_directory().join("control.sock");
            let ended = maintenance::run(&socket, "gc").await?;
            ensure!(ended["ok"] == true, "{options}: {ended}");
            has_space(&client).await?;
            // Nothing of it was left to be done.
            let again = maintenance::run(&socket, "gc").await?;
            ensure!(again["ok"] == true, "{again}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn the_directory_of_a_stopped_registry_is_collected_on_a_full_disk() -> Result<()> {
    for options in DISKS {
        let disk = SmallDisk::mount(options)?;
        let data = disk.path().join("data");
        let launch = || {
            let configuration = "gc: {grace: 0s}\nreserve: 0\n";
            Launch::registry().configuration(configuration).data(&data)
        };
        let mut server = launch().start().await?;
        push_and_delete(&client(&server)?).await?;
        let configuration = fs::read_to_string(server.configuration_file())?;
        server.terminate(DEADLINE).await?;
        fill(&disk)?;
        let directory = tempfile::tempdir()?;
        fs::write(directory.path().join("registry.yaml"), configuration)?;
        let words = format!("gc --json --config registry.yaml --data {}", data.display());
        let output = call(directory.path(), &words).await?;
        ensure!(output.status.success(), "{options}: {output:?}");
        let done = report(&output)?;
        ensure!(done["blobs"].as_u64() >= Some(IMAGES), "{done}");
        let server = launch().start().await?;
        has_space(&client(&server)?).await?;
    }
    Ok(())
}
