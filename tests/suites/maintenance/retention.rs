//! Retention: by its rules tags go, and manifests some time later. A dry run is the default.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use harness::octoserve::{Launch, Server};
use harness::poll;
use harness::process::OutputStream;
use harness::scrape::metric;
use http::{Method, StatusCode};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use super::{CONTROL, beside, call, client, report, said};
use crate::scene::DEADLINE;

const RULES: &str =
    "rules: [{repositories: ['team/**'], keep: {newest: 1, pulled_within: 30d}, untagged: 1d}]";

/// The repositories of each registry: the rules name the first.
const REPOSITORIES: [&str; 2] = ["team/app", "other"];

/// A data directory whose memory of pulls began in 1970, as docs/how-to/keep-what-is-used.md has it.
fn directory() -> Result<TempDir> {
    let directory = TempDir::new()?;
    let mut memory = b"octoserve pulls 1\n".to_vec();
    memory.extend([0; 16]);
    // It was saved now, and so nothing is missing of it.
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    memory.extend(u32::try_from(now.as_secs() / 60)?.to_le_bytes());
    memory.resize(memory.len() + 64 * 8, 0);
    let sum = Sha256::digest(&memory);
    memory.extend(sum);
    std::fs::create_dir(directory.path().join("maintenance"))?;
    std::fs::write(directory.path().join("maintenance/pulls"), memory)?;
    Ok(directory)
}

async fn start(directory: &Path, retention: &str) -> Result<Server> {
    let configuration = format!("{CONTROL}retention: {{{retention}, {RULES}}}\n");
    let launch = Launch::registry().configuration(&configuration);
    launch.data(directory).start().await
}

/// Makes a file of a repository as old as that.
fn age(data: &Path, path: &str, days: u64) -> Result<()> {
    let path = data.join("repositories").join(path);
    let file = File::options().append(true).open(&path);
    let file = file.with_context(|| path.display().to_string())?;
    let time = SystemTime::now() - Duration::from_secs(days * 86_400);
    Ok(file.set_modified(time)?)
}

fn entry(repository: &str, digest: &str) -> String {
    format!("{repository}/_manifests/{}", digest.replace(':', "-"))
}

/// Pushes an image for each of three tags, as if the first was pushed first and all of them long ago. Returns
/// the digest of the first.
async fn images(server: &Server) -> Result<String> {
    let client = client(server)?;
    let mut first = None;
    for (tag, days) in [("1", 50), ("2", 49), ("3", 48)] {
        for repository in REPOSITORIES {
            let digest = client.push_image(repository, tag, &[days]).await?.digest;
            age(server.data(), &format!("{repository}/_tags/{tag}"), days)?;
            age(server.data(), &entry(repository, &digest), days)?;
            first.get_or_insert(digest);
        }
    }
    first.context("no image")
}

async fn status(server: &Server, path: &str) -> Result<StatusCode> {
    Ok(client(server)?.get(path).await?.status())
}

/// The tags of a repository that are there.
fn tags(data: &Path, repository: &str) -> Result<Vec<String>> {
    let entries = std::fs::read_dir(data.join(format!("repositories/{repository}/_tags")))?;
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let mut names = names.collect::<Result<Vec<_>>>()?;
    names.sort_unstable();
    Ok(names)
}

#[tokio::test]
async fn what_is_neither_new_nor_pulled_goes_and_its_manifest_later() -> Result<()> {
    let directory = directory()?;
    let mut server = start(directory.path(), "dry_run: false").await?;
    let first = images(&server).await?;
    let pulled = "/v2/team/app/manifests/2";
    let head = client(&server)?.send(Method::HEAD, pulled, &[], "").await?;
    assert_eq!(head.status(), StatusCode::OK);
    // The pull is remembered by the next process.
    let exit = server.terminate(DEADLINE).await?;
    ensure!(exit.success(), "{exit}");
    let server = start(directory.path(), "dry_run: false").await?;

    let (code, text, errors) = said(&beside(&server, "retention --dry-run").await?);
    ensure!(code == Some(0), "{text}{errors}");
    ensure!(
        text.starts_with("would delete 1 tag and 0 manifests, and keep 5 tags; nothing"),
        "{text}"
    );
    for line in [
        "team/app (rule 0) keeps 1 newest, 1 pulled, 3 tagged manifests\n".to_owned(),
        "other (no rule) keeps 3 without a rule\n".to_owned(),
        format!("deletes team/app:1 at {first}: not among the newest 1, pushed 50 days ago, not"),
    ] {
        ensure!(text.contains(&line), "{line}: {text}");
    }
    assert_eq!(tags(server.data(), "team/app")?, ["1", "2", "3"]);

    let done = report(&beside(&server, "retention --json").await?)?;
    assert_eq!(done["total"]["tags_deleted"], 1, "{done}");
    assert_eq!(done["total"]["manifests_deleted"], 0, "{done}");
    assert_eq!(tags(server.data(), "team/app")?, ["2", "3"]);
    assert_eq!(tags(server.data(), "other")?, ["1", "2", "3"]);
    let gone = status(&server, "/v2/team/app/manifests/1").await?;
    assert_eq!(gone, StatusCode::NOT_FOUND);
    // It can be pulled by its digest for a day.
    let by_digest = format!("/v2/team/app/manifests/{first}");
    assert_eq!(status(&server, &by_digest).await?, StatusCode::OK);
    age(server.data(), &entry("team/app", &first), 2)?;
    let (code, text, errors) = said(&beside(&server, "retention").await?);
    ensure!(code == Some(0), "{text}{errors}");
    ensure!(
        text.starts_with("deleted 0 tags and 1 manifest, and kept 5 tags\n"),
        "{text}"
    );
    assert_eq!(status(&server, &by_digest).await?, StatusCode::NOT_FOUND);
    let elsewhere = format!("/v2/other/manifests/{first}");
    assert_eq!(status(&server, &elsewhere).await?, StatusCode::OK);

    let scrape = server.scrape().await?;
    let runs = metric("octoserve_retention_runs_total").label("result", "ok");
    runs.value(3).assert(&scrape)?;
    for kind in ["tag", "manifest"] {
        let deleted = metric("octoserve_retention_deleted_total").label("kind", kind);
        deleted.value(1).assert(&scrape)?;
    }
    Ok(())
}

#[tokio::test]
async fn nothing_is_deleted_unless_the_configuration_says_so() -> Result<()> {
    let directory = directory()?;
    let mut server = start(directory.path(), "schedule: 1s").await?;
    images(&server).await?;
    for words in ["retention", "retention --dry-run"] {
        let (code, text, errors) = said(&beside(&server, words).await?);
        ensure!(code == Some(0), "{text}{errors}");
        ensure!(text.starts_with("would delete 2 tags"), "{text}");
    }
    poll::until("a scheduled run tells of it", DEADLINE, async || {
        let log = server.process().output(OutputStream::Stderr)?;
        let lines = log.lines();
        let ended = lines.filter(|line| line.contains("retention ended"));
        // Two on request, and at least one that began when the images were there.
        Ok((ended.count() > 4).then_some(()))
    })
    .await?;
    let log = server.process().output(OutputStream::Stderr)?;
    ensure!(log.contains("would delete a tag"), "{log}");
    ensure!(!log.contains("deleted a tag"), "{log}");
    assert_eq!(tags(server.data(), "team/app")?, ["1", "2", "3"]);
    Ok(())
}

#[tokio::test]
async fn the_directory_of_a_stopped_registry_is_worked_on_in_its_place() -> Result<()> {
    let directory = directory()?;
    let mut server = start(directory.path(), "dry_run: false").await?;
    images(&server).await?;
    let exit = server.terminate(DEADLINE).await?;
    ensure!(exit.success(), "{exit}");
    let (code, text, errors) = said(&beside(&server, "retention").await?);
    ensure!(code == Some(0), "{text}{errors}");
    ensure!(text.starts_with("deleted 2 tags"), "{text}");
    assert_eq!(tags(server.data(), "team/app")?, ["3"]);
    // Without rules there is nothing to do.
    let data = server.data().display();
    let words = format!("retention --data {data}");
    let (code, text, errors) = said(&call(server.working_directory(), &words).await?);
    ensure!(code == Some(0), "{text}{errors}");
    ensure!(text.starts_with("would delete 0 tags"), "{text}");
    Ok(())
}

#[tokio::test]
async fn it_runs_by_its_schedule() -> Result<()> {
    let directory = directory()?;
    let server = start(directory.path(), "schedule: 1s, dry_run: false").await?;
    images(&server).await?;
    poll::until("the old tags are gone", DEADLINE, async || {
        Ok((tags(server.data(), "team/app")? == ["3"]).then_some(()))
    })
    .await?;
    assert_eq!(tags(server.data(), "other")?, ["1", "2", "3"]);
    Ok(())
}
