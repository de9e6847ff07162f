//! Collections: what no manifest needs goes, once the grace is over.

use anyhow::{Result, ensure};
use harness::scrape::metric;
use http::StatusCode;

use super::{beside, call, client, content, left_behind, registry, report, said};

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
    ensure!(content(directory.path(), &digest)?.exists());
    Ok(())
}
