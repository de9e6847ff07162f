//! What holds for every page: nothing panics, what is written is read back, and a merged page is
//! valid whatever went into it.

use proptest::prelude::*;

use super::{Dropped, Family, Format, Kind, Limits, Page};

/// A family's name, kind, help and samples; a sample's name, labels, value and timestamp.
type FamilyOf = (String, Kind, Option<String>, Vec<SampleOf>);
type SampleOf = (String, Vec<(String, String)>, String, Option<i64>);

fn contents(page: &Page) -> Vec<FamilyOf> {
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

fn parse(text: impl Into<Vec<u8>>) -> (Page, Dropped) {
    Page::parse(text, &Limits::default())
}

fn write(page: &Page, format: Format) -> String {
    let mut out = String::new();
    format.write(page, &mut out);
    out
}

/// Few names, so that they clash.
fn name() -> impl Strategy<Value = String> {
    let base = prop::sample::select(vec!["x", "y", "x_total", "x_count", "x_sum_count"]);
    let suffix = [
        "", "", "", "_bucket", "_sum", "_count", "_total", "_created", "_info",
    ];
    (base, prop::sample::select(suffix.to_vec()))
        .prop_map(|(base, suffix)| base.to_owned() + suffix)
}

fn label() -> impl Strategy<Value = String> {
    let names = [
        "a",
        "b",
        "le",
        "source",
        "exported_source",
        "exported_exported_source",
    ];
    let values = "[ab\"\\\\]?|\\\\n|\\\\\\\\|\\\\\"|é";
    let blanks = " {0,1}";
    (prop::sample::select(names.to_vec()), values, blanks, blanks)
        .prop_map(|(name, value, before, after)| format!("{before}{name}{after}=\"{value}\""))
}

fn line() -> impl Strategy<Value = String> {
    let number = prop::sample::select(vec!["1", "2.5e3", "NaN", "+Inf", "-0", "one", "1e999"]);
    let tail = prop::sample::select(vec!["", "", "", " 123", " -5", " 1.5", " # {} 1", "\r"]);
    let labels = prop::collection::vec(label(), 0..4);
    let braces = (labels, prop::bool::ANY, prop::bool::ANY).prop_map(|(labels, comma, braces)| {
        let comma = if comma { "," } else { "" };
        if labels.is_empty() && !braces {
            String::new()
        } else {
            format!("{{{}{comma}}}", labels.join(","))
        }
    });
    let sample = (name(), braces, number, tail)
        .prop_map(|(name, labels, number, tail)| format!("{name}{labels} {number}{tail}"));
    let kinds = [
        "counter",
        "gauge",
        "histogram",
        "summary",
        "untyped",
        "info",
        "gaugehistogram",
    ];
    let kind = (name(), prop::sample::select(kinds.to_vec()))
        .prop_map(|(name, kind)| format!("# TYPE {name} {kind}"));
    let help = (name(), "[ -~é]{0,12}").prop_map(|(name, help)| format!("# HELP {name} {help}"));
    prop_oneof![6 => sample, 2 => kind, 1 => help, 1 => "[ -~]{0,20}"]
}

fn page() -> impl Strategy<Value = String> {
    (
        prop::collection::vec(line(), 0..30),
        prop::bool::weighted(0.2),
    )
        .prop_map(|(lines, eof)| {
            let eof = if eof { "\n# EOF" } else { "" };
            lines.join("\n") + eof + "\n"
        })
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
        prop_assert_eq!(dropped, Dropped::default(), "{}", written);
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
        prop_assert_eq!(dropped, Dropped::default(), "{}", written);
        prop_assert_eq!(contents(&again), contents(&merged), "{}", written);
    }

    #[test]
    fn openmetrics_is_read_back_without_a_loss(own in page(), other in page()) {
        let (mut merged, _) = parse(own);
        merged.merge(parse(other).0, "s");
        let written = write(&merged, Format::OpenMetrics);
        let (again, dropped) = parse(written.clone());
        prop_assert_eq!(dropped, Dropped::default(), "{}", written);
        let lines = written.lines().filter(|line| !line.starts_with('#')).count();
        prop_assert_eq!(again.sample_count(), lines);
    }

    #[test]
    fn a_limit_holds(text in page(), max_bytes in 0..400_usize, max_samples in 0..10_usize) {
        let (page, _) = Page::parse(text, &Limits { max_bytes, max_samples });
        prop_assert!(page.sample_count() <= max_samples);
    }
}
