//! The dashboards against the types that Grafana publishes for them, panel by panel; and the files that
//! provision them.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use harness::tools;
use serde_json::Value;

use super::dashboards::Board;
use super::{parsed, root, text};

/// Where tests/setup/install.sh puts node, TypeScript and the types.
const TOOLS: &str = "target/tools/mixin";

/// The types of everything below. The types have names for the values of enumerations, and JSON has the values.
const TYPES: &str = "\
import type * as schema from '@grafana/schema';
type Json<T> = T extends string ? `${T}` : T extends (infer U)[] ? Json<U>[]
    : T extends object ? { [K in keyof T]: Json<T[K]> } : T;
interface Query {
    refId: string; datasource: schema.DataSourceRef; expr: string; legendFormat: string;
    format?: 'time_series' | 'table' | 'heatmap'; instant?: boolean; range?: boolean;
}
";

/// The kinds of panels, with the module that has the types of their options.
const KINDS: &[(&str, &str)] = &[
    ("bargauge", "BarGauge"),
    ("heatmap", "Heatmap"),
    ("stat", "Stat"),
    ("table", "Table"),
    ("timeseries", "TimeSeries"),
];

/// A program that declares each part of the dashboards with its type.
fn declarations(boards: &[Board]) -> Result<String> {
    let mut program = TYPES.to_owned();
    for (kind, module) in KINDS {
        let path = format!("@grafana/schema/dist/esm/raw/composable/{kind}/panelcfg/x");
        writeln!(
            program,
            "import type * as {kind} from '{path}/{module}PanelCfg_types.gen';"
        )?;
    }
    let mut count = 0;
    let mut declare = |type_name: &str, value: &Value| {
        count += 1;
        writeln!(program, "const c{count}: {type_name} = {value};")
    };
    for board in boards {
        let mut frame = board.json.clone();
        let frame = frame.as_object_mut().context("no object")?;
        let panels = frame.remove("panels").context("no panels")?;
        declare(
            "Json<Omit<schema.Dashboard, 'panels'>>",
            &Value::Object(frame.clone()),
        )?;
        for panel in panels.as_array().context("no panels")? {
            let kind = panel["type"].as_str().context("no type")?;
            if kind == "row" {
                declare("Json<schema.RowPanel>", panel)?;
                continue;
            }
            ensure!(
                KINDS.iter().any(|(known, _)| *known == kind),
                "a panel of type {kind}"
            );
            let mut panel = panel.clone();
            let parts = panel.as_object_mut().context("no panel")?;
            let mut part = |key: &str| parts.remove(key).with_context(|| format!("no {key}"));
            let (options, mut fields) = (part("options")?, part("fieldConfig")?);
            declare("Query[]", &part("targets")?)?;
            declare(&format!("Json<{kind}.Options>"), &options)?;
            let defaults = fields["defaults"].as_object_mut().context("no defaults")?;
            if let Some(custom) = defaults.remove("custom") {
                declare(&format!("Json<{kind}.FieldConfig>"), &custom)?;
            }
            declare("Json<schema.FieldConfigSource>", &fields)?;
            let rest = "Json<Omit<schema.Panel, 'options' | 'fieldConfig' | 'targets'>>";
            declare(rest, &panel)?;
        }
    }
    Ok(program)
}

/// What the compiler says about the types; empty if nothing is wrong.
async fn compiled(program: &str) -> Result<String> {
    let tools = root().join(TOOLS).canonicalize();
    let tools = tools.context("tests/setup/install.sh test installs Grafana's types")?;
    // The compiler looks for modules beside the program.
    let directory = tempfile::tempdir_in(&tools)?;
    let path = directory.path().join("dashboards.ts");
    std::fs::write(&path, program)?;
    let compiler = tools.join("node_modules/typescript/bin/tsc");
    let flags = "--noEmit --strict --skipLibCheck --target esnext --module nodenext --moduleResolution nodenext";
    let mut words = vec![compiler, path];
    words.extend(flags.split(' ').map(PathBuf::from));
    let node = node(&tools)?;
    let output = tools::attempt(&node.to_string_lossy(), &words).await?;
    let said = String::from_utf8(output.stdout)?;
    ensure!(
        output.status.success() != said.contains("error TS"),
        "{said}"
    );
    Ok(said)
}

/// node, in the package that pip has unpacked.
fn node(tools: &Path) -> Result<PathBuf> {
    let link = tools.join("node");
    ensure!(link.exists(), "{} is missing", link.display());
    Ok(link)
}

#[tokio::test]
async fn dashboards_have_grafanas_types() -> Result<()> {
    let boards = Board::all()?;
    let said = compiled(&declarations(&boards)?).await?;
    assert_eq!(said, "");
    // The types tell wrong from right.
    let program = declarations(&boards)?;
    let wrong = [
        ("\"colorMode\":\"value\"", "\"colorMode\":\"valeu\""),
        ("\"drawStyle\":\"line\"", "\"drawStyle\":\"dotted\""),
        ("\"showHeader\"", "\"showHeaders\""),
        ("\"graphTooltip\":1", "\"graphTooltip\":9"),
        ("\"legendFormat\"", "\"legend\""),
    ];
    let mut all = program.clone();
    for (right, wrong) in wrong {
        ensure!(all.contains(right), "no {right}");
        all = all.replacen(right, wrong, 1);
    }
    let said = compiled(&all).await?;
    for (_, word) in wrong {
        let word = word
            .trim_matches('"')
            .rsplit('"')
            .next()
            .unwrap_or_default();
        let word = word.trim_start_matches(':');
        ensure!(said.contains(word), "{word} is not found: {said}");
    }
    Ok(())
}

/// The files that Grafana reads at its start, and that docker-compose.yml puts where they say.
#[test]
fn grafana_is_provisioned_with_the_data_source_and_every_dashboard() -> Result<()> {
    let provisioning = root().join("examples/compose/grafana/provisioning");
    let sources = parsed(&provisioning.join("datasources/prometheus.yaml"))?;
    assert_eq!(sources["apiVersion"], 1);
    let source = &sources["datasources"][0];
    assert_eq!(source["type"], "prometheus");
    assert_eq!(source["access"], "proxy");
    assert_eq!(source["url"], "http://prometheus:9090");
    assert_eq!(source["isDefault"], true);
    // The interval from which Grafana computes $__rate_interval.
    let scrapes = parsed(&root().join("examples/compose/prometheus.yml"))?;
    let interval = &scrapes["scrape_configs"][0]["scrape_interval"];
    ensure!(interval.is_string(), "no scrape_interval");
    assert_eq!(&source["jsonData"]["timeInterval"], interval);
    let boards = parsed(&provisioning.join("dashboards/octoserve.yaml"))?;
    assert_eq!(boards["apiVersion"], 1);
    let provider = &boards["providers"][0];
    assert_eq!(provider["type"], "file");
    let directory = provider["options"]["path"].as_str().context("no path")?;

    let compose = parsed(&root().join("docker-compose.yml"))?;
    let grafana = &compose["services"]["grafana"];
    let volumes: Vec<_> = grafana["volumes"]
        .as_array()
        .context("no volumes")?
        .iter()
        .collect();
    let mounts = [
        format!("./examples/mixin/dashboards:{directory}:ro"),
        "./examples/compose/grafana/provisioning:/etc/grafana/provisioning:ro".to_owned(),
    ];
    for mount in mounts {
        ensure!(
            volumes.iter().any(|volume| **volume == *mount),
            "no {mount}"
        );
    }
    let image = grafana["image"].as_str().context("no image")?;
    let (_, version) = image
        .split_once("grafana/grafana:")
        .context("another image")?;
    // The types are those of the version that is started.
    let install = text(&root().join("tests/setup/install.sh"))?;
    ensure!(
        install.contains(&format!("GRAFANA={version}\n")),
        "{version} is not checked"
    );
    for port in grafana["ports"].as_array().context("no ports")? {
        ensure!(
            port.as_str()
                .is_some_and(|port| port.starts_with("127.0.0.1:")),
            "{port}"
        );
    }
    let home = grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"].as_str();
    assert_eq!(home, Some(&*format!("{directory}/octoserve-overview.json")));
    Ok(())
}
