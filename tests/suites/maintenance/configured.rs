//! Schedules: jobs run by themselves, and mistakes are named.

use anyhow::{Result, ensure};
use harness::octoserve::Launch;
use harness::poll;
use harness::process::OutputStream;
use tempfile::TempDir;

use super::{call, client, content, flip, said};
use crate::scene::DEADLINE;

#[tokio::test]
async fn jobs_run_by_their_schedules() -> Result<()> {
    let configuration = "gc: {schedule: 1s, grace: 5s}\nscrub: {schedule: 1s}\n";
    let mut server = Launch::registry()
        .configuration(configuration)
        .start()
        .await?;
    let unused = client(&server)?.push_blob("a", b"unused").await?;
    client(&server)?.push_image("a", "1", &[1]).await?;
    let used = poll::until("the unused blob is collected", DEADLINE, async || {
        let is_gone = !content(server.data(), &unused)?.exists();
        Ok(is_gone.then_some(()))
    });
    used.await?;
    let manifests = server.data().join("manifests/sha256");
    let shard = std::fs::read_dir(manifests)?.last().transpose()?;
    let shard = shard.map(|shard| std::fs::read_dir(shard.path()));
    let manifest = shard.transpose()?.and_then(Iterator::last).transpose()?;
    let manifest = manifest.map(|file| file.path()).unwrap_or_default();
    flip(&manifest)?;
    let quarantine = server.data().join("quarantine");
    poll::until(
        "the corrupt manifest is quarantined",
        DEADLINE,
        async || Ok((std::fs::read_dir(&quarantine)?.count() == 1).then_some(())),
    )
    .await?;
    for line in ["gc ended", "corrupt content"] {
        poll::until(line, DEADLINE, async || {
            let log = server.process().output(OutputStream::Stderr)?;
            Ok(log.contains(line).then_some(()))
        })
        .await?;
    }
    // It is pushed again, and whole again.
    poll::until("the image is whole again", DEADLINE, async || {
        client(&server)?.push_image("a", "1", &[1]).await?;
        Ok(client(&server)?.pull_image("a", "1").await.ok())
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn a_mistake_is_named_by_file_line_and_key() -> Result<()> {
    let directory = TempDir::new()?;
    for (text, named) in [
        (
            "gc:\n  schedule: 25:00\n",
            "bad.yaml:2: gc.schedule: `25:00` is neither",
        ),
        (
            "scrub: {schedule: often}\n",
            "bad.yaml:1: scrub.schedule: `often` is neither",
        ),
        ("scrub:\n  rate: 1\n", "bad.yaml:2: scrub.rate: "),
        ("gc:\n  grace: forever\n", "bad.yaml:2: gc.grace: "),
        ("gc:\n  shedule: 24h\n", "bad.yaml:2: gc.shedule: "),
        (
            "retention:\n  rules:\n  - repositories: ['[a']\n",
            "bad.yaml:3: retention.rules[0].repositories[0]: not a pattern: unclosed",
        ),
        (
            "retention:\n  rules:\n  - repositories: [a]\n    keep:\n",
            "bad.yaml:4: retention.rules[0].keep: ",
        ),
        (
            "retention: {schedule: weekly}\n",
            "bad.yaml:1: retention.schedule: `weekly` is neither",
        ),
    ] {
        std::fs::write(directory.path().join("bad.yaml"), text)?;
        for words in ["serve --check", "gc --dry-run", "retention", "scrub"] {
            let output = call(directory.path(), &format!("{words} --config bad.yaml")).await?;
            let (code, _, errors) = said(&output);
            assert_eq!(code, Some(64), "{errors}");
            ensure!(errors.contains(named), "{words}: {errors}");
        }
    }
    for words in ["gc --repair", "scrub --data a --socket b", "gc extra"] {
        let (code, _, errors) = said(&call(directory.path(), words).await?);
        assert_eq!(code, Some(64), "{errors}");
    }
    Ok(())
}
