//! A metrics page of anybody's: what is kept of it is written as a page that is read back without a
//! loss, alone and merged with another one, in both formats.
#![no_main]

use libfuzzer_sys::fuzz_target;
use service::exposition::{Dropped, Format, Limits, Page};

fn read_back(page: &Page, format: Format) {
    let mut text = String::new();
    let left_out = format.write(page, &mut text);
    let samples = text.lines().filter(|line| !line.starts_with('#')).count() as u64;
    assert_eq!(
        samples + left_out.total(),
        page.sample_count() as u64,
        "{text}"
    );
    let (again, dropped) = Page::parse(text.clone(), &Limits::default());
    assert_eq!(dropped, Dropped::default(), "{text}");
    if format == Format::Text {
        assert_eq!(again.sample_count(), page.sample_count(), "{text}");
        let mut twice = String::new();
        format.write(&again, &mut twice);
        assert_eq!(twice, text);
    }
}

fuzz_target!(|bytes: &[u8]| {
    let at = bytes.len() / 2;
    let (first, second) = bytes.split_at(at);
    let (whole, _) = Page::parse(bytes, &Limits::default());
    read_back(&whole, Format::Text);
    read_back(&whole, Format::OpenMetrics);
    let (mut merged, _) = Page::parse(first, &Limits::default());
    for source in ["a", "b", "a"] {
        let limits = Limits {
            max_samples: 100,
            ..Limits::default()
        };
        merged.merge(Page::parse(second, &limits).0, source);
        read_back(&merged, Format::Text);
        read_back(&merged, Format::OpenMetrics);
    }
});
