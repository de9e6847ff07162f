//! The cost of observing one request from its headers to its end, with all metrics.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use http::{HeaderMap, HeaderName, HeaderValue};
use proxy::exchange::{End, Exchange, Recorder, Request};
use proxy::metrics::Rules;
use service::metrics::MetricsRegistry;

const DIGEST: &str = "sha256:0af90af90af90af90af90af90af90af90af90af90af90af90af90af90af90af9";
const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";

#[expect(clippy::unwrap_used, reason = "constants of this benchmark")]
fn recorder() -> Recorder {
    let rules = Rules::new(200, Vec::new(), Vec::new(), Duration::from_hours(24));
    Recorder::new(&MetricsRegistry::new("octoserve_"), rules.unwrap())
}

fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
    fields
        .iter()
        .map(|&(name, value)| {
            let value = HeaderValue::from_static(value);
            (HeaderName::from_static(name), value)
        })
        .collect()
}

fn exchange(criterion: &mut Criterion) {
    let recorder = Arc::new(recorder());
    let request_headers = headers(&[
        ("host", "registry.example"),
        ("user-agent", "containerd/v2.0.0"),
        ("accept", IMAGE),
        (
            "authorization",
            "Bearer eyJ0eXAiOiJKV1QifQ.e30.c2lnbmF0dXJl",
        ),
    ]);
    let response_headers = headers(&[
        ("content-type", IMAGE),
        ("content-length", "427"),
        ("docker-content-digest", DIGEST),
        ("docker-distribution-api-version", "registry/2.0"),
    ]);
    let body = br#"{"schemaVersion":2}"#;
    for (name, method, path, status) in [
        (
            "manifest by tag",
            "GET",
            "/v2/team/app/web/manifests/1".to_owned(),
            200,
        ),
        (
            "blob",
            "GET",
            format!("/v2/team/app/web/blobs/{DIGEST}"),
            200,
        ),
        (
            "part of an upload",
            "PATCH",
            "/v2/team/app/web/blobs/uploads/4e0d7b1c-52f0-4b8a-9f5e-1f3f3a1f0a56".to_owned(),
            202,
        ),
    ] {
        let request = Request {
            method,
            path: &path,
            query: None,
            headers: &request_headers,
        };
        criterion.bench_function(&format!("exchange/{name}"), |bencher| {
            bencher.iter(|| {
                let mut exchange = Exchange::begin(&recorder, black_box(&request));
                exchange.request_body(b"", true);
                let mut exchange =
                    exchange.response_head(&request, status, black_box(&response_headers));
                exchange.response_body(black_box(body), true);
                exchange.sent(black_box(body.len() as u64));
                // The proxy parses the manifest on another thread, and once for each digest.
                drop(exchange.end(End::Complete));
            });
        });
    }
}

criterion_group!(benches, exchange);
criterion_main!(benches);
