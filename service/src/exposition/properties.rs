//! What holds for every page: nothing panics, what is written is read back, and a merged page is
//! valid whatever went into it.
//!
//! That others read it, too, is tested with them: `tests/suites/hostile_sources.rs`.

use proptest::prelude::*;

use super::{DroppedSamples, Exposition, Family, Format, MetricType, OmittedSamples, ParseLimits};

#[path = "../../../tests/harness/hostile.rs"]
#[expect(unreachable_pub, reason = "the harness of the suites shares the file")]
mod hostile;

/// A family's name, kind, help and samples; a sample's name, labels, value and timestamp.
type FamilyOf = (String, MetricType, Option<String>, Vec<SampleOf>);
type SampleOf = (String, Vec<(String, String)>, String, Option<i64>);

fn contents(page: &Exposition) -> Vec<FamilyOf> {
    let family = |family: Family<'_>| {
        let samples = family.samples().map(|sample| {
            let labels = sample.labels();
            let labels = labels.map(|(name, value)| (name.into_owned(), value.into_owned()));
            let value = sample.value_text().to_owned();
            (
                sample.name().to_owned(),
                labels.collect(),
                value,
                sample.timestamp_ms(),
            )
        });
        let help = family.help().map(std::borrow::Cow::into_owned);
        (
            family.name().to_owned(),
            family.kind(),
            help,
            samples.collect(),
        )
    };
    page.families().map(family).collect()
}

fn parse(text: impl Into<Vec<u8>>) -> (Exposition, DroppedSamples) {
    Exposition::parse(text, &ParseLimits::default())
}

fn write(page: &Exposition, format: Format) -> String {
    written(page, format).0
}

fn written(page: &Exposition, format: Format) -> (String, OmittedSamples) {
    let mut out = String::new();
    let omitted = format.write(page, &mut out);
    (out, omitted)
}

fn page() -> impl Strategy<Value = Vec<u8>> {
    hostile::exposition("")
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let (page, _) = parse(bytes);
        write(&page, Format::OpenMetrics);
    }

    #[test]
    fn what_is_written_is_read_back(text in page()) {
        let (page, _) = parse(text);
        let written = write(&page, Format::Text);
        let (again, dropped) = parse(written.clone());
        prop_assert_eq!(dropped, DroppedSamples::default(), "{}", written);
        prop_assert_eq!(contents(&again), contents(&page), "{}", written);
        prop_assert_eq!(write(&again, Format::Text), written);
    }

    #[test]
    fn a_merged_page_is_valid(own in page(), pages in prop::collection::vec(page(), 0..4)) {
        let (mut merged, _) = parse(own);
        let mut samples = merged.sample_count() as u64;
        // One source comes twice.
        for (source, page) in ["a", "b", "a\"", "a"].into_iter().zip(pages) {
            let (page, _) = parse(page);
            samples += page.sample_count() as u64;
            samples -= merged.merge(page, source).total();
        }
        prop_assert_eq!(merged.sample_count() as u64, samples);
        let written = write(&merged, Format::Text);
        let (again, dropped) = parse(written.clone());
        prop_assert_eq!(dropped, DroppedSamples::default(), "{}", written);
        prop_assert_eq!(contents(&again), contents(&merged), "{}", written);
    }

    #[test]
    fn openmetrics_is_read_back_without_a_loss(own in page(), other in page()) {
        let (mut merged, _) = parse(own);
        merged.merge(parse(other).0, "s");
        let (written, omitted) = written(&merged, Format::OpenMetrics);
        let (again, dropped) = parse(written.clone());
        prop_assert_eq!(dropped, DroppedSamples::default(), "{}", written);
        let lines = written.lines().filter(|line| !line.starts_with('#')).count();
        prop_assert_eq!(again.sample_count(), lines);
        prop_assert_eq!(merged.sample_count() as u64, lines as u64 + omitted.total());
    }

    #[test]
    fn a_limit_holds(text in page(), max_bytes in 0..400_usize, max_samples in 0..10_usize) {
        let (page, _) = Exposition::parse(text, &ParseLimits { max_bytes, max_samples });
        prop_assert!(page.sample_count() <= max_samples);
    }
}
