//! What is wrong with a configuration, in one line.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// A configuration that cannot be used. Its text is one line for a person.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file is no YAML.
    #[error("{}:{line}: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong there.
        message: String,
    },
    /// A variable of ours that sets nothing.
    #[error("{name}: unknown variable")]
    UnknownVariable {
        /// Its name.
        name: String,
    },
    /// A key that is unknown, or a value that cannot be.
    #[error("{place}{message}")]
    Invalid {
        /// The file and line, variable or flag that said so, and the key, each followed by a
        /// colon and a space.
        place: String,
        /// The path of the key; empty for the whole configuration.
        key: String,
        /// What is wrong with it.
        message: String,
    },
}

impl ConfigError {
    pub(super) fn invalid(
        origin: Option<String>,
        line: Option<usize>,
        key: String,
        message: &str,
    ) -> Self {
        let mut place = String::new();
        if let Some(origin) = origin {
            place.push_str(&origin);
            if let Some(line) = line {
                let _ = write!(place, ":{line}");
            }
            place.push_str(": ");
        }
        if !key.is_empty() {
            let _ = write!(place, "{key}: ");
        }
        Self::Invalid {
            place,
            key,
            message: plainly(message),
        }
    }
}

/// Says in a person's words what serde says in a programmer's.
fn plainly(message: &str) -> String {
    // serde quotes the value, which may have several lines; the error must stay on one.
    let message = message.replace(['\n', '\r'], " ");
    // serde does not promise these texts: one that changes passes through as it is.
    if let Some((_, expected)) = message
        .strip_prefix("unknown field `")
        .and_then(|rest| rest.split_once("`, "))
    {
        return format!("unknown key, {}", expected.replace('`', ""));
    }
    if let Some((name, _)) = message
        .strip_prefix("missing field `")
        .and_then(|rest| rest.split_once('`'))
    {
        return format!("the key {name} is missing");
    }
    let found = message
        .strip_prefix("invalid type: ")
        .or(message.strip_prefix("invalid value: "));
    // From the right: the quoted value may contain the same words.
    if let Some((found, expected)) = found.and_then(|rest| rest.rsplit_once(", expected ")) {
        let found = found.replace("unit value", "nothing");
        return format!("expected {expected}, not {found}");
    }
    message
}

/// A file that is no YAML mapping.
pub(super) struct SyntaxError {
    line: usize,
    message: String,
}

impl SyntaxError {
    pub(super) fn not_a_mapping() -> Self {
        Self {
            line: 1,
            message: "expected keys and values".to_owned(),
        }
    }

    pub(super) fn in_file(self, path: &Path) -> ConfigError {
        ConfigError::Syntax {
            path: path.to_owned(),
            line: self.line,
            message: self.message,
        }
    }
}

impl From<serde_yaml::Error> for SyntaxError {
    fn from(error: serde_yaml::Error) -> Self {
        let line = error.location().map_or(1, |location| location.line());
        let message = error.to_string().replace(['\n', '\r'], " ");
        // The message already begins with the line.
        let message = message
            .split(" at line ")
            .next()
            .unwrap_or_default()
            .to_owned();
        Self { line, message }
    }
}
