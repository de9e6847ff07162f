//! The cost of choosing an upstream for one request.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use proxy::upstream::{
    ReplicaRules, ReplicaSettings, RequestMatch, Requested, Timeouts, Upstream, Upstreams,
};

#[expect(clippy::unwrap_used, reason = "constants of this benchmark")]
fn upstreams(matches: Vec<RequestMatch>) -> Upstreams {
    let mut all = matches.into_iter().enumerate().map(|(at, matching)| {
        let name = "http://registry:5000".to_owned();
        let replica = ReplicaSettings {
            target: name.parse().unwrap(),
            name,
            is_draining: false,
        };
        let timeouts = Timeouts::with_stall(Duration::from_mins(1));
        let rules = ReplicaRules::default();
        let upstream = Upstream::new(at.to_string(), vec![replica], rules, timeouts);
        Arc::new(upstream.for_requests(matching))
    });
    let first = all.next().unwrap();
    Upstreams::new(first, all.collect())
}

#[expect(clippy::unwrap_used, reason = "constants of this benchmark")]
fn by(host: Option<&str>, prefix: Option<&str>, ns: Option<&str>) -> RequestMatch {
    let pattern = |text: Option<&str>| text.map(|text| text.parse().unwrap()).into_iter().collect();
    RequestMatch {
        hosts: pattern(host),
        prefixes: prefix.map(str::to_owned).into_iter().collect(),
        ns: pattern(ns),
        stripped: None,
    }
}

fn choose(criterion: &mut Criterion) {
    let digest = "0af9".repeat(16);
    let blob = format!("/v2/team-63/app/blobs/sha256:{digest}");
    let encoded = format!("/v2/team%2D63/app/blobs/sha256%3A{digest}");
    let of = |rule: &dyn Fn(usize) -> RequestMatch| upstreams((0..64).map(rule).collect());
    let single = upstreams(vec![RequestMatch::default()]);
    let hosts = of(&|at| by(Some(&format!("r{at}.registry.example")), None, None));
    let prefixes = of(&|at| by(None, Some(&format!("team-{at}")), None));
    let names = of(&|at| by(None, None, Some(&format!("r{at}.registry.example"))));
    let all = of(&|at| {
        let host = format!("r{at}.registry.example");
        by(Some(&host), Some(&format!("team-{at}")), Some(&host))
    });
    let ns = "n=1&ns=r63.registry.example";
    for (name, upstreams, path, query) in [
        ("a single one", &single, &blob, None),
        ("host of 64", &hosts, &blob, None),
        ("prefix of 64", &prefixes, &blob, None),
        ("encoded prefix of 64", &prefixes, &encoded, None),
        ("ns of 64", &names, &blob, Some(ns)),
        ("host, prefix and ns of 64", &all, &blob, Some(ns)),
    ] {
        let requested = Requested {
            host: Some(b"r63.registry.example:5000"),
            path,
            query,
        };
        assert!(upstreams.choose(&requested).is_ok(), "{name}");
        criterion.bench_function(&format!("upstream/{name}"), |bencher| {
            bencher.iter(|| upstreams.choose(black_box(&requested)).is_ok());
        });
    }
}

criterion_group!(benches, choose);
criterion_main!(benches);
