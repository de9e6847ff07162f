//! Ranges of requests: what is accepted lies within its content.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| registry::fuzz::range(bytes));
