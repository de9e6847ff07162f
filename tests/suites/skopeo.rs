//! skopeo: push, inspect, pull by tag and by digest, copy between repositories, delete.

use anyhow::{Context, Result};
use harness::client::{MANIFEST, descriptor};
use harness::content;
use harness::scrape::metric;
use harness::skopeo::Skopeo;
use serde_json::json;

use crate::Front;
use crate::content::{Moved, PUSHED_INDEX, push_about_an_image, push_index};

#[tokio::test]
async fn skopeo_works_with_the_embedded_registry() -> Result<()> {
    day_of_an_image(&Front::embedded().await?).await
}

#[tokio::test]
async fn skopeo_works_with_a_foreign_registry() -> Result<()> {
    day_of_an_image(&Front::foreign().await?).await
}

/// Copies an index with all its platforms between repositories.
#[tokio::test]
async fn skopeo_copies_every_platform() -> Result<()> {
    let front = Front::embedded().await?;
    let skopeo = Skopeo::new()?;
    let mut manifests = Vec::new();
    for (seed, architecture) in [(13, "amd64"), (14, "arm64")] {
        let image = front
            .client
            .push_image("team/multi", architecture, &[seed])
            .await?;
        let mut entry = descriptor(MANIFEST, image.manifest.as_bytes());
        entry["platform"] = json!({"architecture": architecture, "os": "linux"});
        manifests.push(entry);
    }
    let kind = "application/vnd.oci.image.index.v1+json";
    let index = json!({"schemaVersion": 2, "mediaType": kind, "manifests": manifests});
    let index = index.to_string();
    front
        .client
        .push_manifest("team/multi", "1", kind, &index)
        .await?;
    let place = |rest: &str| format!("docker://{}", front.image(rest));
    let (from, to) = (place("team/multi:1"), place("team/copy:1"));
    let whole = ["--all", "--preserve-digests"];
    skopeo.copy(&from, &to, &whole).await?;
    assert_eq!(skopeo.manifest(&to).await?, index);
    for entry in &manifests {
        let digest = entry["digest"].as_str().context("no digest")?;
        front.client.pull_image("team/copy", digest).await?;
    }
    Ok(())
}

#[tokio::test]
async fn each_skopeo_image_counts_as_one_pull_or_push() -> Result<()> {
    for front in [Front::embedded().await?, Front::foreign().await?] {
        let skopeo = Skopeo::new()?;
        let place = |rest: &str| format!("docker://{}", front.image(rest));
        let back = |name: &str| format!("oci:{}:latest", skopeo.directory().join(name).display());
        let made = skopeo.layout("made", &[21, 22, 23])?;
        skopeo.copy(&made, &place("team/one:1"), &[]).await?;
        let mut moved = Moved {
            push: 1,
            blob_push: 4,
            ..Moved::default()
        };
        moved.assert_in(&front, "team/one").await?;
        skopeo.copy(&place("team/one:1"), &back("one"), &[]).await?;
        moved.pull = 1;
        moved.blob_pull = 4;
        moved.assert_in(&front, "team/one").await?;

        push_index(&front, "team/multi", 24).await?;
        let multi = place("team/multi:1");
        skopeo.copy(&multi, &back("multi"), &[]).await?;
        let mut moved = Moved {
            index_pull: 1,
            pull: 1,
            blob_pull: 3,
            ..PUSHED_INDEX
        };
        moved.assert_in(&front, "team/multi").await?;
        let whole = ["--all", "--preserve-digests"];
        skopeo.copy(&multi, &back("whole"), &whole).await?;
        moved.index_pull += 1;
        moved.pull += 2;
        moved.blob_pull += 6;
        moved.assert_in(&front, "team/multi").await?;
        skopeo
            .copy(&back("whole"), &place("team/copy:1"), &whole)
            .await?;
        PUSHED_INDEX
            .assert_manifests_in(&front, "team/copy")
            .await?;
    }
    Ok(())
}

#[tokio::test]
async fn signatures_and_attestations_are_not_counted_as_images() -> Result<()> {
    let front = Front::embedded().await?;
    let skopeo = Skopeo::new()?;
    let place = |rest: &str| format!("docker://{}", front.image(rest));
    for (tag, layer_type) in [
        (
            "signature",
            "application/vnd.dev.cosign.simplesigning.v1+json",
        ),
        ("attestation", "application/vnd.in-toto+json"),
    ] {
        push_about_an_image(&front, "team/from", tag, layer_type).await?;
        let (from, to) = (format!("team/from:{tag}"), format!("team/to:{tag}"));
        skopeo
            .copy(&place(&from), &place(&to), &["--preserve-digests"])
            .await?;
        let kinds = metric("octoserve_manifest_operations_total").label("kind", tag);
        for operation in ["pull", "push"] {
            let kinds = kinds.clone().label("operation", operation);
            let count = if operation == "pull" { 1 } else { 2 };
            kinds.value(count).assert_in(&front.server).await?;
        }
    }
    for repository in ["team/from", "team/to"] {
        let operations = metric("octoserve_repository_operations_total");
        let of = operations.label("repository", repository);
        for operation in ["pull", "push", "index_pull", "index_push"] {
            let none = of.clone().label("operation", operation).value(0);
            none.assert_in(&front.server).await?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn skopeo_lists_hundreds_of_tags() -> Result<()> {
    for front in [Front::embedded().await?, Front::foreign().await?] {
        let image = front.client.push_image("team/many", "t0", &[15]).await?;
        let mut tags = vec!["t0".to_owned()];
        for number in 1..300 {
            let tag = format!("t{number}");
            let push = front
                .client
                .push_manifest("team/many", &tag, MANIFEST, &image.manifest);
            push.await?;
            tags.push(tag);
        }
        tags.sort();
        let place = format!("docker://{}", front.image("team/many"));
        let mut found = Skopeo::new()?.tags(&place).await?;
        // docker-registry does not sort them.
        found.sort();
        assert_eq!(found, tags);
    }
    Ok(())
}

async fn day_of_an_image(front: &Front) -> Result<()> {
    let skopeo = Skopeo::new()?;
    let made = skopeo.layout("made", &[11, 12])?;
    let manifest = skopeo.manifest(&made).await?;
    let digest = content::digest(manifest.as_bytes());
    let place = |rest: &str| format!("docker://{}", front.image(rest));
    // By default skopeo compresses layers, which changes the image.
    let keep = ["--preserve-digests"];

    let tagged = place("team/tool:1");
    skopeo.copy(&made, &tagged, &keep).await?;
    assert_eq!(skopeo.manifest(&tagged).await?, manifest);
    let seen = skopeo.inspect(&tagged).await?;
    assert_eq!(seen["Digest"], digest.as_str());
    assert_eq!(seen["RepoTags"], json!(["1"]));

    for (name, reference) in [
        ("by-tag", ":1".to_owned()),
        ("by-digest", format!("@{digest}")),
    ] {
        let back = format!("oci:{}:latest", skopeo.directory().join(name).display());
        skopeo
            .copy(&place(&format!("team/tool{reference}")), &back, &keep)
            .await?;
        assert_eq!(skopeo.manifest(&back).await?, manifest, "{name}");
    }

    let copy = place("team/copy:1");
    skopeo.copy(&tagged, &copy, &keep).await?;
    assert_eq!(skopeo.manifest(&copy).await?, manifest);

    skopeo.delete(&tagged).await?;
    let gone = skopeo
        .manifest(&tagged)
        .await
        .err()
        .map(|error| error.to_string());
    assert!(
        gone.is_some_and(|error| error.contains("manifest unknown")),
        "it is still there"
    );
    assert_eq!(skopeo.manifest(&copy).await?, manifest);

    let manifests = metric("octoserve_http_requests_total").label("endpoint", "manifest");
    manifests
        .clone()
        .label("method", "PUT")
        .label("status", "201")
        .value(2)
        .assert_in(&front.server)
        .await?;
    manifests
        .label("method", "DELETE")
        .label("status", "202")
        .value(1)
        .assert_in(&front.server)
        .await
}
