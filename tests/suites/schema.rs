//! The JSON Schemas of the configurations, and the reference that is made of them.
//!
//! `INSTA_UPDATE=always` writes both anew.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use harness::examples::examples;
use harness::octoserve::Program;
use harness::tools;
use serde_json::Value;
use service::config::keys;
use tempfile::TempDir;

mod reference;

/// Debian's own, which has Debian's packages.
const PYTHON: &str = "/usr/bin/python3";

const PROGRAMS: [Program; 2] = [Program::Octoserve, Program::Registry];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

async fn printed(program: Program, arguments: &[&str]) -> Result<String> {
    tools::run(&program.path()?.to_string_lossy(), arguments).await
}

fn schema_file(program: Program) -> PathBuf {
    root().join(format!("docs/reference/{}.schema.json", program.name()))
}

/// Compares a committed file with what it is made of, or writes it.
fn check_current(path: &Path, current: &str) -> Result<()> {
    if std::env::var_os("INSTA_UPDATE").is_some_and(|update| update == "always") {
        return Ok(std::fs::write(path, current)?);
    }
    let committed = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let differs = committed
        .lines()
        .zip(current.lines())
        .find(|(committed, current)| committed != current);
    ensure!(
        committed == current,
        "{} is not current: INSTA_UPDATE=always writes it anew: {differs:?}",
        path.display()
    );
    Ok(())
}

/// Validates files against a schema. What is wrong, line by line.
async fn validate(schema: &Path, files: &[PathBuf]) -> Result<String> {
    let script = root().join("tests/suites/schema/validate.py");
    let mut arguments = vec![script, schema.to_owned()];
    arguments.extend(files.iter().cloned());
    let output = tools::attempt(PYTHON, &arguments).await?;
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    // A missing package, or a schema that is none, is no mistake of a file.
    ensure!(errors.is_empty(), "{errors}");
    let said = String::from_utf8(output.stdout)?;
    ensure!(output.status.success() == said.is_empty(), "{said}");
    Ok(said)
}

#[tokio::test]
async fn the_committed_schemas_are_those_that_the_programs_print() -> Result<()> {
    for program in PROGRAMS {
        let schema = printed(program, &["schema"]).await?;
        let parsed: Value = serde_json::from_str(&schema)?;
        let draft = "https://json-schema.org/draft/2020-12/schema";
        assert_eq!(parsed["$schema"], draft);
        assert_eq!(parsed["additionalProperties"], false);
        check_current(&schema_file(program), &schema)?;
    }
    Ok(())
}

#[tokio::test]
async fn the_reference_has_every_key_of_the_schemas() -> Result<()> {
    let mut schemas = Vec::new();
    for program in PROGRAMS {
        let schema = printed(program, &["schema"]).await?;
        schemas.push((program.name(), serde_json::from_str(&schema)?));
    }
    let page = reference::page(&schemas)?;
    check_current(&root().join("docs/reference/configuration.md"), &page)
}

/// Whatever is wrong with the value: it is not the variable that is unknown.
#[tokio::test]
async fn every_variable_of_the_reference_sets_its_key() -> Result<()> {
    for program in PROGRAMS {
        let schema = serde_json::from_str(&printed(program, &["schema"]).await?)?;
        let keys = keys(&schema);
        let variables: Vec<_> = keys
            .iter()
            .filter_map(|key| key.variable.as_ref())
            .collect();
        ensure!(variables.len() > 20, "{variables:?}");
        for variable in variables {
            let setting = format!("{variable}=surprise");
            let path = program.path()?;
            let path = path.to_string_lossy();
            let output = tools::attempt("env", &[&setting, &*path, "--check"]).await?;
            let error = String::from_utf8_lossy(&output.stderr).into_owned();
            ensure!(!error.contains("unknown"), "{error}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn each_example_names_its_schema_and_is_valid() -> Result<()> {
    for (program, path) in examples()? {
        let text = std::fs::read_to_string(&path)?;
        let line = format!(
            "# yaml-language-server: $schema=../docs/reference/{}.schema.json\n",
            program.name()
        );
        ensure!(
            text.starts_with(&line),
            "{} does not begin with {line}",
            path.display()
        );
        assert_eq!(validate(&schema_file(program), &[path]).await?, "");
    }
    Ok(())
}

/// The configurations that packages and Kubernetes get.
#[tokio::test]
async fn each_configuration_beside_the_examples_names_its_schema_and_is_valid() -> Result<()> {
    for (program, path, schema) in [
        (
            Program::Octoserve,
            "packaging/octoserve.yaml",
            "/usr/share/octoserve/",
        ),
        (
            Program::Registry,
            "packaging/registry.yaml",
            "/usr/share/octoserve/",
        ),
        (
            Program::Octoserve,
            "examples/kubernetes/base/octoserve.yaml",
            "../../../docs/reference/",
        ),
        (
            Program::Octoserve,
            "examples/kubernetes/overlays/proxies/octoserve.yaml",
            "../../../../docs/reference/",
        ),
        (
            Program::Registry,
            "examples/kubernetes/overlays/proxies/octoserve-registry.yaml",
            "../../../../docs/reference/",
        ),
        (
            Program::Octoserve,
            "examples/kubernetes/overlays/sidecar/octoserve.yaml",
            "../../../../docs/reference/",
        ),
        (
            Program::Octoserve,
            "examples/kubernetes/overlays/standalone/octoserve.yaml",
            "../../../../docs/reference/",
        ),
    ] {
        let path = root().join(path);
        let text = std::fs::read_to_string(&path)?;
        let line = format!(
            "# yaml-language-server: $schema={schema}{}.schema.json\n",
            program.name()
        );
        ensure!(
            text.starts_with(&line),
            "{} does not begin with {line}",
            path.display()
        );
        assert_eq!(validate(&schema_file(program), &[path]).await?, "");
    }
    Ok(())
}

/// A table or a list that is left empty, with nothing but its name: the schema accepts it if the program does.
#[tokio::test]
async fn a_section_without_keys_is_to_the_schema_what_it_is_to_the_program() -> Result<()> {
    let directory = TempDir::new()?;
    for program in PROGRAMS {
        let schema: Value = serde_json::from_str(&printed(program, &["schema"]).await?)?;
        let mut sections = Vec::new();
        sections_of(&schema, "", &mut sections);
        ensure!(sections.len() > 8, "{sections:?}");
        let mut accepted = 0;
        for section in sections {
            let mut text = String::new();
            for (depth, name) in section.split('.').enumerate() {
                writeln!(text, "{}{name}:", "  ".repeat(depth))?;
            }
            let path = directory.path().join("empty.yaml");
            std::fs::write(&path, &text)?;
            let arguments = ["--check", "--config", path.to_str().context("UTF-8")?];
            let checked = tools::attempt(&program.path()?.to_string_lossy(), &arguments).await?;
            let said = validate(&schema_file(program), &[path]).await?;
            // What is wrong with a value otherwise, such as an address that is taken, is no matter of types.
            let error = String::from_utf8_lossy(&checked.stderr).into_owned();
            let is_accepted = !error.contains("not nothing");
            assert_eq!(is_accepted, said.is_empty(), "{section}: {error}{said}");
            accepted += usize::from(is_accepted);
        }
        ensure!(accepted > 5, "only {accepted}");
    }
    Ok(())
}

/// The paths of the tables and lists of a schema, but not of those in lists.
fn sections_of(schema: &Value, path: &str, found: &mut Vec<String>) {
    for (name, below) in schema["properties"].as_object().into_iter().flatten() {
        let path = if path.is_empty() {
            name.clone()
        } else {
            format!("{path}.{name}")
        };
        let kinds = below["type"].to_string();
        if kinds.contains("object") || kinds.contains("array") {
            found.push(path.clone());
        }
        sections_of(below, &path, found);
    }
}

#[tokio::test]
async fn the_printed_configuration_is_valid() -> Result<()> {
    let directory = TempDir::new()?;
    for program in PROGRAMS {
        let path = directory.path().join("printed.yaml");
        std::fs::write(&path, printed(program, &["--print-config"]).await?)?;
        assert_eq!(validate(&schema_file(program), &[path]).await?, "");
    }
    Ok(())
}

#[tokio::test]
async fn what_the_program_refuses_is_invalid() -> Result<()> {
    let directory = TempDir::new()?;
    for text in [
        "metrics: {pubic: true}",
        "surprise: 1",
        "limits: {drain: 5}",
        "limits: {drain: 5 parsecs}",
        "limits: {connections: 0}",
        "limits: {connections: many}",
        "logging: {level: loud}",
        "logging: {sample: 2}",
        "logging: {access_filter: {status: [700]}}",
        "listen: [{adress: '127.0.0.1:5000'}]",
        "listen: [{address: '127.0.0.1:5000', tls: {certificate: a}}]",
        "listen: [{address: '127.0.0.1:5000', tls: {certificate: a, key: b, min_version: 1.1}}]",
        "upstreams: [{name: a}]",
        "upstreams: [{replicas: [{drain: true}]}]",
        "upstreams: [{replicas: ['http://a'], balance: random}]",
        "upstreams: [{replicas: ['http://a'], health: {rise: 0}}]",
        "metrics: {aggregate: {max_bytes: lots}}",
        "metrics: {basic_auth: {username: a, password_hash: 7}}",
        "metrics: {repositories: {group: [{match: a}]}}",
        "registry: {durability: some}",
    ] {
        let path = directory.path().join("wrong.yaml");
        std::fs::write(&path, text)?;
        let program = Program::Octoserve.path()?;
        let arguments = ["--check", "--config", path.to_str().context("UTF-8")?];
        let refused = tools::attempt(&program.to_string_lossy(), &arguments).await?;
        ensure!(!refused.status.success(), "{text} is accepted");
        let said = validate(&schema_file(Program::Octoserve), &[path]).await?;
        ensure!(!said.is_empty(), "{text} is valid");
    }
    Ok(())
}
