//! Ranges of uploads.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| registry::fuzz::content_range(bytes));
