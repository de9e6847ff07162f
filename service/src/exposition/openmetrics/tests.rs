//! What the text format allows and OpenMetrics does not.

use crate::exposition::{DroppedSamples, Exposition, ParseLimits};

/// What is written of an exposition, and of others merged into it as sources `a`, `b`, …; how many
/// samples are left out.
fn written(expositions: &[&str]) -> (String, u64) {
    let mut all = expositions.iter().map(|text| {
        let (exposition, dropped) = Exposition::parse(*text, &ParseLimits::default());
        assert_eq!(dropped, DroppedSamples::default(), "{text}");
        exposition
    });
    let mut exposition = all.next().unwrap_or_default();
    for (source, other) in ["a", "b"].into_iter().zip(all) {
        assert_eq!(exposition.merge(other, source), DroppedSamples::default());
    }
    let mut out = String::new();
    let omitted = exposition.write_openmetrics(&mut out);
    (out, omitted.total())
}

const HISTOGRAM: &str = "# TYPE x histogram\nx_bucket{le=\"1\"} 1\nx_bucket{le=\"+Inf\"} 2\nx_sum 3\n\
    x_count 2\n";

#[test]
fn a_counter_is_a_number_of_what_was_counted() {
    let exposition = "# TYPE x_total counter\nx_total 1\nx_total{a=\"1\"} NaN\nx_total{a=\"2\"} -1\n\
        x_total{a=\"3\"} +Inf\nx_total{a=\"4\"} -0\n";
    let expected =
        "# TYPE x counter\nx_total 1\nx_total{a=\"3\"} +Inf\nx_total{a=\"4\"} -0\n# EOF\n";
    assert_eq!(written(&[exposition]), (expected.to_owned(), 2));
    let mut exposition = Exposition::parse("", &ParseLimits::default()).0;
    exposition.merge(
        Exposition::parse(
            "# TYPE x_total counter\nx_total NaN\n",
            &ParseLimits::default(),
        )
        .0,
        "s",
    );
    let omitted = exposition.write_openmetrics(&mut String::new());
    assert_eq!((omitted.of("s"), omitted.of("")), (1, 0));
}

#[test]
fn a_histogram_as_it_should_be_keeps_its_type() {
    let exposition = format!("{HISTOGRAM}# EOF\n");
    assert_eq!(written(&[HISTOGRAM]), (exposition, 0));
    for exposition in [
        "# TYPE x histogram\n",
        "# TYPE x histogram\nx_bucket{le=\"+Inf\"} 1\n",
        "# TYPE x histogram\nx_count 1 5\nx_sum 0 5\nx_bucket{le=\"+Inf\"} 1 5\n",
        "# TYPE x histogram\nx_bucket{le=\"-1\"} 1.0\nx_bucket{le=\"+Inf\"} 1e3\n",
        "# TYPE x summary\nx{quantile=\"0.5\"} NaN\nx{quantile=\"1\"} 7\nx_count 1\n",
    ] {
        assert!(
            !written(&[exposition]).0.contains("unknown"),
            "{exposition}"
        );
    }
}

#[test]
fn an_invalid_openmetrics_histogram_is_unknown() {
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
        let exposition = HISTOGRAM.replace(sound, odd);
        let samples = exposition.lines().count() - 1;
        let (exposition, omitted) = written(&[&exposition]);
        assert!(
            exposition.contains("# TYPE x_bucket unknown\n"),
            "{odd}: {exposition}"
        );
        let lines = exposition.lines().filter(|line| !line.starts_with('#'));
        assert_eq!(
            (lines.count(), omitted),
            (samples, 0),
            "{odd}: {exposition}"
        );
    }
}

#[test]
fn an_invalid_openmetrics_summary_is_unknown() {
    for sample in [
        "x{quantile=\"2\"} 1",
        "x{quantile=\"1\"} -1",
        "x_sum -1",
        "x_count 0.5",
    ] {
        let exposition =
            format!("# HELP x Help.\n# TYPE x summary\nx{{quantile=\"0\",a=\"b\"}} 1\n{sample}\n");
        let (exposition, _) = written(&[&exposition]);
        assert!(
            exposition.starts_with("# HELP x Help.\n# TYPE x unknown\nx{"),
            "{exposition}"
        );
    }
}

#[test]
fn the_exposition_that_had_a_family_first_gives_it_its_type() {
    let odd = "# TYPE x histogram\nx_bucket{le=\"1\"} 7\n";
    let (exposition, omitted) = written(&[HISTOGRAM, odd]);
    assert_eq!((exposition, omitted), (format!("{HISTOGRAM}# EOF\n"), 1));
    let (exposition, omitted) = written(&["", odd, HISTOGRAM]);
    assert!(
        exposition.contains("# TYPE x_bucket unknown\n"),
        "{exposition}"
    );
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
    let (exposition, _) = written(&[created]);
    assert!(exposition.contains("# TYPE x counter\n"), "{exposition}");
    assert!(
        exposition.contains("# TYPE x_created_total unknown\n"),
        "{exposition}"
    );
}
