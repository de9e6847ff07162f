//! What the text format allows and OpenMetrics does not.

use crate::exposition::{DroppedSamples, Exposition, ParseLimits};

/// What is written of a page, and of others merged into it as sources `a`, `b`, …; how many samples
/// are left out.
fn written(pages: &[&str]) -> (String, u64) {
    let mut all = pages.iter().map(|text| {
        let (page, dropped) = Exposition::parse(*text, &ParseLimits::default());
        assert_eq!(dropped, DroppedSamples::default(), "{text}");
        page
    });
    let mut page = all.next().unwrap_or_default();
    for (source, other) in ["a", "b"].into_iter().zip(all) {
        assert_eq!(page.merge(other, source), DroppedSamples::default());
    }
    let mut out = String::new();
    let omitted = page.write_openmetrics(&mut out);
    (out, omitted.total())
}

const HISTOGRAM: &str = "# TYPE x histogram\nx_bucket{le=\"1\"} 1\nx_bucket{le=\"+Inf\"} 2\nx_sum 3\n\
    x_count 2\n";

#[test]
fn a_counter_is_a_number_of_what_was_counted() {
    let page = "# TYPE x_total counter\nx_total 1\nx_total{a=\"1\"} NaN\nx_total{a=\"2\"} -1\n\
        x_total{a=\"3\"} +Inf\nx_total{a=\"4\"} -0\n";
    let expected =
        "# TYPE x counter\nx_total 1\nx_total{a=\"3\"} +Inf\nx_total{a=\"4\"} -0\n# EOF\n";
    assert_eq!(written(&[page]), (expected.to_owned(), 2));
    let mut page = Exposition::parse("", &ParseLimits::default()).0;
    page.merge(
        Exposition::parse(
            "# TYPE x_total counter\nx_total NaN\n",
            &ParseLimits::default(),
        )
        .0,
        "s",
    );
    let omitted = page.write_openmetrics(&mut String::new());
    assert_eq!((omitted.of("s"), omitted.of("")), (1, 0));
}

#[test]
fn a_histogram_as_it_should_be_keeps_its_type() {
    let page = format!("{HISTOGRAM}# EOF\n");
    assert_eq!(written(&[HISTOGRAM]), (page, 0));
    for page in [
        "# TYPE x histogram\n",
        "# TYPE x histogram\nx_bucket{le=\"+Inf\"} 1\n",
        "# TYPE x histogram\nx_count 1 5\nx_sum 0 5\nx_bucket{le=\"+Inf\"} 1 5\n",
        "# TYPE x histogram\nx_bucket{le=\"-1\"} 1.0\nx_bucket{le=\"+Inf\"} 1e3\n",
        "# TYPE x summary\nx{quantile=\"0.5\"} NaN\nx{quantile=\"1\"} 7\nx_count 1\n",
    ] {
        assert!(!written(&[page]).0.contains("unknown"), "{page}");
    }
}

#[test]
fn what_openmetrics_takes_for_no_histogram_is_unknown() {
    for (sound, odd) in [
        ("x_bucket{le=\"+Inf\"} 2\n", ""),
        ("le=\"+Inf\"", "le=\"Inf\""),
        ("le=\"1\"} 1", "le=\"1\"} 3"),
        ("le=\"1\"} 1", "le=\"1\"} 0.5"),
        ("le=\"1\"} 1", "le=\"1\"} NaN"),
        ("le=\"1\"} 1", "le=\"-1\"} 1"),
        ("le=\"1\"} 1", "le=\"1\"} 1 5"),
        (
            "x_bucket{le=\"1\"} 1\n",
            "x_bucket{le=\"1\"} 1\nx_bucket{le=\"1.0\"} 1\n",
        ),
        (
            "x_bucket{le=\"1\"} 1\n",
            "x_bucket{le=\"1\"} 1\nx_sum{a=\"1\"} 1\n",
        ),
        ("x_sum 3\n", ""),
        ("x_sum 3", "x_sum -3"),
        ("x_sum 3", "x_sum NaN"),
        ("x_sum 3", "x_sum{le=\"1\"} 3"),
        ("x_count 2\n", ""),
        ("x_count 2", "x_count 3"),
        ("x_count 2", "x_count +Inf"),
        (
            "x_count 2",
            "x_count 2\nx_bucket{a=\"1\",le=\"+Inf\"} 1\nx_bucket{le=\"2\"} 1",
        ),
    ] {
        let page = HISTOGRAM.replace(sound, odd);
        let samples = page.lines().count() - 1;
        let (page, omitted) = written(&[&page]);
        assert!(page.contains("# TYPE x_bucket unknown\n"), "{odd}: {page}");
        let lines = page.lines().filter(|line| !line.starts_with('#'));
        assert_eq!((lines.count(), omitted), (samples, 0), "{odd}: {page}");
    }
}

#[test]
fn what_openmetrics_takes_for_no_summary_is_unknown() {
    for sample in [
        "x{quantile=\"2\"} 1",
        "x{quantile=\"1\"} -1",
        "x_sum -1",
        "x_count 0.5",
    ] {
        let page =
            format!("# HELP x Help.\n# TYPE x summary\nx{{quantile=\"0\",a=\"b\"}} 1\n{sample}\n");
        let (page, _) = written(&[&page]);
        assert!(
            page.starts_with("# HELP x Help.\n# TYPE x unknown\nx{"),
            "{page}"
        );
    }
}

#[test]
fn the_page_that_had_a_family_first_gives_it_its_type() {
    let odd = "# TYPE x histogram\nx_bucket{le=\"1\"} 7\n";
    let (page, omitted) = written(&[HISTOGRAM, odd]);
    assert_eq!((page, omitted), (format!("{HISTOGRAM}# EOF\n"), 1));
    let (page, omitted) = written(&["", odd, HISTOGRAM]);
    assert!(page.contains("# TYPE x_bucket unknown\n"), "{page}");
    assert_eq!(omitted, 0);
}

#[test]
fn a_name_that_openmetrics_reserves_is_given_once() {
    // As client_golang has it: the gauge keeps its name, and the counter is written as unknown.
    let both = "# TYPE x gauge\nx 1\n# TYPE x_total counter\nx_total 2\n";
    let expected = both.replace("counter", "unknown") + "# EOF\n";
    assert_eq!(written(&[both]), (expected, 0));
    // A source cannot change what a counter before it is.
    let counter = "# TYPE x_total counter\nx_total 1\n";
    let expected = "# TYPE x counter\nx_total 1\n# EOF\n";
    for other in [
        "# TYPE x gauge\nx 1\n",
        "# TYPE x_created gauge\nx_created 1\n",
    ] {
        assert_eq!(written(&[counter, other]), (expected.to_owned(), 1));
    }
    let created =
        "# TYPE x_total counter\nx_total 1\n# TYPE x_created_total counter\nx_created_total 1\n";
    let (page, _) = written(&[created]);
    assert!(page.contains("# TYPE x counter\n"), "{page}");
    assert!(page.contains("# TYPE x_created_total unknown\n"), "{page}");
}
