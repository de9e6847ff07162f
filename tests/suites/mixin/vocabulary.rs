//! The metrics and labels that a rule, a panel or a runbook may use: those of docs/metrics.md, the recording
//! rules, what Prometheus makes itself, and other registries' own.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};

use super::promql::names;
use super::{all_rules, root, text};

/// The labels that every series may have.
const EVERYWHERE: &[&str] = &["job", "instance", "source"];

/// What Prometheus makes itself.
const OF_PROMETHEUS: &[(&str, &[&str])] = &[
    ("up", &[]),
    ("scrape_duration_seconds", &[]),
    ("scrape_samples_scraped", &[]),
    ("ALERTS", &["alertname", "alertstate", "severity"]),
];

/// The families of other registries. The dashboards' queries are tried on real or canned expositions.
const FOREIGN: &[&str] = &["registry_", "zot_", "harbor_"];

/// Metrics by name, with their labels.
pub(super) struct Vocabulary {
    metrics: BTreeMap<String, BTreeSet<String>>,
}

impl Vocabulary {
    /// The documented families, and the recording rules.
    pub(super) fn read() -> Result<Self> {
        let document = text(&root().join("docs/metrics.md"))?;
        let mut metrics = BTreeMap::new();
        for section in document.split("\n### `").skip(1) {
            let (name, rest) = section
                .split_once('`')
                .context("a heading without an end")?;
            // "A histogram by `endpoint`, `method`; 608 series at most."
            let kind = rest.trim_start().split(';').next().unwrap_or_default();
            let labels = kind.split('`').skip(1).step_by(2);
            let mut labels: BTreeSet<_> = labels.map(str::to_owned).collect();
            if kind.starts_with("A histogram") {
                for suffix in ["_sum", "_count"] {
                    metrics.insert(format!("{name}{suffix}"), labels.clone());
                }
                labels.insert("le".to_owned());
                metrics.insert(format!("{name}_bucket"), labels);
            } else if name != "process_*" {
                metrics.insert(name.to_owned(), labels);
            }
        }
        ensure!(metrics.len() > 60, "{metrics:?}");
        for (name, labels) in OF_PROMETHEUS {
            let labels = labels.iter().map(|&label| label.to_owned()).collect();
            metrics.insert((*name).to_owned(), labels);
        }
        for rule in all_rules()?.into_values().filter(|rule| !rule.is_alert) {
            // LEVEL:METRIC:OPERATION
            let level = rule.name.split(':').next().unwrap_or_default();
            let labels = level.split('_').map(str::to_owned).collect();
            metrics.insert(rule.name, labels);
        }
        Ok(Self { metrics })
    }

    /// # Errors
    /// If the expression has a metric that is not known, or a label that none of its metrics has.
    pub(super) fn check(&self, expression: &str) -> Result<()> {
        let found = names(expression)?;
        let mut all: BTreeSet<&str> = EVERYWHERE.iter().copied().collect();
        all.extend(found.texts.iter().map(String::as_str));
        for (metric, labels) in &found.metrics {
            if FOREIGN.iter().any(|prefix| metric.starts_with(prefix)) {
                return Ok(());
            }
            if metric.starts_with("process_") {
                continue;
            }
            let known = self.metrics.get(metric);
            let known = known.with_context(|| format!("{metric} is no metric: {expression}"))?;
            for label in labels {
                let is_known = known.contains(label) || EVERYWHERE.contains(&&**label);
                ensure!(is_known, "{metric} has no label {label}: {expression}");
            }
            all.extend(known.iter().map(String::as_str));
        }
        for label in &found.grouping {
            ensure!(all.contains(&**label), "no label {label}: {expression}");
        }
        Ok(())
    }
}

#[test]
fn unknown_metrics_and_labels_are_found() -> Result<()> {
    let vocabulary = Vocabulary::read()?;
    for good in [
        "sum by (job, endpoint) (rate(octoserve_http_requests_total{status=\"200\",source=\"\"}[5m]))",
        "octoserve_http_request_duration_seconds_bucket{le=\"1\"}",
        "job:octoserve_http_requests:rate5m",
        "up == 0 unless on (instance) process_open_fds",
    ] {
        vocabulary.check(good)?;
    }
    for wrong in [
        "octoserve_http_request_total",
        "octoserve_http_request_duration_seconds",
        "octoserve_http_requests_total_count",
        "octoserve_tags{repository=\"a\"}",
        "sum by (upstream) (octoserve_tags)",
        "job:octoserve_nothing:rate5m",
    ] {
        ensure!(vocabulary.check(wrong).is_err(), "{wrong}");
    }
    Ok(())
}
