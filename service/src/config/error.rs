//! What is wrong with a configuration, in one line.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::printable::printable;
use crate::small_file::mend;

/// A configuration that cannot be used. Its text is one line for a person.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read, or the directory.
    #[error("{}: {source}{}", printable(&path.to_string_lossy()), mend(source))]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file is no YAML.
    #[error("{}:{line}: {message}", printable(&path.to_string_lossy()))]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong there.
        message: String,
    },
    /// A variable of ours that sets nothing.
    #[error("{}: unknown variable{}", printable(name), did_you_mean(similar.as_deref()))]
    UnknownVariable {
        /// Its name.
        name: String,
        /// A known one that is much like it.
        similar: Option<String>,
    },
    /// A variable that Kubernetes sets for a Service.
    #[error(
        "{}: unknown variable; Kubernetes sets such ones for each Service: say enableServiceLinks: false in \
         the pod's spec, or give the Service another name",
        printable(name)
    )]
    ServiceLink {
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
            place.push_str(&printable(&origin));
            if let Some(line) = line {
                let _ = write!(place, ":{line}");
            }
            place.push_str(": ");
        }
        if !key.is_empty() {
            let _ = write!(place, "{}: ", printable(&key));
        }
        Self::Invalid {
            place,
            key,
            // A quoted value may have several lines; the error must stay on one.
            message: printable(&message.replace(['\n', '\r'], " ")),
        }
    }
}

fn did_you_mean(name: Option<&str>) -> String {
    name.map_or_else(String::new, |name| format!(", did you mean {name}?"))
}

/// What the parser says of a `*` with or without a name, as in a pattern without quotes.
const ALIASES: [&str; 2] = [
    "did not find expected alphabetic or numeric character",
    "unknown anchor",
];

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
        let message = printable(&error.to_string().replace(['\n', '\r'], " "));
        // The message already begins with the line.
        let message = message.split(" at line ").next().unwrap_or_default();
        let hint = if ALIASES.iter().any(|said| message.contains(said)) {
            ": a value that begins with `*` or `&` has to be in quotes"
        } else {
            ""
        };
        let message = format!("{message}{hint}");
        Self { line, message }
    }
}
