//! Writing the text format 0.0.4.

use std::fmt::Write as _;

use super::escape::{escape_help, escape_label, respell};
use super::labels::LabelPairs;
use super::model::{Exposition, ExpositionFamily, PLAIN, Sample};

impl Exposition {
    /// Appends the exposition in the text format.
    pub fn write_text(&self, out: &mut String) {
        out.reserve(self.size_hint());
        for family in self.families() {
            push_help(&family, family.name(), false, out);
            push_type(family.name(), family.kind().as_str(), out);
            for sample in family.samples() {
                push_series(&sample, out);
                out.push_str(sample.value_text());
                if let Some(ms) = sample.timestamp_ms() {
                    let _ = write!(out, " {ms}");
                }
                out.push('\n');
            }
        }
    }
}

/// The family's HELP line, if it has a help text.
pub(super) fn push_help(
    family: &ExpositionFamily<'_>,
    name: &str,
    openmetrics: bool,
    out: &mut String,
) {
    if let Some(help) = family.help() {
        push_all(out, &["# HELP ", name, " "]);
        escape_help(&help, openmetrics, out);
        out.push('\n');
    }
}

/// The family's TYPE line.
pub(super) fn push_type(name: &str, kind: &str, out: &mut String) {
    push_all(out, &["# TYPE ", name, " ", kind, "\n"]);
}

/// A sample's name and labels, and a space.
pub(super) fn push_series(sample: &Sample<'_>, out: &mut String) {
    out.push_str(sample.name());
    let labels = sample.raw_labels();
    let renamed = sample.renamed_source();
    // Doubles as a mark: after the first label it is a comma, and the brace must be closed.
    let mut separator = "{";
    // The usual case: the text spells its labels as we do, so they are copied whole.
    if sample.data.flags & PLAIN != 0 && renamed.is_none() {
        if !labels.is_empty() {
            push_all(out, &[std::mem::replace(&mut separator, ","), labels]);
        }
    } else {
        for (name, value) in LabelPairs::new(labels).filter(|(_, value)| !value.is_empty()) {
            let name = if name == "source" {
                renamed.as_deref().unwrap_or(name)
            } else {
                name
            };
            let separator = std::mem::replace(&mut separator, ",");
            push_all(out, &[separator, name, "=\"", &respell(value), "\""]);
        }
    }
    if let Some(source) = sample.part.source.as_deref() {
        push_all(out, &[std::mem::replace(&mut separator, ","), "source=\""]);
        escape_label(source, out);
        out.push('"');
    }
    out.push_str(if separator == "," { "} " } else { " " });
}

fn push_all(out: &mut String, pieces: &[&str]) {
    for piece in pieces {
        out.push_str(piece);
    }
}
