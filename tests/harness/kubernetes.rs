//! Kubernetes without a cluster: kustomize and Helm render, and schemas judge what they rendered.
//!
//! All of it is offline: kubectl is used for its kustomize alone, and Helm never asks a server.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize as _;
use serde_json::Value;
use tempfile::NamedTempFile;

use crate::tools;

/// Where tests/setup/install.sh puts the tools.
const TOOLS: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../target/tools/kubernetes/bin"
);

/// The versions of the API that the objects must fit: the oldest with all that they use, and the newest
/// that is known.
const VERSIONS: [&str; 2] = ["1.30", "1.37"];

/// Validates sets of objects and prints a list of errors for each. Objects that occur in many sets are
/// validated once.
const SCRIPT: &str = "\
import functools, json, sys
import jsonschema, kubernetes_validate

with open(sys.argv[1]) as file: sets = json.load(file)
with open(sys.argv[2]) as file: ours = json.load(file)

@functools.cache
def errors(text):
    thing = json.loads(text)
    name = f\"{thing.get('kind')} {thing.get('metadata', {}).get('name')}\"
    schema = ours.get(f\"{thing.get('apiVersion')}/{thing.get('kind')}\")
    if schema:
        found = jsonschema.Draft202012Validator(schema).iter_errors(thing)
        return [f'{name}: {error.json_path}: {error.message}' for error in found]
    found = []
    for version in sys.argv[3:]:
        try:
            kubernetes_validate.validate(thing, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            found.append(f'{name}: {version}: {error.json_path}: {error.message}')
        except kubernetes_validate.SchemaNotFoundError as error:
            found.append(f'{name}: {error.message}')
    return found

print(json.dumps([sum((errors(json.dumps(thing)) for thing in things), []) for things in sets]))
";

/// The objects that the kustomization in `directory` makes.
///
/// # Errors
/// If kustomize refuses it, with its reason.
pub async fn kustomize(directory: &Path) -> Result<Vec<Value>> {
    let words = [OsStr::new("kustomize"), directory.as_os_str()];
    objects(&tools::run(&tool("kubectl")?, &words).await?)
}

/// The objects that Helm makes of a chart.
///
/// # Errors
/// If Helm refuses the chart or the values, with its reason.
pub async fn template(chart: &Path, arguments: &[&str]) -> Result<Vec<Value>> {
    let chart = chart.to_str().context("a path of UTF-8")?;
    let words = [&["template", "release", chart], arguments].concat();
    objects(&helm(&words).await?)
}

/// What Helm prints.
///
/// # Errors
/// If it fails, with its reason.
pub async fn helm(arguments: &[&str]) -> Result<String> {
    tools::run(&tool("helm")?, arguments).await
}

/// What is wrong with each set of objects by the schemas of the API, and by `schemas` for what is not
/// part of it: a file of one JSON Schema for each `apiVersion/kind`.
///
/// # Errors
/// If the schemas are not installed.
pub async fn validate(sets: &[Vec<Value>], schemas: &Path) -> Result<Vec<Vec<String>>> {
    let file = NamedTempFile::with_prefix("octoserve-objects-")?;
    serde_json::to_writer(&file, sets)?;
    let mut words = vec![
        OsStr::new("-c"),
        OsStr::new(SCRIPT),
        file.path().as_os_str(),
        schemas.as_os_str(),
    ];
    words.extend(VERSIONS.iter().map(OsStr::new));
    let text = tools::run(&tool("python")?, &words).await?;
    let errors: Vec<Vec<String>> = serde_json::from_str(&text).with_context(|| text.clone())?;
    ensure!(
        errors.len() == sets.len(),
        "{} of {}",
        errors.len(),
        sets.len()
    );
    Ok(errors)
}

/// The documents of a YAML stream.
///
/// # Errors
/// If it is not YAML, or a document is not an object.
pub fn objects(yaml: &str) -> Result<Vec<Value>> {
    let mut objects = Vec::new();
    for document in serde_yaml::Deserializer::from_str(yaml) {
        match Value::deserialize(document)? {
            Value::Null => {}
            object @ Value::Object(_) => objects.push(object),
            other => bail!("{other} is no object"),
        }
    }
    Ok(objects)
}

fn tool(name: &str) -> Result<String> {
    let path = PathBuf::from(TOOLS).join(name);
    ensure!(
        path.is_file(),
        "{name} is missing: `make test` (tests/setup/install.sh) installs it"
    );
    Ok(path.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_schema_of_the_api_and_one_of_ours_refuse_what_they_do_not_know() {
        let schemas = NamedTempFile::new().unwrap();
        std::fs::write(&schemas, r#"{"a/B": {"properties": {"c": {"const": 1}}}}"#).unwrap();
        let sets = [
            "{apiVersion: v1, kind: Service, metadata: {name: x}, spec: {portz: []}}",
            "{apiVersion: a, kind: B, c: 2}",
            "{apiVersion: a, kind: B, c: 1}\n---\n# nothing\n",
            "{apiVersion: a, kind: Unknown}",
        ];
        let sets = sets.map(|yaml| objects(yaml).unwrap());
        let errors = validate(&sets, schemas.path()).await.unwrap();
        assert!(errors[0].iter().any(|e| e.contains("portz")), "{errors:?}");
        assert!(errors[1][0].contains("$.c"), "{errors:?}");
        assert!(errors[2].is_empty(), "{errors:?}");
        assert!(errors[3][0].contains("Unknown"), "{errors:?}");
    }
}
