//! docs/runbooks: one page for each alert. The suite `docs` evaluates its queries and runs its commands.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};

use super::vocabulary::Vocabulary;
use super::{all_rules, files, root, text};

const SECTIONS: &[&str] = &[
    "## Meaning\n",
    "## Impact\n",
    "## Diagnosis\n",
    "## Mitigation\n",
];

#[test]
fn each_alert_has_a_runbook_and_each_runbook_an_alert() -> Result<()> {
    let mut alerts = BTreeSet::new();
    for alert in all_rules()?.into_values().filter(|rule| rule.is_alert) {
        alerts.insert(alert.name);
    }
    let index = text(&root().join("docs/runbooks/README.md"))?;
    let mut pages = BTreeSet::new();
    for path in files("docs/runbooks", "md")? {
        let name = path
            .file_stem()
            .context("no name")?
            .to_string_lossy()
            .into_owned();
        if name == "README" {
            continue;
        }
        let page = text(&path)?;
        ensure!(
            page.starts_with(&format!("# {name}\n")),
            "{name} has another title"
        );
        let mut rest = &*page;
        for section in SECTIONS {
            let (_, after) = rest
                .split_once(section)
                .with_context(|| format!("{name}: {section}"))?;
            let body = after.split("\n## ").next().unwrap_or_default();
            ensure!(body.trim().len() > 20, "{name}: nothing below {section}");
            rest = after;
        }
        ensure!(
            index.contains(&format!("[{name}]({name}.md)")),
            "the index lacks {name}"
        );
        pages.insert(name);
    }
    assert_eq!(alerts, pages, "left: alerts, right: docs/runbooks");
    Ok(())
}

#[test]
fn runbooks_use_documented_metrics_and_labels() -> Result<()> {
    let vocabulary = Vocabulary::read()?;
    let mut checked = 0;
    for path in files("docs/runbooks", "md")? {
        let page = text(&path)?;
        let blocks = page.split("```promql\n").skip(1);
        let lines = blocks.flat_map(|block| block.split("```").next().unwrap_or_default().lines());
        for query in lines.filter(|line| !line.is_empty()) {
            let name = || path.display().to_string();
            vocabulary.check(query).with_context(name)?;
            checked += 1;
        }
    }
    ensure!(checked > 40, "{checked} queries");
    Ok(())
}
