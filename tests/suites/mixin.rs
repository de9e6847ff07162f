//! examples/mixin: rules, alerts, runbooks and dashboards, each checked against the documented metrics,
//! promtool, a real Prometheus under real traffic, and Grafana's own types.
//!
//! Grafana itself does not run here.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// The dashboards as files: variables, units, and what every panel must have.
mod dashboards;
/// Grafana's types for dashboards, and what provisions them.
mod grafana;
/// The same as a mixin, rendered by jsonnet.
mod jsonnet;
/// Every query of every dashboard returns data, from real processes under traffic.
mod live;
/// The names of metrics and labels in an expression.
mod promql;
/// The rules: promtool, their tests, and the names that they use.
mod rules;
/// The runbooks: one for each alert.
mod runbooks;
/// The processes and the traffic behind [`live`].
mod traffic;
/// The documented metrics and their labels.
mod vocabulary;

/// The root of the repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The files of this directory, relative to the root, whose names end with `extension`, in order.
fn files(directory: &str, extension: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let path = root().join(directory);
    for entry in std::fs::read_dir(&path).with_context(|| path.display().to_string())? {
        let path = entry?.path();
        if path.extension().is_some_and(|found| found == extension) {
            found.push(path);
        }
    }
    ensure!(!found.is_empty(), "{directory} has no .{extension}");
    found.sort();
    Ok(found)
}

fn text(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| path.display().to_string())
}

/// A YAML or JSON file.
fn parsed(path: &Path) -> Result<Value> {
    serde_yaml::from_str(&text(path)?).with_context(|| path.display().to_string())
}

/// A rule of examples/mixin.
struct MixinRule {
    name: String,
    is_alert: bool,
    expression: String,
    fields: Value,
}

/// All rules, by name.
fn all_rules() -> Result<BTreeMap<String, MixinRule>> {
    let mut rules = BTreeMap::new();
    for path in rule_files()? {
        let file = parsed(&path)?;
        for group in file["groups"].as_array().context("no groups")? {
            for fields in group["rules"].as_array().context("no rules")? {
                let name = fields["alert"].as_str().or(fields["record"].as_str());
                let name = name.context("a rule without a name")?.to_owned();
                let rule = MixinRule {
                    name: name.clone(),
                    is_alert: fields["alert"].is_string(),
                    expression: fields["expr"].as_str().context("no expr")?.to_owned(),
                    fields: fields.clone(),
                };
                ensure!(rules.insert(name.clone(), rule).is_none(), "{name} twice");
            }
        }
    }
    Ok(rules)
}

fn rule_files() -> Result<Vec<PathBuf>> {
    let mut all = files("examples/mixin/rules", "yml")?;
    all.extend(files("examples/mixin/alerts", "yml")?);
    Ok(all)
}
