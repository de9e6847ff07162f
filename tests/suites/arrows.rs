//! Which module of a crate may import which, read off the sources: the arrows of the architecture,
//! which point one way. Cargo enforces the arrows between crates: `service` knows no OCI, and the
//! registry knows no proxy.
//!
//! A module here is a file or directory directly below `src`. Only code counts, not links in comments.
//! Within a module, [`circles`] checks the files, and [`types`] the names of all types. [`disk`] checks
//! that one file alone changes the registry's data directory.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

mod circles;
mod disk;
mod source;
mod types;

type Arrows = BTreeMap<String, BTreeSet<String>>;

/// What each module of the registry may import.
const REGISTRY: &[(&str, &[&str])] = &[
    ("oci", &[]),
    ("metrics", &["oci"]),
    ("store", &["oci", "metrics"]),
    ("stats", &["store", "metrics", "oci"]),
    ("retention", &["store", "oci"]),
    ("maintenance", &["store", "retention", "metrics", "oci"]),
    (
        "config",
        &["store", "maintenance", "retention", "metrics", "oci"],
    ),
    ("api", &["store", "oci", "metrics"]),
    (
        "server",
        &["api", "store", "stats", "maintenance", "config", "metrics"],
    ),
    ("doctor", &["store", "config"]),
    ("fuzz", &["config", "oci"]),
    (
        "cli",
        &["server", "doctor", "maintenance", "store", "config"],
    ),
    ("main", &["cli"]),
];

/// What each module of the proxy may import of its own crate, and of the registry as `registry::…`.
const PROXY: &[(&str, &[&str])] = &[
    ("metrics", &["registry::oci", "registry::metrics"]),
    (
        "upstream",
        &["metrics", "registry::server", "registry::oci"],
    ),
    ("aggregate", &["metrics"]),
    ("forwarded", &[]),
    ("cors", &[]),
    (
        "config",
        &[
            "upstream",
            "aggregate",
            "cors",
            "forwarded",
            "metrics",
            "registry::config",
            "registry::oci",
        ],
    ),
    (
        "sessions",
        &["metrics", "registry::metrics", "registry::oci"],
    ),
    (
        "exchange",
        &["sessions", "metrics", "registry::metrics", "registry::oci"],
    ),
    (
        "error",
        &["exchange", "metrics", "registry::metrics", "registry::oci"],
    ),
    ("admin", &["metrics", "aggregate", "registry::oci"]),
    (
        "forward",
        &[
            "admin",
            "cors",
            "exchange",
            "forwarded",
            "upstream",
            "error",
            "metrics",
            "registry::server",
            "registry::oci",
        ],
    ),
    ("downstream", &["forward", "metrics"]),
    (
        "embedded",
        &[
            "config",
            "upstream",
            "aggregate",
            "registry::server",
            "registry::config",
        ],
    ),
    (
        "server",
        &[
            "forward",
            "downstream",
            "embedded",
            "exchange",
            "admin",
            "aggregate",
            "config",
            "cors",
            "forwarded",
            "upstream",
            "metrics",
            "registry::server",
        ],
    ),
    (
        "doctor",
        &[
            "aggregate",
            "config",
            "upstream",
            "registry::config",
            "registry::doctor",
        ],
    ),
    ("cli", &["server", "doctor", "config"]),
    ("main", &["cli"]),
];

#[test]
fn registry_modules_import_each_other_in_one_direction() -> Result<()> {
    check("registry", REGISTRY)
}

#[test]
fn proxy_modules_import_each_other_in_one_direction() -> Result<()> {
    check("proxy", PROXY)
}

#[test]
fn the_allowed_imports_form_no_cycle() {
    for allowed in [REGISTRY, PROXY] {
        for (module, _) in allowed {
            let mut reached: BTreeSet<&str> = BTreeSet::new();
            let mut next = vec![*module];
            while let Some(from) = next.pop() {
                let onward = allowed.iter().find(|(name, _)| *name == from);
                for &to in onward.map_or(&[][..], |(_, to)| to) {
                    assert_ne!(to, *module, "{module} reaches itself through {from}");
                    if reached.insert(to) {
                        next.push(to);
                    }
                }
            }
        }
    }
}

#[test]
fn imports_are_found_in_every_syntax() {
    let source = "
        use crate::oci::{Digest, Name}; // not crate::gc
        use crate::{api, store::{fs, Store}, config as settings};
        use super::stats;
        /// See [`crate::scrub`].
        fn f() -> crate::metrics::Label { registry::server::bind() }
    ";
    let found = imports(source, 1, "registry");
    let expected = [
        "api", "config", "metrics", "oci", "server", "stats", "store",
    ];
    assert_eq!(found.iter().collect::<Vec<_>>(), expected);
}

fn check(package: &str, allowed: &[(&str, &[&str])]) -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .join(package)
        .join("src");
    let arrows = arrows(&root, package)?;
    assert!(!arrows.is_empty(), "no sources in {}", root.display());
    let mut wrong = Vec::new();
    for (from, imports) in &arrows {
        let Some((_, may)) = allowed.iter().find(|(name, _)| name == from) else {
            wrong.push(format!("{package}::{from} is not part of the architecture"));
            continue;
        };
        let unlawful = imports
            .iter()
            .filter(|to| !may.contains(&to.as_str()) && *to != from);
        wrong.extend(unlawful.map(|to| format!("{package}::{from} must not import {to}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// The imports of each module below `root`.
fn arrows(root: &Path, package: &str) -> Result<Arrows> {
    let mut all = Arrows::new();
    let modules: BTreeSet<String> = sources(root)?
        .iter()
        .filter_map(|file| module(root, file))
        .collect();
    for file in sources(root)? {
        let Some(module) = module(root, &file) else {
            continue;
        };
        // A test may import whatever it needs to observe its module.
        let mut parts = file.strip_prefix(root)?.iter();
        if file.ends_with("tests.rs") || parts.any(|part| part == "tests") {
            continue;
        }
        let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        let depth = file.strip_prefix(root)?.components().count();
        // `mod.rs` and the file next to its directory are one level above the files within.
        let depth = if file.ends_with("mod.rs") {
            depth - 1
        } else {
            depth
        };
        let own = imports(&text, depth, package)
            .into_iter()
            .filter(|name| modules.contains(name));
        let mut found: BTreeSet<String> = own.collect();
        if package != "registry" {
            let foreign = paths(&text, "registry::");
            found.extend(foreign.into_iter().map(|name| format!("registry::{name}")));
        }
        all.entry(module).or_default().extend(found);
    }
    Ok(all)
}

/// The module of a file; `lib.rs` declares the modules and belongs to none.
fn module(root: &Path, file: &Path) -> Option<String> {
    let first = file.strip_prefix(root).ok()?.iter().next()?.to_str()?;
    let module = first.strip_suffix(".rs").unwrap_or(first);
    (module != "lib").then(|| module.to_owned())
}

/// The modules of its own crate that a source names: after `crate::`, after as many `super::` as lead
/// to the root, or, in `main.rs`, after the crate's name.
fn imports(source: &str, depth: usize, package: &str) -> BTreeSet<String> {
    let mut found = paths(source, "crate::");
    found.extend(paths(source, &"super::".repeat(depth)));
    found.extend(paths(source, &format!("{package}::")));
    found
}

/// The first segments of all paths that begin with `prefix`, also within braces.
fn paths(source: &str, prefix: &str) -> BTreeSet<String> {
    let code: String = source
        .lines()
        .map(|line| {
            line.split_once("//")
                .map_or(line, |(code, _)| code)
                .to_owned()
                + "\n"
        })
        .collect();
    let mut found = BTreeSet::new();
    for (start, _) in code.match_indices(prefix) {
        let before = code[..start].chars().next_back();
        if before.is_some_and(|c| c == ':' || c == '_' || c.is_alphanumeric()) {
            continue;
        }
        let rest = &code[start + prefix.len()..];
        match rest.strip_prefix('{') {
            Some(group) => found.extend(firsts(group)),
            None => found.extend(identifier(rest)),
        }
    }
    found
}

/// The first identifier of each item of a brace group; the text begins after the brace.
fn firsts(group: &str) -> Vec<String> {
    let mut depth = 0_usize;
    let mut item = 0;
    let mut found = Vec::new();
    for (at, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => {
                found.extend(identifier(&group[item..at]));
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                found.extend(identifier(&group[item..at]));
                item = at + 1;
            }
            _ => {}
        }
    }
    found
}

fn identifier(text: &str) -> Option<String> {
    let text = text.trim_start();
    let end = text
        .find(|c: char| c != '_' && !c.is_alphanumeric())
        .unwrap_or(text.len());
    (end > 0).then(|| text[..end].to_owned())
}

fn sources(root: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        let entries = std::fs::read_dir(&directory);
        for entry in entries.with_context(|| directory.display().to_string())? {
            let path = entry?.path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    Ok(files)
}
