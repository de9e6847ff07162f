//! The base endpoint, and pulls of blobs and manifests (end-1, end-2, end-3; sections Determining
//! Support and Pull).

use anyhow::{Result, ensure};
use harness::client::MANIFEST;
use harness::content;

use super::check::{Check, NOTHING, OCTETS, with};

clauses![
    the_base_endpoint_confirms_the_api,
    every_response_has_dockers_api_version,
    a_blob_is_pulled_whole_with_its_digest,
    an_empty_blob_is_pulled,
    a_blob_by_sha512_is_pulled,
    a_head_of_a_blob_has_the_headers_of_a_get,
    an_unknown_blob_is_not_found,
    a_blob_is_unknown_in_other_repositories,
    a_manifest_is_pulled_by_tag_byte_for_byte,
    a_manifest_is_pulled_by_digest,
    a_manifest_by_sha512_is_pulled,
    a_head_of_a_manifest_has_the_headers_of_a_get,
    a_manifest_has_the_type_it_was_pushed_with,
    a_manifest_is_returned_whatever_the_client_accepts,
    an_unknown_manifest_is_not_found,
    an_unknown_repository_is_not_found,
    a_name_may_contain_words_of_the_api,
    a_namespace_parameter_changes_nothing,
];

/// end-1, Determining Support: a registry that implements the specification responds 200.
async fn the_base_endpoint_confirms_the_api(at: &Check) -> Result<()> {
    at.get("/v2/").await?.is(200)?;
    at.head("/v2/").await?.is(200)?.holds(b"")?;
    Ok(())
}

/// Legacy Docker support HTTP headers: optional, and promised on every response.
async fn every_response_has_dockers_api_version(at: &Check) -> Result<()> {
    at.tagged("1", 1).await?;
    for path in [
        "/v2/",
        &at.path("manifests/1"),
        &at.path("manifests/2"),
        &at.path("tags/list"),
    ] {
        let response = at.get(path).await?;
        response.says("docker-distribution-api-version", "registry/2.0")?;
    }
    let session = at.post(&at.path("blobs/uploads/")).await?;
    session.says("docker-distribution-api-version", "registry/2.0")?;
    Ok(())
}

/// end-2, Pulling blobs: 200, the bytes, and their digest in `Docker-Content-Digest`.
async fn a_blob_is_pulled_whole_with_its_digest(at: &Check) -> Result<()> {
    let bytes = at.bytes(1, 70_000);
    let digest = at.push(&bytes).await?;
    let blob = at.get(&at.path(&format!("blobs/{digest}"))).await?;
    blob.is(200)?.holds(&bytes)?;
    blob.says("docker-content-digest", &digest)?
        .says("content-length", "70000")?
        .says("content-type", OCTETS)?;
    Ok(())
}

/// end-2, Pulling blobs: a blob may be empty.
async fn an_empty_blob_is_pulled(at: &Check) -> Result<()> {
    let digest = at.push(b"").await?;
    let path = at.path(&format!("blobs/{digest}"));
    at.get(&path).await?.is(200)?.holds(b"")?;
    at.head(&path).await?.is(200)?.says("content-length", "0")?;
    Ok(())
}

/// end-2, Pulling blobs: the digest may use any algorithm that the registry supports.
async fn a_blob_by_sha512_is_pulled(at: &Check) -> Result<()> {
    let bytes = at.bytes(1, 100);
    let digest = content::sha512(&bytes);
    let commit = with(&at.session().await?, &format!("digest={digest}"));
    let octets = [("Content-Type", OCTETS)];
    at.send("PUT", &commit, &octets, &bytes).await?.is(201)?;
    let path = at.path(&format!("blobs/{digest}"));
    let blob = at.get(&path).await?;
    blob.is(200)?
        .holds(&bytes)?
        .says("docker-content-digest", &digest)?;
    at.head(&path)
        .await?
        .is(200)?
        .says("docker-content-digest", &digest)?;
    Ok(())
}

/// end-2, Checking if content exists: 200 with the digest and the length; according to RFC 9110
/// (section 9.3.2), the headers of a GET without its body.
async fn a_head_of_a_blob_has_the_headers_of_a_get(at: &Check) -> Result<()> {
    let digest = at.push(&at.bytes(1, 1234)).await?;
    let path = at.path(&format!("blobs/{digest}"));
    let head = at.head(&path).await?;
    head.is(200)?
        .says("docker-content-digest", &digest)?
        .says("content-length", "1234")?;
    same_headers(at, &path).await
}

/// end-2, Pulling blobs and Checking if content exists: 404 for an unknown blob.
async fn an_unknown_blob_is_not_found(at: &Check) -> Result<()> {
    at.push(&at.bytes(1, 10)).await?;
    let path = at.path(&format!("blobs/{NOTHING}"));
    at.get(&path).await?.refuses(404, "BLOB_UNKNOWN")?;
    at.head(&path).await?.is(404)?.holds(b"")?;
    Ok(())
}

/// end-2, Pulling blobs: a blob exists only in the repositories that it was pushed to.
async fn a_blob_is_unknown_in_other_repositories(at: &Check) -> Result<()> {
    let digest = at.push(&at.bytes(1, 10)).await?;
    at.push_to(&at.other("beside"), &at.bytes(2, 10)).await?;
    let path = format!("/v2/{}/blobs/{digest}", at.other("beside"));
    at.get(&path).await?.refuses(404, "BLOB_UNKNOWN")?;
    Ok(())
}

/// end-3, Pulling manifests and Pushing Manifests: 200 and exactly the pushed bytes, with their
/// type and digest.
async fn a_manifest_is_pulled_by_tag_byte_for_byte(at: &Check) -> Result<()> {
    let manifest = at.image(1).await?;
    // A form that no JSON encoder writes.
    let text = format!(" \n{}\t\n", serde_json::to_string_pretty(&manifest)?);
    at.put("1", MANIFEST, &text).await?.is(201)?;
    let pulled = at.get(&at.path("manifests/1")).await?;
    pulled.is(200)?.holds(text.as_bytes())?;
    let digest = content::digest(text.as_bytes());
    pulled
        .says("content-type", MANIFEST)?
        .says("docker-content-digest", &digest)?;
    Ok(())
}

/// end-3, Pulling manifests: the digest names the same manifest as the tag.
async fn a_manifest_is_pulled_by_digest(at: &Check) -> Result<()> {
    let manifest = at.tagged("1", 1).await?;
    let digest = content::digest(manifest.as_bytes());
    let pulled = at.get(&at.path(&format!("manifests/{digest}"))).await?;
    pulled.is(200)?.holds(manifest.as_bytes())?;
    pulled.says("docker-content-digest", &digest)?;
    Ok(())
}

/// end-3, Pulling manifests: a manifest is available by the digest that it was pushed with, of any
/// algorithm.
async fn a_manifest_by_sha512_is_pulled(at: &Check) -> Result<()> {
    let manifest = at.image(1).await?.to_string();
    let digest = content::sha512(manifest.as_bytes());
    at.put(&digest, MANIFEST, &manifest).await?.is(201)?;
    let path = at.path(&format!("manifests/{digest}"));
    let pulled = at.get(&path).await?;
    pulled.is(200)?.holds(manifest.as_bytes())?;
    pulled.says("docker-content-digest", &digest)?;
    at.head(&path)
        .await?
        .is(200)?
        .says("docker-content-digest", &digest)?;
    Ok(())
}

/// end-3, Checking if content exists: 200 with the digest, the length and all other headers of a
/// GET.
async fn a_head_of_a_manifest_has_the_headers_of_a_get(at: &Check) -> Result<()> {
    let manifest = at.tagged("1", 1).await?;
    let digest = content::digest(manifest.as_bytes());
    let head = at.head(&at.path("manifests/1")).await?;
    head.is(200)?
        .says("docker-content-digest", &digest)?
        .says("content-length", &manifest.len().to_string())?
        .says("content-type", MANIFEST)?;
    same_headers(at, &at.path("manifests/1")).await?;
    same_headers(at, &at.path(&format!("manifests/{digest}"))).await
}

/// end-3, Pulling manifests: the `Content-Type` of the push. A registry ignores its parameters
/// (Pushing Manifests) and its case (RFC 9110, section 8.3.1).
async fn a_manifest_has_the_type_it_was_pushed_with(at: &Check) -> Result<()> {
    let manifest = at.image(1).await?.to_string();
    for kind in [
        format!("{MANIFEST}; charset=utf-8"),
        MANIFEST.to_uppercase(),
    ] {
        at.put("1", &kind, &manifest).await?.is(201)?;
        let pulled = at.get(&at.path("manifests/1")).await?;
        pulled.is(200)?.says("content-type", MANIFEST)?;
    }
    Ok(())
}

/// end-3, Pulling manifests: a client should send `Accept` but need not. There is one
/// representation, and `Content-Type` names its type.
async fn a_manifest_is_returned_whatever_the_client_accepts(at: &Check) -> Result<()> {
    let manifest = at.tagged("1", 1).await?;
    for accept in [MANIFEST, "*/*", "application/json", "text/html;q=0.1"] {
        let headers = [("Accept", accept)];
        let pulled = at
            .send("GET", &at.path("manifests/1"), &headers, b"")
            .await?;
        pulled.is(200)?.holds(manifest.as_bytes())?;
        pulled.says("content-type", MANIFEST)?;
    }
    Ok(())
}

/// end-3, Pulling manifests and Checking if content exists: 404 for an unknown manifest.
async fn an_unknown_manifest_is_not_found(at: &Check) -> Result<()> {
    at.tagged("1", 1).await?;
    for reference in ["2", NOTHING] {
        let path = at.path(&format!("manifests/{reference}"));
        at.get(&path).await?.refuses(404, "MANIFEST_UNKNOWN")?;
        at.head(&path).await?.is(404)?.holds(b"")?;
    }
    Ok(())
}

/// Pushing Manifests: a pull from an unknown repository gets 404.
async fn an_unknown_repository_is_not_found(at: &Check) -> Result<()> {
    for rest in [
        "manifests/1".to_owned(),
        format!("manifests/{NOTHING}"),
        format!("blobs/{NOTHING}"),
        "tags/list".to_owned(),
    ] {
        at.get(&at.path(&rest)).await?.is(404)?;
        at.head(&at.path(&rest)).await?.is(404)?;
    }
    Ok(())
}

/// Pulling manifests: a name consists of components of letters, digits and separators, which may be
/// words of the API.
async fn a_name_may_contain_words_of_the_api(at: &Check) -> Result<()> {
    for name in [
        "blobs/uploads",
        "manifests",
        "tags/list",
        "referrers",
        "v2",
        "a__b.c-d--e",
        "0",
    ] {
        let repository = at.other(name);
        let bytes = at.bytes(1, 10);
        let digest = at.push_to(&repository, &bytes).await?;
        let blob = at.get(&format!("/v2/{repository}/blobs/{digest}")).await?;
        blob.is(200)?.holds(&bytes)?;
    }
    Ok(())
}

/// Registry Proxying: a registry may ignore the `ns` parameter of a pull.
async fn a_namespace_parameter_changes_nothing(at: &Check) -> Result<()> {
    let manifest = at.tagged("1", 1).await?;
    let path = at.path("manifests/1?ns=registry.example.org");
    let pulled = at.get(&path).await?;
    pulled.is(200)?.holds(manifest.as_bytes())?;
    at.head(&path).await?.is(200)?;
    Ok(())
}

/// Checks that HEAD has every header of GET with the same value, except for the date.
async fn same_headers(at: &Check, path: &str) -> Result<()> {
    let (head, get) = (at.head(path).await?, at.get(path).await?);
    let headers = |reply: &super::check::Reply| {
        let all = reply.response.head.headers();
        let mut all: Vec<_> = all
            .filter(|(name, _)| *name != "date")
            .map(|(name, value)| format!("{name}: {value}"))
            .collect();
        all.sort();
        all
    };
    let (head, get) = (headers(&head), headers(&get));
    ensure!(head == get, "HEAD {path} says {head:?}, GET {get:?}");
    Ok(())
}
