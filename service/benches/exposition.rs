//! What it costs to record, to gather and to merge.
#![expect(clippy::print_stdout, reason = "a benchmark tells what it measures")]

use std::fmt::Write as _;
use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use http::header::ACCEPT_ENCODING;
use http::{HeaderMap, HeaderValue};
use service::exposition::{Exposition, ParseLimits};
use service::metrics::{Counters, Gauges, Histograms, Label, MetricsRegistry};
use service::scrape::ScrapeFormat;

service::labels! {
    /// Eleven values, as endpoints are.
    enum Endpoint: "endpoint" {
        A = "a", B = "b", C = "c", D = "d", E = "e", F = "f", G = "g", H = "h", I = "i", J = "j",
        K = "k",
    }
    /// Eight values, as methods are.
    enum Method: "method" {
        Get = "GET", Head = "HEAD", Post = "POST", Put = "PUT", Patch = "PATCH",
        Delete = "DELETE", Options = "OPTIONS", Other = "OTHER",
    }
}

const BUCKETS: [f64; 16] = [
    0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 60.0, 300.0, 900.0,
];

/// An exposition like an exporter's: counters, gauges and histograms, about 100 bytes a sample.
fn exposition_text(samples: usize) -> String {
    let mut text = String::new();
    let mut written = 0;
    for family in 0.. {
        let name = format!("exporter_family_{family}_seconds");
        let _ = writeln!(
            text,
            "# HELP {name} How long it took.\n# TYPE {name} histogram"
        );
        for series in 0..50 {
            let labels = format!("endpoint=\"manifest\",method=\"GET\",instance=\"{series}\"");
            for bound in BUCKETS {
                let _ = writeln!(text, "{name}_bucket{{{labels},le=\"{bound}\"}} 12345");
            }
            let _ = writeln!(text, "{name}_bucket{{{labels},le=\"+Inf\"}} 12345");
            let _ = writeln!(text, "{name}_sum{{{labels}}} 1.2345e+06");
            let _ = writeln!(text, "{name}_count{{{labels}}} 12345");
            written += BUCKETS.len() + 3;
            if written >= samples {
                return text;
            }
        }
    }
    text
}

fn recording(c: &mut Criterion) {
    let registry = MetricsRegistry::new("bench_");
    let counters: Counters<(Endpoint, Method)> = registry.declare("a_total", "A.", &[]);
    let gauges: Gauges<Endpoint> = registry.declare("b", "B.", &[]);
    let histograms: Histograms<(Endpoint, Method)> = registry.declare("c", "C.", &BUCKETS);
    let set = (Endpoint::F, Method::Put);
    c.bench_function("record/counter", |b| {
        b.iter(|| counters.inc(black_box(set)));
    });
    c.bench_function("record/gauge", |b| {
        b.iter(|| gauges.add(black_box(set.0), 1.0));
    });
    c.bench_function("record/histogram", |b| {
        b.iter(|| histograms.observe(black_box(set), black_box(0.3)));
    });
}

fn gathering(c: &mut Criterion) {
    let registry = MetricsRegistry::new("bench_");
    for name in ["a", "b", "c"] {
        let family: Histograms<(Endpoint, Method)> = registry.declare(name, "H.", &BUCKETS);
        for &endpoint in Endpoint::ALL {
            for &method in Method::ALL {
                family.observe((endpoint, method), 0.3);
            }
        }
    }
    registry.process();
    let written = ScrapeFormat::of(&HeaderMap::new());
    let gzip = HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static("gzip"))]);
    let gzip = ScrapeFormat::of(&gzip);
    let exposition = registry.gather();
    let (forms, _) = ScrapeFormat::encode(&exposition, &[written, gzip]);
    let sizes: Vec<_> = forms.iter().map(|(_, bytes)| bytes.len()).collect();
    println!(
        "exposition: {} series, {sizes:?} bytes, as it is and compressed",
        exposition.sample_count()
    );
    let mut group = c.benchmark_group("exposition");
    group.bench_function("gather", |b| b.iter(|| registry.gather()));
    group.bench_function("gather and write", |b| {
        b.iter(|| ScrapeFormat::encode(&registry.gather(), &[written]));
    });
    group.bench_function("gather, write and compress", |b| {
        b.iter(|| ScrapeFormat::encode(&registry.gather(), &[gzip]));
    });
    group.finish();
}

fn merging(c: &mut Criterion) {
    let text = exposition_text(100_000);
    println!("merge: {} bytes", text.len());
    let limits = ParseLimits::default();
    let parsed = || Exposition::parse(text.clone(), &limits).0;
    let mut group = c.benchmark_group("100,000 samples");
    group
        .sample_size(20)
        .measurement_time(Duration::from_secs(3));
    group.bench_function("parse", |b| {
        let text = || text.clone();
        b.iter_batched(
            text,
            |text| Exposition::parse(text, &limits),
            BatchSize::PerIteration,
        );
    });
    group.bench_function("merge", |b| {
        let merge = |exposition| {
            let mut merged = Exposition::default();
            merged.merge(exposition, "registry");
            merged
        };
        b.iter_batched(parsed, merge, BatchSize::PerIteration);
    });
    group.bench_function("write", |b| {
        let mut merged = Exposition::default();
        merged.merge(parsed(), "registry");
        b.iter(|| {
            let mut out = String::new();
            merged.write_text(&mut out);
            out
        });
    });
    group.bench_function("parse, merge and write", |b| {
        let text = || text.clone();
        let whole = |text| {
            let mut merged = Exposition::default();
            merged.merge(Exposition::parse(text, &limits).0, "registry");
            let mut out = String::new();
            merged.write_text(&mut out);
            out
        };
        b.iter_batched(text, whole, BatchSize::PerIteration);
    });
    group.finish();
}

criterion_group!(benches, recording, gathering, merging);
criterion_main!(benches);
