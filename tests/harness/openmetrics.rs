//! The strict OpenMetrics parser of Python's `prometheus_client`.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tempfile::NamedTempFile;

use crate::tools;

/// Where `tests/setup/install.sh` installs it.
const PYTHON: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../target/tools/prometheus_client/bin/python"
);

const SCRIPT: &str = "\
import json, sys
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse

def read(exposition):
    try:
        return {'samples': sum(len(family.samples) for family in parse(exposition))}
    except Exception as error:
        return {'error': f'{type(error).__name__}: {error}'}

with open(sys.argv[1], encoding='utf-8') as expositions:
    print(json.dumps([read(exposition) for exposition in json.load(expositions)]))
";

/// The parser's result: the number of samples, or its error message.
pub type Reading = Result<usize, String>;

/// Parses expositions, all in one Python process.
///
/// # Errors
/// If `prometheus_client` is not installed.
pub async fn read(expositions: &[&str]) -> Result<Vec<Reading>> {
    ensure!(
        Path::new(PYTHON).is_file(),
        "prometheus_client is missing: `make test` (tests/setup/install.sh) installs it"
    );
    let file = NamedTempFile::with_prefix("octoserve-expositions-")?;
    serde_json::to_writer(&file, expositions)?;
    let path = file.path().to_str().context("no text for a path")?;
    let text = tools::run(PYTHON, &["-c", SCRIPT, path]).await?;
    let results: Vec<Value> = serde_json::from_str(&text).with_context(|| text.clone())?;
    results.iter().map(reading).collect()
}

fn reading(response: &Value) -> Result<Reading> {
    if let Some(error) = response["error"].as_str() {
        return Ok(Err(error.to_owned()));
    }
    let samples = response["samples"].as_u64().context("no count")?;
    Ok(Ok(usize::try_from(samples)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_exposition_gives_its_sample_count_or_an_error() {
        let good = "# TYPE a counter\na_total 1\n# EOF\n";
        let bad = "# TYPE a counter\na_total NaN\n# EOF\n";
        let readings = read(&[good, bad]).await.unwrap();
        assert_eq!(readings[0], Ok(1));
        assert!(readings[1].as_ref().unwrap_err().contains("NaN"));
    }
}
