//! Expositions of several sources, merged.

use super::*;
use crate::exposition::Format;

fn parse(text: &str) -> Exposition {
    let (exposition, dropped) = Exposition::parse(text, &ParseLimits::default());
    assert_eq!(dropped, DroppedSamples::default(), "{text}");
    exposition
}

fn text(exposition: &Exposition) -> String {
    let mut out = String::new();
    exposition.write_text(&mut out);
    out
}

/// What is written of `own` with the others merged into it, and what was dropped.
fn merged(own: &str, others: &[(&str, &str)]) -> (String, DroppedSamples) {
    let mut exposition = parse(own);
    let mut dropped = DroppedSamples::default();
    for (source, other) in others {
        dropped += exposition.merge(parse(other), source);
    }
    let text = text(&exposition);
    parse(&text);
    (text, dropped)
}

#[test]
fn a_family_of_several_expositions_is_written_once_and_each_sample_names_its_source() {
    let (text, dropped) = merged(
        "# HELP x Ours.\n# TYPE x counter\nx 1\n",
        &[
            (
                "a",
                "# HELP x Theirs.\n# TYPE x counter\nx 2\nx{b=\"c\"} 3\n# TYPE y gauge\ny 4\n",
            ),
            (
                "b",
                "# HELP y Y.\n# TYPE y gauge\ny 5\n# TYPE x counter\nx 6\n",
            ),
        ],
    );
    assert_eq!(dropped, DroppedSamples::default());
    assert_eq!(
        text,
        "# HELP x Ours.\n# TYPE x counter\nx 1\nx{source=\"a\"} 2\nx{b=\"c\",source=\"a\"} 3\n\
         x{source=\"b\"} 6\n# HELP y Y.\n# TYPE y gauge\ny{source=\"a\"} 4\ny{source=\"b\"} 5\n"
    );
}

#[test]
fn a_foreign_label_source_becomes_exported() {
    let (text, _) = merged(
        "",
        &[("s", "# TYPE x gauge\nx{source=\"disk\",a=\"b\"} 1\n")],
    );
    assert_eq!(
        text,
        "# TYPE x gauge\nx{exported_source=\"disk\",a=\"b\",source=\"s\"} 1\n"
    );
    let taken = "# TYPE x gauge\nx{source=\"1\",exported_source=\"2\"} 1\n";
    let (text, _) = merged("", &[("s", taken)]);
    assert_eq!(
        text,
        "# TYPE x gauge\nx{exported_exported_source=\"1\",exported_source=\"2\",source=\"s\"} 1\n"
    );
}

#[test]
fn series_that_become_equal_by_their_new_names_are_dropped() {
    let exposition = "# TYPE x gauge\nx{source=\"1\"} 1\nx{exported_source=\"1\"} 2\n";
    let (text, dropped) = merged("", &[("s", exposition)]);
    assert_eq!(
        dropped,
        DroppedSamples {
            duplicate: 1,
            ..DroppedSamples::default()
        }
    );
    assert_eq!(
        text,
        "# TYPE x gauge\nx{exported_source=\"1\",source=\"s\"} 1\n"
    );
}

#[test]
fn a_series_that_is_here_already_is_dropped() {
    let own = "# TYPE up gauge\nup{source=\"s\"} 1\n";
    let (text, dropped) = merged(own, &[("s", "# TYPE up gauge\nup 0\nup{a=\"b\"} 2\n")]);
    assert_eq!(
        dropped,
        DroppedSamples {
            duplicate: 1,
            ..DroppedSamples::default()
        }
    );
    assert_eq!(
        text,
        "# TYPE up gauge\nup{source=\"s\"} 1\nup{a=\"b\",source=\"s\"} 2\n"
    );
}

#[test]
fn the_same_source_twice_adds_nothing() {
    let exposition = "# TYPE x gauge\nx 1\nx{a=\"b\"} 2\nx{source=\"q\"} 3\n";
    let (_, dropped) = merged("", &[("s", exposition), ("s", exposition)]);
    assert_eq!(
        dropped,
        DroppedSamples {
            duplicate: 3,
            ..DroppedSamples::default()
        }
    );
}

#[test]
fn a_family_of_another_type_is_dropped_from_the_later_exposition() {
    let (text, dropped) = merged(
        "# TYPE x counter\n",
        &[
            (
                "a",
                "# TYPE x gauge\nx 1\nx{a=\"b\"} 1\n# TYPE y gauge\ny 1\n",
            ),
            ("b", "y 2\n"),
        ],
    );
    assert_eq!(
        dropped,
        DroppedSamples {
            type_conflict: 3,
            ..DroppedSamples::default()
        }
    );
    assert_eq!(
        text,
        "# TYPE x counter\n# TYPE y gauge\ny{source=\"a\"} 1\n"
    );
}

#[test]
fn a_family_that_prints_another_ones_name_is_dropped() {
    let own = "# TYPE x histogram\nx_bucket{le=\"+Inf\"} 1\nx_sum 1\nx_count 1\n";
    let (text, dropped) = merged(own, &[("a", "# TYPE x_count gauge\nx_count 1\nx_sum 2\n")]);
    assert_eq!(
        dropped,
        DroppedSamples {
            type_conflict: 2,
            ..DroppedSamples::default()
        }
    );
    assert_eq!(text, own);
    let own = "# TYPE x_bucket gauge\nx_bucket 1\n";
    let histogram = "# TYPE x histogram\nx_bucket{le=\"+Inf\"} 1\nx_sum 1\nx_count 1\n";
    let (text, dropped) = merged(own, &[("a", histogram)]);
    assert_eq!(
        dropped,
        DroppedSamples {
            type_conflict: 3,
            ..DroppedSamples::default()
        }
    );
    assert_eq!(text, own);
}

#[test]
fn the_name_of_a_source_is_escaped() {
    let (text, _) = merged("", &[("a\"\\\n", "# TYPE x gauge\nx 1\n")]);
    assert_eq!(text, "# TYPE x gauge\nx{source=\"a\\\"\\\\\\n\"} 1\n");
}

#[test]
fn a_merged_exposition_can_be_merged_again() {
    let mut inner = parse("# TYPE x gauge\nx 1\n");
    inner.merge(parse("# TYPE x gauge\nx 2\n"), "inner");
    let mut outer = Exposition::default();
    assert_eq!(outer.merge(inner, "outer"), DroppedSamples::default());
    assert_eq!(
        text(&outer),
        "# TYPE x gauge\nx{source=\"outer\"} 1\nx{exported_source=\"inner\",source=\"outer\"} 2\n"
    );
}

#[test]
fn openmetrics_names_counters_its_way_and_ends_with_eof() {
    let mut exposition = parse(
        "# HELP a_total A \"quoted\" one.\n# TYPE a_total counter\na_total 1 1500\n\
         # TYPE plain counter\nplain 2\nuntyped 3\n# TYPE b gauge\nb 4\n# TYPE b_total counter\n\
         b_total 5\n# TYPE a_created gauge\na_created 6\n",
    );
    exposition.merge(parse("# TYPE a counter\na_total 7 2.5\n# EOF\n"), "s");
    let mut out = String::new();
    Format::OpenMetrics.write(&exposition, &mut out);
    assert_eq!(
        out,
        "# HELP a A \\\"quoted\\\" one.\n# TYPE a counter\na_total 1 1.500\n\
         a_total{source=\"s\"} 7 2.500\n# TYPE plain unknown\nplain 2\n\
         # TYPE untyped unknown\nuntyped 3\n# TYPE b gauge\nb 4\n\
         # TYPE b_total unknown\nb_total 5\n# EOF\n"
    );
    let (again, dropped) = Exposition::parse(out, &ParseLimits::default());
    assert_eq!(dropped, DroppedSamples::default());
    assert_eq!(again.sample_count(), 6);
}
