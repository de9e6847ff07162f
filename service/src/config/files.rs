//! The YAML files of a configuration, one by one or from a directory.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use serde_yaml::{Mapping, Value};

use super::error::{ConfigError, SyntaxError};
use super::path_step::PathStep;
use crate::small_file;

/// The most bytes of a file that is named: a path such as /dev/zero must not fill the memory.
const LARGEST: u64 = 1 << 20;

/// The most files of a directory.
const MOST: usize = 256;

/// One file, and what it says.
#[derive(Debug)]
pub(super) struct ConfigFile {
    pub(super) path: PathBuf,
    pub(super) text: String,
    pub(super) tree: Value,
}

/// A file to be read.
pub(super) struct NamedFile {
    pub(super) path: PathBuf,
    /// Whether it was named itself, and not found in a directory.
    is_named: bool,
}

/// The files that are given, and of each directory its `*.yaml` and `*.yml` in the order of their names.
pub(super) fn expanded(given: &[PathBuf]) -> Result<Vec<NamedFile>, ConfigError> {
    let mut files = Vec::new();
    for path in given {
        let is_named = !path.is_dir();
        let paths = if is_named {
            vec![path.clone()]
        } else {
            entries(path)?
        };
        let paths = paths.into_iter();
        files.extend(paths.map(|path| NamedFile { path, is_named }));
    }
    Ok(files)
}

impl ConfigFile {
    /// Reads the files that are given, and those of directories.
    pub(super) fn read_all(given: &[PathBuf]) -> Result<Vec<ConfigFile>, ConfigError> {
        let files = expanded(given)?.into_iter();
        files.map(ConfigFile::read).collect()
    }

    fn read(NamedFile { path, is_named }: NamedFile) -> Result<ConfigFile, ConfigError> {
        let text = if is_named {
            read_bounded(&path)
        } else {
            small_file::read_text(&path)
        };
        let text = match text {
            Ok(text) => text,
            Err(source) => return Err(ConfigError::Unreadable { path, source }),
        };
        let tree = parse(&text).map_err(|error| error.in_file(&path))?;
        Ok(ConfigFile { path, text, tree })
    }

    /// Whether this file says what is at a key, if no later one does: it has the key, or something
    /// else than a section where the key would be.
    pub(super) fn decides(&self, key: &[PathStep]) -> bool {
        let mut tree = &self.tree;
        for step in key {
            match (tree, step) {
                (Value::Mapping(section), PathStep::Name(name)) => match section.get(name) {
                    Some(below) => tree = below,
                    None => return false,
                },
                // A section that is left empty says nothing.
                (Value::Null, _) => return false,
                _ => return true,
            }
        }
        true
    }
}

fn read_bounded(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    // Whatever it is: a shell's `<(…)` is a pipe, which a start may wait for.
    File::open(path)?
        .take(LARGEST + 1)
        .read_to_string(&mut text)?;
    if text.len() as u64 > LARGEST {
        return Err(io::Error::other("it is larger than 1 MiB"));
    }
    Ok(text)
}

/// The files of a directory. Names that begin with a dot are left out: those are an editor's, and the
/// `..data` of a Kubernetes volume.
fn entries(directory: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let error = |source| ConfigError::Unreadable {
        path: directory.to_owned(),
        source,
    };
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory).map_err(error)? {
        let path = entry.map_err(error)?.path();
        let is_hidden = path
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        let is_yaml = path
            .extension()
            .is_some_and(|extension| extension == "yaml" || extension == "yml");
        if is_yaml && !is_hidden {
            paths.push(path);
        }
        if paths.len() > MOST {
            return Err(error(io::Error::other(format!(
                "more than {MOST} files *.yaml"
            ))));
        }
    }
    if paths.is_empty() {
        return Err(error(io::Error::other(
            "no file *.yaml or *.yml in this directory",
        )));
    }
    paths.sort();
    Ok(paths)
}

/// A file's tree; an empty one says nothing.
fn parse(text: &str) -> Result<Value, SyntaxError> {
    match serde_yaml::from_str(text)? {
        Value::Null => Ok(Value::Mapping(Mapping::new())),
        mapping @ Value::Mapping(_) => Ok(mapping),
        _ => Err(SyntaxError::not_a_mapping()),
    }
}
