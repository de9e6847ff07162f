//! Manifests that refer to a subject (end-12a, end-12b; section Listing Referrers).

use anyhow::{Context, Result, ensure};
use harness::client::{MANIFEST, descriptor};
use harness::content;
use serde_json::{Value, json};

use super::check::{CONFIG, Check, INDEX, NOTHING, Reply};

const SBOM: &str = "application/vnd.example.sbom.v1+json";
const SIGNATURE: &str = "application/vnd.example.signature";

clauses![
    a_referrer_is_listed_with_the_fields_of_its_manifest,
    a_referrer_without_a_type_has_that_of_its_configuration,
    an_index_may_be_a_referrer,
    a_referrer_may_come_before_its_subject,
    a_filter_is_applied_and_reported,
    a_filter_without_a_match_returns_an_empty_index,
    an_unknown_subject_has_no_referrers,
    a_malformed_subject_is_refused,
    a_deleted_referrer_is_not_listed,
    a_referrer_is_listed_in_its_own_repository_only,
    a_subject_by_sha512_has_referrers,
    a_head_of_the_referrers_has_no_body,
    a_referrer_pushed_twice_is_listed_once;
    ours:
    more_referrers_than_fit_a_page_are_linked,
    an_artifact_type_is_kept_whole,
    large_annotations_stay_in_the_manifest,
];

/// Requests the referrers of a digest.
async fn referrers(at: &Check, digest: &str, query: &str) -> Result<(Vec<Value>, Reply)> {
    let path = at.path(&format!("referrers/{digest}{query}"));
    let reply = at.get(&path).await?;
    reply.is(200)?.says("content-type", INDEX)?;
    let body = reply.json()?;
    ensure!(body["schemaVersion"] == 2, "{body}");
    ensure!(body["mediaType"] == INDEX, "{body}");
    let list = body["manifests"].as_array().context("no manifests")?;
    Ok((list.clone(), reply))
}

/// Pushes a manifest by digest and returns the digest.
async fn pushed(at: &Check, kind: &str, manifest: &Value) -> Result<String> {
    let text = manifest.to_string();
    let digest = content::digest(text.as_bytes());
    at.put(&digest, kind, &text).await?.is(201)?;
    Ok(digest)
}

/// An artifact of this type that refers to a manifest.
async fn about(at: &Check, subject: &str, kind: &str) -> Result<Value> {
    let mut artifact = at.artifact(kind).await?;
    artifact["subject"] = descriptor(MANIFEST, subject.as_bytes());
    Ok(artifact)
}

/// end-12a: an index of descriptors, each with the referrer's type, size, digest, `artifactType` and
/// annotations.
async fn a_referrer_is_listed_with_the_fields_of_its_manifest(at: &Check) -> Result<()> {
    let subject = at.tagged("1", 1).await?;
    let mut artifact = about(at, &subject, SBOM).await?;
    artifact["annotations"] = json!({"org.example.format": "json", "empty": ""});
    let text = artifact.to_string();
    pushed(at, MANIFEST, &artifact).await?;
    let (list, reply) = referrers(at, &content::digest(subject.as_bytes()), "").await?;
    let mut expected = descriptor(MANIFEST, text.as_bytes());
    expected["artifactType"] = json!(SBOM);
    expected["annotations"] = artifact["annotations"].clone();
    ensure!(list == [expected], "{list:?}");
    reply.lacks("oci-filters-applied")?.lacks("link")?;
    Ok(())
}

/// end-12a: without an `artifactType`, the configuration's media type takes its place.
async fn a_referrer_without_a_type_has_that_of_its_configuration(at: &Check) -> Result<()> {
    let subject = at.tagged("1", 1).await?;
    let mut image = at.image(2).await?;
    image["subject"] = descriptor(MANIFEST, subject.as_bytes());
    pushed(at, MANIFEST, &image).await?;
    image["artifactType"] = json!("");
    pushed(at, MANIFEST, &image).await?;
    let (list, _) = referrers(at, &content::digest(subject.as_bytes()), "").await?;
    ensure!(list.len() == 2, "{list:?}");
    for entry in list {
        ensure!(entry["artifactType"] == CONFIG, "{entry}");
    }
    Ok(())
}

/// end-12a: an index may be a referrer, too; without an `artifactType` it has none in the list.
async fn an_index_may_be_a_referrer(at: &Check) -> Result<()> {
    let subject = at.tagged("1", 1).await?;
    let mut index = json!({
        "schemaVersion": 2, "mediaType": INDEX, "manifests": [],
        "subject": descriptor(MANIFEST, subject.as_bytes()),
    });
    let plain = pushed(at, INDEX, &index).await?;
    index["artifactType"] = json!(SBOM);
    let typed = pushed(at, INDEX, &index).await?;
    let (list, _) = referrers(at, &content::digest(subject.as_bytes()), "").await?;
    let find = |digest: &str| list.iter().find(|entry| entry["digest"] == *digest);
    let (plain, typed) = (
        find(&plain).context("plain")?,
        find(&typed).context("typed")?,
    );
    ensure!(plain["mediaType"] == INDEX, "{plain}");
    ensure!(plain.get("artifactType").is_none(), "{plain}");
    ensure!(typed["artifactType"] == SBOM, "{typed}");
    Ok(())
}

/// Push: a manifest and its referrers may be pushed in either order.
async fn a_referrer_may_come_before_its_subject(at: &Check) -> Result<()> {
    let subject = at.image(1).await?.to_string();
    let artifact = about(at, &subject, SBOM).await?;
    let digest = pushed(at, MANIFEST, &artifact).await?;
    at.put("1", MANIFEST, &subject).await?.is(201)?;
    let (list, _) = referrers(at, &content::digest(subject.as_bytes()), "").await?;
    ensure!(list.len() == 1 && list[0]["digest"] == *digest, "{list:?}");
    Ok(())
}

/// end-12b: `artifactType` selects referrers of that type, and `OCI-Filters-Applied` reports the
/// filter. A plus sign may be encoded or not.
async fn a_filter_is_applied_and_reported(at: &Check) -> Result<()> {
    let subject = at.tagged("1", 1).await?;
    let sbom = about(at, &subject, SBOM).await?;
    let sbom = pushed(at, MANIFEST, &sbom).await?;
    let signature = about(at, &subject, SIGNATURE).await?;
    pushed(at, MANIFEST, &signature).await?;
    let digest = content::digest(subject.as_bytes());
    for written in [SBOM, &SBOM.replace('/', "%2F").replace('+', "%2B")] {
        let query = format!("?artifactType={written}");
        let (list, reply) = referrers(at, &digest, &query).await?;
        ensure!(list.len() == 1 && list[0]["digest"] == *sbom, "{list:?}");
        reply.says("oci-filters-applied", "artifactType")?;
    }
    let (list, _) = referrers(at, &digest, "").await?;
    ensure!(list.len() == 2, "{list:?}");
    Ok(())
}

/// end-12a and end-12b: no match is an empty list, never a 404.
async fn a_filter_without_a_match_returns_an_empty_index(at: &Check) -> Result<()> {
    let subject = at.tagged("1", 1).await?;
    let sbom = about(at, &subject, SBOM).await?;
    pushed(at, MANIFEST, &sbom).await?;
    let digest = content::digest(subject.as_bytes());
    let query = format!("?artifactType={SIGNATURE}");
    let (list, reply) = referrers(at, &digest, &query).await?;
    ensure!(list.is_empty(), "{list:?}");
    reply.says("oci-filters-applied", "artifactType")?;
    Ok(())
}

/// end-12a: a registry with the API must not respond 404, which clients take for a missing endpoint.
async fn an_unknown_subject_has_no_referrers(at: &Check) -> Result<()> {
    let (list, _) = referrers(at, NOTHING, "").await?;
    ensure!(list.is_empty(), "in an unknown repository: {list:?}");
    at.tagged("1", 1).await?;
    let (list, _) = referrers(at, NOTHING, "").await?;
    ensure!(list.is_empty(), "{list:?}");
    Ok(())
}

/// end-12a: a malformed digest must be 400.
async fn a_malformed_subject_is_refused(at: &Check) -> Result<()> {
    at.tagged("1", 1).await?;
    for malformed in [
        "sha256:abc",
        "sha256:",
        &NOTHING.replace("sha256", "md5"),
        &NOTHING.replace('0', "G"),
    ] {
        let path = at.path(&format!("referrers/{malformed}"));
        at.get(&path).await?.refuses(400, "DIGEST_INVALID")?;
    }
    Ok(())
}

/// end-9 and end-12a: a deleted referrer is not listed.
async fn a_deleted_referrer_is_not_listed(at: &Check) -> Result<()> {
    let subject = at.tagged("1", 1).await?;
    let sbom = about(at, &subject, SBOM).await?;
    let gone = pushed(at, MANIFEST, &sbom).await?;
    let signature = about(at, &subject, SIGNATURE).await?;
    let kept = pushed(at, MANIFEST, &signature).await?;
    at.delete(&at.path(&format!("manifests/{gone}")))
        .await?
        .is(202)?;
    let (list, _) = referrers(at, &content::digest(subject.as_bytes()), "").await?;
    ensure!(list.len() == 1 && list[0]["digest"] == *kept, "{list:?}");
    Ok(())
}

/// end-12a: each descriptor names a manifest in the same repository.
async fn a_referrer_is_listed_in_its_own_repository_only(at: &Check) -> Result<()> {
    let subject = at.tagged("1", 1).await?;
    let sbom = about(at, &subject, SBOM).await?;
    pushed(at, MANIFEST, &sbom).await?;
    at.push_to(&at.other("beside"), b"{}").await?;
    let digest = content::digest(subject.as_bytes());
    let path = format!("/v2/{}/referrers/{digest}", at.other("beside"));
    let body = at.get(&path).await?.is(200)?.json()?;
    ensure!(body["manifests"] == json!([]), "{body}");
    Ok(())
}

/// end-12a, with another algorithm on both sides.
async fn a_subject_by_sha512_has_referrers(at: &Check) -> Result<()> {
    let subject = at.image(1).await?.to_string();
    let digest = content::sha512(subject.as_bytes());
    at.put(&digest, MANIFEST, &subject).await?.is(201)?;
    let mut artifact = at.artifact(SBOM).await?;
    artifact["subject"] = json!({"mediaType": MANIFEST, "digest": digest, "size": subject.len()});
    let text = artifact.to_string();
    let referrer = content::sha512(text.as_bytes());
    let response = at.put(&referrer, MANIFEST, &text).await?;
    response.is(201)?.says("oci-subject", &digest)?;
    let (list, _) = referrers(at, &digest, "").await?;
    ensure!(
        list.len() == 1 && list[0]["digest"] == *referrer,
        "{list:?}"
    );
    Ok(())
}

/// RFC 9110, section 9.3.2: HEAD is supported wherever GET is.
async fn a_head_of_the_referrers_has_no_body(at: &Check) -> Result<()> {
    let path = at.path(&format!("referrers/{NOTHING}"));
    let head = at.head(&path).await?;
    head.is(200)?.says("content-type", INDEX)?.holds(b"")?;
    Ok(())
}

/// end-12a: a manifest is listed once, however often it was pushed and whatever its tags.
async fn a_referrer_pushed_twice_is_listed_once(at: &Check) -> Result<()> {
    let subject = at.tagged("1", 1).await?;
    let sbom = about(at, &subject, SBOM).await?;
    let digest = pushed(at, MANIFEST, &sbom).await?;
    for tag in ["one", "two"] {
        at.put(tag, MANIFEST, &sbom.to_string()).await?.is(201)?;
    }
    let (list, _) = referrers(at, &content::digest(subject.as_bytes()), "").await?;
    ensure!(list.len() == 1 && list[0]["digest"] == *digest, "{list:?}");
    Ok(())
}

/// end-12a: a long list has several pages, joined by `Link` with `rel="next"`, which keeps the
/// filter.
async fn more_referrers_than_fit_a_page_are_linked(at: &Check) -> Result<()> {
    let subject = at.tagged("1", 1).await?;
    let mut expected = Vec::new();
    // The most that a descriptor repeats of its manifest: 140 of them exceed 4 MiB.
    let mut artifact = about(at, &subject, SBOM).await?;
    for number in 0..140 {
        let annotation = "x".repeat(31 << 10);
        artifact["annotations"] = json!({"number": number.to_string(), "long": annotation});
        expected.push(pushed(at, MANIFEST, &artifact).await?);
    }
    expected.sort();
    let digest = content::digest(subject.as_bytes());
    for filter in ["", &format!("?artifactType={SBOM}")] {
        let (mut found, mut pages) = (Vec::new(), 0);
        let (mut list, mut reply) = referrers(at, &digest, filter).await?;
        loop {
            pages += 1;
            found.extend(list.iter().map(|entry| entry["digest"].clone()));
            let Some(link) = reply.response.head.header("link") else {
                break;
            };
            let link = link.strip_suffix(">; rel=\"next\"").context("no next")?;
            let (_, query) = link.split_once('?').context("no query")?;
            (list, reply) = referrers(at, &digest, &format!("?{query}")).await?;
            let filters = reply.response.head.header("oci-filters-applied");
            ensure!(filters.is_some() != filter.is_empty(), "{filters:?}");
        }
        ensure!(pages > 1, "all on one page");
        ensure!(found == expected, "{found:?}");
    }
    Ok(())
}

/// end-12a and end-12b: the artifact type, from the manifest or its configuration, keeps its
/// parameters, and the filter compares all of it.
async fn an_artifact_type_is_kept_whole(at: &Check) -> Result<()> {
    const PLAIN: &str = "application/vnd.dev.sigstore.bundle+json";
    let kind = format!("{PLAIN};version=0.2");
    let subject = at.tagged("1", 1).await?;
    let digest = content::digest(subject.as_bytes());
    let mut declared = at.artifact(&kind).await?;
    declared["subject"] = descriptor(MANIFEST, subject.as_bytes());
    let mut configured = declared.clone();
    configured["artifactType"] = json!("");
    configured["config"]["mediaType"] = json!(kind);
    for (tag, manifest) in [("2", declared), ("3", configured)] {
        let pushed = at.put(tag, MANIFEST, &manifest.to_string()).await?;
        pushed.is(201)?;
    }
    let encoded = "application%2Fvnd.dev.sigstore.bundle%2Bjson%3Bversion%3D0.2";
    for filter in [kind.as_str(), encoded] {
        let (list, _) = referrers(at, &digest, &format!("?artifactType={filter}")).await?;
        ensure!(list.len() == 2, "{filter}: {list:?}");
        ensure!(
            list.iter().all(|entry| entry["artifactType"] == kind),
            "{list:?}"
        );
    }
    let (list, _) = referrers(at, &digest, &format!("?artifactType={PLAIN}")).await?;
    ensure!(list.is_empty(), "{list:?}");
    Ok(())
}

/// Listing Referrers: a descriptor repeats the annotations of its manifest. Ours omits annotations
/// too large for a listing; the manifest keeps them.
async fn large_annotations_stay_in_the_manifest(at: &Check) -> Result<()> {
    let subject = at.tagged("1", 1).await?;
    let mut artifact = about(at, &subject, SBOM).await?;
    artifact["annotations"] = json!({"large": "x".repeat(3 << 20), "small": "y"});
    let digest = pushed(at, MANIFEST, &artifact).await?;
    let (list, _) = referrers(at, &content::digest(subject.as_bytes()), "").await?;
    ensure!(list.len() == 1, "{}", list.len());
    ensure!(
        list[0]["annotations"] == json!({"small": "y"}),
        "{}",
        list[0]
    );
    let path = at.path(&format!("manifests/{digest}"));
    let whole = at.get(&path).await?.is(200)?.json()?;
    ensure!(whole == artifact, "it was changed");
    Ok(())
}
