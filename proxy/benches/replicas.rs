//! The cost of choosing a replica for one request, from the choice to the end of the request.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use proxy::upstream::{
    Balance, MAX_REPLICAS, ReplicaRoute, ReplicaRules, ReplicaSettings, Timeouts, Upstream,
};

#[expect(clippy::unwrap_used, reason = "constants of this benchmark")]
fn upstream(replicas: usize, balance: Balance) -> Upstream {
    let replicas = (0..replicas).map(|at| {
        let name = format!("http://replica-{at}:5000");
        ReplicaSettings {
            target: name.parse().unwrap(),
            name,
            is_draining: false,
        }
    });
    let rules = ReplicaRules {
        balance,
        ..ReplicaRules::default()
    };
    let timeouts = Timeouts::with_stall(Duration::from_mins(1));
    Upstream::new("main".to_owned(), replicas.collect(), rules, timeouts)
}

fn choose(criterion: &mut Criterion) {
    for balance in [Balance::LeastConnections, Balance::RoundRobin] {
        for replicas in [1, 2, 8, MAX_REPLICAS] {
            let upstream = upstream(replicas, balance);
            let Some(set) = upstream.replicas() else {
                continue;
            };
            criterion.bench_function(&format!("{balance:?} of {replicas}"), |bencher| {
                bencher.iter(|| black_box(ReplicaRoute::new(set, None).replica()).is_some());
            });
        }
    }
}

criterion_group!(benches, choose);
criterion_main!(benches);
