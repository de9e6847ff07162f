//! docs/metrics.md: it has every family of the page, and a real Prometheus takes every query in it, and
//! in README.md.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use harness::octoserve::Launch;
use harness::prometheus::Prometheus;
use registry::metrics::Metrics;
use registry::metrics::storage::Backend;

fn page(name: &str) -> Result<String> {
    let path = format!("{}/../{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).context(path)
}

/// The families that the page has a section for, by its headings.
fn sections(page: &str) -> BTreeSet<String> {
    let headings = page.lines().filter_map(|line| line.strip_prefix("### `"));
    headings
        .map(|name| name.trim_end_matches('`').to_owned())
        .collect()
}

/// The lines of its `promql` blocks.
fn queries(page: &str) -> Vec<&str> {
    let blocks = page.split("```promql\n").skip(1);
    blocks
        .flat_map(|block| block.split("```").next().unwrap_or_default().lines())
        .filter(|line| !line.is_empty())
        .collect()
}

/// The families of ours that a query names, without what a histogram appends.
fn families(query: &str) -> BTreeSet<String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = query.split(|c| !is_name(c));
    let names = words.filter(|word| word.starts_with("octoserve_"));
    names.map(str::to_owned).collect()
}

#[tokio::test]
async fn every_family_has_its_section_and_two_queries() -> Result<()> {
    let server = Launch::all_in_one().start().await?;
    let scrape = server.scrape().await?;
    let ours: BTreeSet<_> = scrape
        .page()
        .families()
        .map(|family| family.name().to_owned())
        .filter(|name| name.starts_with("octoserve_"))
        .collect();
    let page = page("docs/metrics.md")?;
    let documented = sections(&page);
    let missing: Vec<_> = ours.difference(&documented).collect();
    ensure!(missing.is_empty(), "docs/metrics.md has no {missing:?}");
    for section in page.split("\n### `").skip(1) {
        let section = section.split("\n## ").next().unwrap_or_default();
        let name = section.split('`').next().unwrap_or_default();
        let asked = queries(section);
        ensure!(asked.len() == 2, "{name} has {} queries", asked.len());
        let names = |query: &&str| query.contains(name.trim_end_matches('*'));
        ensure!(asked.iter().all(names), "{name}: another family's query");
    }
    for query in queries(&page) {
        for name in families(query) {
            let base = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|suffix| name.strip_suffix(suffix))
                .unwrap_or(&name);
            ensure!(
                documented.contains(&name) || documented.contains(base),
                "{name}: {query}"
            );
        }
    }
    Ok(())
}

/// What there can be at most, by the declarations: `; 864 series at most.`
#[test]
fn the_bounds_are_those_of_the_code() -> Result<()> {
    let page = page("docs/metrics.md")?;
    let metrics = Metrics::register(Backend::Filesystem, true, &BTreeMap::new());
    let declared = metrics.registry.families();
    let mut checked = 0;
    for family in declared {
        let (name, bound) = (&family.name, family.max_series);
        if !name.starts_with("octoserve_") {
            continue;
        }
        let heading = format!("### `{name}`\n");
        let (_, section) = page.split_once(&heading).context(heading)?;
        let (told, _) = section.split_once(" series at most.").context("no bound")?;
        let told = told.rsplit("; ").next().unwrap_or_default();
        assert_eq!(told.replace(',', ""), bound.to_string(), "{name}");
        checked += 1;
    }
    ensure!(checked > 10, "{checked}");
    Ok(())
}

#[tokio::test]
async fn a_real_prometheus_takes_every_query() -> Result<()> {
    let server = Launch::all_in_one().start().await?;
    let prometheus = Prometheus::scraping(&[server.metrics_address()]).await?;
    prometheus.expect("up", 1.0).await?;
    for name in ["docs/metrics.md", "README.md"] {
        let page = page(name)?;
        let queries = queries(&page);
        ensure!(queries.len() >= 2, "{name}: only {queries:?}");
        for query in queries {
            prometheus.query(query).await?;
        }
    }
    Ok(())
}
