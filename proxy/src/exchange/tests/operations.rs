//! Operations on blobs.

use crate::metrics::label::OpResult;
use service::metrics::Label as _;

use super::*;
use crate::metrics::label::{BlobOperation, MountResult};

/// Every operation on a blob that was counted.
fn counted(recorder: &Recorder) -> Vec<(&'static str, &'static str, u64)> {
    let mut all = Vec::new();
    for &operation in BlobOperation::ALL {
        for &result in OpResult::ALL {
            let count = recorder.metrics.oci.blobs.value((operation, result));
            if count > 0 {
                all.push((operation.value(), result.value(), count));
            }
        }
    }
    all
}

#[test]
fn each_operation_on_a_blob_is_counted_by_its_result() {
    for (method, target, status, expected) in [
        ("GET", blob(), 200, Some(("pull", "ok"))),
        ("GET", blob(), 206, Some(("pull", "ok"))),
        ("GET", blob(), 307, Some(("pull", "ok"))),
        ("GET", blob(), 404, Some(("pull", "not_found"))),
        ("GET", blob(), 401, Some(("pull", "denied"))),
        ("HEAD", blob(), 200, Some(("head", "ok"))),
        ("HEAD", blob(), 404, Some(("head", "not_found"))),
        ("DELETE", blob(), 202, Some(("delete", "ok"))),
        ("DELETE", blob(), 405, Some(("delete", "client_error"))),
        // A push is one operation, however many requests it takes.
        ("POST", of_app("blobs/uploads/"), 202, None),
        ("PATCH", of_app("blobs/uploads/1"), 202, None),
        ("PATCH", of_app("blobs/uploads/1"), 416, None),
        ("GET", of_app("blobs/uploads/1"), 204, None),
        ("DELETE", of_app("blobs/uploads/1"), 204, None),
        (
            "PUT",
            of_app("blobs/uploads/1?digest=x"),
            201,
            Some(("push", "ok")),
        ),
        (
            "PUT",
            of_app("blobs/uploads/1?digest=x"),
            400,
            Some(("push", "client_error")),
        ),
        (
            "PUT",
            of_app("blobs/uploads/1?digest=x"),
            500,
            Some(("push", "server_error")),
        ),
        (
            "POST",
            of_app("blobs/uploads/?digest=x"),
            201,
            Some(("push", "ok")),
        ),
        ("POST", of_app("blobs/uploads/?digest=x"), 202, None),
        (
            "POST",
            of_app("blobs/uploads/"),
            403,
            Some(("push", "denied")),
        ),
        (
            "POST",
            of_app("blobs/uploads/?mount=x&from=y"),
            201,
            Some(("mount", "ok")),
        ),
        (
            "POST",
            of_app("blobs/uploads/?from=y&mount=x"),
            202,
            Some(("mount", "not_found")),
        ),
        (
            "POST",
            of_app("blobs/uploads/?mount=x"),
            401,
            Some(("mount", "denied")),
        ),
        ("POST", of_app("blobs/uploads/?amount=x"), 202, None),
        ("GET", of_app("manifests/1"), 200, None),
        ("GET", of_app("tags/list"), 200, None),
    ] {
        let recorder = recorder();
        exchange(&recorder, method, &target, status);
        let expected: Vec<_> = expected
            .map(|(operation, result)| (operation, result, 1))
            .into_iter()
            .collect();
        assert_eq!(counted(&recorder), expected, "{method} {target} {status}");
    }
}

#[test]
fn a_cut_pull_is_aborted_and_an_accepted_push_is_not() {
    for side in [Side::Client, Side::Upstream] {
        let recorder = recorder();
        let mut pull = ask(&recorder, "GET", &blob());
        pull.received(b"").responded(200, &[]);
        pull.response_body(&[0; 10], false);
        pull.cut(5, side);
        let mut push = ask(&recorder, "PUT", &of_app("blobs/uploads/1?digest=x"));
        push.received(b"blob")
            .responded(201, &[("content-length", "0")]);
        push.cut(0, side);
        assert_eq!(
            counted(&recorder),
            [("pull", "aborted", 1), ("push", "ok", 1)]
        );
    }
}

#[test]
fn an_operation_without_a_response_has_the_result_of_its_failure() {
    let recorder = recorder();
    ask(&recorder, "GET", &blob()).cut(0, Side::Client);
    ask(&recorder, "HEAD", &blob()).cut(0, Side::Upstream);
    drop(ask(&recorder, "DELETE", &blob()));
    assert_eq!(
        counted(&recorder),
        [
            ("pull", "aborted", 1),
            ("head", "server_error", 1),
            ("delete", "server_error", 1)
        ]
    );
}

#[test]
fn a_head_is_never_a_pull() {
    let recorder = recorder();
    exchange(&recorder, "HEAD", &blob(), 200);
    exchange(&recorder, "HEAD", &of_app("manifests/1"), 200);
    assert_eq!(counted(&recorder), [("head", "ok", 1)]);
}

#[test]
fn a_mount_is_mounted_or_falls_back_or_fails() {
    let recorder = recorder();
    let target = of_app("blobs/uploads/?mount=x&from=y");
    for status in [201, 202, 202, 404, 500, 500, 500] {
        exchange(&recorder, "POST", &target, status);
    }
    ask(&recorder, "POST", &target).cut(0, Side::Client);
    exchange(&recorder, "POST", &of_app("blobs/uploads/"), 202);
    let mounts = &recorder.metrics.oci.mounts;
    let all = MountResult::ALL.iter().map(|&result| mounts.value(result));
    assert_eq!(all.collect::<Vec<_>>(), [1, 2, 5]);
}
