//! skopeo, which speaks to a registry without a daemon: push, inspect, pull by tag and by digest,
//! copy from repository to repository, delete.

use anyhow::Result;
use harness::content;
use harness::scrape::metric;
use harness::skopeo::Skopeo;

use crate::Front;

#[tokio::test]
async fn skopeo_works_with_the_embedded_registry() -> Result<()> {
    day_of_an_image(&Front::embedded().await?).await
}

#[tokio::test]
async fn skopeo_works_with_a_foreign_registry() -> Result<()> {
    day_of_an_image(&Front::foreign().await?).await
}

async fn day_of_an_image(front: &Front) -> Result<()> {
    let skopeo = Skopeo::new()?;
    let made = skopeo.layout("made", &[11, 12])?;
    let manifest = skopeo.manifest(&made).await?;
    let digest = content::digest(manifest.as_bytes());
    let place = |rest: &str| format!("docker://{}", front.image(rest));
    // skopeo would compress the layers, and so make another image.
    let keep = ["--preserve-digests"];

    let tagged = place("team/tool:1");
    skopeo.copy(&made, &tagged, &keep).await?;
    assert_eq!(skopeo.manifest(&tagged).await?, manifest);
    let seen = skopeo.inspect(&tagged).await?;
    assert_eq!(seen["Digest"], digest.as_str());
    assert_eq!(seen["RepoTags"], serde_json::json!(["1"]));

    for (name, reference) in [
        ("by-tag", ":1".to_owned()),
        ("by-digest", format!("@{digest}")),
    ] {
        let back = format!("oci:{}:latest", skopeo.folder().join(name).display());
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
