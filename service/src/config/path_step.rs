//! Paths of keys.

use std::fmt::Write as _;

use serde_path_to_error::{Path, Segment};

/// One step of the path to a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PathStep {
    Name(String),
    Index(usize),
}

impl PathStep {
    /// `listen[1].address` as a path.
    pub(super) fn parse(path: &str) -> Vec<Self> {
        let steps = path.split(['.', '[']).filter(|step| !step.is_empty());
        let steps = steps.map(|step| match step.strip_suffix(']').map(str::parse) {
            Some(Ok(index)) => Self::Index(index),
            _ => Self::Name(step.to_owned()),
        });
        steps.collect()
    }

    pub(super) fn of_path(path: &Path) -> Vec<Self> {
        let steps = path.iter().filter_map(|segment| match segment {
            Segment::Seq { index } => Some(Self::Index(*index)),
            Segment::Map { key } => Some(Self::Name(key.clone())),
            Segment::Enum { .. } | Segment::Unknown => None,
        });
        steps.collect()
    }

    /// A path as a message names it.
    pub(super) fn join(path: &[Self]) -> String {
        let mut joined = String::new();
        for key in path {
            let _ = match key {
                Self::Name(name) if joined.is_empty() => write!(joined, "{name}"),
                Self::Name(name) => write!(joined, ".{name}"),
                Self::Index(index) => write!(joined, "[{index}]"),
            };
        }
        joined
    }
}
