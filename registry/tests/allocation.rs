//! What runs for every request must not allocate.

#[path = "../../service/tests/counting/mod.rs"]
mod counting;

use std::hint::black_box;

use counting::allocations;
use registry::metrics::label::{Client, Method, Pair, Status};
use registry::oci::{Endpoint, Route};

#[test]
fn classifying_a_request_does_not_allocate() {
    let digest = format!("sha256:{}", "0af9".repeat(16));
    let paths = [
        "/v2/".to_owned(),
        "/v2/_catalog".to_owned(),
        "/v2/team/app/tags/list".to_owned(),
        "/v2/team/app/manifests/latest".to_owned(),
        format!("/v2/team/app/manifests/{digest}"),
        format!("/v2/team/app/blobs/{digest}").replace(':', "%3A"),
        "/v2/team/app/blobs/uploads/".to_owned(),
        "/v2/team/app/blobs/uploads/0b5c/with/a/tail".to_owned(),
        format!("/v2/team/app/referrers/{digest}"),
        "/v2/team/app/_oci/ext".to_owned(),
        "/token".to_owned(),
        "/%00/ä/..".to_owned(),
        "/".repeat(10_000),
        "/v2/a/blobs/uploads".repeat(1_000),
    ];
    assert!(
        allocations(|| drop(black_box(vec![0_u8; 100]))) > 0,
        "the allocator counts"
    );

    assert_eq!(
        0,
        allocations(|| for path in &paths {
            black_box(Route::parse(black_box(path)));
        })
    );
    assert_eq!(
        0,
        allocations(|| for endpoint in Endpoint::ALL {
            for method in ["GET", "PATCH", "BREW"] {
                black_box(Pair::of(endpoint, Method::of(black_box(method))));
            }
        })
    );
    assert_eq!(
        0,
        allocations(|| for status in 0..=u16::MAX {
            black_box(Status::of(status));
        })
    );
    assert_eq!(
        0,
        allocations(
            || for agent in ["docker/27.3.1 go/go1.22.7", "curl/8.11.0", "ä"] {
                black_box(Client::of(black_box(agent)));
            }
        )
    );
}
