//! docs/metrics.md has exactly the exposed families, and two queries for each. The tests that
//! docs/protocol.md names exist.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use harness::octoserve::Launch;
use registry::metrics::RegistryMetrics;
use registry::metrics::storage::Backend;

fn document(name: &str) -> Result<String> {
    let path = format!("{}/../{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).context(path)
}

/// The families that have a section, by the headings.
fn sections(document: &str) -> BTreeSet<String> {
    let headings = document
        .lines()
        .filter_map(|line| line.strip_prefix("### `"));
    headings
        .map(|name| name.trim_end_matches('`').to_owned())
        .collect()
}

/// The lines of the `promql` blocks.
fn queries(document: &str) -> Vec<&str> {
    let blocks = document.split("```promql\n").skip(1);
    blocks
        .flat_map(|block| block.split("```").next().unwrap_or_default().lines())
        .filter(|line| !line.is_empty())
        .collect()
}

/// The names of octoserve's families in a query, possibly with the suffix of a histogram.
fn families(query: &str) -> BTreeSet<String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = query.split(|c| !is_name(c));
    let names = words.filter(|word| word.starts_with("octoserve_"));
    names.map(str::to_owned).collect()
}

/// All exposed families: of the all-in-one, of a proxy with a registry as source, and of the
/// registry alone. The standard families of the process count as one.
async fn exposed_families() -> Result<BTreeSet<String>> {
    let all_in_one = Launch::all_in_one().start().await?;
    let registry = Launch::registry().start().await?;
    let proxy = Launch::configured(&format!(
        "upstreams:\n\
         - name: main\n  replicas: ['{}']\n  metrics: [{{source: back, url: 'http://{}/metrics'}}]\n",
        registry.url(""),
        registry.metrics_address()
    ));
    let proxy = proxy.start().await?;
    let mut all = BTreeSet::new();
    for server in [&all_in_one, &registry, &proxy] {
        let scrape = server.scrape().await?;
        for family in scrape.exposition().families() {
            let name = family.name();
            let is_ours = !name.starts_with("process_");
            all.insert(if is_ours { name } else { "process_*" }.to_owned());
        }
    }
    Ok(all)
}

#[tokio::test]
async fn every_family_has_one_section_with_two_queries() -> Result<()> {
    let document = document("docs/metrics.md")?;
    let documented = sections(&document);
    assert_eq!(
        exposed_families().await?,
        documented,
        "left: exposed, right: docs/metrics.md"
    );
    let headings = document.lines().filter(|line| line.starts_with("### `"));
    assert_eq!(
        headings.count(),
        documented.len(),
        "a family has two sections"
    );
    for section in document.split("\n### `").skip(1) {
        let section = section.split("\n## ").next().unwrap_or_default();
        let name = section.split('`').next().unwrap_or_default();
        let asked = queries(section);
        ensure!(asked.len() == 2, "{name} has {} queries", asked.len());
        let names = |query: &&str| query.contains(name.trim_end_matches('*'));
        ensure!(asked.iter().all(names), "{name}: another family's query");
    }
    for query in queries(&document) {
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

/// The documented bounds, such as `; 864 series at most.`, are those of the declarations.
#[test]
fn the_documented_series_bounds_match_the_code() -> Result<()> {
    let document = document("docs/metrics.md")?;
    let metrics = RegistryMetrics::register(Backend::Filesystem, true, &BTreeMap::new());
    let declared = metrics.registry.families();
    let mut checked = 0;
    for family in declared {
        let (name, bound) = (&family.name, family.max_series);
        if !name.starts_with("octoserve_") {
            continue;
        }
        let heading = format!("### `{name}`\n");
        let (_, section) = document.split_once(&heading).context(heading)?;
        let (documented, _) = section.split_once(" series at most.").context("no bound")?;
        let documented = documented.rsplit("; ").next().unwrap_or_default();
        assert_eq!(documented.replace(',', ""), bound.to_string(), "{name}");
        checked += 1;
    }
    ensure!(checked > 10, "{checked}");
    Ok(())
}

/// The text of all files below a directory.
fn sources(directory: &Path) -> Result<String> {
    let mut all = String::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            all += &sources(&path)?;
        } else {
            all += &std::fs::read_to_string(&path)?;
        }
    }
    Ok(all)
}

#[test]
fn every_test_named_in_the_documentation_exists() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let document = document("docs/protocol.md")?;
    let mut sections = BTreeMap::new();
    let mut named = 0;
    for name in document.split('`').skip(1).step_by(2) {
        let Some((section, test)) = name.split_once("::") else {
            continue;
        };
        let source = match sections.entry(section) {
            Entry::Occupied(source) => source.into_mut(),
            Entry::Vacant(place) => place.insert(match section {
                "proxy" | "registry" | "service" => sources(&root.join(section).join("src"))?,
                suite => {
                    let directory = root.join("tests/suites");
                    let parts = directory.join(suite);
                    let parts = parts.is_dir().then(|| sources(&parts)).transpose()?;
                    let file = directory.join(format!("{suite}.rs"));
                    std::fs::read_to_string(file)? + &parts.unwrap_or_default()
                }
            }),
        };
        let test = test.rsplit("::").next().unwrap_or_default();
        ensure!(source.contains(&format!("fn {test}()")), "{name} is gone");
        named += 1;
    }
    ensure!(named > 50, "{named}");
    for line in document.lines().filter(|line| line.starts_with("| ")) {
        let shown = line.contains("::") || line.contains("none") || line.contains("shown by");
        ensure!(shown, "{line}");
    }
    Ok(())
}
