//! Whatever a source sends, Prometheus, promtool and the strict OpenMetrics parser of Python's
//! `prometheus_client` accept the merged exposition in both formats, and our own families stay
//! unchanged.
//!
//! Each run generates new expositions from a seed, which a failure names: `HOSTILE_SEED=… make test
//! SUITES=hostile_sources` repeats it.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;

use anyhow::{Context, Result, bail, ensure};
use harness::octoserve::{Launch, Server};
use harness::prometheus::{Prometheus, promtool};
use harness::source::Source;
use harness::{hostile, openmetrics};
use proptest::collection::vec;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use service::exposition::{
    Exposition, Format, OPENMETRICS_CONTENT_TYPE, ParseLimits, TEXT_CONTENT_TYPE,
};

/// How many expositions are merged in the test's process.
const MERGED: u64 = 512;
/// How many runs of octoserve there are, each with three sources.
const SERVED: u64 = 8;
/// How many expositions promtool reads at a time. Each has its own name prefix, so that none hides
/// another.
const BATCH: usize = 64;

/// The expositions of one test: the sources and the result.
struct Case {
    /// The path for Prometheus.
    name: String,
    /// Our own exposition.
    own: String,
    /// The expositions of the sources.
    sources: Vec<Vec<u8>>,
    text: String,
    openmetrics: String,
}

#[tokio::test]
async fn every_parser_accepts_merged_hostile_expositions() -> Result<()> {
    let seed = seed()?;
    let cases: Vec<_> = (0..MERGED).map(|number| merged(seed, number)).collect();
    accepted(&cases)
        .await
        .with_context(|| format!("HOSTILE_SEED={seed}"))
}

#[tokio::test]
async fn every_parser_accepts_served_hostile_expositions() -> Result<()> {
    let seed = seed()?;
    let cases = [served(seed).await?];
    accepted(&cases)
        .await
        .with_context(|| format!("HOSTILE_SEED={seed}"))
}

fn seed() -> Result<u64> {
    match std::env::var("HOSTILE_SEED") {
        Ok(seed) => seed.parse().context("HOSTILE_SEED is no number"),
        Err(_) => Ok(rand::random()),
    }
}

/// One to three expositions, determined by the seed and the number.
fn sources(seed: u64, number: u64, count: std::ops::RangeInclusive<usize>) -> Vec<Vec<u8>> {
    let bytes = [seed, number, 0, 0].map(u64::to_le_bytes).concat();
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let expositions = vec(hostile::exposition(&prefix(number)), count);
    // A strategy without a filter always has a value.
    expositions
        .new_tree(&mut runner)
        .map_or_else(|_| Vec::new(), |tree| tree.current())
}

fn prefix(number: u64) -> String {
    format!("c{number}_")
}

/// Our own exposition; the sources use its names, too.
fn own(prefix: &str) -> String {
    format!(
        "# HELP {prefix}own_requests_total Requests.\n\
         # TYPE {prefix}own_requests_total counter\n\
         {prefix}own_requests_total{{a=\"1\"}} 5\n\
         # HELP {prefix}own_seconds How long.\n\
         # TYPE {prefix}own_seconds histogram\n\
         {prefix}own_seconds_bucket{{le=\"1.0\"}} 1\n\
         {prefix}own_seconds_bucket{{le=\"+Inf\"}} 2\n\
         {prefix}own_seconds_sum 3.5\n\
         {prefix}own_seconds_count 2\n\
         # HELP {prefix}own_bytes How much.\n\
         # TYPE {prefix}own_bytes gauge\n\
         {prefix}own_bytes 7\n"
    )
}

fn write(exposition: &Exposition, format: Format) -> String {
    let mut out = String::new();
    format.write(exposition, &mut out);
    out
}

fn merged(seed: u64, number: u64) -> Case {
    let sources = sources(seed, number, 1..=3);
    let own = own(&prefix(number));
    let (mut exposition, _) = Exposition::parse(own.as_str(), &ParseLimits::default());
    for (name, source) in ["a", "b", "c"].into_iter().zip(&sources) {
        exposition.merge(
            Exposition::parse(source.as_slice(), &ParseLimits::default()).0,
            name,
        );
    }
    Case {
        name: number.to_string(),
        own,
        sources,
        text: write(&exposition, Format::Text),
        openmetrics: write(&exposition, Format::OpenMetrics),
    }
}

/// The exposition of an octoserve with hostile sources, in both formats.
async fn served(seed: u64) -> Result<Case> {
    let sources: Vec<_> = (0..SERVED)
        .flat_map(|number| sources(seed, MERGED + number, 3..=3))
        .collect();
    let paths = sources
        .iter()
        .enumerate()
        .map(|(index, exposition)| (format!("/{index}"), (TEXT_CONTENT_TYPE, exposition.clone())));
    let source = Source::expositions(paths.collect()).await?;
    let mut yaml = String::from("upstreams:\n- replicas: ['http://127.0.0.1:1']\n  metrics:\n");
    for index in 0..sources.len() {
        let url = source.url_of(&format!("/{index}"));
        writeln!(yaml, "  - {{source: 's{index}', url: '{url}'}}")?;
    }
    let server = Launch::configured(&yaml).start().await?;
    Ok(Case {
        name: "served".to_owned(),
        own: String::new(),
        sources,
        text: scrape(&server, "text/plain").await?,
        openmetrics: scrape(&server, "application/openmetrics-text").await?,
    })
}

async fn scrape(server: &Server, accept: &str) -> Result<String> {
    let request = harness::wire::request("GET", "/metrics", &[("Accept", accept)], b"");
    let response = harness::wire::exchange(server.metrics_address(), "GET", &request).await?;
    ensure!(response.head.status == 200, "{}", response.head.status);
    Ok(String::from_utf8(response.body)?)
}

/// Runs all parsers. The error names the smallest exposition that one of them refused.
async fn accepted(cases: &[Case]) -> Result<()> {
    let mut wrong = Vec::new();
    let mut refuse = |case: usize, why: String| wrong.push((cases[case].size(), case, why));
    for (index, case) in cases.iter().enumerate() {
        if let Err(why) = case.keeps_our_own() {
            refuse(index, why.to_string());
        }
    }
    let expositions: Vec<_> = cases.iter().map(|case| case.openmetrics.as_str()).collect();
    let readings = openmetrics::read(&expositions).await?;
    ensure!(readings.len() == cases.len(), "{} readings", readings.len());
    for (index, reading) in readings.into_iter().enumerate() {
        let expected = samples(expositions[index]);
        if reading != Ok(expected) {
            refuse(
                index,
                format!("prometheus_client: {reading:?} of {expected}"),
            );
        }
    }
    for (index, why) in refused_by_promtool(cases).await? {
        refuse(index, why);
    }
    for (index, why) in refused_by_prometheus(cases).await? {
        refuse(index, why);
    }
    match wrong.iter().min() {
        None => Ok(()),
        Some((_, case, why)) => bail!("{why}\n{}", cases[*case].description()),
    }
}

/// The number of sample lines.
fn samples(exposition: &str) -> usize {
    exposition
        .lines()
        .filter(|line| !line.starts_with('#'))
        .count()
}

async fn refused_by_promtool(cases: &[Case]) -> Result<Vec<(usize, String)>> {
    // Style problems in the sources are not octoserve's to fix.
    let error = |words: String| words.starts_with("error while linting").then_some(words);
    let mut refused = Vec::new();
    for (batch, cases) in cases.chunks(BATCH).enumerate() {
        let all: String = cases.iter().map(|case| case.text.as_str()).collect();
        if error(promtool(&all).await?).is_none() {
            continue;
        }
        for (index, case) in cases.iter().enumerate() {
            if let Some(words) = error(promtool(&case.text).await?) {
                refused.push((batch * BATCH + index, format!("promtool: {words}")));
            }
        }
        ensure!(
            !refused.is_empty(),
            "promtool refuses the expositions together only"
        );
    }
    Ok(refused)
}

/// One Prometheus scrapes all expositions. Every sample must become a series of its own.
async fn refused_by_prometheus(cases: &[Case]) -> Result<Vec<(usize, String)>> {
    let mut expositions = HashMap::new();
    let mut expected = BTreeMap::new();
    for (index, case) in cases.iter().enumerate() {
        for (format, media_type, exposition) in [
            ("text", TEXT_CONTENT_TYPE, &case.text),
            ("openmetrics", OPENMETRICS_CONTENT_TYPE, &case.openmetrics),
        ] {
            let path = format!("/{}/{format}", case.name);
            expected.insert(path.clone(), (index, samples(exposition)));
            expositions.insert(path, (media_type, exposition.clone().into_bytes()));
        }
    }
    let source = Source::expositions(expositions).await?;
    // Prometheus silently drops samples that are too old, so it must ignore the timestamps.
    let mut yaml = String::from(
        "global: {scrape_interval: 5s, scrape_timeout: 5s}\nscrape_configs:\n\
         - job_name: hostile\n  honor_timestamps: false\n  static_configs:\n",
    );
    let address = source.address();
    for path in expected.keys() {
        writeln!(
            yaml,
            "  - {{targets: ['{address}'], labels: {{__metrics_path__: '{path}', exposition: '{path}'}}}}"
        )?;
    }
    let prometheus = Prometheus::configured(&yaml).await?;
    let targets = prometheus.scraped_targets().await?;
    ensure!(targets.len() == expected.len(), "{} targets", targets.len());
    let mut refused = Vec::new();
    for target in targets {
        let path = target.labels.get("exposition").context("no exposition")?;
        if target.health != "up" {
            let (index, _) = expected[path];
            refused.push((index, format!("Prometheus: {path}: {}", target.error)));
        }
    }
    if !refused.is_empty() {
        return Ok(refused);
    }
    let scraped = prometheus.query("scrape_samples_scraped").await?;
    let stored = prometheus
        .query("count by (exposition) ({exposition=~\".+\",__name__!~\"up|scrape_.*\"})")
        .await?;
    for (what, series) in [("scraped", scraped), ("stored", stored)] {
        let counts: BTreeMap<_, _> = series
            .iter()
            .filter_map(|(labels, count)| Some((labels.get("exposition")?.as_str(), *count)))
            .collect();
        for (path, (index, samples)) in &expected {
            let count = counts.get(path.as_str()).copied().unwrap_or_default();
            let samples = f64::from(u32::try_from(*samples)?);
            if (count - samples).abs() > 0.0 {
                let why = format!("Prometheus: {path}: {count} {what} of {samples}");
                refused.push((*index, why));
            }
        }
    }
    for name in [
        "prometheus_target_scrapes_sample_duplicate_timestamp_total",
        "prometheus_target_scrapes_sample_out_of_order_total",
        "prometheus_target_scrapes_sample_out_of_bounds_total",
    ] {
        let count = prometheus.own(name).await?;
        ensure!(count < 1.0 || !refused.is_empty(), "{name}: {count}");
    }
    Ok(refused)
}

impl Case {
    /// Checks that both expositions have each of our own families with its type and samples.
    fn keeps_our_own(&self) -> Result<()> {
        let (own, _) = Exposition::parse(self.own.as_str(), &ParseLimits::default());
        for (format, exposition) in [
            (Format::Text, &self.text),
            (Format::OpenMetrics, &self.openmetrics),
        ] {
            let alone = write(&own, format);
            for family in alone.trim_end_matches("# EOF\n").split_inclusive("# HELP ") {
                let family = family.trim_end_matches("# HELP ");
                ensure!(
                    exposition.contains(family),
                    "{format:?}: not as it was: {family}"
                );
            }
        }
        Ok(())
    }

    fn size(&self) -> usize {
        self.sources.iter().map(Vec::len).sum()
    }

    fn description(&self) -> String {
        let mut described = format!("case {}\n", self.name);
        for source in &self.sources {
            // Writing to a String cannot fail.
            writeln!(described, "--- a source said\n{}", source.escape_ascii()).ok();
        }
        described = described.replace("\\n", "\n").replace("\\\"", "\"");
        format!(
            "{described}--- text\n{}--- OpenMetrics\n{}---",
            self.text, self.openmetrics
        )
    }
}
