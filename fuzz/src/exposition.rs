//! Any bytes as an exposition: what is kept of them is written as an exposition that reads back without
//! a loss, alone and merged with another one, in both formats.
#![no_main]

use libfuzzer_sys::fuzz_target;
use service::exposition::{DroppedSamples, Exposition, Format, ParseLimits};

fn read_back(exposition: &Exposition, format: Format) {
    let mut text = String::new();
    let omitted = format.write(exposition, &mut text);
    let samples = text.lines().filter(|line| !line.starts_with('#')).count() as u64;
    assert_eq!(
        samples + omitted.total(),
        exposition.sample_count() as u64,
        "{text}"
    );
    let (again, dropped) = Exposition::parse(text.clone(), &ParseLimits::default());
    assert_eq!(dropped, DroppedSamples::default(), "{text}");
    if format == Format::Text {
        assert_eq!(again.sample_count(), exposition.sample_count(), "{text}");
        let mut twice = String::new();
        format.write(&again, &mut twice);
        assert_eq!(twice, text);
    }
}

fuzz_target!(|bytes: &[u8]| {
    let at = bytes.len() / 2;
    let (first, second) = bytes.split_at(at);
    let (whole, _) = Exposition::parse(bytes, &ParseLimits::default());
    read_back(&whole, Format::Text);
    read_back(&whole, Format::OpenMetrics);
    let (mut merged, _) = Exposition::parse(first, &ParseLimits::default());
    for source in ["a", "b", "a"] {
        let limits = ParseLimits {
            max_samples: 100,
            ..ParseLimits::default()
        };
        merged.merge(Exposition::parse(second, &limits).0, source);
        read_back(&merged, Format::Text);
        read_back(&merged, Format::OpenMetrics);
    }
});
