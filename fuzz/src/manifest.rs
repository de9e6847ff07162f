//! Manifests: what is accepted mentions all that it refers to.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| registry::fuzz::manifest(bytes));
