//! Recording allocates nothing once a cell was touched: counted by the allocator itself, in a
//! process of its own.

mod counting;

use std::hint::black_box;

use counting::allocations;
use service::metrics::{Counter, Counters, Gauges, Histograms, Label, LabelSet, MetricsRegistry};
use service::shutdown::Drain;

service::labels! {
    /// A label.
    enum Endpoint: "endpoint" { Blob = "blob", Manifest = "manifest" }
    /// Another one.
    enum Method: "method" { Get = "GET", Put = "PUT" }
}

#[test]
fn a_touched_cell_records_without_an_allocation() {
    let registry = MetricsRegistry::new("test_");
    let counters: Counters<(Endpoint, Method)> = registry.declare("a_total", "A.", &[]);
    let gauges: Gauges<Endpoint> = registry.declare("b", "B.", &[]);
    let buckets = [0.1, 1.0, 10.0];
    let histograms: Histograms<(Endpoint, Method)> = registry.declare("c_seconds", "C.", &buckets);
    let total: Counter = registry.declare("d_total", "D.", &[]);
    let drain = Drain::default();
    let record = || {
        for &endpoint in Endpoint::ALL {
            for &method in Method::ALL {
                counters.inc((endpoint, method));
                counters.add((endpoint, method), 1000);
                histograms.observe((endpoint, method), 0.25);
            }
            gauges.add(endpoint, 1.0);
            gauges.sub(endpoint, 1.0);
        }
        total.inc(());
        drop(black_box(drain.guard()));
    };
    assert!(
        allocations(record) > 0,
        "the first touch resolves the cells"
    );
    assert_eq!(allocations(|| (0..1000).for_each(|_| record())), 0);
    assert_eq!(<(Endpoint, Method)>::COUNT, 4);
    assert_eq!(counters.value((Endpoint::Blob, Method::Put)), 1001 * 1001);
}
