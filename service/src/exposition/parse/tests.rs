//! What the formats allow, what they do not, and what comes of it.

use std::time::{Duration, Instant};

use super::*;
use crate::exposition::MetricType;

fn parse(text: impl Into<Vec<u8>>) -> (Exposition, DroppedSamples) {
    Exposition::parse(text, &ParseLimits::default())
}

/// An exposition without a mistake, written again.
fn rewritten(text: &str) -> String {
    let (exposition, dropped) = parse(text);
    assert_eq!(dropped, DroppedSamples::default(), "{text}");
    let mut out = String::new();
    exposition.write_text(&mut out);
    out
}

fn malformed(text: &str) -> u64 {
    let (_, dropped) = parse(text);
    assert_eq!(dropped.total(), dropped.malformed, "{text}");
    dropped.malformed
}

#[test]
fn the_example_of_the_specification_is_read_but_for_its_time_before_1970() {
    let exposition = "\
# HELP http_requests_total The total number of HTTP requests.
# TYPE http_requests_total counter
http_requests_total{method=\"post\",code=\"200\"} 1027 1395066363000
http_requests_total{method=\"post\",code=\"400\"}    3 1395066363000

# Escaping in label values:
msdos_file_access_time_seconds{path=\"C:\\\\DIR\\\\FILE.TXT\",error=\"Cannot find file:\\n\\\"FILE.TXT\\\"\"} 1.458255915e9

# Minimalistic line:
metric_without_timestamp_and_labels 12.47

# A weird metric from before the epoch:
something_weird{problem=\"division by zero\"} +Inf -3982045

# A histogram, which has a pretty complex representation in the text format:
# HELP http_request_duration_seconds A histogram of the request duration.
# TYPE http_request_duration_seconds histogram
http_request_duration_seconds_bucket{le=\"0.05\"} 24054
http_request_duration_seconds_bucket{le=\"+Inf\"} 144320
http_request_duration_seconds_sum 53423
http_request_duration_seconds_count 144320

# Finally a summary, which has a complex representation, too:
# HELP rpc_duration_seconds A summary of the RPC duration in seconds.
# TYPE rpc_duration_seconds summary
rpc_duration_seconds{quantile=\"0.01\"} 3102
rpc_duration_seconds_sum 1.7560473e+07
rpc_duration_seconds_count 2693
";
    // Prometheus refuses an exposition with that one.
    assert_eq!(malformed(exposition), 1);
    let (read, _) = parse(exposition);
    let kinds: Vec<_> = read.families().map(|family| family.kind()).collect();
    let untyped = MetricType::Untyped;
    assert_eq!(
        kinds,
        [
            MetricType::Counter,
            untyped,
            untyped,
            MetricType::Histogram,
            MetricType::Summary
        ]
    );
    let odd = read
        .family("msdos_file_access_time_seconds")
        .unwrap()
        .samples()
        .next()
        .unwrap();
    assert_eq!(odd.label("path").unwrap(), "C:\\DIR\\FILE.TXT");
    assert_eq!(
        odd.label("error").unwrap(),
        "Cannot find file:\n\"FILE.TXT\""
    );
    assert_eq!(
        read.family("http_request_duration_seconds")
            .unwrap()
            .samples()
            .count(),
        4
    );
}

#[test]
fn a_number_keeps_its_spelling() {
    for number in [
        "1", "1.0", "1e3", "1E+03", "+1", "-0", ".5", "5.", "NaN", "nan", "+Inf", "inf",
    ] {
        let exposition = format!("# TYPE x gauge\nx {number}\n");
        assert_eq!(rewritten(&exposition), exposition);
    }
}

#[test]
fn blanks_line_ends_and_a_missing_last_newline_do_not_matter() {
    let plain = "# HELP x Help.\n# TYPE x gauge\nx{a=\"1\",b=\"2\"} 3 4\n";
    assert_eq!(rewritten(plain), plain);
    assert_eq!(rewritten(&plain.replace('\n', "\r\n")), plain);
    assert_eq!(rewritten(plain.trim_end()), plain);
    let wide =
        "\n \t\n#\tHELP  x   Help.\n  # TYPE\tx gauge \n x { a = \"1\" , b=\"2\" ,}\t3  4 \n";
    assert_eq!(rewritten(wide), plain);
    assert_eq!(
        rewritten("# TYPE x gauge\nx{} 1\n"),
        "# TYPE x gauge\nx 1\n"
    );
    assert_eq!(
        rewritten("# TYPE x gauge\nx{a=\"1\"}1\n"),
        "# TYPE x gauge\nx{a=\"1\"} 1\n"
    );
}

#[test]
fn metadata_may_follow_samples_and_families_may_be_interleaved() {
    let exposition = "y 1\nx_count 2\nx_sum 3\n# TYPE y gauge\nx_bucket{le=\"+Inf\"} 2\n\
        # TYPE x histogram\n# HELP y Late.\ny{a=\"b\"} 5\n";
    assert_eq!(
        rewritten(exposition),
        "# HELP y Late.\n# TYPE y gauge\ny 1\ny{a=\"b\"} 5\n\
         # TYPE x histogram\nx_count 2\nx_sum 3\nx_bucket{le=\"+Inf\"} 2\n"
    );
}

#[test]
fn a_family_without_samples_keeps_its_metadata() {
    let exposition = "# HELP x Help.\n# TYPE x histogram\n";
    assert_eq!(rewritten(exposition), exposition);
}

#[test]
fn help_and_labels_escape_differently() {
    let exposition =
        "# HELP x A \"quoted\" \\\\ back\\nslash.\n# TYPE x gauge\nx{a=\"\\\"\\\\\\n\"} 1\n";
    assert_eq!(rewritten(exposition), exposition);
    let (read, _) = parse(exposition);
    let family = read.family("x").unwrap();
    assert_eq!(family.help().unwrap(), "A \"quoted\" \\ back\nslash.");
    assert_eq!(
        family.samples().next().unwrap().label("a").unwrap(),
        "\"\\\n"
    );
}

#[test]
fn an_unknown_escape_is_written_as_what_it_was_taken_for() {
    let written = rewritten("# TYPE x gauge\nx{a=\"\\d\"} 1\n");
    assert_eq!(written, "# TYPE x gauge\nx{a=\"\\\\d\"} 1\n");
    assert_eq!(rewritten(&written), written);
}

#[test]
fn comments_are_left_out() {
    let exposition =
        "# a comment\n#\n#HELPFUL\n# TYPED text\n# EOF and more\n# UNIT x seconds\nx 1\n";
    assert_eq!(rewritten(exposition), "# TYPE x untyped\nx 1\n");
}

#[test]
fn malformed_lines_are_counted_and_the_rest_is_kept() {
    for line in [
        "x",
        "x ",
        "x{",
        "x{}",
        "x{a}",
        "x{a=} 1",
        "x{a=\"b} 1",
        "x{a=\"b\" 1",
        "x{a=\"b\\",
        "x{a=\"b\",,} 1",
        "x{,} 1",
        "x{a:b=\"c\"} 1",
        "x{1=\"c\"} 1",
        "x{a=\"1\",a=\"2\"} 1",
        "x{\"quoted.name\"} 1",
        "{a=\"b\"} 1",
        "1x 1",
        "é 1",
        "x one",
        "x 1 2 3",
        "x 1 1.5",
        "x 1 # {a=\"b\"} 1",
        "x 1e400",
        "x 0x10",
        "x 1 -1",
        "x 1 9007199254740993",
        "x{__name__=\"y\"} 1",
        "x{a=\"b\",__meta=\"y\"} 1",
        "x{a=\"\0\"} 1",
        "x{a=\"\\\0\"} 1",
        "# HELP x \0",
        "# TYPE x",
        "# TYPE x thing",
        "# TYPE 1x gauge",
        "# TYPE",
        "# HELP",
        "# HELP a-b text",
    ] {
        let (exposition, dropped) = parse(format!("ok 1\n{line}\nok{{a=\"b\"}} 1\n"));
        assert_eq!(
            dropped,
            DroppedSamples {
                malformed: 1,
                ..DroppedSamples::default()
            },
            "{line}"
        );
        assert_eq!(exposition.sample_count(), 2, "{line}");
    }
}

#[test]
fn what_a_line_shares_with_the_one_before_is_checked_as_if_it_did_not() {
    assert_eq!(
        malformed("x{a=\"1\",b=\"2\"} 1\nx{b=\"9\"} 1\nx{b=\"9\",b=\"2\"} 1\n"),
        1
    );
    assert_eq!(malformed("x{a=\"1\",a=\"2\"} 1\nx{a=\"1\",a=\"2\"} 1\n"), 2);
    let exposition =
        "# TYPE x gauge\nx{a=\"1\",b=\"2\"} 1\nx{a=\"1\",b=\"23\"} 1\nx{a=\"1\"} 1\ny{a=\"1\"} 1\n";
    assert_eq!(
        rewritten(exposition),
        exposition.replace("y{", "# TYPE y untyped\ny{")
    );
    let (_, dropped) = parse("x{a=\"1\",b=\"2\"} 1\nx{a=\"1\",b=\"2\"} 1\n");
    assert_eq!(dropped.duplicate, 1);
}

/// promtool reads `le` and `quantile` as numbers, and refuses the whole exposition where one is
/// none.
#[test]
fn a_bucket_without_a_bound_or_a_quantile_without_its_number_is_malformed() {
    for label in [
        "",
        "le=\"\"",
        "le=\"x\"",
        "le=\"NaN\"",
        "le=\"1e400\"",
        "le=\"0x1p2\"",
    ] {
        let bucket = format!("x_bucket{{{label}}} 1\n# TYPE x histogram\n");
        assert_eq!(malformed(&bucket), 1, "{label}");
        let label = label.replace("le", "quantile");
        let quantile = format!("x{{{label}}} 1\n# TYPE x summary\n");
        assert_eq!(malformed(&quantile), 1, "{label}");
    }
    let others = "# TYPE x histogram\nx_sum{le=\"x\"} 1\nx_count{le=\"x\"} 1\n\
        # TYPE y summary\ny_sum{quantile=\"x\"} 1\ny_count{quantile=\"x\"} 1\n";
    assert_eq!(malformed(others), 4);
    let fine = "# TYPE x gauge\nx{le=\"x\",quantile=\"x\"} 1\n# TYPE y histogram\n\
        y_bucket{le=\"Inf\",quantile=\"x\"} 1\ny_sum{le=\"1\"} 1\ny_count 1\n\
        # TYPE z summary\nz{le=\"x\",quantile=\"2\"} 1\nz_sum 1\n";
    assert_eq!(malformed(fine), 0);
}

#[test]
fn a_histogram_counts_from_zero_up() {
    let exposition =
        "# TYPE x histogram\nx_bucket{le=\"1\"} -1\nx_count -2\nx_sum -3\nx_bucket{le=\"2\"} -0\n";
    assert_eq!(malformed(exposition), 2);
}

#[test]
fn a_label_without_a_value_is_as_none() {
    let exposition = "# TYPE x gauge\nx{a=\"\",b=\"1\",source=\"\"} 1\nx{a=\"\",c=\"\"} 2\n";
    assert_eq!(rewritten(exposition), "# TYPE x gauge\nx{b=\"1\"} 1\nx 2\n");
    let (_, dropped) = parse("x{a=\"\",b=\"1\"} 1\nx{b=\"1\"} 2\nx{c=\"\"} 3\nx 4\n");
    assert_eq!(dropped.duplicate, 2);
}

#[test]
fn a_sample_that_does_not_go_with_its_type_is_malformed() {
    assert_eq!(malformed("# TYPE x histogram\nx 1\nx_count 1\n"), 1);
    assert_eq!(
        malformed("# TYPE x summary\nx{quantile=\"1\"} 1\nx_bucket{le=\"1\"} 1\n"),
        0
    );
}

#[test]
fn metadata_that_contradicts_itself_is_malformed_and_the_first_counts() {
    let (exposition, dropped) =
        parse("# TYPE x gauge\n# TYPE x counter\n# HELP x a\n# HELP x b\nx 1\n");
    assert_eq!(dropped.malformed, 2);
    let family = exposition.family("x").unwrap();
    assert_eq!(
        (family.kind(), family.help().as_deref()),
        (MetricType::Gauge, Some("a"))
    );
    assert_eq!(
        malformed("# TYPE x gauge\nx 1\n# TYPE x gauge\nx{a=\"b\"} 1\n"),
        0
    );
}

#[test]
fn bytes_that_are_no_text_lose_their_line_only() {
    let (exposition, dropped) = parse(b"x 1\ny{a=\"\xff\"} 2\nz 3\n".as_slice());
    assert_eq!(dropped.malformed, 1);
    assert_eq!(
        exposition
            .families()
            .map(|family| family.name())
            .collect::<Vec<_>>(),
        ["x", "z"]
    );
    assert_eq!(malformed("x{a=\"é\u{1f600}\"} 1\n"), 0);
}

#[test]
fn the_second_of_two_equal_series_is_dropped_whatever_its_order() {
    let exposition = "x{a=\"1\",b=\"2\"} 1\nx{b=\"2\",a=\"1\"} 2\nx{ a=\"1\",b=\"2\",} 3\nx{a=\"2\",b=\"1\"} 4\n";
    let (exposition, dropped) = parse(exposition);
    assert_eq!(
        dropped,
        DroppedSamples {
            duplicate: 2,
            ..DroppedSamples::default()
        }
    );
    let values: Vec<_> = exposition
        .family("x")
        .unwrap()
        .samples()
        .map(|s| s.value())
        .collect();
    assert_eq!(values, [1.0, 4.0]);
    // The same value, written in two ways.
    let (_, dropped) = parse("x{a=\"\\d\"} 1\nx{a=\"\\\\d\"} 2\n");
    assert_eq!(dropped.duplicate, 1);
}

#[test]
fn families_that_print_one_name_do_not_stand_side_by_side() {
    let exposition = "# TYPE x histogram\nx_bucket{le=\"+Inf\"} 1\nx_sum 1\nx_count 1\n\
        # TYPE x_count gauge\nx_count{a=\"b\"} 1\n";
    let (read, dropped) = parse(exposition);
    assert_eq!(
        dropped,
        DroppedSamples {
            type_conflict: 1,
            ..DroppedSamples::default()
        }
    );
    assert_eq!(read.families().len(), 1);
    assert_eq!(read.sample_count(), 3);
    let reversed = "# TYPE x_sum gauge\nx_sum{a=\"b\"} 1\n# TYPE x summary\nx{quantile=\"1\"} 1\n";
    let (read, dropped) = parse(reversed);
    assert_eq!(dropped.type_conflict, 1);
    assert_eq!(read.families().next().unwrap().name(), "x_sum");
}

#[test]
fn what_is_over_a_limit_is_dropped_and_counted() {
    let exposition = "# TYPE x gauge\nx{a=\"1\"} 1\nx{a=\"2\"} 2\n# TYPE y gauge\ny 3\n";
    let samples = ParseLimits {
        max_samples: 1,
        ..ParseLimits::default()
    };
    let (read, dropped) = Exposition::parse(exposition, &samples);
    assert_eq!((read.sample_count(), dropped.limit), (1, 2));
    let bytes = ParseLimits {
        max_bytes: 30,
        ..ParseLimits::default()
    };
    let (read, dropped) = Exposition::parse(exposition, &bytes);
    assert_eq!(
        (read.sample_count(), dropped.limit, dropped.malformed),
        (1, 2, 0)
    );
    let (read, dropped) = Exposition::parse(
        exposition,
        &ParseLimits {
            max_bytes: 0,
            max_samples: 0,
        },
    );
    assert_eq!((read.families().len(), dropped.limit), (0, 3));
}

#[test]
fn openmetrics_is_read_into_the_words_of_the_text_format() {
    let exposition = "\
# TYPE requests counter
# UNIT requests requests
# HELP requests Say \\\"hi\\\".
requests_total{a=\"b\"} 5 1395066363.123 # {trace=\"x y\"} 0.67 1395066363
requests_created{a=\"b\"} 1.5e9
# TYPE build info
build_info{version=\"1\"} 1
# TYPE mode stateset
mode{mode=\"on\"} 1
# TYPE queue gaugehistogram
queue_bucket{le=\"+Inf\"} 4
queue_gcount 4
queue_gsum 9
# TYPE latency histogram
latency_bucket{le=\"1.0\"} 1 # {} 0.5
latency_bucket{le=\"+Inf\"} 2
latency_count 2
latency_sum 3
latency_created 1.5e9
# TYPE odd unknown
odd 1
# EOF
";
    assert_eq!(
        rewritten(exposition),
        "# HELP requests_total Say \"hi\".\n\
         # TYPE requests_total counter\nrequests_total{a=\"b\"} 5 1395066363123\n\
         # TYPE requests_created gauge\nrequests_created{a=\"b\"} 1.5e9\n\
         # TYPE build_info gauge\nbuild_info{version=\"1\"} 1\n\
         # TYPE mode gauge\nmode{mode=\"on\"} 1\n\
         # TYPE queue_bucket untyped\nqueue_bucket{le=\"+Inf\"} 4\n\
         # TYPE queue_gcount untyped\nqueue_gcount 4\n\
         # TYPE queue_gsum untyped\nqueue_gsum 9\n\
         # TYPE latency histogram\nlatency_bucket{le=\"1.0\"} 1\nlatency_bucket{le=\"+Inf\"} 2\n\
         latency_count 2\nlatency_sum 3\n\
         # TYPE latency_created gauge\nlatency_created 1.5e9\n\
         # TYPE odd untyped\nodd 1\n"
    );
}

#[test]
fn enormous_pieces_are_malformed_and_cost_no_more_than_their_length() {
    let long = "x".repeat(70_000);
    assert_eq!(malformed(&format!("{long} 1\n")), 1);
    assert_eq!(malformed(&format!("x{}1\n", " ".repeat(70_000))), 1);
    assert_eq!(malformed(&format!("x {}\n", "1".repeat(70_000))), 1);
    assert_eq!(malformed(&format!("x{{a=\"{long}\"}} 1\n")), 0);

    let labels: Vec<_> = (0..200_000).map(|n| format!("l{n}=\"\"")).collect();
    let line = format!("x{{{}}} 1\n", labels.join(","));
    let twice = format!("x{{{},l7=\"\"}} 1\n", labels.join(","));
    let started = Instant::now();
    assert_eq!(malformed(&line), 0);
    assert_eq!(malformed(&twice), 1);
    // Quadratic would be minutes.
    assert!(started.elapsed() < Duration::from_secs(20));
}
