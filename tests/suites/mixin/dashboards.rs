//! The dashboards as files: what Grafana and a reader need of each panel, and queries over documented
//! metrics.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::vocabulary::Vocabulary;
use super::{files, parsed, root, text};

/// The identifiers of Grafana's units that the panels use.
const UNITS: &[&str] = &[
    "none",
    "short",
    "s",
    "bytes",
    "Bps",
    "ops",
    "reqps",
    "percentunit",
];

/// A dashboard of examples/mixin.
pub(super) struct Board {
    pub(super) name: String,
    pub(super) json: Value,
}

/// A query of a panel.
#[derive(Clone)]
pub(super) struct BoardQuery {
    /// The dashboard and the panel.
    pub(super) place: String,
    pub(super) expression: String,
    pub(super) legend: String,
}

impl Board {
    pub(super) fn all() -> Result<Vec<Self>> {
        let mut boards = Vec::new();
        for path in files("examples/mixin/dashboards", "json")? {
            let name = path
                .file_stem()
                .context("no name")?
                .to_string_lossy()
                .into_owned();
            let json = parsed(&path)?;
            boards.push(Self { name, json });
        }
        Ok(boards)
    }

    /// The panels that are no rows.
    pub(super) fn panels(&self) -> impl Iterator<Item = &Value> {
        let panels = self.json["panels"].as_array();
        panels
            .into_iter()
            .flatten()
            .filter(|panel| panel["type"] != "row")
    }

    pub(super) fn queries(&self) -> Result<Vec<BoardQuery>> {
        let mut queries = Vec::new();
        for panel in self.panels() {
            let title = panel["title"].as_str().context("a panel without a title")?;
            let place = format!("{}, {title}", self.name);
            let targets = panel["targets"].as_array().with_context(|| place.clone())?;
            ensure!(!targets.is_empty(), "{place}: no query");
            for target in targets {
                let field = |key: &str| target[key].as_str().map(str::to_owned);
                queries.push(BoardQuery {
                    place: place.clone(),
                    expression: field("expr").with_context(|| place.clone())?,
                    legend: field("legendFormat").unwrap_or_default(),
                });
            }
        }
        Ok(queries)
    }

    /// The variables, with the query of each; the data source has none.
    pub(super) fn variables(&self) -> Vec<(&str, Option<&str>)> {
        let list = self.json["templating"]["list"].as_array();
        let list = list.into_iter().flatten();
        list.map(|variable| {
            let name = variable["name"].as_str().unwrap_or_default();
            (name, variable["query"]["query"].as_str())
        })
        .collect()
    }
}

#[test]
fn there_is_a_dashboard_for_each_part() -> Result<()> {
    let names: Vec<_> = Board::all()?.into_iter().map(|board| board.name).collect();
    let expected = [
        "foreign",
        "overview",
        "proxy",
        "pulls-and-pushes",
        "storage",
        "uploads",
        "upstreams",
    ];
    let expected: Vec<_> = expected.map(|name| format!("octoserve-{name}")).to_vec();
    assert_eq!(names, expected);
    Ok(())
}

#[test]
fn dashboards_have_fixed_identities_and_the_variables_that_they_use() -> Result<()> {
    for board in Board::all()? {
        let (name, json) = (&board.name, &board.json);
        assert_eq!(json["uid"], **name);
        ensure!(name.len() <= 40, "{name}: Grafana takes 40 characters");
        // Grafana numbers what it imports.
        ensure!(json.get("id") == Some(&Value::Null), "{name}");
        assert_eq!(json["tags"], json!(["octoserve"]), "{name}");
        ensure!(
            json["description"]
                .as_str()
                .is_some_and(|said| said.len() > 20),
            "{name}"
        );
        let variables = board.variables();
        let names: Vec<_> = variables.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["datasource", "job", "instance", "source"], "{name}");
        for variable in json["templating"]["list"]
            .as_array()
            .into_iter()
            .flatten()
            .skip(1)
        {
            ensure!(
                variable["multi"] == true && variable["includeAll"] == true,
                "{name}: {variable}"
            );
        }
        let text = board
            .queries()?
            .iter()
            .map(|query| query.expression.clone())
            .collect::<String>();
        for variable in &names[1..] {
            ensure!(
                text.contains(&format!("=~\"${variable}\"")),
                "{name}: no query has ${variable}"
            );
        }
    }
    Ok(())
}

#[test]
fn every_panel_has_a_unit_a_description_and_the_data_source_variable() -> Result<()> {
    let source = json!({"type": "prometheus", "uid": "${datasource}"});
    for board in Board::all()? {
        let mut ids = BTreeSet::new();
        let mut titles = BTreeSet::new();
        for panel in board.panels() {
            let title = panel["title"].as_str().unwrap_or_default();
            let place = format!("{}, {title}", board.name);
            ensure!(titles.insert(title.to_owned()), "{place}: two panels");
            let described = panel["description"].as_str();
            ensure!(
                described.is_some_and(|said| said.ends_with('.')),
                "{place}: no description"
            );
            assert_eq!(panel["datasource"], source, "{place}");
            for target in panel["targets"].as_array().into_iter().flatten() {
                assert_eq!(target["datasource"], source, "{place}");
            }
            let defaults = &panel["fieldConfig"]["defaults"];
            let unit = if panel["type"] == "heatmap" {
                &panel["options"]["yAxis"]["unit"]
            } else {
                &defaults["unit"]
            };
            ensure!(
                unit.as_str().is_some_and(|unit| UNITS.contains(&unit)),
                "{place}: unit {unit}"
            );
            if panel["type"] == "stat" {
                let steps = defaults["thresholds"]["steps"].as_array();
                ensure!(
                    steps.is_some_and(|steps| !steps.is_empty()),
                    "{place}: no thresholds"
                );
            }
        }
        for panel in board.json["panels"].as_array().into_iter().flatten() {
            ensure!(
                ids.insert(panel["id"].as_u64()),
                "{}: an identifier twice",
                board.name
            );
            let grid = &panel["gridPos"];
            let right = grid["x"]
                .as_u64()
                .zip(grid["w"].as_u64())
                .map(|(x, w)| x + w);
            ensure!(
                right.is_some_and(|right| right <= 24),
                "{}: {grid}",
                board.name
            );
        }
        overlaps(&board)?;
    }
    Ok(())
}

/// # Errors
/// If two panels share a cell of the grid.
fn overlaps(board: &Board) -> Result<()> {
    let mut cells = BTreeSet::new();
    for panel in board.json["panels"].as_array().into_iter().flatten() {
        let at = |key: &str| panel["gridPos"][key].as_u64().context("no gridPos");
        for y in at("y")?..at("y")? + at("h")? {
            for x in at("x")?..at("x")? + at("w")? {
                ensure!(
                    cells.insert((x, y)),
                    "{}, {}: overlaps",
                    board.name,
                    panel["title"]
                );
            }
        }
    }
    Ok(())
}

#[test]
fn dashboards_use_documented_metrics_and_labels() -> Result<()> {
    let vocabulary = Vocabulary::read()?;
    for board in Board::all()? {
        for query in board.queries()? {
            vocabulary.check(&query.expression).context(query.place)?;
        }
    }
    Ok(())
}

/// A range shorter than Grafana's own choice is empty where Prometheus scrapes seldom.
#[test]
fn rates_follow_the_scrape_interval() -> Result<()> {
    for board in Board::all()? {
        for query in board.queries()? {
            for range in query.expression.split("rate(").skip(1) {
                let range = range.split(['[', ']']).nth(1).unwrap_or_default();
                ensure!(
                    range == "$__rate_interval" || range == "1h",
                    "{}: [{range}]",
                    query.place
                );
            }
        }
    }
    Ok(())
}

/// The page that explains the dashboards names panels, columns and variables in italics.
#[test]
fn the_page_about_the_dashboards_names_what_they_have() -> Result<()> {
    let page = text(&root().join("docs/how-to/read-the-dashboard.md"))?;
    let boards = Board::all()?;
    let shown: String = boards.iter().map(|board| board.json.to_string()).collect();
    let mut named = 0;
    for name in page.replace("**", "").split('*').skip(1).step_by(2) {
        ensure!(
            shown.contains(&format!("\"{name}\"")),
            "nothing is called {name}"
        );
        named += 1;
    }
    ensure!(named > 20, "{named}");
    Ok(())
}
