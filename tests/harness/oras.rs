//! oras-py: artifacts from Python, with a library that shares no code with the other clients.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::tools;

/// Where `tests/setup/install.sh` installs it.
const PYTHON: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../target/tools/oras/bin/python"
);

/// The prelude of each script: the client, and the arguments after the host.
const BEGIN: &str = "\
import json, sys
import oras.client
host, arguments = sys.argv[1], sys.argv[2:]
client = oras.client.OrasClient(hostname=host, insecure=True)
";

/// Runs a script that uses `client`, `host` and `arguments`, and returns what it printed as JSON.
///
/// # Errors
/// If oras-py is not installed, or the script fails, with its output.
pub async fn run(host: &str, script: &str, arguments: &[&str]) -> Result<Value> {
    ensure!(
        Path::new(PYTHON).is_file(),
        "oras-py is missing: `make test` (tests/setup/install.sh) installs it"
    );
    let script = format!("{BEGIN}{script}");
    let words = [&["-c", script.as_str(), host][..], arguments].concat();
    let text = tools::run(PYTHON, &words).await?;
    let last = text.lines().last().context("the script printed nothing")?;
    serde_json::from_str(last).with_context(|| text.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_script_has_its_client_and_its_arguments() {
        let seen = run("host", "print(json.dumps([host, arguments]))", &["a"]).await;
        assert_eq!(seen.unwrap(), serde_json::json!(["host", ["a"]]));
    }
}
