//! What holds for every exposition: nothing panics, what is written is read back, and a merged
//! exposition is valid whatever went into it.
//!
//! That others read it, too, is tested with them: `tests/suites/hostile_sources.rs`.

use proptest::prelude::*;

use super::{
    DroppedSamples, Exposition, ExpositionFamily, Format, MetricType, OmittedSamples, ParseLimits,
};

#[path = "../../../tests/harness/hostile.rs"]
#[expect(unreachable_pub, reason = "the harness of the suites shares the file")]
mod hostile;

/// A family's name, kind, help and samples; a sample's name, labels, value and timestamp.
type FamilyOf = (String, MetricType, Option<String>, Vec<SampleOf>);
type SampleOf = (String, Vec<(String, String)>, String, Option<i64>);

fn contents(exposition: &Exposition) -> Vec<FamilyOf> {
    let family = |family: ExpositionFamily<'_>| {
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
    exposition.families().map(family).collect()
}

fn parse(text: impl Into<Vec<u8>>) -> (Exposition, DroppedSamples) {
    Exposition::parse(text, &ParseLimits::default())
}

fn write(exposition: &Exposition, format: Format) -> String {
    written(exposition, format).0
}

fn written(exposition: &Exposition, format: Format) -> (String, OmittedSamples) {
    let mut out = String::new();
    let omitted = format.write(exposition, &mut out);
    (out, omitted)
}

fn exposition() -> impl Strategy<Value = Vec<u8>> {
    hostile::exposition("")
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let (exposition, _) = parse(bytes);
        write(&exposition, Format::OpenMetrics);
    }

    #[test]
    fn what_is_written_is_read_back(text in exposition()) {
        let (exposition, _) = parse(text);
        let written = write(&exposition, Format::Text);
        let (again, dropped) = parse(written.clone());
        prop_assert_eq!(dropped, DroppedSamples::default(), "{}", written);
        prop_assert_eq!(contents(&again), contents(&exposition), "{}", written);
        prop_assert_eq!(write(&again, Format::Text), written);
    }

    #[test]
    fn a_merged_exposition_is_valid(own in exposition(), expositions in prop::collection::vec(exposition(), 0..4)) {
        let (mut merged, _) = parse(own);
        let mut samples = merged.sample_count() as u64;
        // One source comes twice.
        for (source, exposition) in ["a", "b", "a\"", "a"].into_iter().zip(expositions) {
            let (exposition, _) = parse(exposition);
            samples += exposition.sample_count() as u64;
            samples -= merged.merge(exposition, source).total();
        }
        prop_assert_eq!(merged.sample_count() as u64, samples);
        let written = write(&merged, Format::Text);
        let (again, dropped) = parse(written.clone());
        prop_assert_eq!(dropped, DroppedSamples::default(), "{}", written);
        prop_assert_eq!(contents(&again), contents(&merged), "{}", written);
    }

    #[test]
    fn openmetrics_is_read_back_without_a_loss(own in exposition(), other in exposition()) {
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
    fn a_limit_holds(text in exposition(), max_bytes in 0..400_usize, max_samples in 0..10_usize) {
        let (exposition, _) = Exposition::parse(text, &ParseLimits { max_bytes, max_samples });
        prop_assert!(exposition.sample_count() <= max_samples);
    }
}
