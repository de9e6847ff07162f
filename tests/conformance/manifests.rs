//! Manifests pushed (end-7a, end-7b; sections Pushing Manifests and Pushing Manifests with Subject).

use anyhow::{Result, ensure};
use harness::client::{MANIFEST, descriptor};
use harness::content;
use serde_json::{Value, json};

use super::check::{CONFIG, Check, EMPTY, INDEX, LAYER, NOTHING};

const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";

/// The size that a registry must accept for a manifest: four megabytes, here 4 MiB.
const LIMIT: usize = 4 << 20;

clauses![
    a_manifest_is_pushed_by_tag,
    a_manifest_is_pushed_by_digest_without_a_tag,
    a_manifest_by_sha512_is_pushed,
    a_manifest_pushed_by_another_digest_is_refused,
    a_manifest_may_be_pushed_again,
    a_tag_moves_to_what_was_pushed_last,
    a_manifest_that_names_an_unknown_blob_is_refused,
    an_index_that_names_an_unknown_manifest_is_refused,
    a_nondistributable_layer_may_be_missing,
    a_subject_may_be_missing,
    a_subject_is_acknowledged,
    a_manifest_may_have_no_layers,
    an_index_of_images_is_accepted,
    an_index_of_an_index_is_accepted,
    an_empty_index_is_accepted,
    an_artifact_is_accepted,
    unknown_fields_are_kept,
    dockers_types_are_kept,
    a_manifest_of_four_megabytes_is_accepted,
    a_malformed_manifest_is_refused,
    contradicting_media_types_are_refused,
    a_tag_may_have_128_characters,
    an_invalid_tag_is_refused,
    a_push_by_digest_may_set_tags;
    ours:
    the_media_type_may_be_in_the_body_or_the_header_alone,
    a_manifest_above_the_limit_is_413,
    a_push_by_sha512_may_set_tags,
    too_many_tags_at_once_are_414,
    one_invalid_tag_refuses_the_manifest,
    an_image_that_looks_like_an_index_is_refused,
];

/// end-7a: 201, a `Location` that the manifest can be pulled from, and its digest.
async fn a_manifest_is_pushed_by_tag(at: &Check) -> Result<()> {
    let manifest = at.image(1).await?.to_string();
    let pushed = at.put("1", MANIFEST, &manifest).await?;
    let digest = content::digest(manifest.as_bytes());
    pushed.is(201)?.says("docker-content-digest", &digest)?;
    let pulled = at.get(&pushed.location()?).await?;
    pulled.is(200)?.holds(manifest.as_bytes())?;
    let pulled = at.get(&at.path("manifests/1")).await?;
    pulled.is(200)?.holds(manifest.as_bytes())?;
    Ok(())
}

/// end-7a: the same by digest, which creates no tag.
async fn a_manifest_is_pushed_by_digest_without_a_tag(at: &Check) -> Result<()> {
    at.tagged("1", 1).await?;
    let manifest = at.image(2).await?.to_string();
    let digest = content::digest(manifest.as_bytes());
    let pushed = at.put(&digest, MANIFEST, &manifest).await?;
    pushed.is(201)?.says("docker-content-digest", &digest)?;
    let pulled = at.get(&pushed.location()?).await?;
    pulled.is(200)?.holds(manifest.as_bytes())?;
    let tags = at.get(&at.path("tags/list")).await?.json()?;
    ensure!(tags["tags"] == json!(["1"]), "{tags}");
    Ok(())
}

/// end-7a: `Docker-Content-Digest` must be the digest of the client, with its algorithm.
async fn a_manifest_by_sha512_is_pushed(at: &Check) -> Result<()> {
    let manifest = at.image(1).await?.to_string();
    let digest = content::sha512(manifest.as_bytes());
    let pushed = at.put(&digest, MANIFEST, &manifest).await?;
    pushed.is(201)?.says("docker-content-digest", &digest)?;
    let pulled = at.get(&pushed.location()?).await?;
    pulled.is(200)?.holds(manifest.as_bytes())?;
    Ok(())
}

/// end-7a: a manifest that does not match its digest is refused.
async fn a_manifest_pushed_by_another_digest_is_refused(at: &Check) -> Result<()> {
    let manifest = at.image(1).await?.to_string();
    let other512 = content::sha512(b"other");
    for digest in [NOTHING, &other512] {
        let refused = at.put(digest, MANIFEST, &manifest).await?;
        refused.refuses(400, "DIGEST_INVALID")?;
        let path = at.path(&format!("manifests/{digest}"));
        at.get(&path).await?.is(404)?;
    }
    Ok(())
}

/// end-7a: pushing an existing manifest is no error.
async fn a_manifest_may_be_pushed_again(at: &Check) -> Result<()> {
    let manifest = at.tagged("1", 1).await?;
    at.put("1", MANIFEST, &manifest).await?.is(201)?;
    let digest = content::digest(manifest.as_bytes());
    at.put(&digest, MANIFEST, &manifest).await?.is(201)?;
    Ok(())
}

/// end-7a: a tag points at one manifest; the previous one stays available by digest.
async fn a_tag_moves_to_what_was_pushed_last(at: &Check) -> Result<()> {
    let one = at.tagged("1", 1).await?;
    let two = at.tagged("1", 2).await?;
    let pulled = at.get(&at.path("manifests/1")).await?;
    pulled.is(200)?.holds(two.as_bytes())?;
    let digest = content::digest(one.as_bytes());
    let before = at.get(&at.path(&format!("manifests/{digest}"))).await?;
    before.is(200)?.holds(one.as_bytes())?;
    Ok(())
}

/// Push: a registry may reject a manifest with missing blobs, and must use `MANIFEST_BLOB_UNKNOWN`.
/// It stores nothing then.
async fn a_manifest_that_names_an_unknown_blob_is_refused(at: &Check) -> Result<()> {
    for field in ["config", "layers"] {
        let mut manifest = at.image(1).await?;
        let missing = descriptor(LAYER, &at.bytes(9, 10));
        match field {
            "layers" => manifest["layers"] = json!([missing]),
            _ => manifest["config"] = missing,
        }
        let refused = at.put("1", MANIFEST, &manifest.to_string()).await?;
        refused.refuses(404, "MANIFEST_BLOB_UNKNOWN")?;
        at.get(&at.path("manifests/1")).await?.is(404)?;
    }
    Ok(())
}

/// Push: the same for an index with missing manifests.
async fn an_index_that_names_an_unknown_manifest_is_refused(at: &Check) -> Result<()> {
    let child = at.tagged("1", 1).await?;
    let index = json!({
        "schemaVersion": 2, "mediaType": INDEX,
        "manifests": [descriptor(MANIFEST, child.as_bytes()), descriptor(MANIFEST, b"missing")],
    });
    let refused = at.put("2", INDEX, &index.to_string()).await?;
    refused.refuses(404, "MANIFEST_BLOB_UNKNOWN")?;
    at.get(&at.path("manifests/2")).await?.is(404)?;
    Ok(())
}

/// image-spec, Non-Distributable Layers: they are not expected to be uploaded.
async fn a_nondistributable_layer_may_be_missing(at: &Check) -> Result<()> {
    let mut manifest = at.image(1).await?;
    let kind = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip";
    let mut layer = descriptor(kind, &at.bytes(9, 10));
    layer["urls"] = json!(["https://registry.example.org/layer"]);
    manifest["layers"] = json!([layer]);
    at.put("1", MANIFEST, &manifest.to_string())
        .await?
        .is(201)?;
    Ok(())
}

/// Push: a manifest must be accepted even if its `subject` does not exist.
async fn a_subject_may_be_missing(at: &Check) -> Result<()> {
    let mut manifest = at.image(1).await?;
    manifest["subject"] = descriptor(MANIFEST, b"not there");
    at.put("1", MANIFEST, &manifest.to_string())
        .await?
        .is(201)?;
    Ok(())
}

/// Pushing Manifests with Subject: a registry with the referrers API must send `OCI-Subject`, and
/// only for a manifest with a subject.
async fn a_subject_is_acknowledged(at: &Check) -> Result<()> {
    let subject = at.tagged("1", 1).await?;
    let mut manifest = at.image(2).await?;
    manifest["subject"] = descriptor(MANIFEST, subject.as_bytes());
    let text = manifest.to_string();
    let digest = content::digest(subject.as_bytes());
    for reference in ["2", &content::digest(text.as_bytes())] {
        let pushed = at.put(reference, MANIFEST, &text).await?;
        pushed.is(201)?.says("oci-subject", &digest)?;
    }
    let pushed = at.put("1", MANIFEST, &subject).await?;
    pushed.is(201)?.lacks("oci-subject")?;
    Ok(())
}

/// end-7a: the list of blobs may be empty.
async fn a_manifest_may_have_no_layers(at: &Check) -> Result<()> {
    let mut manifest = at.image(1).await?;
    manifest["layers"] = json!([]);
    at.put("1", MANIFEST, &manifest.to_string())
        .await?
        .is(201)?;
    Ok(())
}

/// end-7a: a multi-platform image, whose platforms are pulled by digest.
async fn an_index_of_images_is_accepted(at: &Check) -> Result<()> {
    let mut manifests = Vec::new();
    for (number, architecture) in [(1, "amd64"), (2, "arm64")] {
        let image = at.image(number).await?.to_string();
        let digest = content::digest(image.as_bytes());
        at.put(&digest, MANIFEST, &image).await?.is(201)?;
        let mut entry = descriptor(MANIFEST, image.as_bytes());
        entry["platform"] = json!({"architecture": architecture, "os": "linux"});
        manifests.push(entry);
    }
    round_trip(at, INDEX, &index(&manifests)).await
}

/// end-7a: an index may hold an index.
async fn an_index_of_an_index_is_accepted(at: &Check) -> Result<()> {
    let image = at.tagged("1", 1).await?;
    let inner = index(&[descriptor(MANIFEST, image.as_bytes())]).to_string();
    at.put("inner", INDEX, &inner).await?.is(201)?;
    let outer = index(&[descriptor(INDEX, inner.as_bytes())]);
    round_trip(at, INDEX, &outer).await
}

/// image-spec, Image Index: the array of manifests may be of size zero.
async fn an_empty_index_is_accepted(at: &Check) -> Result<()> {
    round_trip(at, INDEX, &index(&[])).await
}

/// image-spec, Guidelines for Artifact Usage: an artifact is a manifest with an `artifactType`.
async fn an_artifact_is_accepted(at: &Check) -> Result<()> {
    let artifact = at.artifact("application/vnd.example.sbom.v1+json").await?;
    round_trip(at, MANIFEST, &artifact).await
}

/// image-spec, Canonicalization: unknown fields must be accepted; the bytes are stored unchanged
/// (end-7a).
async fn unknown_fields_are_kept(at: &Check) -> Result<()> {
    let mut manifest = at.image(1).await?;
    manifest["org.example.field"] = json!({"nested": [1, 2.5, null, "text"]});
    manifest["config"]["org.example.field"] = json!(true);
    // A descriptor may contain the content itself.
    manifest["layers"][0]["data"] = json!("AAAA");
    manifest["layers"][0]["annotations"] = json!({"key": "value"});
    round_trip(at, MANIFEST, &manifest).await
}

/// Backwards compatibility with docker: schema 2 images and lists, with their own media types.
async fn dockers_types_are_kept(at: &Check) -> Result<()> {
    let (config, layer) = (at.bytes(1, 50), at.bytes(2, 50));
    at.push(&config).await?;
    at.push(&layer).await?;
    let image = json!({
        "schemaVersion": 2, "mediaType": DOCKER_MANIFEST,
        "config": descriptor(DOCKER_CONFIG, &config),
        "layers": [descriptor(DOCKER_LAYER, &layer)],
    });
    round_trip(at, DOCKER_MANIFEST, &image).await?;
    let mut entry = descriptor(DOCKER_MANIFEST, image.to_string().as_bytes());
    entry["platform"] = json!({"architecture": "amd64", "os": "linux"});
    let list = json!({"schemaVersion": 2, "mediaType": DOCKER_LIST, "manifests": [entry]});
    round_trip(at, DOCKER_LIST, &list).await
}

/// end-7a: a client should set `Content-Type`; otherwise the body names the type.
async fn the_media_type_may_be_in_the_body_or_the_header_alone(at: &Check) -> Result<()> {
    let manifest = at.image(1).await?.to_string();
    let path = at.path("manifests/1");
    at.send("PUT", &path, &[], manifest.as_bytes())
        .await?
        .is(201)?;
    let pulled = at.get(&path).await?;
    pulled.is(200)?.says("content-type", MANIFEST)?;
    // Vice versa, a manifest should have a `mediaType` but need not.
    let mut bare = at.image(2).await?;
    bare.as_object_mut()
        .map(|fields| fields.remove("mediaType"));
    round_trip(at, MANIFEST, &bare).await
}

/// end-7a: registries should accept at least 4 megabytes.
async fn a_manifest_of_four_megabytes_is_accepted(at: &Check) -> Result<()> {
    let manifest = padded(at, LIMIT).await?;
    at.put("1", MANIFEST, &manifest).await?.is(201)?;
    let pulled = at.get(&at.path("manifests/1")).await?;
    pulled.is(200)?.holds(manifest.as_bytes())?;
    Ok(())
}

/// end-7a: a registry that enforces a limit should respond 413 above it, with or without a
/// Content-Length.
async fn a_manifest_above_the_limit_is_413(at: &Check) -> Result<()> {
    let manifest = padded(at, LIMIT + 1).await?;
    let refused = at.put("1", MANIFEST, &manifest).await?;
    refused.refuses(413, "MANIFEST_INVALID")?;
    let path = at.path("manifests/1");
    let headers = [("Content-Type", MANIFEST)];
    let chunks = [manifest.as_bytes()];
    let refused = at.stream("PUT", &path, &headers, &chunks).await?;
    refused.refuses(413, "MANIFEST_INVALID")?;
    at.get(&path).await?.is(404)?;
    Ok(())
}

/// Error Codes: a malformed manifest is `MANIFEST_INVALID`.
async fn a_malformed_manifest_is_refused(at: &Check) -> Result<()> {
    for body in ["", "not json", "[]", "{}", "{\"schemaVersion\": 2"] {
        let refused = at.put("1", MANIFEST, body).await?;
        refused.refuses(400, "MANIFEST_INVALID")?;
    }
    let mut manifest = at.image(1).await?;
    manifest["config"]["digest"] = json!("sha256:short");
    let refused = at.put("1", MANIFEST, &manifest.to_string()).await?;
    refused.refuses(400, "MANIFEST_INVALID")?;
    at.get(&at.path("manifests/1")).await?.is(404)?;
    Ok(())
}

/// end-7a: `Content-Type` must equal the field `mediaType`.
async fn contradicting_media_types_are_refused(at: &Check) -> Result<()> {
    let manifest = at.image(1).await?.to_string();
    for kind in [DOCKER_MANIFEST, INDEX, "application/json", "text/plain"] {
        let refused = at.put("1", kind, &manifest).await?;
        refused.refuses(400, "MANIFEST_INVALID")?;
    }
    Ok(())
}

/// image-spec, since CVE-2021-41190: a manifest that one client could read as an image and another
/// as an index is refused.
async fn an_image_that_looks_like_an_index_is_refused(at: &Check) -> Result<()> {
    let mut manifest = at.image(1).await?;
    manifest["manifests"] = json!([]);
    let refused = at.put("1", MANIFEST, &manifest.to_string()).await?;
    refused.refuses(400, "MANIFEST_INVALID")?;
    Ok(())
}

/// Pulling manifests: a tag has at most 128 characters, letters, digits, `_`, `.` and `-`.
async fn a_tag_may_have_128_characters(at: &Check) -> Result<()> {
    let manifest = at.image(1).await?.to_string();
    let long = "t".repeat(128);
    for tag in ["_", "A.b-C_9", "0", &long] {
        at.put(tag, MANIFEST, &manifest).await?.is(201)?;
        let path = at.path(&format!("manifests/{tag}"));
        at.get(&path).await?.is(200)?;
    }
    Ok(())
}

/// Pulling manifests: no other reference is valid.
async fn an_invalid_tag_is_refused(at: &Check) -> Result<()> {
    let manifest = at.image(1).await?.to_string();
    let long = "t".repeat(129);
    for tag in [".a", "-a", "a%20b", "a%2fb", &long] {
        let status = at.put(tag, MANIFEST, &manifest).await?.response.head.status;
        ensure!(matches!(status, 400 | 404), "{tag}: {status}");
        let path = at.path(&format!("manifests/{tag}"));
        let status = at.get(&path).await?.response.head.status;
        ensure!(matches!(status, 400 | 404), "{tag}: {status}");
    }
    Ok(())
}

/// end-7b: at least 10 tags in one push, each named by `OCI-Tag`.
async fn a_push_by_digest_may_set_tags(at: &Check) -> Result<()> {
    let manifest = at.image(1).await?.to_string();
    tags_with(at, &content::digest(manifest.as_bytes()), &manifest, 12).await
}

/// end-7b, with another algorithm.
async fn a_push_by_sha512_may_set_tags(at: &Check) -> Result<()> {
    let manifest = at.image(1).await?.to_string();
    tags_with(at, &content::sha512(manifest.as_bytes()), &manifest, 3).await
}

async fn tags_with(at: &Check, digest: &str, manifest: &str, count: usize) -> Result<()> {
    let tags: Vec<_> = (0..count).map(|number| format!("v{number}")).collect();
    let reference = format!("{digest}?tag={}", tags.join("&tag="));
    let pushed = at.put(&reference, MANIFEST, manifest).await?;
    pushed.is(201)?.says("docker-content-digest", digest)?;
    let named = pushed.response.head.headers();
    let mut named: Vec<_> = named
        .filter(|(name, _)| *name == "oci-tag")
        .flat_map(|(_, value)| value.split(',').map(str::trim))
        .collect();
    named.sort_by_key(|tag| (tag.len(), *tag));
    ensure!(named == tags, "{named:?}, not {tags:?}");
    for tag in &tags {
        let pulled = at.get(&at.path(&format!("manifests/{tag}"))).await?;
        pulled.is(200)?.holds(manifest.as_bytes())?;
        pulled.says("docker-content-digest", digest)?;
    }
    Ok(())
}

/// end-7b: 414 if there are too many tags, and none of them is created.
async fn too_many_tags_at_once_are_414(at: &Check) -> Result<()> {
    let manifest = at.image(1).await?.to_string();
    let digest = content::digest(manifest.as_bytes());
    let tags: Vec<_> = (0..257).map(|number| format!("v{number}")).collect();
    let reference = format!("{digest}?tag={}", tags.join("&tag="));
    let refused = at.put(&reference, MANIFEST, &manifest).await?;
    refused.refuses(414, "MANIFEST_INVALID")?;
    let path = at.path(&format!("manifests/{digest}"));
    at.get(&path).await?.is(404)?;
    Ok(())
}

/// end-7b: a push is accepted with all its tags or not at all.
async fn one_invalid_tag_refuses_the_manifest(at: &Check) -> Result<()> {
    let manifest = at.image(1).await?.to_string();
    let digest = content::digest(manifest.as_bytes());
    for invalid in ["", ".a", "a%2fb", "a%00", "a%0d%0ab"] {
        let reference = format!("{digest}?tag=good&tag={invalid}");
        let refused = at.put(&reference, MANIFEST, &manifest).await?;
        refused.refuses(400, "MANIFEST_INVALID")?;
        at.get(&at.path("manifests/good")).await?.is(404)?;
    }
    Ok(())
}

fn index(manifests: &[Value]) -> Value {
    json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests})
}

/// Pushes a manifest, and pulls the same bytes with the same type.
async fn round_trip(at: &Check, kind: &str, manifest: &Value) -> Result<()> {
    let text = manifest.to_string();
    at.put("round", kind, &text).await?.is(201)?;
    let pulled = at.get(&at.path("manifests/round")).await?;
    pulled.is(200)?.holds(text.as_bytes())?;
    pulled.says("content-type", kind)?;
    let digest = content::digest(text.as_bytes());
    at.get(&at.path(&format!("manifests/{digest}")))
        .await?
        .is(200)?;
    Ok(())
}

/// An image whose manifest has exactly this many bytes.
async fn padded(at: &Check, length: usize) -> Result<String> {
    let config = at.bytes(1, 10);
    at.push(&config).await?;
    at.push(b"{}").await?;
    let mut manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "config": descriptor(CONFIG, &config),
        "layers": [descriptor(EMPTY, b"{}")], "annotations": {"padding": ""},
    });
    let padding = length - manifest.to_string().len();
    manifest["annotations"]["padding"] = json!("x".repeat(padding));
    Ok(manifest.to_string())
}
