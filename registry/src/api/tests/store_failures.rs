//! Failures of the store: the responses, what they must not reveal, and the metrics.

use super::harness::{IMAGE, Running, image};
use crate::metrics::storage::Operation;
use crate::oci::{Algorithm, Digest};
use crate::store::faulty::{Fault, Faulty, Plan};
use crate::store::{ErrorKind, MemoryStore};
use service::metrics::Label;

/// A registry whose store fails as planned.
async fn faulty() -> (Running, Plan) {
    let plan = Plan::default();
    let store = Faulty::new(MemoryStore::default(), plan.clone());
    (Running::over(store).await, plan)
}

fn digest(content: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha256, content)
}

/// The series of an operation's failures.
fn failures(operation: Operation, kind: &str) -> String {
    let operation = operation.value();
    format!(
        r#"octoserve_storage_errors_total{{backend="memory",error_type="{kind}",operation="{operation}"}}"#
    )
}

#[tokio::test]
async fn store_failures_are_counted_and_reveal_no_internals() {
    let (registry, plan) = faulty().await;
    registry.push_image("a", "1").await;
    let session = registry.open("a").await;
    let (layer, manifest) = (
        digest(b"layer"),
        image(&digest(b"{}"), &digest(b"layer"), ""),
    );
    let blob = format!("/v2/a/blobs/{layer}");
    let by_digest = format!("/v2/a/manifests/{}", digest(&manifest));
    let referrers = format!("/v2/a/referrers/{layer}");
    let close = format!("{session}?digest={layer}");
    let requests: [(&str, &str, &[u8], Operation); 15] = [
        ("GET", "/v2/a/manifests/1", b"", Operation::ManifestRead),
        (
            "PUT",
            "/v2/a/manifests/2",
            &manifest,
            Operation::ManifestWrite,
        ),
        ("DELETE", &by_digest, b"", Operation::ManifestDelete),
        ("DELETE", "/v2/a/manifests/1", b"", Operation::TagDelete),
        ("GET", "/v2/a/tags/list", b"", Operation::TagList),
        ("GET", "/v2/_catalog", b"", Operation::RepositoryList),
        ("GET", &referrers, b"", Operation::ReferrersList),
        ("HEAD", &blob, b"", Operation::BlobStat),
        ("GET", &blob, b"", Operation::BlobRead),
        ("DELETE", &blob, b"", Operation::BlobDelete),
        ("POST", "/v2/a/blobs/uploads/", b"", Operation::UploadCreate),
        ("GET", &session, b"", Operation::UploadStat),
        ("PATCH", &session, b"0123", Operation::UploadAppend),
        ("PUT", &close, b"", Operation::UploadCommit),
        ("DELETE", &session, b"", Operation::UploadCancel),
    ];
    let troubles = [
        (ErrorKind::NoSpace, "no_space", 507),
        (ErrorKind::Permission, "permission", 500),
        (ErrorKind::Io, "io", 500),
        (ErrorKind::Timeout, "timeout", 500),
        (ErrorKind::Other, "other", 503),
    ];
    for (method, target, body, operation) in requests {
        for (kind, label, status) in troubles {
            plan.set(operation, 0, Fault::Fail(kind));
            let headers = [("content-type", IMAGE)];
            let response = registry.ask(method, target, &headers, body).await;
            let response = response.expect(status);
            if method != "HEAD" {
                let response = response.rejected(status, "UNAVAILABLE");
                assert!(!response.text().contains("secret"), "{}", response.text());
            }
            let counted = failures(operation, label);
            assert_eq!(registry.sample(&counted).await, Some(1.0), "{counted}");
        }
        plan.clear();
    }
    registry.get("/v2/a/manifests/1").await.expect(200);
}

#[tokio::test]
async fn a_failed_mount_opens_a_session_and_is_counted() {
    let (registry, plan) = faulty().await;
    let blob = registry.push_blob("a", b"layer").await;
    let mount = format!("/v2/b/blobs/uploads/?mount={blob}&from=a");
    for (kind, label) in [(ErrorKind::Io, "io"), (ErrorKind::NoSpace, "no_space")] {
        plan.set(Operation::BlobMount, 0, Fault::Fail(kind));
        let response = registry.ask("POST", &mount, &[], b"").await.expect(202);
        assert_ne!(response.header("location"), "");
        let counted = failures(Operation::BlobMount, label);
        assert_eq!(registry.sample(&counted).await, Some(1.0), "{counted}");
    }
}

#[tokio::test]
async fn a_panic_fails_one_request_and_keeps_the_connection() {
    let (registry, plan) = faulty().await;
    plan.set(Operation::ManifestRead, 0, Fault::Panic);
    let mut client = registry.client().await;
    for _ in 0..2 {
        let response = client.ask("GET", "/v2/a/manifests/1", &[], b"").await;
        let response = response.rejected(500, "UNAVAILABLE");
        assert!(!response.text().contains("purpose"), "{}", response.text());
    }
    client.ask("GET", "/v2/", &[], b"").await.expect(200);
}

#[tokio::test]
async fn a_hanging_store_operation_blocks_only_its_own_request() {
    let (registry, plan) = faulty().await;
    let digest = registry.push_blob("a", b"x").await;
    plan.set(Operation::BlobRead, 0, Fault::Hang);
    let mut waiting = registry.client().await;
    let target = format!("/v2/a/blobs/{digest}");
    waiting
        .send(format!("GET {target} HTTP/1.1\r\nhost: x\r\n\r\n"))
        .await;
    registry.ask("HEAD", &target, &[], b"").await.expect(200);
    drop(waiting);
    let series =
        r#"octoserve_registry_http_requests_total{endpoint="blob",method="GET",status="499"}"#;
    registry.wait_for(series, 1.0).await;
}

#[tokio::test]
async fn a_failed_blob_read_closes_the_connection() {
    let (registry, plan) = faulty().await;
    let digest = registry.push_blob("a", b"0123456789").await;
    plan.set(Operation::BlobRead, 0, Fault::Break(3, ErrorKind::Io));
    let mut client = registry.client().await;
    client
        .send(format!(
            "GET /v2/a/blobs/{digest} HTTP/1.1\r\nhost: x\r\n\r\n"
        ))
        .await;
    let mut all = Vec::new();
    let _ = tokio::io::AsyncReadExt::read_to_end(&mut client.stream, &mut all).await;
    let all = String::from_utf8(all).unwrap();
    let body = all.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    assert!("012".starts_with(body), "{all}");
    registry
        .wait_for(&failures(Operation::BlobRead, "io"), 1.0)
        .await;
}

#[tokio::test]
async fn an_upload_resumes_after_the_disk_was_full() {
    let (registry, plan) = faulty().await;
    let location = registry.open("a").await;
    plan.set(
        Operation::UploadAppend,
        0,
        Fault::Break(4, ErrorKind::NoSpace),
    );
    let response = registry.ask("PATCH", &location, &[], b"0123456789").await;
    response.rejected(507, "UNAVAILABLE");
    let response = registry.get(&location).await.expect(204);
    assert_eq!(response.header("range"), "0-3");
    plan.clear();
    let rest = [("content-range", "4-9")];
    let response = registry.ask("PATCH", &location, &rest, b"456789").await;
    response.expect(202);
    let target = format!("{location}?digest={}", digest(b"0123456789"));
    registry.ask("PUT", &target, &[], b"").await.expect(201);
}

#[tokio::test]
async fn a_failed_push_in_one_request_cancels_its_session() {
    let (registry, plan) = faulty().await;
    let target = format!("/v2/a/blobs/uploads/?digest={}", digest(b"x"));
    for cancel in [None, Some(Fault::Fail(ErrorKind::Io))] {
        plan.set(Operation::UploadCommit, 0, Fault::Fail(ErrorKind::NoSpace));
        if let Some(fault) = cancel {
            plan.set(Operation::UploadCancel, 0, fault);
        }
        let response = registry.ask("POST", &target, &[], b"x").await;
        response.rejected(507, "UNAVAILABLE");
    }
    let labels = r#"{backend="memory",operation="upload_cancel","#;
    let count = format!("octoserve_storage_operation_duration_seconds_count{labels}");
    for status in ["success", "error"] {
        let series = format!("{count}status=\"{status}\"}}");
        assert_eq!(registry.sample(&series).await, Some(1.0), "{series}");
    }
}

#[tokio::test]
async fn a_blob_exists_although_its_commit_reported_a_failure() {
    let (registry, plan) = faulty().await;
    let location = registry.open("a").await;
    plan.set(Operation::UploadCommit, 0, Fault::FailAfter(ErrorKind::Io));
    let target = format!("{location}?digest={}", digest(b"x"));
    let response = registry.ask("PUT", &target, &[], b"x").await;
    response.rejected(500, "UNAVAILABLE");
    let response = registry.ask("PUT", &target, &[], b"x").await;
    response.rejected(404, "BLOB_UPLOAD_UNKNOWN");
    let blob = format!("/v2/a/blobs/{}", digest(b"x"));
    assert_eq!(registry.get(&blob).await.expect(200).body, b"x");
}
