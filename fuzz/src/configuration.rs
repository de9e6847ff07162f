//! Configurations of the registry: each is read, or refused in words.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| registry::fuzz::configuration(bytes));
