//! Observing a request allocates nothing once its cells were touched.

#[path = "../../registry/tests/counting/mod.rs"]
mod counting;

use std::sync::Arc;

use counting::allocations;
use proxy::exchange::Exchange;
use proxy::metrics::HttpMetrics;
use registry::service::exposition::Registry;

#[test]
fn an_exchange_of_each_kind_is_observed_without_an_allocation() {
    let metrics = Arc::new(HttpMetrics::new(&Registry::new("octoserve_")));
    let digest = format!("sha256:{}", "0af9".repeat(16));
    let requests = [
        ("GET", "/v2/".to_owned()),
        ("GET", "/v2/team/app/manifests/1".to_owned()),
        ("GET", format!("/v2/team/app/blobs/{digest}")),
        ("POST", "/v2/team/app/blobs/uploads/".to_owned()),
        ("PATCH", "/v2/team/app/blobs/uploads/a-session".to_owned()),
        ("BREW", "/nothing/of/ours".to_owned()),
    ];
    let observe = || {
        for (method, path) in &requests {
            let mut exchange = Exchange::begin(&metrics, method, path);
            exchange.request_body(64, false);
            exchange.request_body(64, true);
            exchange.response_head(200);
            exchange.response_body(427);
            exchange.finish(None);
        }
    };
    assert!(
        allocations(observe) > 0,
        "the first of each resolves its cells"
    );
    assert_eq!(allocations(observe), 0);
}
