//! Disks that fail in other ways than by being full: no inodes, suddenly read-only, and a tree that a
//! person or another program has changed. What cannot be done fails with a clear response, and
//! everything else goes on.

use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::client::{Client, MANIFEST, Pushed};
use harness::content;
use harness::octoserve::{Launch, Server};
use harness::small_disk::SmallDisk;
use reqwest::{Method, StatusCode};
use tempfile::TempDir;
use tokio::time::timeout;

/// Longer than any response takes; a request that waits for a pipe waits forever.
const DEADLINE: Duration = Duration::from_mins(1);

/// The programs that store something. They use the last byte of a disk, and its last inode.
fn launches() -> [Launch; 2] {
    [
        Launch::registry().environment("OCTOSERVE_RESERVE", "0"),
        Launch::all_in_one().environment("OCTOSERVE_REGISTRY_RESERVE", "0"),
    ]
}

async fn status(client: &Client, method: Method, path: &str) -> Result<StatusCode> {
    let sent = client.send(method.clone(), path, &[], "");
    let response = timeout(DEADLINE, sent).await;
    let response = response.with_context(|| format!("{method} {path} hangs"))??;
    Ok(response.status())
}

/// A request is refused with a status and an OCI error.
async fn is_refused(client: &Client, method: Method, path: &str, expected: u16) -> Result<()> {
    let response = timeout(DEADLINE, client.send(method.clone(), path, &[], "")).await??;
    let status = response.status();
    ensure!(status == expected, "{method} {path}: {status}");
    let body = response.text().await?;
    ensure!(
        method == Method::HEAD || body.contains("\"code\""),
        "{method} {path}: {body}"
    );
    Ok(())
}

#[tokio::test]
async fn without_inodes_pushes_are_refused_and_pulls_go_on() -> Result<()> {
    for launch in launches() {
        let disk = SmallDisk::mount("size=16m,nr_inodes=200")?;
        let server = launch.data(&disk.path().join("data")).start().await?;
        let client = Client::new(&server.url(""))?;
        let image = client.push_image("team/app", "first", &[1, 2]).await?;
        let open = image.manifest.strip_suffix('}').context("an object")?;
        let mut pushed = Vec::new();
        let refused = loop {
            let number = pushed.len() as u64;
            ensure!(number < 200, "more files than there are inodes");
            let body = format!("{open},\"annotations\":{{\"n\":\"{number}\"}}}}");
            let path = format!("/v2/team/app/manifests/n{number}");
            let headers = [("Content-Type", MANIFEST)];
            let response = client.send(Method::PUT, &path, &headers, body).await?;
            match response.status() {
                StatusCode::CREATED => pushed.push(path),
                status => break status,
            }
        };
        ensure!(refused == StatusCode::INSUFFICIENT_STORAGE, "{refused}");
        client.pull_image("team/app", "first").await?;
        for path in &pushed {
            client.read(path).await?;
        }
        let refused = format!("/v2/team/app/manifests/n{}", pushed.len());
        is_refused(&client, Method::GET, &refused, 404).await?;
        // A deletion needs no inode, and gives some back.
        for path in pushed.iter().rev().take(20) {
            let deleted = status(&client, Method::DELETE, path).await?;
            ensure!(deleted == StatusCode::ACCEPTED, "{deleted}");
        }
        client.push_image("team/app", "last", &[1]).await?;
        client.pull_image("team/app", "last").await?;
        let left = std::fs::read_dir(server.data().join("tmp"))?.count();
        ensure!(left == 0, "{left} temporary files");
    }
    Ok(())
}

#[tokio::test]
async fn a_disk_that_becomes_read_only_serves_on() -> Result<()> {
    for launch in launches() {
        let disk = SmallDisk::mount("size=16m")?;
        let server = launch.data(&disk.path().join("data")).start().await?;
        let client = Client::new(&server.url(""))?;
        let image = client.push_image("team/app", "1", &[1, 2]).await?;
        let blob = format!("/v2/team/app/blobs/{}", image.layers[0]);
        disk.make_read_only()?;
        client.pull_image("team/app", "1").await?;
        client.read("/v2/team/app/tags/list").await?;
        let mount = format!("/v2/other/blobs/uploads/?mount={}", image.layers[0]);
        for (method, path) in [
            (Method::POST, "/v2/team/app/blobs/uploads/"),
            (Method::POST, &*mount),
            (Method::DELETE, &*blob),
            (Method::DELETE, "/v2/team/app/manifests/1"),
        ] {
            is_refused(&client, method, path, 500).await?;
        }
        let pushed = client.push_manifest("team/app", "2", MANIFEST, &image.manifest);
        ensure!(pushed.await.is_err(), "a tag on a read-only disk");
        is_refused(&client, Method::GET, "/v2/team/app/manifests/2", 404).await?;
        client.pull_image("team/app", "1").await?;
        disk.make_writable()?;
        client.push_image("team/app", "2", &[3]).await?;
        client.pull_image("team/app", "2").await?;
        client.pull_image("team/app", "1").await?;
    }
    Ok(())
}

/// The file of a digest below a directory of the tree.
fn hex(digest: &str) -> Result<&str> {
    digest.strip_prefix("sha256:").context("no digest")
}

fn content_of(server: &Server, pool: &str, digest: &str) -> Result<std::path::PathBuf> {
    let hex = hex(digest)?;
    let shard = server.data().join(pool).join("sha256").join(&hex[..2]);
    Ok(shard.join(hex))
}

#[tokio::test]
async fn what_a_person_removes_or_alters_spoils_nothing_else_and_a_push_repairs_it() -> Result<()> {
    for launch in launches() {
        let server = launch.start().await?;
        let client = Client::new(&server.url(""))?;
        let image = client.push_image("team/app", "1", &[1, 2]).await?;
        client.push_image("team/app", "other", &[3]).await?;
        let repository = server.data().join("repositories/team/app");
        let digest_name = format!("sha256-{}", hex(&image.digest)?);
        let blob = format!("/v2/team/app/blobs/{}", image.layers[0]);
        let manifest = format!("/v2/team/app/manifests/{}", image.digest);

        std::fs::remove_file(content_of(&server, "blobs", &image.layers[0])?)?;
        is_refused(&client, Method::GET, &blob, 404).await?;
        push_again(&client, &image).await?;

        for entry in ["", "not JSON", "{\"mediaType\":7}"] {
            std::fs::write(repository.join("_manifests").join(&digest_name), entry)?;
            // The registry may have the manifest in memory.
            forget(&client, &image).await?;
            push_again(&client, &image).await?;
        }
        for tag in ["", "not a digest", "sha256:00"] {
            std::fs::write(repository.join("_tags/1"), tag)?;
            push_again(&client, &image).await?;
        }
        std::fs::remove_dir_all(repository.join("_tags"))?;
        push_again(&client, &image).await?;
        std::fs::write(repository.join("_tags/gone"), format!("sha256:{:064}\n", 0))?;
        is_refused(&client, Method::GET, "/v2/team/app/manifests/gone", 404).await?;
        std::fs::remove_dir_all(server.data().join("manifests/sha256"))?;
        push_again(&client, &image).await?;
        client.read(&manifest).await?;
        client.push_image("team/new", "1", &[4, 5]).await?;
        client.pull_image("team/new", "1").await?;
    }
    Ok(())
}

async fn push_again(client: &Client, image: &Pushed) -> Result<()> {
    for seed in [1, 2] {
        client.push_image("team/app", "1", &[seed]).await?;
    }
    let again = client.push_image("team/app", "1", &[1, 2]).await?;
    ensure!(again.digest == image.digest);
    client.pull_image("team/app", "1").await?;
    Ok(())
}

/// A manifest whose entry is damaged can be deleted.
async fn forget(client: &Client, image: &Pushed) -> Result<()> {
    let path = format!("/v2/team/app/manifests/{}", image.digest);
    let deleted = status(client, Method::DELETE, &path).await?;
    ensure!(deleted == StatusCode::ACCEPTED, "{deleted}");
    is_refused(client, Method::GET, &path, 404).await
}

/// What a person may put anywhere.
const ODD: [&str; 4] = ["pipe", "socket", "link", "loop"];

fn plant(odd: &str, path: &Path, secret: &Path) -> Result<()> {
    match odd {
        "pipe" => {
            let made = Command::new("mkfifo").arg(path).status()?;
            ensure!(made.success(), "mkfifo: {made}");
        }
        "socket" => {
            // The path of a socket is short; the file stays when the listener goes.
            let short = TempDir::with_prefix("o-")?;
            let at = short.path().join("s");
            drop(UnixListener::bind(&at)?);
            let moved = Command::new("mv").arg(&at).arg(path).status()?;
            ensure!(moved.success(), "mv: {moved}");
        }
        "link" => symlink(secret, path)?,
        _ => symlink(path.parent().context("a parent")?, path)?,
    }
    Ok(())
}

/// All directories of a tree.
fn directories(root: &Path) -> Result<Vec<std::path::PathBuf>> {
    let mut found = vec![root.to_owned()];
    let mut next = 0;
    while let Some(directory) = found.get(next).cloned() {
        next += 1;
        for entry in std::fs::read_dir(directory)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                found.push(entry.path());
            }
        }
    }
    Ok(found)
}

#[tokio::test]
async fn odd_files_in_every_directory_hinder_neither_a_start_nor_a_request() -> Result<()> {
    let elsewhere = TempDir::with_prefix("octoserve-elsewhere-")?;
    let secret = elsewhere.path().join("secret");
    std::fs::write(&secret, "a secret")?;
    for launch in [Launch::registry as fn() -> Launch, Launch::all_in_one] {
        let parent = TempDir::with_prefix("octoserve-odd-")?;
        let data = parent.path().join("data");
        let server = launch().data(&data).start().await?;
        let client = Client::new(&server.url(""))?;
        let image = client.push_image("team/app", "1", &[1, 2]).await?;
        client.open_upload("team/app").await?;
        drop(server);
        for directory in directories(&data)? {
            for odd in ODD {
                plant(odd, &directory.join(odd), &secret)?;
            }
        }
        let started = timeout(DEADLINE, launch().data(&data).start()).await;
        let server = started.context("the start hangs")??;
        let client = Client::new(&server.url(""))?;
        let work = async {
            client.pull_image("team/app", "1").await?;
            client.read("/v2/_catalog").await?;
            client.read("/v2/team/app/tags/list").await?;
            client
                .read(&format!("/v2/team/app/referrers/{}", image.digest))
                .await?;
            client.push_image("team/app", "2", &[3]).await?;
            client.push_image("team/new", "1", &[1, 3]).await?;
            client.pull_image("team/app", "2").await?;
            for odd in ODD {
                let tag = format!("/v2/team/app/manifests/{odd}");
                is_refused(&client, Method::GET, &tag, 500).await?;
                client.push_image("team/app", odd, &[1]).await?;
                client.pull_image("team/app", odd).await?;
            }
            let manifest = format!("/v2/team/app/manifests/{}", image.digest);
            let deleted = status(&client, Method::DELETE, &manifest).await?;
            ensure!(deleted == StatusCode::ACCEPTED, "{deleted}");
            anyhow::Ok(())
        };
        timeout(DEADLINE, work).await.context("a request hangs")??;
        ensure!(
            std::fs::read_to_string(&secret)? == "a secret",
            "it was written to"
        );
    }
    Ok(())
}

#[tokio::test]
async fn odd_files_in_the_place_of_content_are_not_served_and_a_push_replaces_them() -> Result<()> {
    let elsewhere = TempDir::with_prefix("octoserve-elsewhere-")?;
    let bytes = content::bytes(7, 1000);
    let secret = elsewhere.path().join("secret");
    // Of the same length: only that it is a link tells it from the blob.
    let other = content::bytes(8, 1000);
    std::fs::write(&secret, &other)?;
    let server = Launch::registry().start().await?;
    let client = Client::new(&server.url(""))?;
    let digest = client.push_blob("team/app", &bytes).await?;
    let path = format!("/v2/team/app/blobs/{digest}");
    for odd in ODD {
        let file = content_of(&server, "blobs", &digest)?;
        std::fs::remove_file(&file)?;
        plant(odd, &file, &secret)?;
        is_refused(&client, Method::GET, &path, 500).await?;
        client.push_blob("team/app", &bytes).await?;
        ensure!(client.read(&path).await? == bytes, "{odd}: other bytes");
        ensure!(std::fs::read(&secret)? == other, "{odd}: it was written to");
    }
    Ok(())
}

#[tokio::test]
async fn an_odd_lock_file_is_an_error_and_hinders_no_command() -> Result<()> {
    for odd in ["pipe", "socket", "link"] {
        let parent = TempDir::with_prefix("octoserve-odd-")?;
        let secret = parent.path().join("secret");
        std::fs::write(&secret, "")?;
        let data = parent.path().join("data");
        std::fs::create_dir(&data)?;
        plant(odd, &data.join("lock"), &secret)?;
        let started = timeout(DEADLINE, Launch::registry().data(&data).start()).await;
        let started = started.with_context(|| format!("{odd}: the start hangs"))?;
        let Err(error) = started else {
            anyhow::bail!("{odd}: it starts")
        };
        let error = format!("{error:?}");
        ensure!(error.contains("lock"), "{odd}: {error}");
    }
    Ok(())
}
