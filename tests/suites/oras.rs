//! oras-py: artifacts of any type, referrers, chunked uploads and tags.

use anyhow::{Context, Result, ensure};
use harness::oras;
use harness::{client, content};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::Front;

#[tokio::test]
async fn oras_works_with_the_embedded_registry() -> Result<()> {
    day_of_an_artifact(&Front::embedded().await?).await
}

#[tokio::test]
async fn oras_works_with_the_registry_alone() -> Result<()> {
    day_of_an_artifact(&Front::registry().await?).await
}

#[tokio::test]
async fn oras_works_with_a_foreign_registry() -> Result<()> {
    day_of_an_artifact(&Front::foreign().await?).await
}

/// Pushes a file in one piece and in chunks of 64 KiB, and pulls it each time.
const PUSH_AND_PULL: &str = "
name, path, into, chunked = arguments
pushed = client.push(
    target=f'{host}/{name}', files=[path + ':application/vnd.example.data'],
    manifest_annotations={'org.example.key': 'value'}, disable_path_validation=True,
    do_chunked=chunked == 'chunked', chunk_size=65536, quiet=True)
pulled = client.pull(target=f'{host}/{name}', outdir=into)
print(json.dumps([pushed.status_code, pushed.headers['Docker-Content-Digest'], pulled]))
";

const TAGS: &str = "print(json.dumps(client.get_tags(f'{host}/{arguments[0]}')))";

const DELETE: &str = "print(json.dumps(client.delete_tags(f'{host}/{arguments[0]}', ['0'])))";

async fn day_of_an_artifact(front: &Front) -> Result<()> {
    let host = front.server.host();
    let work = TempDir::new()?;
    let path = work.path().join("data").display().to_string();
    let bytes = content::bytes(51, 200_000);
    std::fs::write(&path, &bytes)?;
    let mut digests = Vec::new();
    for (tag, how) in [("0", "whole"), ("1", "chunked")] {
        let into = work.path().join(how).display().to_string();
        let name = format!("team/artifact:{tag}");
        let seen = oras::run(&host, PUSH_AND_PULL, &[&name, &path, &into, how]).await?;
        ensure!(seen[0] == 201, "{seen}");
        digests.push(seen[1].clone());
        let pulled = seen[2][0].as_str().context("nothing pulled")?;
        ensure!(std::fs::read(pulled)? == bytes, "other bytes, {how}");
    }
    let manifest = front.client.read("/v2/team/artifact/manifests/1").await?;
    ensure!(digests[1] == content::digest(&manifest), "{digests:?}");
    let manifest: Value = serde_json::from_slice(&manifest)?;
    ensure!(
        manifest["annotations"]["org.example.key"] == "value",
        "{manifest}"
    );

    let mut other = manifest;
    other["annotations"]["org.example.key"] = json!("another");
    for number in 2..300 {
        let text = other.to_string();
        let tag = number.to_string();
        front
            .client
            .push_manifest("team/artifact", &tag, client::MANIFEST, &text)
            .await?;
    }
    let tags = oras::run(&host, TAGS, &["team/artifact"]).await?;
    let mut found: Vec<String> = serde_json::from_value(tags)?;
    // docker-registry does not sort them.
    found.sort();
    let mut expected: Vec<_> = (0..300).map(|number| number.to_string()).collect();
    expected.sort();
    ensure!(found == expected, "{found:?}");
    oras::run(&host, DELETE, &["team/artifact"]).await?;
    let tags = oras::run(&host, TAGS, &["team/artifact"]).await?;
    // It deletes by digest, and thereby every tag of that manifest.
    let tags = tags.as_array().context("no tags")?;
    ensure!(!tags.contains(&json!("0")), "{tags:?}");
    ensure!(tags.contains(&json!("2")), "{tags:?}");
    Ok(())
}
