use serde_json::{Value, json};

use super::*;
use crate::oci::Algorithm;

const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const ARTIFACT: &str = "application/vnd.oci.artifact.manifest.v1+json";
const DOCKER_IMAGE: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

fn digest_of(content: &str) -> Digest {
    Digest::of(Algorithm::Sha256, content.as_bytes())
}

fn descriptor(media_type: &str, content: &str) -> Value {
    json!({"mediaType": media_type, "digest": digest_of(content), "size": content.len()})
}

fn image(config: &str, layers: &[&str]) -> Value {
    let layers: Vec<_> = layers
        .iter()
        .map(|layer| descriptor(layer, layer))
        .collect();
    json!({
        "schemaVersion": 2,
        "mediaType": IMAGE,
        "config": descriptor(config, "config"),
        "layers": layers,
    })
}

fn plain_image() -> Value {
    image(
        MediaType::OCI_CONFIG.as_str(),
        &[MediaType::OCI_LAYER_GZIP.as_str()],
    )
}

fn index(entries: &[(&str, &str)]) -> Value {
    let entries: Vec<_> = entries
        .iter()
        .map(|(kind, content)| descriptor(kind, content))
        .collect();
    json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries})
}

/// `manifest` with these fields set.
fn with(mut manifest: Value, fields: Value) -> Value {
    let Value::Object(fields) = fields else {
        panic!("the fields must be an object");
    };
    manifest.as_object_mut().unwrap().extend(fields);
    manifest
}

fn without(mut manifest: Value, field: &str) -> Value {
    manifest.as_object_mut().unwrap().remove(field).unwrap();
    manifest
}

fn parse(manifest: &Value) -> Result<Manifest, ManifestError> {
    Manifest::parse(manifest.to_string().as_bytes(), None)
}

fn parse_as(manifest: &Value, content_type: &str) -> Result<Manifest, ManifestError> {
    let content_type = MediaType::from_content_type(content_type).unwrap();
    Manifest::parse(manifest.to_string().as_bytes(), Some(&content_type))
}

#[test]
fn an_image_is_parsed_into_its_fields() {
    let manifest = parse(&with(
        plain_image(),
        json!({"subject": descriptor(IMAGE, "subject"), "annotations": {"a": "b"}, "new": {"x": 1}}),
    ))
    .unwrap();
    assert_eq!(manifest.media_type(), &MediaType::OCI_MANIFEST);
    assert_eq!(manifest.artifact_type(), None);
    assert_eq!(manifest.config().unwrap().digest, digest_of("config"));
    assert_eq!(manifest.layers().len(), 1);
    assert!(manifest.manifests().is_empty());
    assert_eq!(manifest.subject().unwrap().digest, digest_of("subject"));
    assert_eq!(manifest.annotations()["a"], "b");
}

#[test]
fn the_media_type_comes_from_the_header_then_the_body_then_the_fields() {
    let untyped_image = without(plain_image(), "mediaType");
    let untyped_index = without(index(&[]), "mediaType");
    let media_type = |manifest: Result<Manifest, _>| manifest.unwrap().media_type().to_string();
    assert_eq!(media_type(parse_as(&plain_image(), IMAGE)), IMAGE);
    assert_eq!(
        media_type(parse_as(&untyped_image, DOCKER_IMAGE)),
        DOCKER_IMAGE
    );
    assert_eq!(
        media_type(parse_as(&untyped_index, DOCKER_LIST)),
        DOCKER_LIST
    );
    assert_eq!(media_type(parse(&plain_image())), IMAGE);
    assert_eq!(media_type(parse(&untyped_image)), IMAGE);
    assert_eq!(media_type(parse(&untyped_index)), INDEX);
    assert_eq!(
        media_type(parse(&with(untyped_index, json!({"mediaType": ""})))),
        INDEX
    );
}

#[test]
fn header_and_body_must_agree() {
    for header in [
        INDEX,
        DOCKER_IMAGE,
        "application/json",
        "application/octet-stream",
    ] {
        let error = parse_as(&plain_image(), header).unwrap_err();
        assert!(
            matches!(error, ManifestError::MediaTypeMismatch { .. }),
            "{header}: {error}"
        );
    }
}

#[test]
fn other_media_types_are_rejected() {
    for media_type in [
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
        "application/vnd.oci.image.config.v1+json",
        "application/json",
    ] {
        let error = parse(&with(plain_image(), json!({"mediaType": media_type}))).unwrap_err();
        assert!(
            matches!(error, ManifestError::UnsupportedMediaType(_)),
            "{error}"
        );
    }
    assert!(matches!(
        parse(&json!({"schemaVersion": 2})),
        Err(ManifestError::NoMediaType)
    ));
}

#[test]
fn an_ambiguous_manifest_is_rejected() {
    let both = with(plain_image(), json!({"manifests": []}));
    assert!(matches!(
        parse(&both),
        Err(ManifestError::Unexpected("manifests"))
    ));
    let both = with(index(&[]), json!({"config": descriptor("a/b", "c")}));
    assert!(matches!(
        parse(&both),
        Err(ManifestError::Unexpected("config"))
    ));
    let both = with(index(&[]), json!({"layers": null}));
    assert!(matches!(
        parse(&both),
        Err(ManifestError::Unexpected("layers"))
    ));
}

#[test]
fn a_required_field_must_be_present_and_may_be_empty() {
    for field in ["config", "layers"] {
        let error = parse(&without(plain_image(), field)).unwrap_err();
        assert!(
            matches!(error, ManifestError::Missing(missing) if missing == field),
            "{error}"
        );
    }
    let error = parse(&without(index(&[]), "manifests")).unwrap_err();
    assert!(
        matches!(error, ManifestError::Missing("manifests")),
        "{error}"
    );
    for layers in [json!([]), json!(null)] {
        let manifest = parse(&with(plain_image(), json!({"layers": layers}))).unwrap();
        assert!(manifest.layers().is_empty());
    }
    assert!(parse(&with(index(&[]), json!({"manifests": null}))).is_ok());
}

#[test]
fn the_schema_version_must_be_2() {
    for version in [json!(1), json!(3), json!(null)] {
        let error = parse(&with(plain_image(), json!({"schemaVersion": version}))).unwrap_err();
        assert!(matches!(error, ManifestError::SchemaVersion), "{error}");
    }
    let error = parse(&without(index(&[]), "schemaVersion")).unwrap_err();
    assert!(matches!(error, ManifestError::SchemaVersion), "{error}");
}

#[test]
fn a_duplicate_key_is_rejected_at_any_depth() {
    let text = plain_image().to_string();
    let twice = [
        text.replacen('{', r#"{"layers":[],"#, 1),
        text.replacen('{', r#"{"annotations":{"a":"1","a":"2"},"#, 1),
        text.replacen('{', r#"{"unknown":[{"x":1,"x":2}],"#, 1),
        text.replacen(r#""size":"#, r#""size":1,"size":"#, 1),
    ];
    for text in twice {
        let error = Manifest::parse(text.as_bytes(), None).unwrap_err();
        assert!(error.to_string().contains("duplicate key"), "{error}");
    }
}

#[test]
fn the_error_names_the_invalid_field() {
    let mut manifest = plain_image();
    manifest["layers"][0]["digest"] = json!("sha256:00");
    insta::assert_snapshot!(parse(&manifest).unwrap_err(), @"the manifest's layers[0].digest is invalid: a sha256 digest must have 64 lower-case hexadecimal digits at line 1 column 190");
    let manifest = with(plain_image(), json!({"layers": {}}));
    assert!(
        parse(&manifest)
            .unwrap_err()
            .to_string()
            .contains("layers is invalid")
    );
    let manifest = with(plain_image(), json!({"annotations": {"a": 1}}));
    assert!(
        parse(&manifest)
            .unwrap_err()
            .to_string()
            .contains("annotations.a is invalid")
    );
}

#[test]
fn an_error_quotes_little_of_the_body() {
    let long = "é".repeat(1 << 20);
    let mut manifests = vec![
        format!(r#"{{"{long}":1,"{long}":2}}"#),
        with(plain_image(), json!({"annotations": {long.as_str(): 1}})).to_string(),
    ];
    for field in [
        "schemaVersion",
        "mediaType",
        "artifactType",
        "config",
        "subject",
    ] {
        manifests.push(with(plain_image(), json!({field: long})).to_string());
    }
    for manifest in manifests {
        let message = Manifest::parse(manifest.as_bytes(), None)
            .unwrap_err()
            .to_string();
        assert!(message.len() < 500, "{} bytes", message.len());
    }
}

#[test]
fn anything_but_an_object_is_rejected() {
    for bytes in [
        &b""[..],
        b"null",
        b"[]",
        b"\"x\"",
        b"{",
        b"\0",
        b"\xff\xfe",
        b"PK\x03\x04",
    ] {
        assert!(Manifest::parse(bytes, None).is_err());
        assert!(Manifest::parse(bytes, Some(&MediaType::OCI_MANIFEST)).is_err());
    }
    for open in ["[", r#"{"layers":["#, r#"{"config":{"annotations":"#] {
        assert!(Manifest::parse(open.repeat(300_000).as_bytes(), None).is_err());
    }
}

#[test]
fn references_exclude_the_subject_and_non_distributable_layers() {
    let foreign = MediaType::DOCKER_FOREIGN_LAYER;
    let layer = MediaType::OCI_LAYER;
    let manifest = with(
        image(
            MediaType::OCI_CONFIG.as_str(),
            &[layer.as_str(), foreign.as_str(), layer.as_str()],
        ),
        json!({"subject": descriptor(IMAGE, "subject")}),
    );
    let references = parse(&manifest).unwrap().references();
    assert_eq!(
        references.blobs,
        [digest_of("config"), digest_of(layer.as_str())]
    );
    assert!(references.children.is_empty());
}

#[test]
fn an_index_references_manifests_and_a_build_cache_references_blobs() {
    let manifest = parse(&index(&[
        (IMAGE, "a"),
        (INDEX, "b"),
        (DOCKER_IMAGE, "c"),
        (IMAGE, "a"),
        ("application/vnd.oci.image.layer.v1.tar+gzip", "layer"),
        ("application/vnd.buildkit.cacheconfig.v0", "cache"),
    ]));
    let references = manifest.unwrap().references();
    assert_eq!(references.children, ["a", "b", "c"].map(digest_of));
    assert_eq!(references.blobs, ["layer", "cache"].map(digest_of));
}

#[test]
fn a_referrer_is_listed_with_its_artifact_type_or_the_type_of_its_configuration() {
    let subject = json!({"subject": descriptor(IMAGE, "subject"), "annotations": {"a": "b"}});
    let own = digest_of("own");
    let list = |manifest: Value| parse(&manifest).unwrap().referrer(own.clone(), 7);

    let (to, by) = list(with(plain_image(), subject.clone())).unwrap();
    assert_eq!(to, digest_of("subject"));
    assert_eq!(
        (by.media_type, by.digest, by.size),
        (MediaType::OCI_MANIFEST, own.clone(), 7)
    );
    assert_eq!(by.artifact_type, Some(MediaType::OCI_CONFIG));
    assert_eq!(by.annotations["a"], "b");

    let typed = with(
        plain_image(),
        json!({"artifactType": "application/vnd.example"}),
    );
    let (_, by) = list(with(typed, subject.clone())).unwrap();
    assert_eq!(
        by.artifact_type.unwrap().as_str(),
        "application/vnd.example"
    );

    let (_, by) = list(with(index(&[]), subject.clone())).unwrap();
    assert_eq!(
        (by.media_type, by.artifact_type),
        (MediaType::OCI_INDEX, None)
    );

    assert_eq!(list(plain_image()), None);
}

#[test]
fn four_mebibytes_are_read_quickly() {
    let layers: Vec<_> = (0..22_000)
        .map(|n| descriptor(MediaType::OCI_LAYER.as_str(), &n.to_string()))
        .collect();
    let bytes = with(plain_image(), json!({"layers": layers}))
        .to_string()
        .into_bytes();
    assert!(bytes.len() > 3 << 20, "{}", bytes.len());
    let started = std::time::Instant::now();
    let manifest = Manifest::parse(&bytes, None).unwrap();
    assert_eq!(manifest.references().blobs.len(), 22_001);
    // Far more than linear work needs, far less than quadratic work would.
    assert!(
        started.elapsed() < std::time::Duration::from_secs(5),
        "{:?}",
        started.elapsed()
    );
}

/// Each row: the tool, the kind, the artifact type (or nothing), the configuration, the layers.
#[test]
fn the_kinds_of_manifests_that_real_tools_push() {
    const EMPTY: &str = "application/vnd.oci.empty.v1+json";
    const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
    const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    const DOCKER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
    const IN_TOTO: &str = "application/vnd.in-toto+json";
    const DSSE: &str = "application/vnd.dsse.envelope.v1+json";
    const COSIGN: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
    const NOTARY: &str = "application/vnd.cncf.notary.signature";

    let table: &[(&str, Kind, &str, &str, &[&str])] = &[
        (
            "docker, schema 2",
            Kind::Image,
            "",
            DOCKER_CONFIG,
            &[DOCKER_GZIP],
        ),
        (
            "docker, first schema 2",
            Kind::Image,
            "",
            "application/octet-stream",
            &[DOCKER_GZIP],
        ),
        (
            "buildkit, containerd, podman",
            Kind::Image,
            "",
            CONFIG,
            &[GZIP, GZIP],
        ),
        (
            "buildkit, zstd",
            Kind::Image,
            "",
            CONFIG,
            &["application/vnd.oci.image.layer.v1.tar+zstd"],
        ),
        ("an image from scratch", Kind::Image, "", CONFIG, &[]),
        (
            "nydus",
            Kind::Image,
            "",
            CONFIG,
            &["application/vnd.oci.image.layer.nydus.blob.v1", GZIP],
        ),
        ("kaniko", Kind::Image, "", DOCKER_CONFIG, &[DOCKER_GZIP]),
        (
            "docker plugin",
            Kind::Artifact,
            "",
            "application/vnd.docker.plugin.v1+json",
            &[DOCKER_GZIP],
        ),
        (
            "buildkit attestation",
            Kind::Attestation,
            "",
            CONFIG,
            &[IN_TOTO, IN_TOTO],
        ),
        (
            "buildkit attestation as an artifact",
            Kind::Attestation,
            "application/vnd.docker.attestation.manifest.v1+json",
            EMPTY,
            &[IN_TOTO],
        ),
        (
            "buildkit cache",
            Kind::Artifact,
            "",
            "application/vnd.buildkit.cacheconfig.v0",
            &[GZIP],
        ),
        (
            "cosign sign",
            Kind::Signature,
            "",
            CONFIG,
            &[COSIGN, COSIGN],
        ),
        ("cosign attest", Kind::Attestation, "", CONFIG, &[DSSE]),
        (
            "cosign attach sbom",
            Kind::Artifact,
            "",
            CONFIG,
            &["text/spdx+json"],
        ),
        (
            "cosign attach sbom",
            Kind::Artifact,
            "",
            CONFIG,
            &["application/vnd.cyclonedx+json"],
        ),
        (
            "cosign sign, OCI 1.1",
            Kind::Signature,
            "application/vnd.dev.cosign.artifact.sig.v1+json",
            CONFIG,
            &[COSIGN],
        ),
        (
            "notation",
            Kind::Signature,
            NOTARY,
            EMPTY,
            &["application/jose+json"],
        ),
        (
            "notation 1.0",
            Kind::Signature,
            "",
            NOTARY,
            &["application/cose"],
        ),
        (
            "oras attach",
            Kind::Artifact,
            "application/vnd.example.sbom",
            EMPTY,
            &["application/json"],
        ),
        (
            "oras push",
            Kind::Artifact,
            "",
            "application/vnd.unknown.config.v1+json",
            &["text/plain"],
        ),
        (
            "helm",
            Kind::Artifact,
            "",
            "application/vnd.cncf.helm.config.v1+json",
            &["application/vnd.cncf.helm.chart.content.v1.tar+gzip"],
        ),
        (
            "helm, with a provenance",
            Kind::Artifact,
            "",
            "application/vnd.cncf.helm.config.v1+json",
            &[
                "application/vnd.cncf.helm.chart.content.v1.tar+gzip",
                "application/vnd.cncf.helm.chart.provenance.v1.prov",
            ],
        ),
        (
            "podman, docker's format",
            Kind::Image,
            "",
            DOCKER_CONFIG,
            &["application/vnd.docker.image.rootfs.diff.tar"],
        ),
        (
            "skopeo, encrypted",
            Kind::Image,
            "",
            CONFIG,
            &["application/vnd.oci.image.layer.v1.tar+gzip+encrypted"],
        ),
        (
            "regctl artifact put",
            Kind::Artifact,
            "application/vnd.example+type",
            EMPTY,
            &["application/octet-stream"],
        ),
        (
            "trivy",
            Kind::Artifact,
            "application/vnd.cyclonedx+json",
            EMPTY,
            &[EMPTY],
        ),
        (
            "in-toto, by oras",
            Kind::Attestation,
            IN_TOTO,
            EMPTY,
            &[DSSE],
        ),
        (
            "an artifact with an image's config",
            Kind::Artifact,
            "application/x",
            CONFIG,
            &[GZIP],
        ),
        (
            "an image with a statement in it",
            Kind::Image,
            "",
            CONFIG,
            &[GZIP, IN_TOTO],
        ),
    ];
    for &(tool, kind, artifact_type, config, layers) in table {
        let docker = config.contains("docker.container") || config.ends_with("octet-stream");
        let manifest = with(
            image(config, layers),
            json!({
                "mediaType": if docker { DOCKER_IMAGE } else { IMAGE },
                "artifactType": artifact_type,
            }),
        );
        assert_eq!(parse(&manifest).unwrap().kind(), kind, "{tool}");
    }
}

#[test]
fn annotations_tell_the_kind_of_a_sigstore_bundle() {
    const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
    let kind = |annotations: Value| {
        let manifest = with(
            image("application/vnd.oci.empty.v1+json", &[BUNDLE]),
            json!({"artifactType": BUNDLE, "annotations": annotations}),
        );
        parse(&manifest).unwrap().kind()
    };
    let content = "dev.sigstore.bundle.content";
    let predicate = "dev.sigstore.bundle.predicateType";
    assert_eq!(kind(json!({})), Kind::Signature);
    assert_eq!(kind(json!({content: "message-signature"})), Kind::Signature);
    assert_eq!(kind(json!({content: "dsse-envelope"})), Kind::Attestation);
    assert_eq!(
        kind(json!({content: "dsse-envelope", predicate: "https://sigstore.dev/cosign/sign/v1"})),
        Kind::Signature
    );
    assert_eq!(
        kind(json!({predicate: "https://slsa.dev/provenance/v1"})),
        Kind::Attestation
    );
}

#[test]
fn a_sigstore_bundle_whose_version_is_a_parameter_is_recognized() {
    for (bundle, expected) in [
        (
            "application/vnd.dev.sigstore.bundle+json;version=0.2",
            Kind::Signature,
        ),
        (
            "application/vnd.dev.sigstore.bundle+json; version=0.1",
            Kind::Signature,
        ),
        (
            "application/vnd.dev.sigstore.bundle.v0.3+json;a=b",
            Kind::Signature,
        ),
        ("application/vnd.dev.sigstore.bundles+json", Kind::Artifact),
    ] {
        let manifest = with(
            image("application/vnd.oci.empty.v1+json", &[bundle]),
            json!({"artifactType": bundle}),
        );
        assert_eq!(parse(&manifest).unwrap().kind(), expected, "{bundle}");
    }
}

#[test]
fn an_artifact_type_is_listed_as_it_was_pushed() {
    const BUNDLE: &str = "application/vnd.dev.sigstore.bundle+json;version=0.2";
    let subject = json!({"subject": descriptor(IMAGE, "subject")});
    let listed = |manifest: Value| {
        let manifest = parse(&with(manifest, subject.clone())).unwrap();
        let (_, listed) = manifest.referrer(digest_of("it"), 2).unwrap();
        listed.artifact_type.unwrap().to_string()
    };
    let declared = with(plain_image(), json!({"artifactType": BUNDLE}));
    assert_eq!(listed(declared), BUNDLE);
    // An empty artifact type counts as none, and the configuration's type is listed.
    let configured = with(image(BUNDLE, &[]), json!({"artifactType": ""}));
    assert_eq!(listed(configured), BUNDLE);
    let written = with(plain_image(), json!({"artifactType": "Text/X ; A=\"b;c\""}));
    assert_eq!(listed(written), "Text/X ; A=\"b;c\"");
}

#[test]
fn parameters_and_case_of_media_types_are_ignored() {
    let written = "application/vnd.OCI.image.manifest.v1+json; a=b";
    let manifest = with(plain_image(), json!({"mediaType": written}));
    for parsed in [
        parse(&manifest),
        parse_as(&manifest, IMAGE),
        parse_as(&manifest, &IMAGE.to_uppercase()),
        parse_as(&plain_image(), written),
    ] {
        assert_eq!(parsed.unwrap().media_type(), &MediaType::OCI_MANIFEST);
    }
    assert!(parse_as(&manifest, INDEX).is_err());
    let entry = format!("{IMAGE};a=b");
    let listed = parse(&index(&[(&entry, "child")])).unwrap();
    assert_eq!(listed.references().children, [digest_of("child")]);
}

#[test]
fn an_error_shortens_the_media_types_that_it_quotes() {
    let long = format!("a/b;c={}", "d".repeat(1000));
    let unsupported = parse(&with(plain_image(), json!({"mediaType": long})));
    assert!(unsupported.unwrap_err().to_string().len() < 400);
    let mismatch = parse_as(&with(plain_image(), json!({"mediaType": long})), IMAGE);
    assert!(mismatch.unwrap_err().to_string().len() < 400);
}

#[test]
fn an_index_has_the_kind_index_whatever_its_entries() {
    let index = with(
        index(&[]),
        json!({"artifactType": "application/vnd.cncf.notary.signature"}),
    );
    assert_eq!(parse(&index).unwrap().kind(), Kind::Index);
    let list = with(index, json!({"mediaType": DOCKER_LIST}));
    assert_eq!(parse(&list).unwrap().kind(), Kind::Index);
}

#[test]
fn an_artifact_manifest_has_blobs() {
    let manifest = json!({
        "mediaType": ARTIFACT,
        "artifactType": "application/vnd.cncf.notary.signature",
        "blobs": [descriptor("application/jose+json", "signature")],
        "subject": descriptor(IMAGE, "subject"),
    });
    let manifest = parse(&manifest).unwrap();
    assert_eq!(manifest.kind(), Kind::Signature);
    assert_eq!(manifest.references().blobs, [digest_of("signature")]);
    let plain = parse(&json!({"mediaType": ARTIFACT, "artifactType": "a/b"})).unwrap();
    assert_eq!(plain.kind(), Kind::Artifact);
    assert!(parse(&with(plain_image(), json!({"mediaType": ARTIFACT}))).is_err());
}

#[test]
fn the_likeliest_kind_follows_from_the_media_type_alone() {
    for (media_type, kind) in [
        (IMAGE, Kind::Image),
        (DOCKER_IMAGE, Kind::Image),
        (INDEX, Kind::Index),
        (DOCKER_LIST, Kind::Index),
        (ARTIFACT, Kind::Artifact),
        ("text/html", Kind::Other),
    ] {
        assert_eq!(
            Kind::of_media_type(&MediaType::parse(media_type).unwrap()),
            kind
        );
    }
}
