//! The rules of examples/mixin: promtool accepts and tests them, each has the tests that it needs, and the
//! scrape configurations load them.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use harness::certificate::Certificate;
use harness::octoserve::Launch;
use harness::prometheus::Prometheus;
use harness::tools;
use serde_json::Value;

use super::promql::names;
use super::vocabulary::Vocabulary;
use super::{all_rules, files, parsed, root, rule_files, text};

async fn promtool(words: &[&str], files: Vec<PathBuf>) -> Result<String> {
    let words = words.iter().map(OsString::from);
    let words: Vec<_> = words.chain(files.into_iter().map(Into::into)).collect();
    tools::run("promtool", &words).await
}

#[tokio::test]
async fn promtool_accepts_every_rule_file() -> Result<()> {
    promtool(&["check", "rules", "--lint-fatal"], rule_files()?).await?;
    Ok(())
}

#[tokio::test]
async fn every_rule_does_what_its_tests_say() -> Result<()> {
    promtool(&["test", "rules"], files("examples/mixin/tests", "yml")?).await?;
    Ok(())
}

/// The tests of a kind, each with its own test case.
fn cases(key: &str) -> Result<Vec<(Value, Value)>> {
    let mut all = Vec::new();
    for path in files("examples/mixin/tests", "yml")? {
        let file = parsed(&path)?;
        for case in file["tests"].as_array().context("no tests")? {
            let checks = case[key].as_array().into_iter().flatten();
            all.extend(checks.map(|check| (case.clone(), check.clone())));
        }
    }
    Ok(all)
}

#[test]
fn each_alert_fires_in_one_test_and_stays_silent_in_another() -> Result<()> {
    let cases = cases("alert_rule_test")?;
    let rules = all_rules()?;
    for (_, check) in &cases {
        let name = check["alertname"].as_str().unwrap_or_default();
        ensure!(rules.contains_key(name), "{name} is tested and is no alert");
    }
    let alerts: Vec<_> = rules.values().filter(|rule| rule.is_alert).collect();
    ensure!(alerts.len() >= 15, "{} alerts", alerts.len());
    for alert in alerts {
        let of_alert = |fires: bool| {
            cases.iter().any(|(case, check)| {
                let expected = check["exp_alerts"].as_array();
                // It must be silent about series, and not for want of them.
                let has_series = case["input_series"]
                    .as_array()
                    .is_some_and(|all| !all.is_empty());
                check["alertname"] == *alert.name
                    && has_series
                    && expected.is_some_and(|expected| expected.is_empty() != fires)
            })
        };
        ensure!(of_alert(true), "no test in which {} fires", alert.name);
        ensure!(of_alert(false), "no test in which {} is silent", alert.name);
    }
    Ok(())
}

#[test]
fn each_recording_rule_is_tested() -> Result<()> {
    let mut tested = BTreeSet::new();
    for (_, check) in cases("promql_expr_test")? {
        let samples = check["exp_samples"].as_array();
        if samples.is_some_and(|samples| !samples.is_empty()) {
            let found = names(check["expr"].as_str().context("no expr")?)?;
            tested.extend(found.metrics.into_iter().map(|(name, _)| name));
        }
    }
    for rule in all_rules()?.into_values().filter(|rule| !rule.is_alert) {
        ensure!(tested.contains(&rule.name), "no test of {}", rule.name);
    }
    Ok(())
}

#[test]
fn rules_use_documented_metrics_and_labels() -> Result<()> {
    let vocabulary = Vocabulary::read()?;
    for rule in all_rules()?.into_values() {
        vocabulary.check(&rule.expression).context(rule.name)?;
    }
    Ok(())
}

#[test]
fn each_alert_says_what_it_means_and_how_bad_it_is() -> Result<()> {
    for alert in all_rules()?.into_values().filter(|rule| rule.is_alert) {
        let name = &alert.name;
        ensure!(name.starts_with("Octoserve"), "{name}");
        ensure!(alert.fields["for"].is_string(), "{name} has no `for`");
        let severity = alert.fields["labels"]["severity"].as_str();
        let severities = ["critical", "warning", "info"];
        ensure!(severity.is_some_and(|s| severities.contains(&s)), "{name}");
        let said = |key: &str| {
            alert.fields["annotations"][key]
                .as_str()
                .unwrap_or_default()
        };
        let summary = said("summary");
        ensure!(
            summary.ends_with('.') && !summary.contains("{{"),
            "{name}: {summary}"
        );
        ensure!(
            said("description").ends_with('.'),
            "{name} has no description"
        );
        assert_eq!(said("runbook_url"), format!("docs/runbooks/{name}.md"));
    }
    Ok(())
}

#[tokio::test]
async fn the_scrape_configurations_are_valid_and_load_every_rule() -> Result<()> {
    let said = promtool(
        &["check", "config"],
        vec![root().join("examples/prometheus.yml")],
    )
    .await?;
    for path in rule_files()? {
        let file = path
            .file_name()
            .context("no name")?
            .to_string_lossy()
            .into_owned();
        ensure!(said.contains(&*file), "{file} is not loaded: {said}");
    }
    // In the container, the rules are elsewhere.
    let compose = text(&root().join("examples/compose/prometheus.yml"))?;
    let mixin = root().join("examples/mixin").canonicalize()?;
    let here = compose.replace("/etc/prometheus/mixin", &mixin.display().to_string());
    ensure!(here != compose, "the compose Prometheus loads no rules");
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("prometheus.yml");
    std::fs::write(&path, here)?;
    let said = promtool(&["check", "config"], vec![path]).await?;
    for path in rule_files()? {
        let file = path
            .file_name()
            .context("no name")?
            .to_string_lossy()
            .into_owned();
        ensure!(said.contains(&*file), "{file} is not loaded: {said}");
    }
    Ok(())
}

#[tokio::test]
async fn the_secured_scrape_configuration_scrapes_with_a_password_over_tls() -> Result<()> {
    let certificate = Certificate::new()?;
    let password = tempfile::NamedTempFile::new()?;
    std::fs::write(password.path(), "a secret")?;
    let configuration = format!(
        "metrics: {{listen: {{address: '127.0.0.1:0', tls: {}}}, basic_auth: {{username: prometheus, \
         password_file: '{}'}}}}\n",
        certificate.keys(),
        password.path().display()
    );
    let server = Launch::all_in_one()
        .configuration(&configuration)
        .announces_metrics()
        .start()
        .await?;
    let port = server.metrics_address().port();
    let mut text = text(&root().join("examples/prometheus-secured.yml"))?;
    for (theirs, ours) in [
        ("registry.example:5001", format!("localhost:{port}")),
        (
            "/etc/prometheus/octoserve-ca.crt",
            certificate.path().display().to_string(),
        ),
        (
            "/etc/prometheus/octoserve-password",
            password.path().display().to_string(),
        ),
        (
            "mixin/",
            format!("{}/", root().join("examples/mixin").display()),
        ),
        ("scrape_interval: 15s", "scrape_interval: 1s".to_owned()),
    ] {
        ensure!(text.contains(theirs), "no {theirs}");
        text = text.replace(theirs, &ours);
    }
    let prometheus = Prometheus::configured(&text).await?;
    prometheus
        .expect("count(octoserve_build_info)", 1.0)
        .await?;
    prometheus.expect("count(octoserve_blobs)", 1.0).await?;
    prometheus.expect("sum(up)", 1.0).await
}
