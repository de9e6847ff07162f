//! Every snippet of a configuration is valid: those of octoserve by `--check`, those of Prometheus by
//! promtool, JSON and TOML by a parser.

use anyhow::{Result, bail, ensure};
use harness::octoserve::Program;
use harness::tools;

use super::pages::Page;
use super::places::Files;

/// Keys that only other programs' YAML files have at the top, and what looks at these files.
const FOREIGN: &[(&str, Option<&str>)] = &[
    ("scrape_configs:", Some("config")),
    ("rule_files:", Some("config")),
    ("groups:", Some("rules")),
    // Suites of their own apply these.
    ("apiVersion:", None),
    ("services:", None),
    // Values of the Helm chart.
    ("config:", None),
    ("replicaCount:", None),
];

/// Checks a YAML snippet.
async fn check(files: &Files, text: &str) -> Result<()> {
    let path = files.path("snippet.yaml");
    std::fs::write(&path, text)?;
    let has = |key: &str| text.lines().any(|line| line.starts_with(key));
    if let Some((_, promtool)) = FOREIGN.iter().find(|(key, _)| has(key)) {
        if let Some(kind) = promtool {
            tools::run("promtool", &["check", kind, &path]).await?;
        }
        return Ok(());
    }
    // The registry's keys are at the top of its own file, and in a section of the proxy's.
    let mut refused = String::new();
    for program in [Program::Octoserve, Program::Registry] {
        let program = program.path()?.to_string_lossy().into_owned();
        let output = tools::attempt(&program, &["--check", "--config", &path]).await?;
        if output.status.success() {
            return Ok(());
        }
        refused += &String::from_utf8_lossy(&output.stderr);
    }
    bail!("{refused}\n{text}");
}

#[tokio::test]
async fn every_yaml_snippet_is_valid() -> Result<()> {
    let files = Files::new()?;
    let (mut wrong, mut checked) = (Vec::new(), 0);
    for page in Page::all()? {
        for block in page.blocks().filter(|block| block.language == "yaml") {
            let text = files.placed(&block.text);
            if let Err(error) = check(&files, &text).await {
                wrong.push(format!("{}: {error:#}", block.place()));
            }
            checked += 1;
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    ensure!(checked > 30, "only {checked}");
    Ok(())
}

#[tokio::test]
async fn every_json_and_toml_snippet_is_one() -> Result<()> {
    let files = Files::new()?;
    let path = files.path("snippet.toml");
    let parse = "import sys, tomllib; tomllib.load(open(sys.argv[1], 'rb'))";
    let mut checked = 0;
    for page in Page::all()? {
        for block in page.blocks() {
            let result = match block.language {
                "json" => serde_json::from_str(&block.text)
                    .map(|_: serde_json::Value| ())
                    .map_err(Into::into),
                "toml" => {
                    std::fs::write(&path, &block.text)?;
                    let parsed = tools::run("python3", &["-c", parse, &path]).await;
                    parsed.map(drop)
                }
                _ => continue,
            };
            ensure!(result.is_ok(), "{}: {result:?}", block.place());
            checked += 1;
        }
    }
    ensure!(checked > 8, "only {checked}");
    Ok(())
}

#[tokio::test]
async fn a_snippet_with_a_wrong_key_is_found() -> Result<()> {
    let files = Files::new()?;
    let error = check(&files, "metrics: {pubic: true}\n").await;
    ensure!(error.is_err_and(|error| error.to_string().contains("pubic")));
    let error = check(&files, "scrape_configs: [{job: a}]\n").await;
    ensure!(error.is_err());
    Ok(())
}
