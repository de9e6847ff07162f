//! Content Management: tags, manifests and blobs deleted (end-9, end-10).

use anyhow::{Result, ensure};
use harness::client::MANIFEST;
use harness::content;
use harness::octoserve::Launch;

use super::check::{Check, NOTHING};

clauses![
    a_deleted_tag_is_gone_and_its_manifest_stays,
    a_deleted_manifest_is_gone_with_its_tags,
    a_manifest_by_sha512_is_deleted,
    deleting_a_missing_manifest_is_404,
    a_deleted_blob_is_gone,
    deleting_a_missing_blob_is_404,
    a_blob_deleted_from_one_repository_stays_in_others,
    deleted_content_can_be_pushed_again,
    one_of_two_manifests_is_deleted,
];

/// end-9, Deleting tags: 202, then 404 by the tag; the manifest stays available by digest.
async fn a_deleted_tag_is_gone_and_its_manifest_stays(at: &Check) -> Result<()> {
    let manifest = at.tagged("1", 1).await?;
    at.put("2", MANIFEST, &manifest).await?.is(201)?;
    at.delete(&at.path("manifests/1")).await?.is(202)?;
    at.get(&at.path("manifests/1"))
        .await?
        .refuses(404, "MANIFEST_UNKNOWN")?;
    let digest = content::digest(manifest.as_bytes());
    for reference in ["2", &digest] {
        let path = at.path(&format!("manifests/{reference}"));
        at.get(&path).await?.is(200)?.holds(manifest.as_bytes())?;
    }
    let tags = at.get(&at.path("tags/list")).await?.json()?;
    ensure!(tags["tags"] == serde_json::json!(["2"]), "{tags}");
    Ok(())
}

/// end-9, Deleting Manifests: 202, then 404 by the digest and by each of its tags.
async fn a_deleted_manifest_is_gone_with_its_tags(at: &Check) -> Result<()> {
    let manifest = at.tagged("1", 1).await?;
    at.put("2", MANIFEST, &manifest).await?.is(201)?;
    at.tagged("3", 3).await?;
    let digest = content::digest(manifest.as_bytes());
    at.delete(&at.path(&format!("manifests/{digest}")))
        .await?
        .is(202)?;
    for reference in ["1", "2", &digest] {
        let path = at.path(&format!("manifests/{reference}"));
        at.get(&path).await?.refuses(404, "MANIFEST_UNKNOWN")?;
        at.head(&path).await?.is(404)?;
    }
    let tags = at.get(&at.path("tags/list")).await?.json()?;
    ensure!(tags["tags"] == serde_json::json!(["3"]), "{tags}");
    Ok(())
}

/// end-9, with another algorithm.
async fn a_manifest_by_sha512_is_deleted(at: &Check) -> Result<()> {
    let manifest = at.image(1).await?.to_string();
    let digest = content::sha512(manifest.as_bytes());
    at.put(&digest, MANIFEST, &manifest).await?.is(201)?;
    let path = at.path(&format!("manifests/{digest}"));
    at.delete(&path).await?.is(202)?;
    at.get(&path).await?.refuses(404, "MANIFEST_UNKNOWN")?;
    Ok(())
}

/// end-9, Deleting Manifests: 404 for an unknown manifest and in an unknown repository.
async fn deleting_a_missing_manifest_is_404(at: &Check) -> Result<()> {
    for reference in ["1", NOTHING] {
        let path = at.path(&format!("manifests/{reference}"));
        at.delete(&path).await?.is(404)?;
    }
    at.tagged("1", 1).await?;
    for reference in ["2", NOTHING] {
        let path = at.path(&format!("manifests/{reference}"));
        at.delete(&path).await?.refuses(404, "MANIFEST_UNKNOWN")?;
    }
    Ok(())
}

/// end-10: 202, and then 404.
async fn a_deleted_blob_is_gone(at: &Check) -> Result<()> {
    let digest = at.push(&at.bytes(1, 10)).await?;
    at.push(&at.bytes(2, 10)).await?;
    let path = at.path(&format!("blobs/{digest}"));
    at.delete(&path).await?.is(202)?;
    at.get(&path).await?.refuses(404, "BLOB_UNKNOWN")?;
    at.head(&path).await?.is(404)?;
    Ok(())
}

/// end-10: 404 for an unknown blob, and for a second delete.
async fn deleting_a_missing_blob_is_404(at: &Check) -> Result<()> {
    let digest = at.push(&at.bytes(1, 10)).await?;
    at.push(&at.bytes(2, 10)).await?;
    let path = at.path(&format!("blobs/{digest}"));
    at.delete(&path).await?.is(202)?;
    for path in [path, at.path(&format!("blobs/{NOTHING}"))] {
        at.delete(&path).await?.refuses(404, "BLOB_UNKNOWN")?;
    }
    Ok(())
}

/// end-10: a delete affects one repository only.
async fn a_blob_deleted_from_one_repository_stays_in_others(at: &Check) -> Result<()> {
    let bytes = at.bytes(1, 10);
    let digest = at.push(&bytes).await?;
    at.push_to(&at.other("beside"), &bytes).await?;
    let path = at.path(&format!("blobs/{digest}"));
    at.delete(&path).await?.is(202)?;
    let beside = format!("/v2/{}/blobs/{digest}", at.other("beside"));
    at.get(&beside).await?.is(200)?.holds(&bytes)?;
    Ok(())
}

/// Content Management: deleted content may be pushed again.
async fn deleted_content_can_be_pushed_again(at: &Check) -> Result<()> {
    let manifest = at.tagged("1", 1).await?;
    let digest = content::digest(manifest.as_bytes());
    let layer = content::digest(&at.bytes(1, 64));
    at.delete(&at.path(&format!("manifests/{digest}")))
        .await?
        .is(202)?;
    at.delete(&at.path(&format!("blobs/{layer}")))
        .await?
        .is(202)?;
    at.tagged("1", 1).await?;
    let again = at.get(&at.path("manifests/1")).await?;
    again.is(200)?.holds(manifest.as_bytes())?;
    at.get(&at.path(&format!("blobs/{layer}"))).await?.is(200)?;
    Ok(())
}

/// Content Management: other manifests keep the blobs that they share with a deleted one.
async fn one_of_two_manifests_is_deleted(at: &Check) -> Result<()> {
    let mut manifest = at.image(1).await?;
    let one = manifest.to_string();
    manifest["annotations"] = serde_json::json!({"number": "two"});
    let two = manifest.to_string();
    at.put("1", MANIFEST, &one).await?.is(201)?;
    at.put("2", MANIFEST, &two).await?.is(201)?;
    let digest = content::digest(one.as_bytes());
    at.delete(&at.path(&format!("manifests/{digest}")))
        .await?
        .is(202)?;
    let kept = at.get(&at.path("manifests/2")).await?;
    kept.is(200)?.holds(two.as_bytes())?;
    let layer = content::digest(&at.bytes(1, 64));
    at.get(&at.path(&format!("blobs/{layer}"))).await?.is(200)?;
    Ok(())
}

/// end-9 and end-10: with deletion disabled, 400 or 405; ours is 405 with the allowed methods.
#[tokio::test]
async fn a_registry_without_deletes_responds_405() -> Result<()> {
    for launch in [
        Launch::registry().environment("OCTOSERVE_DELETE", "false"),
        Launch::all_in_one().environment("OCTOSERVE_REGISTRY_DELETE", "false"),
    ] {
        let server = launch.start().await?;
        let at = Check::new(server.address(), "never_deletes");
        for (rest, allowed) in [
            ("manifests/1".to_owned(), "GET, HEAD, PUT"),
            (format!("manifests/{NOTHING}"), "GET, HEAD, PUT"),
            (format!("blobs/{NOTHING}"), "GET, HEAD"),
        ] {
            let refused = at.delete(&at.path(&rest)).await?;
            refused
                .refuses(405, "UNSUPPORTED")?
                .says("allow", allowed)?;
        }
    }
    Ok(())
}
