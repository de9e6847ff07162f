//! Ranges of requests and of uploads: what is accepted lies within its content.
#![no_main]

use libfuzzer_sys::fuzz_target;
use registry::oci::{ByteRanges, Spans, UploadRange};

fuzz_target!(|input: (u64, &str)| {
    let (length, header) = input;
    if let Ok(Some(ranges)) = ByteRanges::parse(Some(header))
        && let Ok(spans) = ranges.resolve(length)
    {
        assert!(ranges.iter().count() <= ByteRanges::MAX);
        assert!(spans.total(length) <= length);
        let parts = match &spans {
            Spans::Whole => &[][..],
            Spans::One(span) => std::slice::from_ref(span),
            Spans::Several(spans) => spans,
        };
        for part in parts {
            assert!(part.length > 0 && part.start < length);
            assert!(part.length <= length - part.start);
        }
    }
    if let Ok(range) = UploadRange::parse(header) {
        assert_eq!(range.end() - range.start() + 1, range.length());
        let written = format!("{}-{}", range.start(), range.end());
        assert_eq!(UploadRange::parse(&written), Ok(range));
    }
});
