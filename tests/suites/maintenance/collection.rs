//! Collections: what no manifest needs goes, once the grace is over.

use anyhow::{Result, ensure};
use harness::octoserve::{Launch, Program, Server};
use harness::scrape::metric;
use harness::terminal::Terminal;
use harness::{images, poll};
use http::StatusCode;
use rustix::process::Signal;
use tempfile::TempDir;

use super::{CONTROL, SLOW, beside, call, client, content, left_behind, registry, report, said};
use crate::scene::DEADLINE;

#[tokio::test]
async fn a_dry_run_tells_what_would_go_and_a_run_removes_it() -> Result<()> {
    let server = registry("gc: {grace: 0s}\n").await?;
    let client = client(&server)?;
    let digest = client.push_blob("team/app", &vec![7; 100_000]).await?;
    client.push_image("team/app", "1", &[1]).await?;
    let (code, text, errors) = said(&beside(&server, "gc --dry-run").await?);
    ensure!(code == Some(0), "{text}{errors}");
    ensure!(
        text.starts_with("would remove 1 blob and 0 manifests"),
        "{text}"
    );
    ensure!(content(server.data(), &digest)?.exists());
    let output = beside(&server, "gc --json").await?;
    let done = report(&output)?;
    ensure!(output.status.success(), "{output:?}");
    assert_eq!(
        (&done["blobs"], &done["dry_run"]),
        (&1.into(), &false.into()),
        "{done}"
    );
    ensure!(!content(server.data(), &digest)?.exists());
    let path = format!("/v2/team/app/blobs/{digest}");
    assert_eq!(client.get(&path).await?.status(), StatusCode::NOT_FOUND);
    client.pull_image("team/app", "1").await?;
    let scrape = server.scrape().await?;
    let runs = metric("octoserve_gc_runs_total").label("result", "ok");
    runs.value(1).assert(&scrape)?;
    let deleted = metric("octoserve_gc_deleted_total").label("kind", "blob");
    deleted.value(1).assert(&scrape)?;
    let freed = scrape.sum(&metric("octoserve_gc_freed_bytes_total"));
    ensure!(freed.is_some_and(|bytes| bytes >= 100_000.0), "{freed:?}");
    Ok(())
}

#[tokio::test]
async fn what_was_just_pushed_stays_for_the_grace() -> Result<()> {
    let (directory, digest) = left_behind().await?;
    let data = directory.path().display();
    let (code, text, errors) = said(&call(directory.path(), &format!("gc --data {data}")).await?);
    ensure!(code == Some(0), "{text}{errors}");
    ensure!(
        text.starts_with("removed 0 blobs and 0 manifests"),
        "{text}"
    );
    ensure!(text.contains("without a configuration file"), "{text}");
    ensure!(content(directory.path(), &digest)?.exists());
    Ok(())
}

/// So many repositories are read for a second or more.
const MANY: u64 = 1000;

/// A registry with so many repositories that a collection can be met.
async fn large() -> Result<(Server, TempDir)> {
    let directory = TempDir::new()?;
    images::write(directory.path(), MANY)?;
    let configuration = format!("{CONTROL}{SLOW}gc: {{grace: 0s}}\n");
    let launch = Launch::registry().configuration(&configuration);
    Ok((launch.data(directory.path()).start().await?, directory))
}

#[tokio::test]
async fn a_second_collection_says_that_one_runs() -> Result<()> {
    let (server, _directory) = large().await?;
    // Each reads everything, also when nothing is left to remove.
    let refused = poll::until("one of two is refused", DEADLINE, async || {
        let (one, two) = tokio::try_join!(beside(&server, "gc"), beside(&server, "gc"))?;
        let both = [said(&one), said(&two)];
        Ok(both.into_iter().find(|(code, ..)| *code != Some(0)))
    });
    let (code, text, errors) = refused.await?;
    assert_eq!((code, text.as_str()), (Some(1), ""));
    ensure!(
        errors.starts_with("octoserve-registry: a gc has been running for "),
        "{errors}"
    );
    Ok(())
}

#[tokio::test]
async fn a_terminal_shows_how_far_a_job_is() -> Result<()> {
    let (server, _directory) = large().await?;
    let start = |job: &str| {
        let mut command = std::process::Command::new(Program::Registry.path()?.canonicalize()?);
        command.args([job, "--socket", "control.sock"]);
        command.current_dir(server.working_directory());
        Terminal::start(command, None)
    };
    // On a fast disk one may be over before it shows anything. How many repositories there are is not known
    // until all were met.
    poll::until("a collection shows how far it is", DEADLINE, async || {
        let mut terminal = start("gc")?;
        ensure!(terminal.exited().await?.success());
        let shown = terminal.shown()?;
        Ok(shown.contains("\r\u{1b}[Kgc repositories ").then_some(()))
    })
    .await?;
    let mut terminal = start("scrub")?;
    terminal.wait_for("\r\u{1b}[Kscrub content [").await?;
    terminal.signal(Signal::INT)?;
    let says = "the scrub continues in the registry; this command no longer follows it";
    terminal.wait_for(says).await?;
    assert_eq!(terminal.exited().await?.code(), Some(1));
    let (code, _, errors) = said(&beside(&server, "scrub").await?);
    ensure!(
        code == Some(1) && errors.contains("has been running"),
        "{errors}"
    );
    Ok(())
}
