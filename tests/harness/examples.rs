//! The example configurations that ship with the project.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

use crate::octoserve::Program;

/// Each example and the program that it is for.
pub fn examples() -> Result<Vec<(Program, PathBuf)>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let mut examples = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let is_registry = path.file_stem().is_some_and(|name| name == "registry");
        let program = if is_registry {
            Program::Registry
        } else {
            Program::Octoserve
        };
        examples.push((program, path));
    }
    ensure!(examples.len() >= 4, "{examples:?}");
    Ok(examples)
}
