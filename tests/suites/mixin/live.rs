//! Every query of every panel, and of every variable, evaluated by a real Prometheus that has the rules of
//! examples/mixin and scrapes real processes. A query without data fails.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use harness::poll;
use harness::prometheus::{Prometheus, Series};

use super::dashboards::{Board, BoardQuery};
use super::root;
use super::traffic::{SOURCES, TrafficScene};

const DEADLINE: Duration = Duration::from_secs(90);

/// What Grafana puts in place of its variables.
struct Choice {
    job: String,
    instance: String,
    source: String,
}

impl Choice {
    fn apply(&self, expression: &str) -> String {
        // The shortest that Grafana takes with Prometheus's usual scrape interval.
        let ranges = expression
            .replace("$__rate_interval", "1m")
            .replace("$__range", "1h");
        let variables = ranges
            .replace("$job", &self.job)
            .replace("$instance", &self.instance);
        variables.replace("$source", &self.source)
    }
}

/// Several values of a variable, as Grafana writes them for Prometheus: escaped for a regular expression inside
/// of a text.
fn joined(values: &[String]) -> String {
    let escape = |value: &String| {
        let mut escaped = String::new();
        for c in value.chars() {
            if "\\$^*{}[]'+?.()|".contains(c) {
                escaped += "\\\\";
            }
            escaped.push(c);
        }
        escaped
    };
    let escaped: Vec<_> = values.iter().map(escape).collect();
    match &escaped[..] {
        [one] => one.clone(),
        several => format!("({})", several.join("|")),
    }
}

/// The values of a variable's query, which is `label_values(SELECTOR, LABEL)`.
async fn values(prometheus: &Prometheus, query: &str, choice: &Choice) -> Result<Vec<String>> {
    let inner = query
        .strip_prefix("label_values(")
        .and_then(|q| q.strip_suffix(')'));
    let (selector, label) = inner
        .context("no label_values")?
        .rsplit_once(", ")
        .context("no label")?;
    prometheus
        .label_values(&choice.apply(selector), label)
        .await
}

/// What is wrong with the result of a query, if anything.
fn fault(query: &BoardQuery, found: &[Series]) -> Option<String> {
    if found.iter().all(|(_, value)| value.is_nan()) {
        return Some(format!("no data: {}", query.expression));
    }
    for part in query.legend.split("{{").skip(1) {
        let label = part.split("}}").next().unwrap_or_default().trim();
        let lacks = |(labels, _): &Series| labels.get(label).is_none_or(String::is_empty);
        if let Some((labels, _)) = found.iter().find(|series| lacks(series)) {
            return Some(format!("the legend's {label} is not in {labels:?}"));
        }
    }
    None
}

#[tokio::test]
async fn every_query_of_every_dashboard_returns_data() -> Result<()> {
    let mut scene = TrafficScene::start().await?;
    let mixin = root().join("examples/mixin").canonicalize()?;
    let prometheus = Prometheus::configured(&format!(
        "global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}\n\
         rule_files: ['{0}/rules/*.yml', '{0}/alerts/*.yml']\n\
         scrape_configs:\n\
         - {{job_name: octoserve, static_configs: [{{targets: ['{1}']}}]}}\n\
         - {{job_name: octoserve-proxy, static_configs: [{{targets: ['{2}']}}]}}\n",
        mixin.display(),
        scene.embedded.metrics_address(),
        scene.proxy.metrics_address()
    ))
    .await?;
    prometheus.expect("sum(up)", 2.0).await?;
    // Rates need what moved between two scrapes.
    for round in 1..=2 {
        scene.traffic().await?;
        let seen = "min(octoserve_http_requests_total{endpoint='blob',method='GET',status='404'})";
        prometheus.expect(seen, f64::from(3 * round)).await?;
    }
    let boards = Board::all()?;
    let (all, chosen) = choices(&prometheus, &boards).await?;
    let mut waiting = Vec::new();
    for board in &boards {
        for query in board.queries()? {
            for choice in [&all, &chosen] {
                waiting.push((choice.apply(&query.expression), query.clone()));
            }
        }
    }
    ensure!(waiting.len() > 200, "{} queries", waiting.len());
    let mut faults = Vec::new();
    let done = poll::until("every query returns data", DEADLINE, async || {
        faults.clear();
        let mut still = Vec::new();
        for (expression, query) in waiting.drain(..) {
            let found = prometheus
                .query(&expression)
                .await
                .context(query.place.clone())?;
            if let Some(fault) = fault(&query, &found) {
                faults.push(format!("{}: {fault}", query.place));
                still.push((expression, query));
            }
        }
        waiting = still;
        if !waiting.is_empty() {
            scene.traffic().await?;
        }
        Ok(waiting.is_empty().then_some(()))
    });
    if let Err(error) = done.await {
        bail!("{error:#}\n{}", faults.join("\n"));
    }
    Ok(())
}

/// All values of each variable, and each of them chosen by name.
async fn choices(prometheus: &Prometheus, boards: &[Board]) -> Result<(Choice, Choice)> {
    let mut all = Choice {
        job: String::new(),
        instance: String::new(),
        source: ".*".to_owned(),
    };
    let mut chosen_source = String::new();
    for board in boards {
        for (name, query) in board.variables() {
            let Some(query) = query else {
                continue;
            };
            let found = values(prometheus, query, &all)
                .await
                .context(board.name.clone())?;
            let enough = match name {
                "source" => found == ["distribution", "harbor", "registry", "zot"],
                _ => found.len() == 2,
            };
            ensure!(enough, "{}, ${name}: {found:?}", board.name);
            match name {
                "job" => all.job = joined(&found),
                "instance" => all.instance = joined(&found),
                _ => chosen_source = joined(&found),
            }
        }
    }
    ensure!(
        SOURCES.iter().all(|source| chosen_source.contains(source)),
        "{chosen_source}"
    );
    let chosen = Choice {
        job: all.job.clone(),
        instance: all.instance.clone(),
        source: chosen_source,
    };
    Ok((all, chosen))
}

#[test]
fn chosen_values_are_escaped_as_grafana_does() {
    let values =
        |values: &[&str]| joined(&values.iter().map(|&v| v.to_owned()).collect::<Vec<_>>());
    assert_eq!(values(&["octoserve"]), "octoserve");
    assert_eq!(values(&["a.b:1", "c|d"]), "(a\\\\.b:1|c\\\\|d)");
}
