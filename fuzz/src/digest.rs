//! Digests, against the specification's expressions.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| registry::fuzz::digest(bytes));
