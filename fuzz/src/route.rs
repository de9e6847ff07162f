//! Every path has a route, whose pieces are pieces of the path.
#![no_main]

use libfuzzer_sys::fuzz_target;
use registry::oci::Route;

fuzz_target!(|path: &str| {
    let route = Route::parse(path);
    for piece in [route.repository, Some(route.tail)].into_iter().flatten() {
        assert!(path.contains(piece));
    }
});
