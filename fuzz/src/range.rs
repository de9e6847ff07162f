//! Ranges of requests and of uploads: what is accepted lies within its content.
#![no_main]

use libfuzzer_sys::fuzz_target;
use registry::oci::{ByteRange, UploadRange};

fuzz_target!(|input: (u64, &str)| {
    let (length, header) = input;
    if let Ok(Some(range)) = ByteRange::parse(Some(header))
        && let Ok((start, part)) = range.resolve(length)
    {
        assert!(part > 0 && start < length && part <= length - start);
    }
    if let Ok(range) = UploadRange::parse(header) {
        assert_eq!(range.end() - range.start() + 1, range.length());
        let spelt = format!("{}-{}", range.start(), range.end());
        assert_eq!(UploadRange::parse(&spelt), Ok(range));
    }
});
