//! Generates hostile expositions: valid and invalid pieces of lines, in every order.
//!
//! The tests of the service crate include this file, too: it must not use the rest of the harness.

use std::fmt::Display;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::Union;

/// An exposition in which every name that is valid begins with `prefix`.
pub fn exposition(prefix: &str) -> impl Strategy<Value = Vec<u8>> + use<> {
    let block = prop_oneof![
        3 => vec(line(prefix), 1..8),
        1 => histogram(prefix),
        1 => summary(prefix),
        1 => counter(prefix),
    ];
    let lines = vec(block, 0..6).prop_map(|blocks| blocks.concat());
    // Sometimes interleaved.
    let shuffled = lines.clone().prop_shuffle();
    let lines = prop_oneof![4 => lines, 1 => shuffled];
    let end = select(vec![
        "\n",
        "\n",
        "",
        "\r\n",
        "\n# EOF\n",
        "\n# EOF\n",
        "\n# EOF",
    ]);
    let broken = prop::option::weighted(0.1, (any::<prop::sample::Index>(), 0..4_usize));
    (lines, end, broken).prop_map(|(lines, end, broken)| {
        let mut exposition = (lines.join("\n") + end).into_bytes();
        if let Some((at, byte)) = broken {
            let at = at.index(exposition.len() + 1);
            exposition.insert(at, [0xff, 0xc3, 0x80, 0][byte]);
        }
        exposition
    })
}

/// Any line: a sample, metadata, or neither.
pub fn line(prefix: &str) -> impl Strategy<Value = String> + use<> {
    let sample = (name(prefix), braces(), blank(), number(), tail()).prop_map(
        |(name, braces, blank, number, tail)| format!("{name}{braces}{blank}{number}{tail}"),
    );
    let kinds = [
        "counter",
        "gauge",
        "histogram",
        "summary",
        "untyped",
        "unknown",
        "info",
        "stateset",
        "gaugehistogram",
        "counter ",
        "Counter",
        "thing",
        "",
    ];
    let kind = (name(prefix), select(kinds.to_vec()))
        .prop_map(|(name, kind)| format!("# TYPE {name} {kind}"));
    let texts = [
        "",
        " ",
        "Help.",
        "say \"hi",
        "a\\nb\\\\c\\",
        "\\\"é\\x",
        "\0",
        "\ttab\r",
    ];
    let help = (name(prefix), select(texts.to_vec()))
        .prop_map(|(name, help)| format!("# HELP {name} {help}"));
    let others = [
        "",
        " ",
        "#",
        "# EOF",
        "# a comment",
        "# TYPE",
        "# HELP",
        "#TYPE",
        "é 1",
        "1x 1",
        "{a=\"b\"} 1",
        "{\"x\"} 1",
        "\0",
        "\u{feff}x 1",
        "<html>",
        "# UNIT",
    ];
    let junk = "[ -~]{0,20}".prop_map({
        let prefix = prefix.to_owned();
        move |junk| format!("{prefix}{junk}")
    });
    prop_oneof![12 => sample, 4 => kind, 2 => help, 1 => select(others.to_vec()).prop_map(String::from), 1 => junk]
}

/// Few names, so that they clash with each other and with names of the test's own.
fn name(prefix: &str) -> impl Strategy<Value = String> + use<> {
    let prefix = prefix.to_owned();
    let base = [
        "x",
        "x",
        "y",
        "x_total",
        "x_count",
        "x_sum_count",
        "x_created",
        ":",
        "own_requests",
        "own_seconds",
        "own_bytes",
    ];
    let suffix = [
        "", "", "", "", "_bucket", "_sum", "_count", "_total", "_created", "_info", "-", "é",
    ];
    (select(base.to_vec()), select(suffix.to_vec()))
        .prop_map(move |(base, suffix)| format!("{prefix}{base}{suffix}"))
}

fn braces() -> impl Strategy<Value = String> {
    let comma = select(vec!["", "", "", ",", ",,"]);
    (vec(label(), 0..4), comma, any::<bool>()).prop_map(|(labels, comma, braces)| {
        if labels.is_empty() && !braces {
            String::new()
        } else {
            format!("{{{}{comma}}}", labels.join(","))
        }
    })
}

fn label() -> impl Strategy<Value = String> {
    let names = [
        "a",
        "a",
        "b",
        "le",
        "le",
        "quantile",
        "quantile",
        "source",
        "source",
        "exported_source",
        "exported_exported_source",
        "__name__",
        "__a",
        "",
        "1",
        "a:b",
        "é",
    ];
    let values = [
        "", "", "a", "b", "\\\\", "\\\"", "\\n", "\\d", "\\", "\"", "é", "\0", "\\\0", "\r", "}",
        "{", ",", "=", " # {", "+Inf", "Inf", "1", "1.0", "0.5", "-1", "2", "NaN", "1e400",
        "0x1p2", "1_0",
    ];
    let blanks = " {0,1}";
    (
        select(names.to_vec()),
        select(values.to_vec()),
        blanks,
        blanks,
    )
        .prop_map(|(name, value, before, after)| format!("{before}{name}{after}=\"{value}\""))
}

fn blank() -> impl Strategy<Value = &'static str> {
    select(vec![" ", " ", " ", " ", "", "\t", "  "])
}

fn number() -> impl Strategy<Value = &'static str> {
    select(vec![
        "1",
        "1",
        "0",
        "2.5e3",
        "NaN",
        "nan",
        "-NaN",
        "+Inf",
        "Inf",
        "-inf",
        "Infinity",
        "-0",
        "-0.0",
        "-1",
        "-1e-400",
        "1.",
        ".5",
        "00012",
        "+5",
        "1e999",
        "1e-999",
        "0x10",
        "0x1p-2",
        "1_000",
        "9007199254740993",
        "1e19",
        "one",
        "",
        "1,5",
        "١",
    ])
}

/// What follows the value.
fn tail() -> impl Strategy<Value = &'static str> {
    select(vec![
        "",
        "",
        "",
        "",
        " ",
        "\r",
        " 123",
        " 123",
        "\t5",
        " -5",
        " -0",
        " +7",
        " 1.5",
        " 1.0005",
        " 1e3",
        " 1700000000123",
        " 9223372036854775807",
        " 9223372036854775808",
        " 1e300",
        " NaN",
        " 1 2",
        " # {} 1",
        " # {a=\"b\"} 1 2",
        " # {a=\"",
        " 5 # {} 1",
    ])
}

/// A valid histogram, or one with a few changes.
fn histogram(prefix: &str) -> impl Strategy<Value = Vec<String>> + use<> {
    let bounds = select(vec![
        &["0.5", "1", "+Inf"][..],
        &["+Inf"],
        &["-1", "0", "+Inf"],
        &["1", "1.0", "+Inf"],
        &["1", "Inf"],
        &["NaN", "+Inf"],
        &["2", "1", "+Inf"],
        &["1", "2"],
    ]);
    let name = name(prefix);
    (name, bounds, changes()).prop_map(|(name, bounds, changes)| {
        let mut lines = Vec::new();
        for label in ["", "a=\"1\",", "a=\"\",b=\"2\","] {
            for (count, bound) in bounds.iter().enumerate() {
                lines.push(sample(
                    &name,
                    "_bucket",
                    &format!("{label}le=\"{bound}\""),
                    count,
                ));
            }
            let label = label.trim_end_matches(',');
            lines.push(sample(&name, "_sum", label, 1.5));
            lines.push(sample(&name, "_count", label, bounds.len() - 1));
        }
        changes.make(&mut lines);
        lines.insert(0, format!("# TYPE {name} histogram"));
        lines
    })
}

/// A valid summary, or one with a few changes.
fn summary(prefix: &str) -> impl Strategy<Value = Vec<String>> + use<> {
    let quantiles = select(vec![
        &["0", "0.5", "1"][..],
        &[],
        &["1.5"],
        &["-1"],
        &["+Inf"],
        &["NaN"],
    ]);
    (name(prefix), quantiles, changes()).prop_map(|(name, quantiles, changes)| {
        let mut lines = Vec::new();
        for label in ["", "a=\"1\","] {
            for quantile in quantiles {
                lines.push(sample(
                    &name,
                    "",
                    &format!("{label}quantile=\"{quantile}\""),
                    2.5,
                ));
            }
            let label = label.trim_end_matches(',');
            lines.push(sample(&name, "_sum", label, 2.5));
            lines.push(sample(&name, "_count", label, 7));
        }
        changes.make(&mut lines);
        lines.insert(0, format!("# TYPE {name} summary"));
        lines
    })
}

/// A valid counter of either format, or one with a few changes.
fn counter(prefix: &str) -> impl Strategy<Value = Vec<String>> + use<> {
    let declared = select(vec!["", "_total", "_created"]);
    (name(prefix), declared, changes()).prop_map(|(name, declared, changes)| {
        let mut lines = vec![
            sample(&name, "_total", "", 1),
            sample(&name, "_total", "a=\"1\"", 2),
            sample(&name, "_created", "a=\"1\"", 1.7e9),
        ];
        changes.make(&mut lines);
        lines.insert(0, format!("# TYPE {name}{declared} counter"));
        lines
    })
}

fn sample(name: &str, suffix: &str, labels: &str, value: impl Display) -> String {
    if labels.is_empty() {
        format!("{name}{suffix} {value}")
    } else {
        format!("{name}{suffix}{{{labels}}} {value}")
    }
}

/// Changes to the lines of one family.
#[derive(Clone, Debug)]
struct Changes(Vec<(Change, prop::sample::Index)>);

#[derive(Clone, Debug)]
enum Change {
    Remove,
    Repeat,
    Swap,
    Value(&'static str),
    Tail(&'static str),
}

fn changes() -> impl Strategy<Value = Changes> {
    let change = Union::new_weighted(vec![
        (1, Just(Change::Remove).boxed()),
        (1, Just(Change::Repeat).boxed()),
        (1, Just(Change::Swap).boxed()),
        (2, number().prop_map(Change::Value).boxed()),
        (2, tail().prop_map(Change::Tail).boxed()),
    ]);
    let change = (change, any::<prop::sample::Index>());
    prop_oneof![1 => Just(Vec::new()), 2 => vec(change, 1..3)].prop_map(Changes)
}

impl Changes {
    fn make(&self, lines: &mut Vec<String>) {
        for (change, index) in &self.0 {
            if lines.is_empty() {
                return;
            }
            let at = index.index(lines.len());
            match change {
                Change::Remove => drop(lines.remove(at)),
                Change::Repeat => lines.push(lines[at].clone()),
                Change::Swap => lines.swap(0, at),
                Change::Tail(tail) => lines[at].push_str(tail),
                Change::Value(value) => {
                    let end = lines[at].rfind(' ').unwrap_or_default();
                    lines[at].replace_range(end.., &format!(" {value}"));
                }
            }
        }
    }
}
