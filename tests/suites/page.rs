//! One exposition for the proxy and the registry: promtool accepts it, samples of the registry have
//! a source, the README's tables name the same families, and known traffic gives a known
//! exposition.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use harness::client::Client;
use harness::octoserve::Launch;
use harness::scrape::{Scrape, metric};
use harness::{poll, prometheus};
use reqwest::StatusCode;

use crate::Front;

#[tokio::test]
async fn promtool_accepts_all_families() -> Result<()> {
    let front = Front::embedded().await?;
    some_of_everything(&front.client).await?;
    assert_eq!(
        prometheus::promtool(front.server.scrape().await?.text()).await?,
        ""
    );
    let registry = Launch::registry().start().await?;
    some_of_everything(&Client::new(&registry.url(""))?).await?;
    assert_eq!(
        prometheus::promtool(registry.scrape().await?.text()).await?,
        ""
    );
    Ok(())
}

/// Compares every name, type, label and bucket after known traffic, and each value that depends on
/// that traffic alone.
#[tokio::test]
async fn known_traffic_gives_a_known_exposition() -> Result<()> {
    let front = Front::embedded().await?;
    some_of_everything(&front.client).await?;
    // Requests are counted when they end, and stored content when the collector has seen it.
    metric("octoserve_http_requests_total")
        .value(REQUESTS)
        .assert_in(&front.server)
        .await?;
    // The kind of a manifest is parsed after that.
    let manifests = metric("octoserve_manifest_operations_total");
    manifests.value(5).assert_in(&front.server).await?;
    let registry = metric("octoserve_registry_http_requests_total").value(REQUESTS);
    registry.assert_in(&front.server).await?;
    metric("octoserve_tags")
        .value(1)
        .assert_in(&front.server)
        .await?;
    let counted = metric("octoserve_stats_last_success_timestamp_seconds");
    poll::until(
        "the collector has counted",
        Duration::from_secs(20),
        async || Ok(front.server.scrape().await?.sum(&counted).map(drop)),
    )
    .await?;
    insta::assert_snapshot!("all_in_one", normalised(&front.server.scrape().await?));
    Ok(())
}

#[tokio::test]
async fn registry_samples_have_a_source_label_and_proxy_samples_have_none() -> Result<()> {
    let front = Front::embedded().await?;
    some_of_everything(&front.client).await?;
    let scrape = front.server.scrape().await?;
    let sourced = |prefix: &str| -> BTreeSet<Option<String>> {
        let families = scrape
            .exposition()
            .families()
            .filter(|family| family.name().starts_with(prefix));
        families
            .flat_map(|family| {
                family
                    .samples()
                    .map(|sample| sample.label("source"))
                    .collect::<Vec<_>>()
            })
            .map(|source| source.map(std::borrow::Cow::into_owned))
            .collect()
    };
    assert_eq!(sourced("octoserve_http_"), BTreeSet::from([None]));
    assert_eq!(sourced("process_"), BTreeSet::from([None]));
    let storage = sourced("octoserve_storage_");
    ensure!(
        storage.len() == 1 && !storage.contains(&None),
        "{storage:?}"
    );
    ensure!(
        sourced("octoserve_registry_http_") == storage,
        "the registry's own side"
    );
    Ok(())
}

#[tokio::test]
async fn the_readmes_tables_match_the_exposition() -> Result<()> {
    let front = Front::embedded().await?;
    some_of_everything(&front.client).await?;
    let scrape = front.server.scrape().await?;
    let documented = readme_tables()?;
    let mut exposed = BTreeMap::new();
    for family in scrape.exposition().families() {
        let name = family.name();
        if !name.starts_with("octoserve_") {
            continue;
        }
        let mut labels = BTreeSet::new();
        for sample in family.samples() {
            labels.extend(sample.labels().map(|(label, _)| label.into_owned()));
        }
        labels.remove("le");
        let row = documented
            .get(name)
            .with_context(|| format!("{name} is not in README.md"))?;
        if !row.labels.contains("source") {
            // Only the merged exposition adds this label to the registry's samples.
            labels.remove("source");
        }
        if labels.is_empty() {
            // A family without samples shows no labels.
            labels.clone_from(&row.labels);
        }
        let help = family
            .help()
            .with_context(|| format!("{name} has no help"))?;
        let row = Row {
            kind: family.kind().as_str().to_owned(),
            labels,
            moves: help.trim_end_matches('.').to_owned(),
        };
        exposed.insert(name.to_owned(), row);
    }
    for (name, row) in &documented {
        assert_eq!(
            exposed.get(name),
            Some(row),
            "{name}: left: the exposition, right: README.md"
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_metrics_listener_serves_metrics_and_the_registrys_api_listener_does_not() -> Result<()> {
    let admin = Launch::all_in_one().metrics_listener().start().await?;
    admin.scrape().await?;
    let registry = Launch::registry().start().await?;
    registry.scrape().await?;
    let response = Client::new(&registry.url(""))?.get("/metrics").await?;
    ensure!(
        response.status() == StatusCode::NOT_FOUND,
        "{}",
        response.status()
    );
    Ok(())
}

/// A metric's row in README.md.
#[derive(Debug, PartialEq)]
struct Row {
    kind: String,
    labels: BTreeSet<String>,
    moves: String,
}

/// The rows of README.md's metric tables: `| name | type | labels | moves |`.
fn readme_tables() -> Result<BTreeMap<String, Row>> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md");
    let text = std::fs::read_to_string(path).context(path)?;
    let rows = text
        .lines()
        .filter(|line| line.starts_with("| `octoserve_"));
    let rows = rows.map(|row| {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let [_, name, kind, labels, moves, _] = cells[..] else {
            bail!("not four cells: {row}")
        };
        let labels = labels
            .split(',')
            .map(|label| label.trim().trim_matches('`').to_owned());
        let row = Row {
            kind: kind.to_owned(),
            labels: labels.filter(|label| !label.is_empty()).collect(),
            moves: moves.to_owned(),
        };
        Ok((name.trim_matches('`').to_owned(), row))
    });
    rows.collect()
}

/// How many requests [`some_of_everything`] sends.
const REQUESTS: u32 = 21;

/// Sends a push, pulls by tag and by digest, a HEAD, a listing, a miss and a refused name.
async fn some_of_everything(client: &Client) -> Result<()> {
    let pushed = client.push_image("team/app", "1", &[1, 2]).await?;
    client.pull_image("team/app", "1").await?;
    client.pull_image("team/app", &pushed.digest).await?;
    let tag = "/v2/team/app/manifests/1";
    let head = client.send(reqwest::Method::HEAD, tag, &[], "").await?;
    ensure!(head.status() == StatusCode::OK);
    for (path, status) in [
        ("/v2/", 200),
        ("/v2/team/app/tags/list", 200),
        ("/v2/team/app/manifests/nope", 404),
        ("/v2/UPPER/tags/list", 400),
        ("/no/such/path", 404),
    ] {
        let response = client.get(path).await?;
        ensure!(
            response.status().as_u16() == status,
            "{path}: {}",
            response.status()
        );
    }
    Ok(())
}

/// The exposition with `#` for each value that differs between runs, and with the buckets of a
/// histogram once for all its series.
fn normalised(scrape: &Scrape) -> String {
    let mut exposition = String::new();
    for family in scrape.exposition().families() {
        // Writing to a String cannot fail.
        let help = family.help().unwrap_or_default();
        writeln!(exposition, "# HELP {} {help}", family.name()).ok();
        writeln!(
            exposition,
            "# TYPE {} {}",
            family.name(),
            family.kind().as_str()
        )
        .ok();
        let mut bounds = Vec::new();
        for sample in family.samples() {
            if let Some(bound) = sample.label("le") {
                let bound = bound.into_owned();
                if !bounds.contains(&bound) {
                    bounds.push(bound);
                }
                continue;
            }
            let labels: Vec<_> = sample
                .labels()
                .map(|(name, value)| match &*name {
                    "version" | "revision" | "rustc" => format!("{name}=\"#\""),
                    _ => format!("{name}={value:?}"),
                })
                .collect();
            let value = if is_measured(sample.name()) {
                "#"
            } else {
                sample.value_text()
            };
            writeln!(
                exposition,
                "{}{{{}}} {value}",
                sample.name(),
                labels.join(",")
            )
            .ok();
        }
        if !bounds.is_empty() {
            writeln!(exposition, "# buckets: {}", bounds.join(" ")).ok();
        }
    }
    exposition
}

/// Whether a sample depends on time or on the machine, not only on the traffic.
fn is_measured(name: &str) -> bool {
    let is_count = name.ends_with("_seconds_count") || name.ends_with("_bytes_count");
    (name.contains("_seconds") && !is_count)
        || name.starts_with("process_")
        || name.starts_with("octoserve_storage_filesystem_")
        || name.starts_with("octoserve_storage_disk_")
        || name == "octoserve_aggregate_samples"
        // Which connection a request uses depends on timing.
        || matches!(name, "octoserve_connections_active" | "octoserve_connections_total")
        || name.starts_with("octoserve_upstream_connect")
}
