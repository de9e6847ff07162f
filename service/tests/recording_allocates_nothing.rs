//! Recording allocates nothing once a cell was touched: counted by the allocator itself, in a
//! process of its own.

mod counting;

use std::hint::black_box;

use counting::allocations;
use service::metrics::MetricsRegistry;
use service::metrics::{Label, LabelSet};
use service::shutdown::Drain;

service::labels! {
    /// A label.
    enum Endpoint { Blob = "blob", Manifest = "manifest" }
    /// Another one.
    enum Method { Get = "GET", Put = "PUT" }
}

#[test]
fn a_touched_cell_records_without_an_allocation() {
    let registry = MetricsRegistry::new("test_");
    let labels = ["endpoint", "method"];
    let counters = registry.counters::<(Endpoint, Method)>("a_total", "A.", &labels);
    let gauges = registry.gauges::<Endpoint>("b", "B.", &labels[..1]);
    let histograms =
        registry.histograms::<(Endpoint, Method)>("c_seconds", "C.", &labels, &[0.1, 1.0, 10.0]);
    let total = registry.counter("d_total", "D.");
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
