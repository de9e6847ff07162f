//! The mixin in jsonnet has exactly the rules and dashboards of the plain files, with what its configuration
//! adds.

use anyhow::{Context, Result, ensure};
use harness::tools;
use serde_json::{Value, json};

use super::dashboards::Board;
use super::{parsed, root, rule_files};

/// Evaluates its first argument, with imports from the directory in the second.
const EVALUATE: &str = "\
import _gojsonnet, sys
print(_gojsonnet.evaluate_snippet('test', sys.argv[1], jpathdir=[sys.argv[2]]))
";

/// Everything that the mixin has, with these fields of its configuration.
async fn rendered(configuration: &str) -> Result<Value> {
    let python = root().join("target/tools/mixin/bin/python");
    ensure!(
        python.exists(),
        "tests/setup/install.sh test installs jsonnet"
    );
    let snippet = format!(
        "local m = (import 'mixin.libsonnet') + {{ _config+:: {configuration} }}; \
         {{ rules: m.prometheusRules, alerts: m.prometheusAlerts, boards: m.grafanaDashboards }}"
    );
    let mixin = root().join("examples/mixin").display().to_string();
    let words = ["-c", EVALUATE, &snippet, &mixin];
    let printed = tools::run(&python.to_string_lossy(), &words).await?;
    // As the files are parsed, so that numbers are the same to the last bit.
    Ok(serde_yaml::from_str(&printed)?)
}

#[tokio::test]
async fn the_mixin_has_the_rules_and_dashboards_of_the_files() -> Result<()> {
    let mixin = rendered("{}").await?;
    let mut groups = Vec::new();
    for path in rule_files()? {
        let file = parsed(&path)?;
        groups.extend(file["groups"].as_array().context("no groups")?.clone());
    }
    let of_mixin = |key: &str| mixin[key]["groups"].as_array().cloned().unwrap_or_default();
    assert_eq!([of_mixin("rules"), of_mixin("alerts")].concat(), groups);
    let boards = Board::all()?.into_iter();
    let boards: Value = boards
        .map(|board| (format!("{}.json", board.name), board.json))
        .collect();
    assert_eq!(mixin["boards"], boards);
    Ok(())
}

#[tokio::test]
async fn the_mixins_configuration_reaches_every_alert() -> Result<()> {
    let configuration = "{ alertLabels: { team: 'a' }, alertAnnotations: { from: 'b' }, \
        runbookUrlPrefix: 'https://git.example/', dashboardTags: ['c'] }";
    let mixin = rendered(configuration).await?;
    let mut alerts = 0;
    for group in mixin["alerts"]["groups"].as_array().context("no groups")? {
        for rule in group["rules"].as_array().context("no rules")? {
            let name = rule["alert"].as_str().context("no alert")?;
            assert_eq!(rule["labels"]["team"], "a", "{name}");
            ensure!(rule["labels"]["severity"].is_string(), "{name}");
            assert_eq!(rule["annotations"]["from"], "b", "{name}");
            let page = format!("https://git.example/docs/runbooks/{name}.md");
            assert_eq!(rule["annotations"]["runbook_url"], *page);
            alerts += 1;
        }
    }
    ensure!(alerts >= 15, "{alerts} alerts");
    for board in mixin["boards"]
        .as_object()
        .context("no dashboards")?
        .values()
    {
        assert_eq!(board["tags"], json!(["c"]));
    }
    Ok(())
}
