//! Every path has a route, whose pieces are pieces of the path.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| registry::fuzz::route(bytes));
