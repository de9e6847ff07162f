//! What observing one request costs: from its headers to its end, everything recorded.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use proxy::exchange::Exchange;
use proxy::metrics::HttpMetrics;
use registry::service::exposition::Registry;

fn exchange(criterion: &mut Criterion) {
    let metrics = Arc::new(HttpMetrics::new(&Registry::new("octoserve_")));
    let digest = "a".repeat(64);
    for (name, method, path) in [
        (
            "manifest by tag",
            "GET",
            "/v2/team/app/web/manifests/1".to_owned(),
        ),
        (
            "blob",
            "GET",
            format!("/v2/team/app/web/blobs/sha256:{digest}"),
        ),
    ] {
        criterion.bench_function(&format!("exchange/{name}"), |bencher| {
            bencher.iter(|| {
                let mut exchange = Exchange::begin(&metrics, black_box(method), black_box(&path));
                exchange.request_body(0, true);
                exchange.response_head(200);
                exchange.response_body(black_box(427));
                exchange.finish(None);
            });
        });
    }
}

criterion_group!(benches, exchange);
criterion_main!(benches);
