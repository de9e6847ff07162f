//! What a manifest's body may not be, what it may, and what its references must be (end-7).

use serde_json::{Value, json};

use super::harness::{Answer, IMAGE, Running};
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

/// An image with another value somewhere; `null` there takes the field away.
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

async fn put(registry: &Running, media_type: &str, body: &[u8]) -> Answer {
    let headers = [("content-type", media_type)];
    let target = "/v2/a/manifests/1";
    registry.ask("PUT", target, &headers, body).await
}

async fn put_image(registry: &Running, image: &Value) -> Answer {
    put(registry, IMAGE, image.to_string().as_bytes()).await
}

#[tokio::test]
async fn a_field_that_is_missing_or_of_the_wrong_type_is_named() {
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
        let answer = put_image(&registry, &image).await;
        let answer = answer.refused(400, "MANIFEST_INVALID");
        let named = field.trim_start_matches('/').split('/').next().unwrap();
        // A media type that differs from the header's is told as such.
        let told = answer.text().contains(named) || answer.text().contains("Content-Type");
        assert!(told, "{image}: {}", answer.text());
    }
    let target = "/v2/a/manifests/1";
    registry.get(target).await.refused(404, "MANIFEST_UNKNOWN");
    put_image(&registry, &image()).await.expect(201);
}

#[tokio::test]
async fn a_key_that_comes_twice_is_refused_wherever_it_is() {
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
        // The same key in another spelling.
        (
            r#""schemaVersion":2"#,
            r#""schemaVersion":2,"x":1,"\u0078":2"#,
        ),
    ] {
        assert!(whole.contains(once), "{whole}");
        let body = whole.replace(once, twice);
        let answer = put(&registry, IMAGE, body.as_bytes()).await;
        answer.refused(400, "MANIFEST_INVALID");
    }
}

#[tokio::test]
async fn depth_and_size_are_bounded_and_so_is_what_is_said_of_them() {
    let registry = registry().await;
    let nested = |depth: usize| {
        let (open, close) = (r#"{"x":"#.repeat(depth), "}".repeat(depth));
        let whole = image().to_string();
        let inner = format!(r#"{{"x":{open}[]{close},"#);
        whole.replacen('{', &inner, 1)
    };
    let answer = put(&registry, IMAGE, nested(20).as_bytes()).await;
    answer.expect(201);
    for depth in [1000, 100_000] {
        let answer = put(&registry, IMAGE, nested(depth).as_bytes()).await;
        let answer = answer.refused(400, "MANIFEST_INVALID");
        assert!(answer.body.len() < 1000, "{}", answer.text());
    }
    // Thousands of layers are fine, the same one each time.
    let layers = vec![descriptor(LAYER, "layer"); 10_000];
    let many = changed("/layers", Value::from(layers));
    put_image(&registry, &many).await.expect(201);
    let long = "x".repeat(1 << 20);
    for wrong in [
        changed("/config/digest", json!(long)),
        changed("/config/mediaType", json!(long)),
        changed("/mediaType", json!(format!("a/{long}"))),
    ] {
        let answer = put_image(&registry, &wrong).await;
        let answer = answer.refused(400, "MANIFEST_INVALID");
        assert!(answer.body.len() < 1000, "{} bytes", answer.body.len());
    }
}

#[tokio::test]
async fn what_an_index_names_must_be_there_and_be_what_it_is_named_as() {
    let registry = registry().await;
    put_image(&registry, &image()).await.expect(201);
    let manifest = image().to_string();
    let index = |entries: Vec<Value>| {
        json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).to_string()
    };
    let there = descriptor(IMAGE, &manifest);
    let absent = descriptor(IMAGE, "absent");
    // A blob of the repository is not a manifest of it.
    let blob = descriptor(IMAGE, "layer");
    let body = index(vec![there.clone(), absent.clone(), blob.clone()]);
    let answer = put(&registry, INDEX, body.as_bytes()).await;
    let answer = answer.refused(404, "MANIFEST_BLOB_UNKNOWN");
    let told = &answer.json()["errors"][0]["detail"];
    assert_eq!(told, &json!([absent["digest"], blob["digest"]]));
    let body = index(vec![there]);
    put(&registry, INDEX, body.as_bytes()).await.expect(201);
    let answer = put(&registry, INDEX, index(vec![]).as_bytes()).await;
    answer.expect(201);
    let answer = put(&registry, IMAGE, body.as_bytes()).await;
    answer.refused(400, "MANIFEST_INVALID");
}

#[tokio::test]
async fn a_subject_and_layers_that_are_not_distributed_need_not_be_there() {
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
    let answer = put_image(&registry, &image).await.expect(201);
    assert_eq!(
        answer.header("oci-subject"),
        digest("no such manifest").as_str()
    );
    // The same layer under a type that is distributed is missed.
    image["layers"][1] = descriptor(LAYER, "elsewhere");
    let answer = put_image(&registry, &image).await;
    let answer = answer.refused(404, "MANIFEST_BLOB_UNKNOWN");
    let told = &answer.json()["errors"][0]["detail"];
    assert_eq!(told, &json!([digest("elsewhere").as_str()]));
}
