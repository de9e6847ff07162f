//! Which repositories are shown, and what they count.

use super::manifests::{IMAGE, SIGNATURE};
use super::*;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const ARTIFACT: &str = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","artifactType":"application/vnd.example","config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":"sha256:0af90af90af90af90af90af90af90af90af90af90af90af90af90af90af90af9","size":2},"layers":[]}"#;
/// An attestation as buildkit makes them.
const ATTESTATION: &str = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:0af90af90af90af90af90af90af90af90af90af90af90af90af90af90af90af9","size":2},"layers":[{"mediaType":"application/vnd.in-toto+json","digest":"sha256:0af90af90af90af90af90af90af90af90af90af90af90af90af90af90af90af9","size":2}]}"#;

/// The `repository_*` series that are not 0, except the time of the last pull.
fn series(registry: &MetricsRegistry) -> Vec<String> {
    let mut text = String::new();
    registry.gather().write_text(&mut text);
    text.lines()
        .filter_map(|line| line.strip_prefix("octoserve_repository_"))
        .filter(|line| !line.ends_with(" 0") && !line.starts_with("last_pull"))
        .map(ToOwned::to_owned)
        .collect()
}

fn last_pull(registry: &MetricsRegistry, repository: &str) -> Option<f64> {
    let exposition = registry.gather();
    let family = exposition.family("octoserve_repository_last_pull_timestamp_seconds");
    let mut samples = family.unwrap().samples();
    let sample = samples.find(|sample| sample.label("repository").unwrap() == repository);
    sample.map(|sample| sample.value())
}

#[test]
fn a_404_mints_no_repository() {
    let registry = MetricsRegistry::new("octoserve_");
    let recorder = recorder_on(&registry);
    for (method, rest, status) in [
        ("GET", "manifests/1".to_owned(), 404),
        ("GET", "manifests/1".to_owned(), 401),
        ("GET", format!("blobs/{DIGEST}"), 404),
        ("HEAD", "manifests/1".to_owned(), 404),
        ("PUT", "manifests/1".to_owned(), 400),
        ("POST", "blobs/uploads/".to_owned(), 202),
        ("GET", "tags/list".to_owned(), 200),
    ] {
        exchange(&recorder, method, &of_app(&rest), status);
    }
    assert_eq!(last_pull(&registry, "team/app"), None);
    // A failure is no operation; a success that proves no repository is counted as `_other`.
    assert_eq!(
        series(&registry),
        [
            "label_overflow_total 2",
            "operations_total{operation=\"other\",repository=\"_other\"} 2"
        ]
    );
}

#[test]
fn a_repository_is_shown_once_a_success_proves_it() {
    for (method, rest, status) in [
        ("GET", "manifests/1".to_owned(), 200),
        ("PUT", "manifests/1".to_owned(), 201),
        ("HEAD", "manifests/1".to_owned(), 200),
        ("PUT", "blobs/uploads/1?digest=x".to_owned(), 201),
        ("POST", "blobs/uploads/?digest=x".to_owned(), 201),
        ("POST", "blobs/uploads/?mount=x".to_owned(), 201),
    ] {
        let registry = MetricsRegistry::new("octoserve_");
        exchange(&recorder_on(&registry), method, &of_app(&rest), status);
        assert!(
            last_pull(&registry, "team/app").is_some(),
            "{method} {rest}"
        );
    }
}

#[test]
fn operations_and_bytes_are_counted_by_repository() {
    let registry = MetricsRegistry::new("octoserve_");
    let recorder = recorder_on(&registry);
    let mut push = ask(&recorder, "PUT", &of_app("manifests/1"));
    push.received(&[0; 7]).responded(201, &[]).whole(b"");
    let mut pull = ask(&recorder, "GET", &blob());
    pull.responded(200, &[]);
    pull.response_body(&[0; 10], false);
    pull.cut(4, Side::Client);
    exchange(&recorder, "HEAD", &blob(), 200);
    exchange(&recorder, "DELETE", &of_app("manifests/1"), 202);
    assert_eq!(
        series(&registry),
        [
            "bytes_total{direction=\"download\",repository=\"team/app\"} 4",
            "bytes_total{direction=\"upload\",repository=\"team/app\"} 7",
            "operations_total{operation=\"delete\",repository=\"team/app\"} 1",
            "operations_total{operation=\"other\",repository=\"team/app\"} 1",
            "operations_total{operation=\"push\",repository=\"team/app\"} 1"
        ]
    );
}

#[test]
fn the_last_pull_is_of_a_manifest_or_a_tag_and_not_of_a_blob() {
    for (method, target, status, is_pull) in [
        ("GET", of_app("manifests/1"), 200, true),
        ("GET", of_app("manifests/1"), 304, true),
        ("HEAD", of_app("manifests/1"), 200, true),
        ("HEAD", of_app(&format!("manifests/{DIGEST}")), 200, false),
        ("GET", blob(), 200, false),
        ("GET", of_app("manifests/1"), 404, false),
        ("PUT", of_app("manifests/1"), 201, false),
    ] {
        let registry = MetricsRegistry::new("octoserve_");
        let recorder = recorder_on(&registry);
        exchange(&recorder, "PUT", &of_app("manifests/1"), 201);
        exchange(&recorder, method, &target, status);
        let time = last_pull(&registry, "team/app").unwrap();
        assert_eq!(time > 0.0, is_pull, "{method} {target} {status}");
    }
}

#[test]
fn repositories_beyond_the_cap_are_counted_as_other() {
    let registry = MetricsRegistry::new("octoserve_");
    let recorder = recorder_on(&registry);
    for name in ["a", "b", "c", "d"] {
        exchange(&recorder, "GET", &format!("/v2/{name}/manifests/1"), 200);
    }
    assert_eq!(
        series(&registry),
        [
            "label_overflow_total 2",
            "operations_total{operation=\"pull\",repository=\"_other\"} 2",
            "operations_total{operation=\"pull\",repository=\"a\"} 1",
            "operations_total{operation=\"pull\",repository=\"b\"} 1"
        ]
    );
}

/// The operations that were counted for the only repository there is.
fn operations(registry: &MetricsRegistry) -> Vec<String> {
    let series = series(registry);
    let named = series.iter().filter_map(|line| {
        let operation = line.strip_prefix("operations_total{operation=\"")?;
        let (operation, rest) = operation.split_once('"')?;
        Some(format!("{operation} {}", rest.rsplit_once(' ')?.1))
    });
    named.collect()
}

#[test]
fn a_pull_is_an_image_however_many_layers_it_has() {
    let registry = MetricsRegistry::new("octoserve_");
    let recorder = recorder_on(&registry);
    exchange(&recorder, "GET", "/v2/", 401);
    exchange(&recorder, "HEAD", &of_app("manifests/1"), 200);
    let image = [("content-type", IMAGE)];
    let mut pull = ask(&recorder, "GET", &of_app("manifests/1"));
    pull.received(b"").responded(200, &image).whole(b"{}");
    for _ in 0..4 {
        exchange(&recorder, "GET", &blob(), 200);
    }
    assert_eq!(operations(&registry), ["blob_pull 4", "other 1", "pull 1"]);
}

#[test]
fn a_push_is_an_image_however_many_layers_it_has() {
    let registry = MetricsRegistry::new("octoserve_");
    let recorder = recorder_on(&registry);
    for _ in 0..4 {
        exchange(&recorder, "HEAD", &blob(), 404);
        exchange(&recorder, "POST", &of_app("blobs/uploads/?digest=x"), 201);
    }
    let image = [("content-type", IMAGE)];
    let mut push = ask_with(&recorder, "PUT", &of_app("manifests/1"), &image);
    push.received(b"{}").responded(201, &[]).whole(b"");
    assert_eq!(operations(&registry), ["blob_push 4", "push 1"]);
}

#[test]
fn pulls_and_pushes_are_counted_by_the_kind_in_the_manifests_body() {
    for (media_type, body, pulled, pushed) in [
        (IMAGE, "{}", "pull 1", "push 1"),
        (IMAGE, ARTIFACT, "pull 1", "push 1"),
        ("text/plain", "hello", "pull 1", "push 1"),
        (INDEX, "{}", "index_pull 1", "index_push 1"),
        (IMAGE, SIGNATURE, "other 1", "other 1"),
        (IMAGE, ATTESTATION, "other 1", "other 1"),
    ] {
        let fields = [("content-type", media_type)];
        let registry = MetricsRegistry::new("octoserve_");
        let mut pull = ask(&recorder_on(&registry), "GET", &of_app("manifests/1"));
        pull.received(b"")
            .responded(200, &fields)
            .whole(body.as_bytes());
        assert_eq!(operations(&registry), [pulled], "{body}");
        let registry = MetricsRegistry::new("octoserve_");
        let mut push = ask_with(
            &recorder_on(&registry),
            "PUT",
            &of_app("manifests/1"),
            &fields,
        );
        push.received(body.as_bytes())
            .responded(201, &[])
            .whole(b"");
        assert_eq!(operations(&registry), [pushed], "{body}");
    }
}

#[test]
fn only_a_complete_transfer_is_a_pull() {
    let whole = ("content-range", "bytes 0-9/10");
    let rest = ("content-range", "bytes 5-9/10");
    let several = ("content-type", "multipart/byteranges; boundary=x");
    for (method, target, status, field, expected) in [
        ("GET", blob(), 200, whole, "blob_pull 1"),
        ("GET", blob(), 206, whole, "blob_pull 1"),
        ("GET", blob(), 206, rest, "other 1"),
        ("GET", blob(), 206, several, "other 1"),
        ("GET", blob(), 304, whole, "other 1"),
        ("GET", blob(), 307, whole, "other 1"),
        ("HEAD", blob(), 200, whole, "other 1"),
        ("GET", of_app("manifests/1"), 304, whole, "other 1"),
        ("GET", of_app("manifests/1"), 307, whole, "other 1"),
        ("HEAD", of_app("manifests/1"), 200, whole, "other 1"),
        ("PUT", of_app("manifests/1"), 307, whole, "other 1"),
    ] {
        let registry = MetricsRegistry::new("octoserve_");
        let mut asked = ask(&recorder_on(&registry), method, &target);
        asked.received(b"").responded(status, &[field]).whole(b"");
        assert_eq!(
            operations(&registry),
            [expected],
            "{method} {target} {status}"
        );
    }
    // An aborted transfer is no operation.
    let registry = MetricsRegistry::new("octoserve_");
    let recorder = recorder_on(&registry);
    for target in [blob(), of_app("manifests/1")] {
        let mut pull = ask(&recorder, "GET", &target);
        pull.received(b"").responded(200, &[]);
        pull.response_body(b"{}", false);
        pull.cut(1, Side::Client);
    }
    assert_eq!(operations(&registry), [""; 0]);
}

#[test]
fn a_pull_is_counted_by_repository_once_its_manifest_is_parsed() {
    let registry = MetricsRegistry::new("octoserve_");
    let rules = Rules::new(1, Vec::new(), Vec::new(), Duration::ZERO).unwrap();
    let recorder = Arc::new(Recorder::new(&registry, rules));
    let pull = |name: &str, body: &[u8]| {
        let mut pull = ask(&recorder, "GET", &format!("/v2/{name}/manifests/1"));
        pull.received(b"")
            .responded(200, &[("content-type", IMAGE)]);
        pull.response_body(body, true);
        pull.sent(body.len() as u64);
        pull.finish(End::Complete)
    };
    let unread = pull("a", SIGNATURE.as_bytes()).expect("the body is new");
    let label = |operation: &str, name: &str| {
        format!("operations_total{{operation=\"{operation}\",repository=\"{name}\"}} 1")
    };
    assert!(!series(&registry).contains(&label("other", "a")));
    // Until then its label is not evicted, however long it was idle.
    drop(pull("b", b"{}"));
    assert!(series(&registry).contains(&label("pull", "_other")));
    unread.count();
    assert!(series(&registry).contains(&label("other", "a")));
    drop(pull("b", b"{}"));
    assert!(series(&registry).contains(&label("pull", "b")));
    assert!(!series(&registry).contains(&label("other", "a")));
}
