//! Scrubs: what is corrupt is found, quarantined and repaired by a push.

use anyhow::{Context as _, Result, ensure};
use harness::octoserve::{Launch, Server};
use harness::process::{OutputStream, Signal};
use harness::scrape::metric;
use harness::{poll, tools};
use http::StatusCode;
use tokio::process::Command;

use super::{
    CONTROL, SLOW, beside, call, client, content, flip, left_behind, registry, report, said,
};
use crate::scene::DEADLINE;

#[tokio::test]
async fn a_corrupt_blob_is_reported_quarantined_and_repaired_by_a_push() -> Result<()> {
    let server = registry("").await?;
    let client = client(&server)?;
    let bytes = vec![7; 100_000];
    let digest = client.push_blob("team/app", &bytes).await?;
    let (code, text, errors) = said(&beside(&server, "scrub").await?);
    ensure!(code == Some(0), "{text}{errors}");
    ensure!(
        text.starts_with("nothing is corrupt; 1 blob or manifest is"),
        "{text}"
    );

    flip(&content(server.data(), &digest)?)?;
    for words in ["scrub", "scrub --dry-run --repair"] {
        let (code, text, errors) = said(&beside(&server, words).await?);
        ensure!(code == Some(1), "{text}{errors}");
        let line = format!("corrupt blobs/{digest} in team/app: its bytes have another digest");
        ensure!(text.lines().any(|one| one == line), "{text}");
    }
    let path = format!("/v2/team/app/blobs/{digest}");
    assert_eq!(client.get(&path).await?.status(), StatusCode::OK);

    let output = beside(&server, "scrub --repair --json").await?;
    assert_eq!(output.status.code(), Some(1));
    let found = report(&output)?;
    assert_eq!(found["quarantined"], 1, "{found}");
    assert_eq!(found["found"][0]["digest"], digest.as_str());
    ensure!(!content(server.data(), &digest)?.exists());
    let response = client.get(&path).await?;
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    let quarantined = server.data().join("quarantine");
    assert_eq!(std::fs::read_dir(quarantined)?.count(), 1);

    client.push_blob("team/app", &bytes).await?;
    assert_eq!(client.read(&path).await?, bytes);
    let (code, text, _) = said(&beside(&server, "scrub").await?);
    ensure!(code == Some(0), "{text}");
    let scrape = server.scrape().await?;
    metric("octoserve_scrub_corrupt_blobs_total")
        .value(3)
        .assert(&scrape)?;
    let runs = metric("octoserve_scrub_runs_total").label("result", "ok");
    runs.value(5).assert(&scrape)?;
    let success = metric("octoserve_scrub_last_success_timestamp_seconds");
    ensure!(scrape.sum(&success).is_some_and(|time| time > 1e9));
    Ok(())
}

/// Waits until the server has begun a job.
async fn started(server: &mut Server) -> Result<()> {
    poll::until("a job has started", DEADLINE, async || {
        let log = server.process().output(OutputStream::Stderr)?;
        Ok(log.contains("maintenance started").then_some(()))
    })
    .await
}

#[tokio::test]
async fn a_second_scrub_is_refused_and_the_first_survives_its_client() -> Result<()> {
    let mut server = registry(SLOW).await?;
    client(&server)?.push_blob("a", &vec![7; 4 << 20]).await?;
    let first = tokio::spawn({
        let directory = server.working_directory().to_owned();
        async move { call(&directory, "scrub --socket control.sock").await }
    });
    started(&mut server).await?;
    let (code, _, refused) = said(&beside(&server, "scrub").await?);
    assert_eq!(code, Some(1), "{refused}");
    ensure!(
        refused.starts_with("octoserve-registry: a scrub has been running for "),
        "{refused}"
    );
    first.abort();
    let _ = first.await;
    let (code, _, errors) = said(&beside(&server, "scrub").await?);
    ensure!(
        code == Some(1) && errors.contains("has been running"),
        "{errors}"
    );
    // The end of the registry stops it.
    let status = server.terminate(DEADLINE).await?;
    ensure!(status.success(), "{status}");
    let log = server.process().output(OutputStream::Stderr)?;
    ensure!(
        log.contains("scrub ended") && log.contains("interrupted"),
        "{log}"
    );
    Ok(())
}

#[tokio::test]
async fn a_client_hears_that_its_scrub_was_stopped_and_the_next_one_continues() -> Result<()> {
    let mut server = registry(SLOW).await?;
    for number in 0..200_u32 {
        client(&server)?
            .push_blob("a", &number.to_le_bytes())
            .await?;
    }
    let (directory, data) = (
        server.working_directory().to_owned(),
        server.data().to_owned(),
    );
    let socket = directory.join("control.sock");
    let running = tokio::spawn(async move {
        call(&directory, &format!("scrub --socket {}", socket.display())).await
    });
    started(&mut server).await?;
    server.terminate(DEADLINE).await?;
    let (code, _, errors) = said(&running.await??);
    assert_eq!(code, Some(1));
    ensure!(
        errors.contains("scrub ended early: it was interrupted"),
        "{errors}"
    );
    ensure!(data.join("maintenance/scrub").exists());
    let output = call(&data, &format!("scrub --json --data {}", data.display())).await?;
    let found = report(&output)?;
    assert_eq!(found["checked"], 200, "{found}");
    ensure!(!data.join("maintenance/scrub").exists());
    Ok(())
}

#[tokio::test]
async fn a_directory_that_nobody_serves_is_scrubbed_at_once() -> Result<()> {
    let (directory, digest) = left_behind().await?;
    let data = directory.path().display();
    flip(&content(directory.path(), &digest)?)?;
    let (code, text, errors) =
        said(&call(directory.path(), &format!("scrub --repair --data {data}")).await?);
    assert_eq!(code, Some(1), "{errors}");
    ensure!(
        text.contains(&format!("quarantined blobs/{digest} in team/app")),
        "{text}"
    );
    ensure!(
        text.contains("a push of the same content stores it again"),
        "{text}"
    );
    let again = format!("scrub --data {data}");
    let (code, text, _) = said(&call(directory.path(), &again).await?);
    ensure!(code == Some(1), "{text}");
    let missing = format!("missing blobs/{digest} in team/app: quarantined");
    ensure!(text.contains(&missing), "{text}");
    // The lock is free again.
    let mut server = Launch::registry().data(directory.path()).start().await?;
    client(&server)?
        .push_blob("team/app", &vec![7; 100_000])
        .await?;
    server.terminate(DEADLINE).await?;
    let (code, text, _) = said(&call(directory.path(), &again).await?);
    ensure!(code == Some(0), "{text}");
    Ok(())
}

/// A directory that nobody serves, and a scrub of it that has begun and takes long.
async fn long_scrub() -> Result<(tempfile::TempDir, tokio::process::Child)> {
    let (directory, _) = left_behind().await?;
    // Large and sparse: some seconds to read.
    let name = format!("00{:062x}", 1);
    let shard = directory.path().join("blobs/sha256/00");
    std::fs::create_dir_all(&shard)?;
    std::fs::File::create(shard.join(name))?.set_len(1 << 40)?;
    let program = harness::octoserve::Program::Registry.path()?;
    let mut command = Command::new(program);
    command.args(["scrub", "--data"]).arg(directory.path());
    command.stdout(std::process::Stdio::piped());
    command.stderr(std::process::Stdio::piped());
    let mut child = command.kill_on_drop(true).spawn()?;
    let errors = child.stderr.as_mut().context("no stderr")?;
    let mut phase = [0; 14];
    tokio::io::AsyncReadExt::read_exact(errors, &mut phase).await?;
    assert_eq!(&phase, b"scrub: content");
    Ok((directory, child))
}

#[tokio::test]
async fn an_interrupt_ends_a_scrub_of_a_free_directory_in_order() -> Result<()> {
    let (directory, child) = long_scrub().await?;
    let id = child.id().context("it has ended")?;
    tools::run("kill", &["-INT".to_owned(), id.to_string()]).await?;
    let output = tokio::time::timeout(DEADLINE, child.wait_with_output()).await??;
    assert_eq!(output.status.code(), Some(1));
    ensure!(directory.path().join("maintenance/scrub").exists());
    Ok(())
}

#[tokio::test]
async fn a_directory_that_another_command_works_on_is_told_from_one_that_is_served() -> Result<()> {
    let (directory, _scrub) = long_scrub().await?;
    std::fs::write(directory.path().join("octoserve.yaml"), CONTROL)?;
    let words = "gc --config octoserve.yaml --data .";
    let (code, _, errors) = said(&call(directory.path(), words).await?);
    assert_eq!(code, Some(1));
    ensure!(
        errors.contains("Either another maintenance command runs"),
        "{errors}"
    );
    Ok(())
}

#[tokio::test]
async fn a_registry_in_use_without_a_socket_says_how_to_reach_it() -> Result<()> {
    let server = Launch::registry().start().await?;
    let data = server.data().display();
    for job in ["scrub", "gc"] {
        let words = format!("{job} --data {data}");
        let (code, _, errors) = said(&call(server.working_directory(), &words).await?);
        assert_eq!(code, Some(1));
        for says in [
            "is in use",
            "control.socket",
            "--socket",
            "stop the registry",
        ] {
            ensure!(errors.contains(says), "{errors}");
        }
    }
    let empty = tempfile::TempDir::new()?;
    let (code, _, errors) = said(&call(empty.path(), "scrub --data .").await?);
    assert_eq!(code, Some(1));
    ensure!(errors.contains("holds no registry"), "{errors}");
    assert_eq!(std::fs::read_dir(empty.path())?.count(), 0);
    Ok(())
}

#[tokio::test]
async fn the_all_in_one_has_the_jobs_too() -> Result<()> {
    let mut server = Launch::all_in_one()
        .configuration(&format!("{CONTROL}registry: {{scrub: {{schedule: 1s}}}}\n"))
        .start()
        .await?;
    let digest = client(&server)?.push_blob("a", b"content").await?;
    flip(&content(server.data(), &digest)?)?;
    // By the schedule of the embedded registry, and by its socket.
    poll::until("it is quarantined", DEADLINE, async || {
        Ok((!content(server.data(), &digest)?.exists()).then_some(()))
    })
    .await?;
    let directory = server.working_directory();
    // One of the schedule may be running.
    let done = poll::until("a scrub is done", DEADLINE, async || {
        let (_, text, _) = said(&call(directory, "scrub --socket control.sock").await?);
        Ok((!text.is_empty()).then_some(text))
    });
    let text = done.await?;
    ensure!(text.starts_with("nothing is corrupt"), "{text}");
    let missing = format!("missing blobs/{digest} in a: quarantined");
    ensure!(text.contains(&missing), "{text}");
    ensure!(
        text.contains("by the configuration of the running"),
        "{text}"
    );
    let corrupt = metric("octoserve_scrub_corrupt_blobs_total").label("source", "registry");
    corrupt.value(1).assert_in(&server).await?;
    server.process().signal(Signal::TERM)?;
    let status = server.process().exited(DEADLINE).await?;
    ensure!(status.success(), "{status}");
    Ok(())
}
