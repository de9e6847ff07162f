//! What a registry declares and gathers.

use super::*;
use crate::exposition::{DroppedSamples, Format, ParseLimits};
use crate::metrics::{Counter, Counters, Gauge, Gauges, Histogram, Histograms};

crate::labels! {
    /// Test label.
    enum Colour: "colour" { Red = "red", Blue = "blue" }
    /// Test label.
    enum Size: "size" { Small = "small", Large = "large" }
}

fn text(registry: &MetricsRegistry) -> String {
    let mut out = String::new();
    registry.gather().write_text(&mut out);
    out
}

#[test]
fn families_print_help_and_type_before_anything_is_recorded() {
    let registry = MetricsRegistry::new("test_");
    let _ = registry.declare::<Counters<Colour>>("b_total", "Moves \\ when.", &[]);
    let _ = registry.declare::<Gauge>("a", "Now.", &[]);
    let _ = registry.declare::<Histograms<Size>>("c_seconds", "Ends.", &[1.0]);
    assert_eq!(
        text(&registry),
        "# HELP test_a Now.\n# TYPE test_a gauge\n\
         # HELP test_b_total Moves \\\\ when.\n# TYPE test_b_total counter\n\
         # HELP test_c_seconds Ends.\n# TYPE test_c_seconds histogram\n"
    );
}

#[test]
fn only_touched_cells_print() {
    let registry = MetricsRegistry::new("");
    let pairs = registry.declare::<Counters<(Colour, Size)>>("x_total", "X.", &[]);
    pairs.inc((Colour::Blue, Size::Large));
    pairs.add((Colour::Blue, Size::Large), 2);
    pairs.touch((Colour::Red, Size::Small));
    let gauges = registry.declare::<Gauges<Colour>>("y", "Y.", &[]);
    gauges.set(Colour::Red, 2.5);
    gauges.add(Colour::Red, 1.0);
    gauges.sub(Colour::Red, 3.0);
    let _ = registry.declare::<Counter>("z_total", "Z.", &[]);
    assert_eq!(
        text(&registry),
        "# HELP x_total X.\n# TYPE x_total counter\n\
         x_total{colour=\"blue\",size=\"large\"} 3\nx_total{colour=\"red\",size=\"small\"} 0\n\
         # HELP y Y.\n# TYPE y gauge\ny{colour=\"red\"} 0.5\n\
         # HELP z_total Z.\n# TYPE z_total counter\nz_total 0\n"
    );
}

#[test]
fn a_histogram_prints_the_same_cumulative_buckets_in_both_formats() {
    let registry = MetricsRegistry::new("");
    let sizes = registry.declare::<Histograms<Colour>>("x", "X.", &[0.5, 1.0, 1_048_576.0]);
    for value in [0.25, 0.5, 0.75, 2e6] {
        sizes.observe(Colour::Red, value);
    }
    let samples = "x_bucket{colour=\"red\",le=\"0.5\"} 2\nx_bucket{colour=\"red\",le=\"1.0\"} 3\n\
        x_bucket{colour=\"red\",le=\"1.048576e+06\"} 3\nx_bucket{colour=\"red\",le=\"+Inf\"} 4\n\
        x_sum{colour=\"red\"} 2000001.5\nx_count{colour=\"red\"} 4\n";
    for format in [Format::Text, Format::OpenMetrics] {
        let mut out = String::new();
        format.write(&registry.gather(), &mut out);
        assert!(out.contains(samples), "{out}");
    }
}

#[test]
fn dynamic_label_values_are_escaped_and_can_be_removed() {
    let registry = MetricsRegistry::new("");
    let vec = registry.declare_per_value::<Counter>(("repository", 3), "x_total", "X.", &[]);
    vec.cells("a\"b\\\n").inc(());
    let exposition = registry.gather();
    let sample = exposition
        .family("x_total")
        .unwrap()
        .samples()
        .next()
        .unwrap();
    assert_eq!(sample.label("repository").unwrap(), "a\"b\\\n");
    vec.remove("a\"b\\\n", ());
    assert_eq!(registry.gather().sample_count(), 0);
}

#[test]
fn process_and_build_metrics_are_written() {
    let registry = MetricsRegistry::new("test_");
    registry.process();
    registry.build_info("1.2.3", "abc", "1.95.0");
    let exposition = registry.gather();
    let cpu = exposition.family("process_cpu_seconds_total").unwrap();
    assert_eq!(
        (cpu.kind(), cpu.samples().count()),
        (MetricType::Counter, 1)
    );
    let memory = exposition.family("process_resident_memory_bytes").unwrap();
    assert!(memory.samples().next().unwrap().value() > 0.0);
    let build = exposition
        .family("test_build_info")
        .unwrap()
        .samples()
        .next()
        .unwrap();
    assert_eq!(
        (build.label("version").unwrap().as_ref(), build.value()),
        ("1.2.3", 1.0)
    );
    for described in registry.families() {
        let family = exposition.family(&described.name).unwrap();
        assert_eq!(family.kind(), described.kind, "{}", described.name);
    }
}

#[test]
fn hooks_run_before_every_gathering() {
    let registry = MetricsRegistry::new("");
    let gauge = registry.declare::<Gauge>("x", "X.", &[]);
    registry.before_gather(move || gauge.add((), 1.0));
    registry.gather();
    assert!(text(&registry).ends_with("x 2\n"));
}

#[test]
fn a_name_declared_twice_is_reported_and_the_first_one_prints() {
    let registry = MetricsRegistry::new("");
    let first = registry.declare::<Counter>("x_total", "X.", &[]);
    let second = registry.declare::<Gauge>("x_total", "Other.", &[]);
    first.inc(());
    second.set((), 5.0);
    assert_eq!(registry.duplicates(), ["x_total"]);
    assert_eq!(
        text(&registry),
        "# HELP x_total X.\n# TYPE x_total counter\nx_total 1\n"
    );
}

#[test]
fn declared_families_have_labels_and_a_series_limit() {
    let registry = MetricsRegistry::new("p_");
    let _ = registry.declare::<Histograms<(Colour, Size)>>("x", "X.", &[1.0, 2.0]);
    let _ = registry.declare_per_value::<Gauge>(("repository", 3), "y", "Y.", &[]);
    let families = registry.families();
    assert_eq!(families[0].labels, ["colour", "size"]);
    assert_eq!(families[0].max_series, 4 * 5);
    assert_eq!(families[1].max_series, 3);
    assert_eq!(registry.max_series(), 4 * 5 + 3);
}

#[test]
fn a_value_that_is_forgotten_prints_no_more_and_the_others_do() {
    let registry = MetricsRegistry::new("p_");
    let counters =
        registry.declare_per_value::<Counters<Colour>>(("upstream", 1), "x_total", "X.", &[]);
    let histograms = registry.declare_per_value::<Histogram>(("upstream", 1), "y", "Y.", &[1.0]);
    counters.resize(2);
    histograms.resize(2);
    assert_eq!(registry.max_series(), 2 * 2 + 2 * 4);
    for name in ["a", "b"] {
        for colour in [Colour::Red, Colour::Blue] {
            counters.cells(name).inc(colour);
        }
        histograms.cells(name).observe((), 0.5);
    }
    counters.forget("a");
    histograms.forget("a");
    counters.forget("never there");
    let text = text(&registry);
    assert!(!text.contains("upstream=\"a\""), "{text}");
    assert_eq!(text.matches("upstream=\"b\"").count(), 2 + 4, "{text}");
    // It begins anew, and does not go on.
    counters.cells("a").inc(Colour::Red);
    assert_eq!(counters.cells("a").value(Colour::Red), 0);
}

#[test]
fn a_gathered_exposition_is_read_without_a_loss() {
    let registry = MetricsRegistry::new("");
    registry.process();
    let histogram = registry.declare::<Histogram>("x_seconds", "X.", &[0.001, 900.0]);
    histogram.observe((), 1e-7);
    histogram.observe((), 1e12);
    let (exposition, dropped) = Exposition::parse(text(&registry), &ParseLimits::default());
    assert_eq!(dropped, DroppedSamples::default());
    assert_eq!(exposition.families().len(), registry.families().len());
}

#[test]
fn constant_labels_are_on_every_sample() {
    let labels = [("region", "eu-\"1\""), ("zone", "b")];
    let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let registry = MetricsRegistry::labelled("", &BTreeMap::from(labels));
    registry.declare::<Counter>("a_total", "A.", &[]).inc(());
    registry
        .declare::<Histogram>("b", "B.", &[1.0])
        .observe((), 0.5);
    let colours = registry.declare::<Gauges<Colour>>("c", "C.", &[]);
    colours.set(Colour::Red, 1.0);
    assert_eq!(
        text(&registry),
        "# HELP a_total A.\n# TYPE a_total counter\na_total{region=\"eu-\\\"1\\\"\",zone=\"b\"} 1\n\
         # HELP b B.\n# TYPE b histogram\n\
         b_bucket{region=\"eu-\\\"1\\\"\",zone=\"b\",le=\"1.0\"} 1\n\
         b_bucket{region=\"eu-\\\"1\\\"\",zone=\"b\",le=\"+Inf\"} 1\n\
         b_sum{region=\"eu-\\\"1\\\"\",zone=\"b\"} 0.5\nb_count{region=\"eu-\\\"1\\\"\",zone=\"b\"} 1\n\
         # HELP c C.\n# TYPE c gauge\nc{colour=\"red\",region=\"eu-\\\"1\\\"\",zone=\"b\"} 1\n"
    );
}

/// What is made while gathering is what reading the exposition would make, hashes included: merging
/// relies on them.
#[test]
fn a_gathered_exposition_equals_its_parsed_text() {
    let labels = BTreeMap::from([("region".to_owned(), "eu\\1".to_owned())]);
    for registry in [
        MetricsRegistry::new("p_"),
        MetricsRegistry::labelled("p_", &labels),
    ] {
        let _ = registry.declare::<Histograms<Colour>>("empty_seconds", "E.", &[1.0]);
        let pairs = registry.declare::<Histograms<(Colour, Size)>>("x", "X.", &[0.5, 2.0]);
        pairs.observe((Colour::Red, Size::Large), 1.0);
        pairs.observe((Colour::Blue, Size::Small), 3.0);
        let sources =
            registry.declare_per_value::<Gauge>(("source", 1), "y", "Y \\ of\nlines.", &[]);
        sources.set("a\"b\\\n", -0.5);
        registry.declare::<Counter>("z_total", "Z.", &[]).inc(());
        let exposition = registry.gather();
        let mut text = String::new();
        exposition.write_text(&mut text);
        let (read, dropped) = Exposition::parse(text, &ParseLimits::default());
        assert_eq!(dropped, DroppedSamples::default());
        let described_families = |exposition: &Exposition| {
            let families = exposition.families().map(|family| {
                let samples = family.samples().map(|sample| {
                    let labels: Vec<_> = sample.labels().collect();
                    let (name, value) = (sample.name(), sample.value_text());
                    format!("{name} {labels:?} {value} {:?}", sample.hash_and_flags())
                });
                let samples: Vec<_> = samples.collect();
                format!(
                    "{} {:?} {:?} {samples:?}",
                    family.name(),
                    family.kind(),
                    family.help()
                )
            });
            families.collect::<Vec<_>>()
        };
        assert_eq!(described_families(&exposition), described_families(&read));
    }
}
