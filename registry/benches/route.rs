//! What every request pays to be classified.

use std::hint::black_box;

use criterion::{Criterion, criterion_main};
use registry::oci::Route;

fn route(criterion: &mut Criterion) {
    let digest = format!("sha256:{}", "0af9".repeat(16));
    let paths = [
        ("base", "/v2/".to_owned()),
        (
            "manifest_by_tag",
            "/v2/team/app/web/manifests/1.27.3".to_owned(),
        ),
        (
            "manifest_by_digest",
            format!("/v2/team/app/web/manifests/{digest}"),
        ),
        ("blob", format!("/v2/team/app/web/blobs/{digest}")),
        ("upload_start", "/v2/team/app/web/blobs/uploads/".to_owned()),
        (
            "upload_session",
            "/v2/team/app/web/blobs/uploads/3f1f6b9e-5d0c-4f6a-9a8e-1c2b7f0d4e55".to_owned(),
        ),
        ("other", "/favicon.ico".to_owned()),
        (
            "longest_name",
            format!("/v2/{}/blobs/{digest}", "a/".repeat(127) + "a"),
        ),
    ];
    let mut group = criterion.benchmark_group("route");
    for (name, path) in &paths {
        group.bench_function(*name, |bencher| {
            bencher.iter(|| Route::parse(black_box(path)));
        });
    }
    group.finish();
}

/// Spelt out, because `criterion_group!` makes a public function without documentation.
fn benches() {
    route(&mut Criterion::default().configure_from_args());
}

criterion_main!(benches);
