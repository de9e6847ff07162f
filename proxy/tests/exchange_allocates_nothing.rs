//! Observing a request allocates nothing once its cells are resolved and the digest of its manifest
//! is in the cache.

#[path = "../../service/tests/counting/mod.rs"]
mod counting;

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use counting::allocations;
use http::{HeaderMap, HeaderName, HeaderValue};
use proxy::exchange::{End, Exchange, Recorder, Request};
use proxy::metrics::Rules;
use proxy::metrics::label::{ErrorCodeLabel, OpResult, ReferenceKind};
use service::metrics::MetricsRegistry;

#[expect(clippy::unwrap_used, reason = "constants of this test")]
fn recorder() -> Recorder {
    let rules = Rules::new(200, Vec::new(), Vec::new(), Duration::from_hours(24));
    Recorder::new(&MetricsRegistry::new("octoserve_"), rules.unwrap())
}

#[expect(clippy::unwrap_used, reason = "constants of this test")]
fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
    fields
        .iter()
        .map(|(name, value)| {
            let value = HeaderValue::from_str(value).unwrap();
            (HeaderName::from_static(name), value)
        })
        .collect()
}

#[test]
fn an_exchange_of_each_kind_is_observed_without_an_allocation() {
    let recorder = Arc::new(recorder());
    let digest = format!("sha256:{}", "0af9".repeat(16));
    let image = "application/vnd.oci.image.manifest.v1+json";
    let request_headers = headers(&[
        ("user-agent", "docker/27.3.1"),
        ("authorization", "Basic dTpw"),
    ]);
    let response_headers = headers(&[("content-type", image), ("docker-content-digest", &digest)]);
    let refused = headers(&[("content-type", "application/json")]);
    let error = br#"{"errors":[{"code":"DENIED","message":"no"}]}"#;
    let blob = format!("/v2/team/app/blobs/{digest}");
    let requests = [
        ("GET", "/v2/", 200),
        ("GET", "/v2/team/app/manifests/1", 200),
        ("HEAD", "/v2/team/app/manifests/1", 200),
        ("DELETE", "/v2/team/app/manifests/1", 202),
        ("GET", "/v2/team/app/manifests/nope", 404),
        ("GET", &blob, 200),
        ("GET", &blob, 307),
        ("GET", &blob, 403),
        ("POST", "/v2/team/app/blobs/uploads/", 403),
        ("POST", "/v2/team/app/blobs/uploads/", 500),
        ("PATCH", "/v2/team/app/blobs/uploads/a-session", 416),
        ("BREW", "/nothing/of/ours", 405),
    ];
    let piece = [0; 64];
    let observe = |cut: bool| {
        for (method, path, status) in requests {
            let request = Request {
                method,
                path,
                query: Some("n=1"),
                headers: &request_headers,
            };
            let mut exchange = Exchange::begin(&recorder, &request);
            exchange.request_body(&piece, false);
            exchange.request_body(&piece, true);
            let (fields, body) = if status < 400 {
                (&response_headers, &piece[..])
            } else {
                (&refused, &error[..])
            };
            let mut exchange = exchange.response_head(&request, status, fields);
            exchange.response_body(body, !cut);
            exchange.sent(64);
            let end = if cut {
                End::Aborted {
                    status: 499,
                    side: None,
                }
            } else {
                End::Complete
            };
            drop(exchange.end(end));
        }
    };
    for cut in [false, true] {
        assert!(
            allocations(|| observe(cut)) > 0,
            "the first of each resolves its cells"
        );
        assert_eq!(allocations(|| observe(cut)), 0, "cut: {cut}");
    }
}

#[test]
fn turning_texts_into_labels_allocates_nothing() {
    assert_eq!(
        0,
        allocations(|| for text in ["BLOB_UNKNOWN", "sha256%3A00"] {
            black_box((
                ErrorCodeLabel::of(black_box(text)),
                ReferenceKind::of(black_box(text)),
            ));
        })
    );
    assert_eq!(
        0,
        allocations(|| for status in 0..=u16::MAX {
            black_box(OpResult::of(status));
        })
    );
}
