//! Operations on manifests, and the manifests' kinds.

use crate::metrics::label::{OpResult, ReferenceKind};
use registry::oci::Kind;
use service::metrics::Label as _;

use super::*;
use crate::metrics::label::ManifestOperation;

pub(super) const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
const DOCKER_IMAGE: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// A signature as cosign makes them: only its layer tells it from an image.
pub(super) const SIGNATURE: &str = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:0af90af90af90af90af90af90af90af90af90af90af90af90af90af90af90af9","size":2},"layers":[{"mediaType":"application/vnd.dev.cosign.simplesigning.v1+json","digest":"sha256:0af90af90af90af90af90af90af90af90af90af90af90af90af90af90af90af9","size":2}]}"#;

/// Every operation on a manifest that was counted.
fn counted(recorder: &Recorder) -> Vec<[&'static str; 4]> {
    let mut all = Vec::new();
    for &operation in ManifestOperation::ALL {
        for &reference in ReferenceKind::ALL {
            for &kind in &Kind::ALL {
                for &result in OpResult::ALL {
                    let set = (operation, reference, kind, result);
                    for _ in 0..recorder.metrics.oci.manifests.value(set) {
                        all.push([
                            operation.value(),
                            reference.value(),
                            kind.as_str(),
                            result.value(),
                        ]);
                    }
                }
            }
        }
    }
    all
}

fn by_tag() -> String {
    of_app("manifests/1")
}

fn by_digest() -> String {
    of_app(&format!("manifests/{DIGEST}"))
}

#[test]
fn each_operation_on_a_manifest_is_counted_by_reference_and_result() {
    let image = ("content-type", IMAGE);
    for (method, target, status, expected) in [
        ("GET", by_tag(), 200, ["pull", "tag", "image", "ok"]),
        ("GET", by_digest(), 200, ["pull", "digest", "image", "ok"]),
        ("GET", by_tag(), 304, ["pull", "tag", "image", "ok"]),
        ("GET", by_tag(), 404, ["pull", "tag", "other", "not_found"]),
        ("GET", by_tag(), 401, ["pull", "tag", "other", "denied"]),
        ("HEAD", by_tag(), 200, ["resolve", "tag", "image", "ok"]),
        (
            "HEAD",
            by_digest(),
            404,
            ["resolve", "digest", "other", "not_found"],
        ),
        (
            "PUT",
            by_tag(),
            400,
            ["push", "tag", "other", "client_error"],
        ),
        ("DELETE", by_tag(), 202, ["delete", "tag", "other", "ok"]),
        (
            "DELETE",
            by_digest(),
            405,
            ["delete", "digest", "other", "client_error"],
        ),
    ] {
        let recorder = recorder();
        let mut exchange = ask(&recorder, method, &target);
        exchange
            .received(b"")
            .responded(status, &[image])
            .whole(b"");
        assert_eq!(counted(&recorder), [expected], "{method} {status}");
    }
}

#[test]
fn a_pushed_manifests_kind_is_read_from_its_body() {
    let recorder = recorder();
    let mut exchange = ask_with(&recorder, "PUT", &by_tag(), &[("content-type", IMAGE)]);
    let (start, end) = SIGNATURE.as_bytes().split_at(100);
    exchange.request_body(start, false);
    exchange.request_body(end, true);
    exchange.responded(201, &[]).whole(b"");
    assert_eq!(counted(&recorder), [["push", "tag", "signature", "ok"]]);
}

#[test]
fn a_pulled_manifests_kind_is_read_after_the_exchange_once_per_digest() {
    let recorder = recorder();
    let fields = [("content-type", IMAGE), ("docker-content-digest", DIGEST)];
    let pull = || {
        let mut exchange = ask(&recorder, "GET", &by_tag());
        exchange.received(b"").responded(200, &fields);
        exchange.response_body(SIGNATURE.as_bytes(), true);
        exchange.sent(SIGNATURE.len() as u64);
        exchange.finish(End::Complete)
    };
    let unread = pull().expect("the digest is new");
    assert_eq!(counted(&recorder).len(), 0);
    unread.count();
    let signature = ["pull", "tag", "signature", "ok"];
    assert_eq!(counted(&recorder), [signature]);
    assert!(pull().is_none(), "the digest is known by now");
    assert_eq!(counted(&recorder), [signature; 2]);
}

#[tokio::test(start_paused = true)]
async fn the_last_exposition_waits_for_what_is_not_counted_yet() {
    let recorder = recorder();
    let second = Duration::from_secs(1);
    assert!(recorder.counted(second).await, "nothing has begun");
    let mut exchange = ask(&recorder, "PUT", &by_tag());
    exchange.request_body(SIGNATURE.as_bytes(), true);
    exchange.responded(201, &[("content-type", IMAGE)]);
    let unread = exchange.finish(End::Complete);
    let unread = unread.expect("its kind is not known");
    assert!(!recorder.counted(second).await);
    let waiting = {
        let recorder = Arc::clone(&recorder);
        tokio::spawn(async move {
            recorder
                .counted(second)
                .await
                .then(|| counted(&recorder).len())
        })
    };
    unread.count();
    assert_eq!(waiting.await.unwrap(), Some(1));
}

#[test]
fn a_small_body_without_a_digest_is_found_by_its_own_hash() {
    let recorder = recorder();
    let pull = |media_type, body: &str| {
        let mut exchange = ask(&recorder, "GET", &by_tag());
        exchange
            .received(b"")
            .responded(200, &[("content-type", media_type)]);
        exchange.response_body(body.as_bytes(), true);
        exchange.sent(body.len() as u64);
        exchange.finish(End::Complete)
    };
    let signature = ["pull", "tag", "signature", "ok"];
    pull(IMAGE, SIGNATURE).expect("the body is new").count();
    assert!(pull(IMAGE, SIGNATURE).is_none(), "it is known by now");
    assert_eq!(counted(&recorder), [signature; 2]);
    let other = format!("{SIGNATURE} ");
    assert!(pull(IMAGE, &other).is_some(), "another body");
    assert!(
        pull(DOCKER_IMAGE, SIGNATURE).is_some(),
        "of another media type"
    );
    let large = format!("{}{}", SIGNATURE, " ".repeat(16 << 10));
    for _ in 0..2 {
        assert!(pull(IMAGE, &large).is_some(), "too large to be looked up");
    }
}

#[test]
fn a_body_that_cannot_be_parsed_has_the_kind_of_its_media_type() {
    let large = format!("{}{}", SIGNATURE, " ".repeat(256 << 10));
    for (name, fields, body) in [
        (
            "too large",
            &[("content-type", IMAGE)][..],
            large.as_bytes(),
        ),
        ("no manifest", &[("content-type", IMAGE)], b"hello"),
        ("empty", &[("content-type", IMAGE)], b""),
        (
            "compressed",
            &[("content-type", IMAGE), ("content-encoding", "gzip")],
            SIGNATURE.as_bytes(),
        ),
    ] {
        let recorder = recorder();
        let mut exchange = ask(&recorder, "GET", &by_tag());
        exchange.received(b"").responded(200, fields).whole(body);
        assert_eq!(
            counted(&recorder),
            [["pull", "tag", "image", "ok"]],
            "{name}"
        );
    }
}

#[test]
fn an_aborted_pull_of_a_manifest_has_no_kind() {
    let recorder = recorder();
    let mut exchange = ask(&recorder, "GET", &by_tag());
    exchange
        .received(b"")
        .responded(200, &[("content-type", IMAGE)]);
    exchange.response_body(SIGNATURE.as_bytes(), false);
    exchange.cut(10, Side::Client);
    assert_eq!(counted(&recorder), [["pull", "tag", "other", "aborted"]]);
}

#[test]
fn a_head_resolves_and_never_pulls() {
    let recorder = recorder();
    for target in [by_tag(), by_digest()] {
        exchange(&recorder, "HEAD", &target, 200);
    }
    assert_eq!(
        counted(&recorder),
        [
            ["resolve", "tag", "other", "ok"],
            ["resolve", "digest", "other", "ok"]
        ]
    );
}

#[test]
fn copies_never_take_more_than_their_budget() {
    let recorder = recorder();
    let body = vec![b' '; 200 << 10];
    let mut held = Vec::new();
    // More than fit into the budget at once, because none of them ends.
    for _ in 0..300 {
        let mut exchange = ask_with(&recorder, "PUT", &by_tag(), &[("content-type", IMAGE)]);
        exchange.request_body(&body, false);
        held.push(exchange);
    }
    assert!(recorder.kinds.budget() < 256 << 10);
    for exchange in &mut held {
        exchange.received(b"").responded(201, &[]).whole(b"");
    }
    assert_eq!(
        counted(&recorder).len(),
        300,
        "each is counted all the same"
    );
    drop(held);
    assert_eq!(recorder.kinds.budget(), super::recorder().kinds.budget());
}
