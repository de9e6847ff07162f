//! Valid and invalid bodies of manifests, and their references (end-7).

use serde_json::{Value, json};

use super::harness::{IMAGE, Running, TestResponse};
use crate::oci::{Algorithm, Digest};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const FOREIGN: &str = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";

fn digest(content: &str) -> Digest {
    Digest::of(Algorithm::Sha256, content.as_bytes())
}

fn descriptor(media_type: &str, content: &str) -> Value {
    json!({"mediaType": media_type, "digest": digest(content).as_str(), "size": content.len()})
}

/// An image whose blobs are in the repository `a` of a [`registry`].
fn image() -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": IMAGE,
        "config": descriptor(CONFIG, "{}"),
        "layers": [descriptor(LAYER, "layer")],
    })
}

/// An image with another value at `pointer`; `null` removes the field.
fn changed(pointer: &str, value: Value) -> Value {
    let mut image = image();
    let (parent, field) = pointer.rsplit_once('/').unwrap();
    let parent = image.pointer_mut(parent).unwrap().as_object_mut().unwrap();
    match value {
        Value::Null => drop(parent.remove(field)),
        value => drop(parent.insert(field.to_owned(), value)),
    }
    image
}

async fn registry() -> Running {
    let registry = Running::start().await;
    registry.push_blob("a", b"{}").await;
    registry.push_blob("a", b"layer").await;
    registry
}

async fn put(registry: &Running, media_type: &str, body: &[u8]) -> TestResponse {
    let headers = [("content-type", media_type)];
    let target = "/v2/a/manifests/1";
    registry.ask("PUT", target, &headers, body).await
}

async fn put_image(registry: &Running, image: &Value) -> TestResponse {
    put(registry, IMAGE, image.to_string().as_bytes()).await
}

#[tokio::test]
async fn the_error_names_a_missing_or_invalid_field() {
    let registry = registry().await;
    for (field, wrong) in [
        ("/schemaVersion", Value::Null),
        ("/schemaVersion", json!(1)),
        ("/schemaVersion", json!("2")),
        ("/schemaVersion", json!(-2)),
        ("/mediaType", json!(2)),
        ("/mediaType", json!(INDEX)),
        ("/config", Value::Null),
        ("/config", json!([])),
        ("/config/mediaType", Value::Null),
        ("/config/mediaType", json!({})),
        ("/config/mediaType", json!("no media type")),
        ("/config/digest", Value::Null),
        ("/config/digest", json!(7)),
        ("/config/digest", json!("sha256:../../../etc/passwd")),
        (
            "/config/digest",
            json!("md5:d41d8cd98f00b204e9800998ecf8427e"),
        ),
        (
            "/config/digest",
            json!(digest("{}").as_str().to_uppercase()),
        ),
        ("/config/size", Value::Null),
        ("/config/size", json!(-1)),
        ("/config/size", json!(1.5)),
        ("/config/size", json!("2")),
        ("/layers", Value::Null),
        ("/layers", json!({})),
        ("/layers", json!([{}])),
        ("/layers", json!([[]])),
        ("/layers", json!([7])),
        ("/layers/0/digest", json!("")),
        ("/annotations", json!([])),
        ("/annotations", json!({"a": 1})),
        ("/subject", json!("sha256")),
        ("/subject", json!({})),
        ("/artifactType", json!(1)),
        ("/manifests", json!([])),
    ] {
        let image = changed(field, wrong);
        let response = put_image(&registry, &image).await;
        let response = response.rejected(400, "MANIFEST_INVALID");
        let named = field.trim_start_matches('/').split('/').next().unwrap();
        // A media type that differs from the header's has its own error.
        let is_named = response.text().contains(named) || response.text().contains("Content-Type");
        assert!(is_named, "{image}: {}", response.text());
    }
    let target = "/v2/a/manifests/1";
    registry.get(target).await.rejected(404, "MANIFEST_UNKNOWN");
    put_image(&registry, &image()).await.expect(201);
}

#[tokio::test]
async fn a_duplicate_key_is_rejected_at_any_depth() {
    let registry = registry().await;
    let whole = image().to_string();
    for (once, twice) in [
        (
            r#""schemaVersion":2"#,
            r#""schemaVersion":2,"schemaVersion":2"#,
        ),
        (r#""size":5"#, r#""size":5,"size":6"#),
        (
            r#""schemaVersion":2"#,
            r#""schemaVersion":2,"annotations":{"a":"1","a":"2"}"#,
        ),
        (
            r#""schemaVersion":2"#,
            r#""schemaVersion":2,"x":[{"y":{"z":1,"z":1}}]"#,
        ),
        // The same key, escaped.
        (
            r#""schemaVersion":2"#,
            r#""schemaVersion":2,"x":1,"\u0078":2"#,
        ),
    ] {
        assert!(whole.contains(once), "{whole}");
        let body = whole.replace(once, twice);
        let response = put(&registry, IMAGE, body.as_bytes()).await;
        response.rejected(400, "MANIFEST_INVALID");
    }
}

#[tokio::test]
async fn depth_and_size_and_error_messages_are_bounded() {
    let registry = registry().await;
    let nested = |depth: usize| {
        let (open, close) = (r#"{"x":"#.repeat(depth), "}".repeat(depth));
        let whole = image().to_string();
        let inner = format!(r#"{{"x":{open}[]{close},"#);
        whole.replacen('{', &inner, 1)
    };
    let response = put(&registry, IMAGE, nested(20).as_bytes()).await;
    response.expect(201);
    for depth in [1000, 100_000] {
        let response = put(&registry, IMAGE, nested(depth).as_bytes()).await;
        let response = response.rejected(400, "MANIFEST_INVALID");
        assert!(response.body.len() < 1000, "{}", response.text());
    }
    // Thousands of layers are accepted; here each is the same.
    let layers = vec![descriptor(LAYER, "layer"); 10_000];
    let many = changed("/layers", Value::from(layers));
    put_image(&registry, &many).await.expect(201);
    let long = "x".repeat(1 << 20);
    for wrong in [
        changed("/config/digest", json!(long)),
        changed("/config/mediaType", json!(long)),
        changed("/mediaType", json!(format!("a/{long}"))),
    ] {
        let response = put_image(&registry, &wrong).await;
        let response = response.rejected(400, "MANIFEST_INVALID");
        assert!(response.body.len() < 1000, "{} bytes", response.body.len());
    }
}

#[tokio::test]
async fn the_entries_of_an_index_must_exist_as_their_media_type_says() {
    let registry = registry().await;
    put_image(&registry, &image()).await.expect(201);
    let manifest = image().to_string();
    let index = |entries: Vec<Value>| {
        json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).to_string()
    };
    let there = descriptor(IMAGE, &manifest);
    let absent = descriptor(IMAGE, "absent");
    // A blob of the repository does not count as a manifest.
    let blob = descriptor(IMAGE, "layer");
    let body = index(vec![there.clone(), absent.clone(), blob.clone()]);
    let response = put(&registry, INDEX, body.as_bytes()).await;
    let response = response.rejected(404, "MANIFEST_BLOB_UNKNOWN");
    let detail = &response.json()["errors"][0]["detail"];
    assert_eq!(detail, &json!([absent["digest"], blob["digest"]]));
    let body = index(vec![there]);
    put(&registry, INDEX, body.as_bytes()).await.expect(201);
    let response = put(&registry, INDEX, index(vec![]).as_bytes()).await;
    response.expect(201);
    let response = put(&registry, IMAGE, body.as_bytes()).await;
    response.rejected(400, "MANIFEST_INVALID");
}

#[tokio::test]
async fn a_subject_and_non_distributable_layers_need_not_exist() {
    let registry = registry().await;
    let mut image = image();
    image["subject"] = descriptor(IMAGE, "no such manifest");
    image["layers"] = json!([
        descriptor(LAYER, "layer"),
        descriptor(FOREIGN, "elsewhere"),
        descriptor(
            "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
            "elsewhere"
        ),
    ]);
    let response = put_image(&registry, &image).await.expect(201);
    assert_eq!(
        response.header("oci-subject"),
        digest("no such manifest").as_str()
    );
    // The same layer with a distributable type must exist.
    image["layers"][1] = descriptor(LAYER, "elsewhere");
    let response = put_image(&registry, &image).await;
    let response = response.rejected(404, "MANIFEST_BLOB_UNKNOWN");
    let detail = &response.json()["errors"][0]["detail"];
    assert_eq!(detail, &json!([digest("elsewhere").as_str()]));
}
